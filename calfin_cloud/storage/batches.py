"""Batches of scenes as the headers of their fronts files describe them.

The fronts file of a batch is its commit. Its name comes from the keys of the scenes; its header, an entry of the file's
metadata, names the other files of the batch, which are called by what is in them. So a batch is replaced in one moment,
that in which its fronts file is: before, readers see the old batch, afterwards the new one, and never half of both.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import fsspec
import pyarrow.parquet as pq

from calfin_cloud.feature_schema import FEATURES
from calfin_cloud.schema import check_name
from calfin_cloud.storage.files import DamagedFileError, digest, open_place, read_snapshot, unseal
from calfin_cloud.storage.parquet import REMEDY, open_parquet

HEADER = "calfin"
SIDES = ("rejected", "polygons", *FEATURES, "items")
REPLACED = "replaced"
FOOTER_BYTES = 65_536  # hold the footer of a batch of a hundred scenes

T = TypeVar("T")


@dataclass(frozen=True)
class Stored:
    """A batch as its header describes it.

    `name` is that of its fronts file. `items` has the digest of the STAC item of each scene by key, in order; `recipe`
    says what made it (short digests by step), `files` the names of its other files by folder, `replaces` those fronts
    files whose scenes it has taken over, and `behind` the keys of scenes that an earlier recipe made, since they failed
    when they were mapped again.
    """

    name: str
    items: Mapping[str, str]
    recipe: Mapping[str, str]
    files: Mapping[str, str]
    n_rows: int
    replaces: Sequence[str] = ()
    behind: Sequence[str] = ()

    @property
    def domain(self) -> str:
        """Name of the domain of all its scenes."""
        return next(iter(self.items)).partition("/")[0]


def read_batches(store: str, *, domain: str = "") -> list[Stored]:
    """Read the headers of all batches, or those of a domain, sorted by name, without those that others took over."""
    fs, root = open_place(store)
    return [stored for stored, _ in read_current(fs, root, lambda path: (_read_header(fs, path), None), domain)]


def read_items(store: str, stored: Stored) -> dict[str, Any]:
    """Read the STAC items of a batch by key; empty where a store has kept none.

    Raises
    ------
    DamagedFileError
        They are not those that were written.
    """
    if "items" not in stored.files:
        return {}
    fs, root = open_place(store)
    name = stored.files["items"]
    try:
        items: dict[str, Any] = json.loads(gzip.decompress(read_checked(fs, root, "items", name)))
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, DamagedFileError):
            raise
        raise DamagedFileError(f"{root}/items/{name}", str(error), REMEDY) from None
    return items


def finished_keys(store: str) -> set[str]:
    """Keys of all scenes that have a state: the ledger."""
    return {key for stored in read_batches(store) for key in stored.items}


def name_batch(keys: Sequence[str]) -> str:
    """Return the name of a batch without ending: of its domain, and of the keys of its scenes in order."""
    domains = {key.partition("/")[0] for key in keys}
    if len(domains) != 1:
        raise ValueError(f"a batch must be of one domain, got {sorted(domains)}: cut batches domain by domain")
    # A line break within an id must not make two lists of keys the same text.
    text = json.dumps(list(keys)) if any("\n" in key for key in keys) else "\n".join(keys)
    return f"{check_name(domains.pop())}-{digest(text.encode())}"


def _read_header(fs: fsspec.AbstractFileSystem, path: str) -> Stored:
    """Read the end of a fronts file, in which its header is: one request, or two after a compaction."""
    end = _read_end(fs, path, FOOTER_BYTES)
    wanted = int.from_bytes(end[-8:-4], "little") + 8  # the length of the footer, and PAR1
    if wanted > len(end):
        end = _read_end(fs, path, wanted)
    return header_of(open_parquet(io.BytesIO(end), path), path)


def _read_end(fs: fsspec.AbstractFileSystem, path: str, n_bytes: int) -> bytes:
    """Last bytes of a file; that of Azure takes no negative range, so there its size is asked for first."""
    if "abfs" not in fs.protocol:
        return bytes(fs.cat_file(path, start=-n_bytes))
    size = int(fs.size(path))
    return bytes(fs.cat_file(path, start=max(0, size - n_bytes), end=size))


def read_checked(fs: fsspec.AbstractFileSystem, root: str, folder: str, name: str) -> bytes:
    """Read a file that is called by its content; one that was replaced since its batch was read lies elsewhere."""
    path, aside = f"{root}/{folder}/{name}", f"{root}/{REPLACED}/{folder}/{name}"
    found = None
    for place in (path, aside, path, aside):  # it may be moved, and moved back, while we look
        with suppress(FileNotFoundError):
            found = bytes(fs.cat_file(place))
            if digest(found) in name:
                return found
    if found is None:
        raise ValueError(
            f"{path} is missing: it was replaced more than a day before it was read, then read again; or else it was "
            "lost, then restore it from a copy"
        )
    raise DamagedFileError(path, "it is not what its name says", REMEDY)


def header_of(parquet: pq.ParquetFile, path: str) -> Stored:
    """Read the header of a fronts file; raise `DamagedFileError` for that of another file, or of none."""
    text = (parquet.metadata.metadata or {}).get(HEADER.encode())
    name = path.rpartition("/")[2]
    if text is None:
        raise DamagedFileError(path, "it has no header of this version of calfin", REMEDY)
    content = unseal(text, path, REMEDY)
    try:
        stored = Stored(**{**content, "items": dict(content["items"])})
    except (KeyError, TypeError, ValueError):
        raise DamagedFileError(path, "its header is of another version of calfin", REMEDY) from None
    if stored.name != name or name_batch(list(stored.items)) != name.removesuffix(".parquet"):
        raise DamagedFileError(path, "its header is that of another file", REMEDY)
    if stored.n_rows != parquet.metadata.num_rows:
        raise DamagedFileError(path, f"{parquet.metadata.num_rows} rows, {stored.n_rows} were written", REMEDY)
    return stored


def read_current(
    fs: fsspec.AbstractFileSystem, root: str, read: Callable[[str], tuple[Stored, T]], domain: str = ""
) -> list[tuple[Stored, T]]:
    """Read something of all fronts files at one moment, but for those that another has taken over."""
    start = f"{check_name(domain)}-" if domain else ""
    found = read_snapshot(fs, f"{root}/fronts", ".parquet", read, start=start)
    taken = {name for stored, _ in found for name in stored.replaces}
    return [pair for pair in found if pair[0].name not in taken and domain in ("", pair[0].domain)]
