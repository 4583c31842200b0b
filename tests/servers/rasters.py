"""Small georeferenced files and items for them, whole and broken."""

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin

from calfin_cloud.domains import Domain
from calfin_cloud.imagery import read_each, stack_pixels
from calfin_cloud.sensors import CATALOG_FIELD

LEFT, TOP, SIDE, PIXEL = 400_000.0, 8_000_000.0, 96, 30.0
UTM = "EPSG:32622"
HERE = Domain("here", GeoBox((SIDE, SIDE), Affine(PIXEL, 0, LEFT, 0, -PIXEL, TOP), UTM))
numbers = itertools.count()


def compute(scenes):
    return scenes.compute(scheduler="synchronous")


def read_one(item, domain):
    """One scene as the pipeline reads it, without the optimisation of a whole graph; its error is raised."""
    (scene,) = read_each(stack_pixels([item], domain))
    if isinstance(scene, Exception):
        raise scene
    return scene


def ramp(shape=(SIDE, SIDE), dtype="uint16"):
    return (1000 + np.arange(shape[0] * shape[1]).reshape(shape)).astype(dtype)


def write_tif(path, values, *, left=LEFT, top=TOP, pixel=PIXEL, crs=UTM, **extra):
    height, width = values.shape
    profile = {"driver": "GTiff", "count": 1, "dtype": values.dtype, "tiled": True, "blockxsize": 64, "blockysize": 64}
    where = {"crs": crs, "transform": from_origin(left, top, pixel, pixel)}
    with rasterio.open(path, "w", height=height, width=width, **profile, **{**where, **extra}) as file:
        file.write(values, 1)
    return path


def make_item(catalog, assets, *, collection="landsat-c2-l1", platform="landsat-8", date=None, **fields):
    n = next(numbers)
    moment = date or datetime(2020, 6, 1, tzinfo=UTC) + timedelta(days=n)
    item = pystac.Item(
        f"scene-{n}", None, None, moment, {"platform": platform}, collection=collection,
        extra_fields={CATALOG_FIELD: str(catalog)}, **fields,
    )  # fmt: skip
    for key, href in assets.items():
        item.add_asset(key, pystac.Asset(str(href)))
    return item


FAILURES = {
    "not-found": ("unreadable", "404"),
    "cut": ("unreadable", "cannot read"),
    "truncated": ("unreadable", "cannot read"),
    "garbled": ("unreadable", "cannot read"),
    "text": ("unreadable", "not recognized"),
    "two-bands": ("unreadable", "got 2 bands"),
    "no-crs": ("unreadable", "georeference"),
    "no-band": ("no_band", "expected one of"),
    "vrt": ("refused_address", "refers to other files"),
    "disguised-vrt": ("unreadable", "not recognized"),
    "local": ("refused_address", "not local"),
    "no-address": ("refused_address", "Invalid IPv6"),
    "odd-metadata": ("error", "could not convert"),
}
"""What is wrong with an item: the reason code and the words that tell it."""


def broken_items(folder, url):
    """Items of a catalogue at `url`, by what is wrong with them."""
    good = (folder / "good.tif").read_bytes()
    (folder / "truncated.tif").write_bytes(good[: len(good) // 2])
    write_tif(folder / "garbled.tif", ramp(), compress="deflate")
    deflated = bytearray((folder / "garbled.tif").read_bytes())
    deflated[8000:8100] = bytes(100)  # in the second of four tiles
    (folder / "garbled.tif").write_bytes(deflated)
    (folder / "text.tif").write_text("<html>log in</html>")
    vrt = (
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>{UTM}</SRS><VRTRasterBand dataType="UInt16" '
        f'band="1"><SimpleSource><SourceFilename>{folder}/good.tif</SourceFilename></SimpleSource></VRTRasterBand>'
        "</VRTDataset>"
    )
    (folder / "disguised.tif").write_text(vrt)
    (folder / "plain.vrt").write_text(vrt)
    with rasterio.open(folder / "good.tif") as file:
        profile = {**file.profile, "count": 2}
    with rasterio.open(folder / "two.tif", "w", **profile) as file:
        file.write(np.stack([ramp(), ramp()]))
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_tif(folder / "no-crs.tif", ramp(), crs=None, transform=None)
    hrefs = {
        "not-found": f"{url}/nothing.tif",
        "cut": f"{url}/cut/good.tif",
        "truncated": f"{url}/truncated.tif",
        "garbled": f"{url}/garbled.tif",
        "text": f"{url}/text.tif",
        "two-bands": f"{url}/two.tif",
        "no-crs": f"{url}/no-crs.tif",
        "vrt": f"{url}/plain.vrt",
        "disguised-vrt": f"{url}/disguised.tif",
        "local": str(folder / "good.tif"),
    }
    items = {name: make_item(f"{url}/items.json", {"nir08": href}) for name, href in hrefs.items()}
    items["no-address"] = make_item(f"{url}/items.json", {"nir08": "http://[/a.tif"})
    items["odd-metadata"] = make_item(f"{url}/items.json", {"nir08": f"{url}/good.tif"}, collection="landsat-c2-l2")
    items["odd-metadata"].assets["nir08"].extra_fields["raster:bands"] = [{"offset": "none"}]
    return {**items, "no-band": make_item(f"{url}/items.json", {"red": f"{url}/good.tif"})}
