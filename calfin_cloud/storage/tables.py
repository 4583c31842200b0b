"""Tables of batches of scenes in GeoParquet: fronts (the ledger), rejected candidates, polygons, and the STAC items.

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
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import fsspec
import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from calfin_cloud.feature_schema import FEATURES, check_features
from calfin_cloud.schema import (
    check_fronts,
    check_name,
    check_polygons,
    check_rejected,
)
from calfin_cloud.storage.files import (
    DamagedFileError,
    digest,
    open_place,
    read_each,
    read_snapshot,
    unseal,
)
from calfin_cloud.storage.parquet import (
    REMEDY,
    open_parquet,
    read_columns,
    read_whole_table,
    to_geo,
)
from calfin_cloud.storage.stores import read_store, read_store_domains

HEADER = "calfin"
SIDES = ("rejected", "polygons", *FEATURES, "items")
CHECKS = {"fronts": check_fronts, "rejected": check_rejected, "polygons": check_polygons}
CHECKS |= {feature: partial(check_features, feature=feature) for feature in FEATURES}
STATE_COLUMNS = ["key", "state", "reason"]
LAST_ORDER = {"fronts": "front", "rejected": "candidate", "polygons": "kind"} | dict.fromkeys(FEATURES, "key")
REPLACED = "replaced"
FOOTER_BYTES = 65_536  # hold the footer of a batch of a hundred scenes

T = TypeVar("T")


class Tables(NamedTuple):
    """The three tables of a batch."""

    fronts: gpd.GeoDataFrame
    rejected: gpd.GeoDataFrame
    polygons: gpd.GeoDataFrame


@dataclass(frozen=True)
class Stored:
    """A batch as its header describes it.

    `name` is that of its fronts file. `items` has the digest of the STAC item of each scene by key, in order; `recipe`
    says what made it (short digests by step), `files` the names of its other files by folder, and `replaces` those
    fronts files whose scenes it has taken over.
    """

    name: str
    items: Mapping[str, str]
    recipe: Mapping[str, str]
    files: Mapping[str, str]
    n_rows: int
    replaces: Sequence[str] = ()

    @property
    def domain(self) -> str:
        """Name of the domain of all its scenes."""
        return next(iter(self.items)).partition("/")[0]


def read_batches(store: str, *, domain: str = "") -> list[Stored]:
    """Read the headers of all batches, or those of a domain, sorted by name, without those that others took over."""
    fs, root = open_place(store)
    return [stored for stored, _ in _read_current(fs, root, lambda path: (_read_header(fs, path), None), domain)]


def read_tables(store: str, stored: Stored) -> Tables:
    """Read the three tables of a batch, rows in the order in which they were written."""
    crs = read_store(store)["crs"]
    fs, root = open_place(store)
    fronts = to_geo([_read_fronts_file(fs, crs, f"{root}/fronts/{stored.name}")[1]], "fronts", crs)
    sides = [
        to_geo([_read_side(fs, root, crs, folder, stored)] if folder in stored.files else [], folder, crs)
        for folder in ("rejected", "polygons")
    ]
    return Tables(check_fronts(fronts), check_rejected(sides[0]), check_polygons(sides[1]))


def read_items(store: str, stored: Stored) -> dict[str, Any]:
    """Read the STAC items of a batch by key; empty where a store has kept none."""
    if "items" not in stored.files:
        return {}
    fs, root = open_place(store)
    name = stored.files["items"]
    try:
        items: dict[str, Any] = json.loads(gzip.decompress(_read_checked(fs, root, "items", name)))
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, DamagedFileError):
            raise
        raise DamagedFileError(f"{root}/items/{name}", str(error), REMEDY) from None
    return items


def read_fronts(store: str | Path, *, domain: str = "", glacier: str = "") -> gpd.GeoDataFrame:
    """Read the fronts table: at least a row a scene, sorted by domain, datetime, scene and number of the front.

    Files are named by their domain, so that of a large store only those of what is asked for are listed and read.

    Parameters
    ----------
    store
        Folder or object prefix that `calfin map` made.
    domain
        Name of the only domain that is read; without it, all are.
    glacier
        Id of the only glacier that is read, whatever domains it has.

    Returns
    -------
    GeoDataFrame
        Columns of `schema.FRONT_SCHEMA` and `geometry`, lines in the CRS of the store, None where a scene has no
        front.

    Raises
    ------
    ValueError
        There is no store, or it has no domain of the glacier.

    Examples
    --------
    >>> fronts = cc.read_fronts("fronts")
    >>> fronts[["state", "platform"]].values.tolist(), fronts.crs.to_epsg()
    ([['front', 'landsat-8']], 3413)
    """
    store = str(store)
    if not glacier:
        return _read_tables(store, ("fronts",), domain)[0]
    domains = read_store_domains(store)
    names = [d.name for d in domains if d.glacier_id == glacier and domain in ("", d.name)]
    if not names:
        known = sorted({d.glacier_id for d in domains if d.glacier_id})
        raise ValueError(f"{store} has no domain of the glacier {glacier!r}; it has {known[:20]}")
    tables = [_read_tables(store, ("fronts",), name)[0] for name in names]
    found: gpd.GeoDataFrame = pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)
    return found


def read_rejected(store: str | Path, *, domain: str = "") -> gpd.GeoDataFrame:
    """Read the rejected candidates of all finished scenes, sorted by domain, datetime, scene and number.

    Parameters
    ----------
    store
        Folder or object prefix that `calfin map` made.
    domain
        Name of the only domain that is read; without it, all are.

    Returns
    -------
    GeoDataFrame
        Columns of `schema.REJECTED_SCHEMA` and `geometry`: the filter, what it measured, and its limit.

    Raises
    ------
    ValueError
        There is no store.

    Examples
    --------
    >>> "filter" in cc.read_rejected("fronts").columns
    True
    """
    store = str(store)
    return _read_tables(store, ("rejected",), domain)[0]


def read_polygons(store: str | Path, *, domain: str = "") -> gpd.GeoDataFrame:
    """Read the polygons of all finished scenes, sorted by domain, datetime, scene and kind.

    Parameters
    ----------
    store
        Folder or object prefix that `calfin map` made.
    domain
        Name of the only domain that is read; without it, all are.

    Returns
    -------
    GeoDataFrame
        Columns of `schema.POLYGON_SCHEMA` and `geometry`, None with a reason where a scene has no polygon.

    Raises
    ------
    ValueError
        There is no store.

    Examples
    --------
    >>> sorted(cc.read_polygons("fronts")["kind"])
    ['ice', 'ocean']
    """
    store = str(store)
    return _read_tables(store, ("polygons",), domain)[0]


def read_all_tables(store: str, *, domain: str = "") -> Tables:
    """Read the three tables as they were at the same moment, whatever is written meanwhile."""
    return Tables(*_read_tables(store, Tables._fields, domain))


def read_features(store: str, feature: str, *, domain: str = "") -> gpd.GeoDataFrame:
    """Read what is known of a feature (of `FEATURES`), a row a scene, sorted by domain, datetime and scene.

    No row of scenes that were mapped without it.

    Parameters
    ----------
    store
        Folder or object prefix that `calfin map` made.
    feature
        `icebergs`, `melange` or `plumes`.
    domain
        Name of the only domain that is read; without it, all are.

    Returns
    -------
    GeoDataFrame
        Columns of `feature_schema.FEATURE_SCHEMAS` and `geometry`, outlines in the CRS of the store.

    Raises
    ------
    ValueError
        For another feature, or where there is no store.

    Examples
    --------
    >>> len(read_features("fronts", "icebergs"))  # mapped without `--features`
    0
    """
    if feature not in FEATURES:
        raise ValueError(f"got the unknown feature {feature!r}, expected one of {list(FEATURES)}")
    return _read_tables(store, (feature,), domain)[0]


def read_batch_features(store: str, stored: Stored) -> dict[str, gpd.GeoDataFrame]:
    """Read the tables of features of a batch, as many as it has, rows in the order in which they were written."""
    crs = read_store(store)["crs"]
    fs, root = open_place(store)
    names = [name for name in FEATURES if name in stored.files]
    return {n: check_features(to_geo([_read_side(fs, root, crs, n, stored)], n, crs), n) for n in names}


def read_states(store: str) -> pd.DataFrame:
    """Read `key, state, reason` of every scene, a row a file that has it: a key twice is an error of the store."""
    fs, root = open_place(store)
    read = _read_current(fs, root, partial(_read_states_file, fs))
    tables = [table.to_pandas().drop_duplicates("key") for _, table in read]
    states: pd.DataFrame = pd.concat([pd.DataFrame(columns=STATE_COLUMNS), *tables], ignore_index=True)
    return states


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


def _current(batches: Sequence[Stored]) -> list[Stored]:
    taken = {name for stored in batches for name in stored.replaces}
    return [stored for stored in batches if stored.name not in taken]


def _read_header(fs: fsspec.AbstractFileSystem, path: str) -> Stored:
    """Read the end of a fronts file, in which its header is: one request, or two after a compaction."""
    end = _read_end(fs, path, FOOTER_BYTES)
    wanted = int.from_bytes(end[-8:-4], "little") + 8  # the length of the footer, and PAR1
    if wanted > len(end):
        end = _read_end(fs, path, wanted)
    return _header(open_parquet(io.BytesIO(end), path), path)


def _read_end(fs: fsspec.AbstractFileSystem, path: str, n_bytes: int) -> bytes:
    """Last bytes of a file; that of Azure takes no negative range, so there its size is asked for first."""
    if "abfs" not in fs.protocol:
        return bytes(fs.cat_file(path, start=-n_bytes))
    size = int(fs.size(path))
    return bytes(fs.cat_file(path, start=max(0, size - n_bytes), end=size))


def _read_fronts_file(fs: fsspec.AbstractFileSystem, crs: str, path: str) -> tuple[Stored, pa.Table]:
    parquet = open_parquet(io.BytesIO(fs.cat_file(path)), path)
    return _header(parquet, path), read_whole_table(parquet, path, "fronts", crs)


def _read_states_file(fs: fsspec.AbstractFileSystem, path: str) -> tuple[Stored, pa.Table]:
    with fs.open(path, "rb") as file:
        parquet = open_parquet(file, path)
        return _header(parquet, path), read_columns(parquet, path, STATE_COLUMNS)


def _read_side(fs: fsspec.AbstractFileSystem, root: str, crs: str, folder: str, stored: Stored) -> pa.Table:
    name = stored.files[folder]
    path = f"{root}/{folder}/{name}"
    body = _read_checked(fs, root, folder, name)
    return read_whole_table(open_parquet(io.BytesIO(body), path), path, folder, crs)


def _read_checked(fs: fsspec.AbstractFileSystem, root: str, folder: str, name: str) -> bytes:
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


def _header(parquet: pq.ParquetFile, path: str) -> Stored:
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


def _read_current(
    fs: fsspec.AbstractFileSystem, root: str, read: Callable[[str], tuple[Stored, T]], domain: str = ""
) -> list[tuple[Stored, T]]:
    """Read something of all fronts files at one moment, but for those that another has taken over."""
    start = f"{check_name(domain)}-" if domain else ""
    found = read_snapshot(fs, f"{root}/fronts", ".parquet", read, start=start)
    current = {stored.name for stored in _current([stored for stored, _ in found])}
    return [pair for pair in found if pair[0].name in current and domain in ("", pair[0].domain)]


def _read_tables(store: str, folders: Sequence[str], domain: str) -> list[gpd.GeoDataFrame]:
    """Read tables of all batches at one moment, each of `SCHEMAS` as one table; empty where the store has none."""
    crs = read_store(store)["crs"]
    fs, root = open_place(store)
    if "fronts" in folders:
        found = _read_current(fs, root, partial(_read_fronts_file, fs, crs), domain)
    else:
        found = [(stored, None) for stored in read_batches(store, domain=domain)]
    made = []
    for folder in folders:
        if folder == "fronts":
            tables = [table for _, table in found]
        else:
            batches = [stored for stored, _ in found if folder in stored.files]
            tables = read_each(partial(_read_side, fs, root, crs, folder), batches)
        table = to_geo(tables, folder, crs)
        order = ["domain", "datetime", "scene_id", LAST_ORDER[folder]]
        made.append(CHECKS[folder](table.sort_values(order, ignore_index=True)))
    return made
