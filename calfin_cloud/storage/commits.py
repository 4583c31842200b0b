"""A batch of scenes is written, replaced and put aside: from one moment on it is there, and from one on it is another.

Files that are no longer named by any batch move to `replaced/`, where readers that came earlier find them for a day.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import fsspec
import geopandas as gpd

from calfin_cloud.feature_schema import same_batch
from calfin_cloud.schema import (
    FRONT_SCHEMA,
    POLYGON_SCHEMA,
    REJECTED_SCHEMA,
    check_fronts,
    check_polygons,
    check_rejected,
)
from calfin_cloud.storage.batches import HEADER, REPLACED, SIDES, Stored, name_batch, read_batches
from calfin_cloud.storage.files import (
    delete_files,
    digest,
    list_files,
    modified_times,
    move_file,
    open_place,
    read_each,
    seal,
    storage_time,
    write_whole,
)
from calfin_cloud.storage.items import item_digest, unsigned_item
from calfin_cloud.storage.leases import commit_whole
from calfin_cloud.storage.parquet import SCHEMAS, to_parquet
from calfin_cloud.storage.tables import Tables

SIDE_NAME = re.compile(r".+-[0-9a-f]{16}-[0-9a-f]{16}\.(parquet|json\.gz)")
GRACE_S = 24 * 3600.0  # as long as anyone may read a store that others replace


def write_batch(
    store: str,
    tables: Tables,
    items: Mapping[str, Mapping[str, Any]],
    *,
    recipe: Mapping[str, str],
    before: Stored | None = None,
    replaces: Sequence[str] = (),
    features: Mapping[str, gpd.GeoDataFrame] | None = None,
    behind: Collection[str] = (),
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
        The same batch as it was until now; its other files move to `replaced/` in the end.
    replaces
        Names of fronts files whose scenes this batch takes over; the caller deletes them.
    features
        Tables of features by name, with a row of each scene; those that are wanted, so often none.
    behind
        Keys of scenes that an earlier recipe made.

    Raises `LeaseLostError` where this process held the store and another has followed it: nothing is committed then.
    """
    check_fronts(tables.fronts)
    check_rejected(tables.rejected)
    check_polygons(tables.polygons)
    keys = list(tables.fronts["key"].unique())
    same_batch(features or {}, keys)
    _check_keys(tables, keys, items)
    fs, root = open_place(store)
    batch = name_batch(keys)
    bodies = _side_files(tables, {key: unsigned_item(items[key]) for key in keys}, features or {})
    files = {folder: f"{batch}-{digest(body)}.{ending}" for folder, (body, ending) in bodies.items()}
    stored = Stored(
        f"{batch}.parquet",
        {key: item_digest(items[key]) for key in keys},
        dict(recipe),
        files,
        len(tables.fronts),
        list(before.replaces if before else replaces),
        sorted(behind),
    )
    for folder, (body, _) in bodies.items():
        write_whole(fs, f"{root}/{folder}/{files[folder]}", body)
    commit_whole(
        fs, root, f"{root}/fronts/{stored.name}", to_parquet(tables.fronts, FRONT_SCHEMA, header=_sealed(stored))
    )
    if before:
        retire_files(fs, root, [f"{f}/{n}" for f, n in before.files.items() if n != files.get(f)])
    return stored


def _side_files(
    tables: Tables, items: Mapping[str, Any], features: Mapping[str, gpd.GeoDataFrame]
) -> dict[str, tuple[bytes, str]]:
    """Content and ending of the files that lie beside the fronts of a batch, by folder."""
    parquet = {
        "rejected": to_parquet(tables.rejected, REJECTED_SCHEMA),
        "polygons": to_parquet(tables.polygons, POLYGON_SCHEMA),
        **{name: to_parquet(table, SCHEMAS[name]) for name, table in features.items()},
    }
    listed = gzip.compress(json.dumps(items, sort_keys=True).encode(), mtime=0)
    return {folder: (body, "parquet") for folder, body in parquet.items()} | {"items": (listed, "json.gz")}


def tidy(store: str, *, grace_s: float = GRACE_S) -> list[Stored]:
    """Put aside what killed runs have left behind, delete what was replaced long ago, and return the batches.

    For writers only. Files that no batch names move to `replaced/`; those that have lain there for `grace_s` seconds by
    the clock of the storage are deleted, so that no reader of less patience than that misses one.
    """
    fs, root = open_place(store)
    batches = read_batches(store)
    taken = {name for stored in batches for name in stored.replaces}
    for folder in ("fronts", *SIDES):
        known = {stored.files.get(folder) for stored in batches}
        names = {path: path.rpartition("/")[2] for path in list_files(fs, f"{root}/{folder}", "")}
        delete_files(fs, [path for path, name in names.items() if name.endswith(".part")])
        if folder == "fronts":
            delete_files(fs, [path for path, name in names.items() if name in taken])
        else:
            left = [name for name in names.values() if SIDE_NAME.fullmatch(name) and name not in known]
            retire_files(fs, root, [f"{folder}/{name}" for name in left])
    _delete_replaced(fs, root, grace_s)
    return batches


def retire_files(fs: fsspec.AbstractFileSystem, root: str, names: Sequence[str]) -> None:
    """Put files (`folder/name`) aside that no batch names any more."""

    def retire(name: str) -> None:
        with suppress(FileNotFoundError):
            move_file(fs, f"{root}/{name}", f"{root}/{REPLACED}/{name}")

    read_each(retire, names)


def _delete_replaced(fs: fsspec.AbstractFileSystem, root: str, grace_s: float) -> None:
    times = {p: t for folder in SIDES for p, t in modified_times(fs, f"{root}/{REPLACED}/{folder}").items()}
    if times:
        now = storage_time(fs, root)
        delete_files(fs, [path for path, time in times.items() if (now - time).total_seconds() > grace_s])


def _sealed(stored: Stored) -> dict[str, bytes]:
    """Header of a fronts file, for the metadata of Parquet."""
    pairs = list(stored.items.items())  # in the order that makes the name, which a JSON object need not keep
    return {HEADER: seal({**asdict(stored), "items": pairs}, indent=None)}


def _check_keys(tables: Tables, keys: Sequence[str], items: Mapping[str, Any]) -> None:
    if foreign := sorted({*tables.rejected["key"], *tables.polygons["key"]} - set(keys))[:5]:
        raise ValueError(f"a batch must name all its scenes, got rows of others {foreign}: give each a row of fronts")
    if lacking := sorted(set(keys) - set(items))[:5]:
        raise ValueError(f"a batch must have the item of each scene, none of {lacking}: pass them all")
