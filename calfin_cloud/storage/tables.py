"""Tables of batches of scenes in GeoParquet: fronts (the ledger), rejected candidates, polygons, and the STAC items.

The fronts file of a batch is its commit. Its name comes from the keys of the scenes; its header, an entry of the file's
metadata, names the other files of the batch, which are called by what is in them. So a batch is replaced in one moment,
that in which its fronts file is: before, readers see the old batch, afterwards the new one, and never half of both.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import fsspec
import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from calfin_cloud.schema import (
    FRONT_SCHEMA,
    POLYGON_SCHEMA,
    REJECTED_SCHEMA,
    check_fronts,
    check_name,
    check_polygons,
    check_rejected,
)
from calfin_cloud.storage.files import (
    DamagedFileError,
    delete_files,
    digest,
    list_files,
    look_again,
    open_place,
    read_each,
    seal,
    unseal,
    write_whole,
)
from calfin_cloud.storage.stores import read_store

HEADER = "calfin"
SIDES = ("rejected", "polygons", "items")
SIDE_NAME = re.compile(r".+-[0-9a-f]{16}-[0-9a-f]{16}\.(parquet|json\.gz)")
SCHEMAS = {"fronts": FRONT_SCHEMA, "rejected": REJECTED_SCHEMA, "polygons": POLYGON_SCHEMA}
STATE_COLUMNS = ["key", "state", "reason"]
LAST_ORDER = {"fronts": "front", "rejected": "candidate", "polygons": "kind"}
REMEDY = "delete the file of its batch in fronts/ and run `calfin map` again, which maps these scenes once more"
FOOTER_BYTES = 65_536  # hold the footer of a batch of a hundred scenes
ROWS_IN_GROUP = 4096  # of a row group: a compacted file is read in parts by others


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


def write_batch(
    store: str,
    tables: Tables,
    items: Mapping[str, Mapping[str, Any]],
    *,
    recipe: Mapping[str, str],
    before: Stored | None = None,
    replaces: Sequence[str] = (),
) -> Stored:
    """Write a batch of scenes whole: from the moment its fronts are written, all of it is there. Twice is once.

    Parameters
    ----------
    tables
        Fronts with at least a row a scene, in the order of the scenes; of the others there may be none.
    items
        STAC item (JSON values, addresses unsigned) of each scene by key.
    recipe
        What made the tables, digests by step.
    before
        The same batch as it was until now; its other files are deleted in the end.
    replaces
        Names of fronts files whose scenes this batch takes over; the caller deletes them.
    """
    check_fronts(tables.fronts)
    check_rejected(tables.rejected)
    check_polygons(tables.polygons)
    keys = list(tables.fronts["key"].unique())
    _check_keys(tables, keys, items)
    fs, root = open_place(store)
    batch = _batch_name(keys)
    bodies = {
        "rejected": (to_parquet(tables.rejected, REJECTED_SCHEMA), "parquet"),
        "polygons": (to_parquet(tables.polygons, POLYGON_SCHEMA), "parquet"),
        "items": (gzip.compress(json.dumps({k: items[k] for k in keys}, sort_keys=True).encode(), mtime=0), "json.gz"),
    }
    files = {folder: f"{batch}-{digest(body)}.{ending}" for folder, (body, ending) in bodies.items()}
    stored = Stored(
        f"{batch}.parquet",
        {key: item_digest(items[key]) for key in keys},
        dict(recipe),
        files,
        len(tables.fronts),
        list(before.replaces if before else replaces),
    )
    for folder, (body, _) in bodies.items():
        write_whole(fs, f"{root}/{folder}/{files[folder]}", body)
    write_whole(fs, f"{root}/fronts/{stored.name}", to_parquet(tables.fronts, FRONT_SCHEMA, header=stored))
    if before:
        delete_files(fs, [f"{root}/{f}/{n}" for f, n in before.files.items() if n != files.get(f)])
    return stored


def item_digest(item: Mapping[str, Any]) -> str:
    """Digest of what an item says of its scene; links to other documents say nothing of it."""
    text = json.dumps({k: v for k, v in item.items() if k != "links"}, sort_keys=True)
    return digest(text.encode())


@look_again
def read_batches(store: str) -> list[Stored]:
    """Read the headers of all batches, sorted by name; those that another has taken over are left out."""
    fs, root = open_place(store)
    return _current(read_each(partial(_read_header, fs), list_files(fs, f"{root}/fronts", ".parquet")))


def read_tables(store: str, stored: Stored) -> Tables:
    """Read the three tables of a batch, rows in the order in which they were written."""
    crs = read_store(store)["crs"]
    fs, root = open_place(store)
    fronts = _to_geo([_read_fronts_file(fs, crs, f"{root}/fronts/{stored.name}")[1]], "fronts", crs)
    sides = [
        _to_geo([_read_side(fs, root, crs, folder, stored)] if folder in stored.files else [], folder, crs)
        for folder in ("rejected", "polygons")
    ]
    return Tables(check_fronts(fronts), check_rejected(sides[0]), check_polygons(sides[1]))


def read_items(store: str, stored: Stored) -> dict[str, Any]:
    """Read the STAC items of a batch by key; empty where a store has kept none."""
    if "items" not in stored.files:
        return {}
    fs, root = open_place(store)
    path = f"{root}/items/{stored.files['items']}"
    items: dict[str, Any] = json.loads(gzip.decompress(_read_checked(fs, path)))
    return items


def read_fronts(store: str) -> gpd.GeoDataFrame:
    """Read the fronts table: at least a row a scene, sorted by domain, datetime, scene and number of the front."""
    return check_fronts(_read_all(store, "fronts"))


def read_rejected(store: str) -> gpd.GeoDataFrame:
    """Read the rejected candidates of all finished scenes, sorted by domain, datetime, scene and number."""
    return check_rejected(_read_all(store, "rejected"))


def read_polygons(store: str) -> gpd.GeoDataFrame:
    """Read the polygons of all finished scenes, sorted by domain, datetime, scene and kind."""
    return check_polygons(_read_all(store, "polygons"))


@look_again
def read_states(store: str) -> pd.DataFrame:
    """Read `key, state, reason` of every scene, a row a file that has it: a key twice is an error of the store."""
    fs, root = open_place(store)
    paths = list_files(fs, f"{root}/fronts", ".parquet")
    read = read_each(partial(_read_states_file, fs), paths)
    kept = {stored.name for stored in _current([stored for stored, _ in read])}
    tables = [table.to_pandas().drop_duplicates("key") for stored, table in read if stored.name in kept]
    states: pd.DataFrame = pd.concat([pd.DataFrame(columns=STATE_COLUMNS), *tables], ignore_index=True)
    return states


def finished_keys(store: str) -> set[str]:
    """Keys of all scenes that have a state: the ledger."""
    return {key for stored in read_batches(store) for key in stored.items}


def tidy(store: str) -> list[Stored]:
    """Delete the files of batches that killed runs have left behind, and return the batches; for writers only."""
    fs, root = open_place(store)
    batches = read_batches(store)
    taken = {name for stored in batches for name in stored.replaces}
    for folder in ("fronts", *SIDES):
        known = {stored.files.get(folder) for stored in batches}
        for path in list_files(fs, f"{root}/{folder}", ""):
            name = path.rpartition("/")[2]
            left = name in taken if folder == "fronts" else SIDE_NAME.fullmatch(name) and name not in known
            if left or name.endswith(".part"):
                delete_files(fs, [path])
    return batches


def to_parquet(table: gpd.GeoDataFrame, schema: pa.Schema, *, header: Stored | None = None) -> bytes:
    """Bytes of a GeoParquet 1.1 file of one fixed Arrow schema, with page checksums; the same for the same table."""
    guessed, cast = io.BytesIO(), io.BytesIO()
    # geopandas writes the geometry, but guesses the types of the columns, and of an empty one it knows nothing.
    table.to_parquet(guessed, index=False, schema_version="1.1.0", write_covering_bbox=True)
    arrow = pq.read_table(guessed)
    further = [arrow.schema.field(name) for name in arrow.column_names if name not in schema.names]
    geo = {b"geo": arrow.schema.metadata[b"geo"]}  # what pandas adds depends on how a table came about
    fixed = arrow.cast(pa.schema([*schema, *further], geo))
    with pq.ParquetWriter(cast, fixed.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(fixed, row_group_size=ROWS_IN_GROUP)
        if header:
            pairs = list(header.items.items())  # in the order that makes the name, which a JSON object need not keep
            writer.add_key_value_metadata({HEADER: seal({**asdict(header), "items": pairs}, indent=None)})
    return cast.getvalue()


def _check_keys(tables: Tables, keys: Sequence[str], items: Mapping[str, Any]) -> None:
    if foreign := sorted({*tables.rejected["key"], *tables.polygons["key"]} - set(keys))[:5]:
        raise ValueError(f"a batch must name all its scenes, got rows of others {foreign}: give each a row of fronts")
    if lacking := sorted(set(keys) - set(items))[:5]:
        raise ValueError(f"a batch must have the item of each scene, none of {lacking}: pass them all")


def _batch_name(keys: Sequence[str]) -> str:
    """Name of a batch without ending: of its domain, and of the keys of its scenes in order."""
    domains = {key.partition("/")[0] for key in keys}
    if len(domains) != 1:
        raise ValueError(f"a batch must be of one domain, got {sorted(domains)}: cut batches domain by domain")
    return f"{check_name(domains.pop())}-{digest(chr(10).join(keys).encode())}"


def _current(batches: Sequence[Stored]) -> list[Stored]:
    taken = {name for stored in batches for name in stored.replaces}
    return [stored for stored in batches if stored.name not in taken]


def _read_header(fs: fsspec.AbstractFileSystem, path: str) -> Stored:
    """Read the end of a fronts file, in which its header is: one request, or two after a compaction."""
    end = fs.cat_file(path, start=-FOOTER_BYTES)
    wanted = int.from_bytes(end[-8:-4], "little") + 8  # the length of the footer, and PAR1
    if wanted > len(end):
        end = fs.cat_file(path, start=-wanted)
    return _header(_open_parquet(io.BytesIO(end), path), path)


def _read_fronts_file(fs: fsspec.AbstractFileSystem, crs: str, path: str) -> tuple[Stored, pa.Table]:
    parquet = _open_parquet(io.BytesIO(fs.cat_file(path)), path)
    return _header(parquet, path), _read_whole_table(parquet, path, "fronts", crs)


def _read_states_file(fs: fsspec.AbstractFileSystem, path: str) -> tuple[Stored, pa.Table]:
    with fs.open(path, "rb") as file:
        parquet = _open_parquet(file, path)
        return _header(parquet, path), _read_columns(parquet, path, STATE_COLUMNS)


def _read_side(fs: fsspec.AbstractFileSystem, root: str, crs: str, folder: str, stored: Stored) -> pa.Table:
    path = f"{root}/{folder}/{stored.files[folder]}"
    return _read_whole_table(_open_parquet(io.BytesIO(_read_checked(fs, path)), path), path, folder, crs)


def _read_checked(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
    """Read a file that is called by its content."""
    data = bytes(fs.cat_file(path))
    if digest(data) not in path.rpartition("/")[2]:
        raise DamagedFileError(path, "it is not what its name says", REMEDY)
    return data


def _open_parquet(file: Any, path: str) -> pq.ParquetFile:  # noqa: ANN401 - a file of fsspec or of io
    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFileError(path, str(error), REMEDY) from None


def _read_columns(parquet: pq.ParquetFile, path: str, columns: Sequence[str]) -> pa.Table:
    try:
        return parquet.read(columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFileError(path, str(error), REMEDY) from None


def _read_whole_table(parquet: pq.ParquetFile, path: str, folder: str, crs: str) -> pa.Table:
    """Read all columns of a table, which must have the types and the CRS that all tables of the store have."""
    schema = SCHEMAS[folder].append(pa.field("geometry", pa.binary()))
    table = _read_columns(parquet, path, schema.names)
    found = {field.name: field.type for field in table.schema}
    if found != {field.name: field.type for field in schema}:
        raise DamagedFileError(path, f"its columns are {table.schema.names}", REMEDY)
    try:
        geo = json.loads(table.schema.metadata[b"geo"])
        same = _is_same_crs(json.dumps(geo["columns"]["geometry"]["crs"], sort_keys=True), crs)
    except (KeyError, ValueError, TypeError, CRSError):
        raise DamagedFileError(path, "it does not say its CRS", REMEDY) from None
    if not same:
        raise DamagedFileError(path, f"its CRS is not that of the store, {crs}", REMEDY)
    return table.select(schema.names).replace_schema_metadata()


@lru_cache(maxsize=16)
def _is_same_crs(text: str, crs: str) -> bool:
    return bool(CRS(json.loads(text)) == CRS(crs))


def _header(parquet: pq.ParquetFile, path: str) -> Stored:
    text = (parquet.metadata.metadata or {}).get(HEADER.encode())
    name = path.rpartition("/")[2]
    if text is None:
        raise DamagedFileError(path, "it has no header of this version of calfin", REMEDY)
    content = unseal(text, path, REMEDY)
    stored = Stored(**{**content, "items": dict(content["items"])})
    if stored.name != name or _batch_name(list(stored.items)) != name.removesuffix(".parquet"):
        raise DamagedFileError(path, "its header is that of another file", REMEDY)
    if stored.n_rows != parquet.metadata.num_rows:
        raise DamagedFileError(path, f"{parquet.metadata.num_rows} rows, {stored.n_rows} were written", REMEDY)
    return stored


@look_again
def _read_all(store: str, folder: str) -> gpd.GeoDataFrame:
    """Read the tables of all batches as one, empty where the store has none."""
    crs = read_store(store)["crs"]
    fs, root = open_place(store)
    if folder == "fronts":
        read = read_each(partial(_read_fronts_file, fs, crs), list_files(fs, f"{root}/fronts", ".parquet"))
        kept = {stored.name for stored in _current([stored for stored, _ in read])}
        tables = [table for stored, table in read if stored.name in kept]
    else:
        batches = [stored for stored in read_batches(store) if folder in stored.files]
        tables = read_each(partial(_read_side, fs, root, crs, folder), batches)
    table = _to_geo(tables, folder, crs)
    return table.sort_values(["domain", "datetime", "scene_id", LAST_ORDER[folder]], ignore_index=True)


def _to_geo(tables: Sequence[pa.Table], folder: str, crs: str) -> gpd.GeoDataFrame:
    """Turn Arrow tables into one table in the CRS of the store."""
    if not tables:
        empty = pd.DataFrame({f.name: pd.Series(dtype=f.type.to_pandas_dtype()) for f in SCHEMAS[folder]})
        return gpd.GeoDataFrame(empty, geometry=gpd.GeoSeries([], crs=crs), crs=crs)
    columns = pa.concat_tables(tables).to_pandas()
    return gpd.GeoDataFrame(columns, geometry=shapely.from_wkb(columns["geometry"].to_numpy()), crs=crs)
