"""TIFF and JPEG 2000 files that name other files, decoys for them, and who opened what in a folder."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from servers.rasters import LEFT, PIXEL, SIDE, TOP, UTM, ramp

ASCII, SHORT, LONG, DOUBLE = 2, 3, 4, 12
FORMATS = {SHORT: "H", LONG: "I", DOUBLE: "d"}
IN_OPEN = 0x20
HEAD = 4096  # before the pixels: GDAL fetches it at once

Tag = tuple[int, int, object]


def metadata_xml(items: dict[str, dict[str, str]], *, root: str = "GDALMetadata", band: str = "") -> str:
    """Metadata by domain as GDAL keeps it, in the tag of a TIFF or the box of a JPEG 2000."""
    if root == "GDALMetadata":
        lines = [
            f'<Item name="{escape(key)}" domain="{domain}"{band}>{escape(text)}</Item>'
            for domain, pairs in items.items()
            for key, text in pairs.items()
        ]
    else:
        lines = [
            f'<Metadata domain="{domain}">'
            + "".join(f'<MDI key="{escape(key)}">{escape(text)}</MDI>' for key, text in pairs.items())
            + "</Metadata>"
            for domain, pairs in items.items()
        ]
    return f"<{root}>{''.join(lines)}</{root}>"


def tiff(path: Path, *pages: list[Tag], side: int = SIDE) -> Path:
    """Write a TIFF of pages, each half the side of the one before, with these tags beside those of its pixels.

    It is written byte by byte, since GDAL would open what the tags name.
    """
    head, pixels, link = bytearray(b"II*\0" + bytes(4)), b"", 4
    for n, more in enumerate(pages):
        width = side // 2**n
        tags = [(254, LONG, [int(n > 0)]), (256, LONG, [width]), (257, LONG, [width]), (258, SHORT, [16])]
        tags += [(259, SHORT, [1]), (262, SHORT, [1]), (273, LONG, [HEAD + len(pixels)]), (277, SHORT, [1])]
        tags += [(278, LONG, [width]), (279, LONG, [2 * width**2]), *more]
        pixels += ramp((width, width)).tobytes()
        entries = b""
        for number, kind, values in sorted(tags):
            data = values.encode() + b"\0" if kind == ASCII else struct.pack(f"<{len(values)}{FORMATS[kind]}", *values)
            count = len(data) if kind == ASCII else len(values)
            if len(data) > 4:
                where, data = len(head), data + bytes(len(data) % 2)
                head += data
                data = struct.pack("<I", where)
            entries += struct.pack("<HHI", number, kind, count) + data.ljust(4, b"\0")
        head[link : link + 4] = struct.pack("<I", len(head))
        head += struct.pack("<H", len(tags)) + entries + bytes(4)
        link = len(head) - 4
    assert len(head) <= HEAD
    path.write_bytes(bytes(head).ljust(HEAD, b"\0") + pixels)
    return path


def geo_tags(citation: str = "") -> list[Tag]:
    """Where the file lies: over the domain of the tests; with a citation, in whatever CRS that spells."""
    tags: list[Tag] = [(33550, DOUBLE, [PIXEL, PIXEL, 0.0]), (33922, DOUBLE, [0.0, 0.0, 0.0, LEFT, TOP, 0.0])]
    if citation:
        keys = [1, 1, 0, 2, 1024, 0, 1, 32767, 3073, 34737, len(citation) + 1, 0]
        return [*tags, (34735, SHORT, keys), (34737, ASCII, citation + "|")]
    return [*tags, (34735, SHORT, [1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, int(UTM[5:])])]


def jpeg2000(path: Path, xml: str) -> Path:
    """Write a JPEG 2000 with an XML box before its pixels."""
    plain = path.with_suffix(".plain.jp2")
    where = {"crs": UTM, "transform": rasterio.Affine(PIXEL, 0, LEFT, 0, -PIXEL, TOP)}
    profile = {"driver": "JP2OpenJPEG", "count": 1, "dtype": "uint16", "height": 256, "width": 256, **where}
    with rasterio.open(plain, "w", **profile, REVERSIBLE="YES", QUALITY="100") as file:
        file.write(ramp((256, 256)), 1)
    content = plain.read_bytes()
    plain.unlink()
    at = content.index(b"jp2c") - 4
    box = struct.pack(">I", 8 + len(xml)) + b"xml " + xml.encode()
    path.write_bytes(content[:at] + box + content[at:])
    return path


def decoy(path: Path) -> Path:
    """Write a raster that no test may see opened."""
    with rasterio.open(path, "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint16") as file:
        file.write(np.full((SIDE, SIDE), 7777, dtype="uint16"), 1)
    return path


@contextmanager
def opened_in(*folders: Path) -> Iterator[list[str]]:
    """Names of the files in the folders that anyone opens within the block, as Linux tells them."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert watch >= 0, os.strerror(ctypes.get_errno())
    names: list[str] = []
    try:
        for folder in folders:
            assert libc.inotify_add_watch(watch, bytes(folder), IN_OPEN) >= 0, os.strerror(ctypes.get_errno())
        yield names
        try:
            events = os.read(watch, 1 << 20)
        except BlockingIOError:
            events = b""
        while events:
            length = struct.unpack_from("iIII", events)[3]
            names.append(events[16 : 16 + length].rstrip(b"\0").decode())
            events = events[16 + length :]
    finally:
        os.close(watch)
