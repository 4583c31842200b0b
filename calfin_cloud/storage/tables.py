"""Tables of batches of scenes in GeoParquet: fronts (the ledger), rejected candidates, polygons, features."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import fsspec
import geopandas as gpd
import pandas as pd
import pyarrow as pa

from calfin_cloud.feature_schema import FEATURES, check_features
from calfin_cloud.object_stores import store_text
from calfin_cloud.schema import check_fronts, check_polygons, check_rejected
from calfin_cloud.storage.batches import Stored, header_of, read_batches, read_checked, read_current
from calfin_cloud.storage.files import looking_twice, open_place, read_each
from calfin_cloud.storage.parquet import open_parquet, read_columns, read_whole_table, to_geo
from calfin_cloud.storage.stores import kept_domains, read_store, read_store_domains

CHECKS = {"fronts": check_fronts, "rejected": check_rejected, "polygons": check_polygons}
CHECKS |= {feature: partial(check_features, feature=feature) for feature in FEATURES}
STATE_COLUMNS = ["key", "datetime", "state", "reason"]
LAST_ORDER = {"fronts": "front", "rejected": "candidate", "polygons": "kind"} | dict.fromkeys(FEATURES, "key")


class Tables(NamedTuple):
    """The three tables of a batch."""

    fronts: gpd.GeoDataFrame
    rejected: gpd.GeoDataFrame
    polygons: gpd.GeoDataFrame


@looking_twice
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


def read_fronts(store: str | Path, *, domain: str = "", glacier: str | int = "") -> gpd.GeoDataFrame:
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
        There is no store, or it has no such domain, or none of the glacier.

    Examples
    --------
    >>> fronts = cc.read_fronts("fronts")
    >>> fronts[["state", "platform"]].values.tolist(), fronts.crs.to_epsg()
    ([['front', 'landsat-8']], 3413)
    """
    store = store_text(store)
    if not glacier:
        return _read_tables(store, ("fronts",), domain)[0]
    domains = read_store_domains(store)
    names = [d.name for d in domains if d.glacier_id == str(glacier) and domain in ("", d.name)]
    if not names:
        known = sorted({d.glacier_id for d in domains if d.glacier_id})
        raise ValueError(f"{store} has no domain of the glacier {str(glacier)!r}; it has {known[:20]}")
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
        There is no store, or it has no such domain.

    Examples
    --------
    >>> "filter" in cc.read_rejected("fronts").columns
    True
    """
    store = store_text(store)
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
        There is no store, or it has no such domain.

    Examples
    --------
    >>> sorted(cc.read_polygons("fronts")["kind"])
    ['ice', 'ocean']
    """
    store = store_text(store)
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
        For another feature, or where there is no store or no such domain.

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
    """Read `STATE_COLUMNS` of every scene, and whether it is `behind`: a row a file, so a key twice is an error."""
    fs, root = open_place(store)
    read = read_current(fs, root, partial(_read_states_file, fs))
    rows = [(stored.behind, table.to_pandas().drop_duplicates("key")) for stored, table in read]
    tables = [table.assign(behind=table["key"].isin(behind)) for behind, table in rows]
    states: pd.DataFrame = pd.concat(tables or [pd.DataFrame(columns=[*STATE_COLUMNS, "behind"])], ignore_index=True)
    return states


def failed_keys(fronts: gpd.GeoDataFrame) -> set[str]:
    """Keys of the scenes of a fronts table that have failed."""
    return set(fronts.loc[fronts["state"] == "failed", "key"])


def _read_fronts_file(fs: fsspec.AbstractFileSystem, crs: str, path: str) -> tuple[Stored, pa.Table]:
    parquet = open_parquet(io.BytesIO(fs.cat_file(path)), path)
    return header_of(parquet, path), read_whole_table(parquet, path, "fronts", crs)


def _read_states_file(fs: fsspec.AbstractFileSystem, path: str) -> tuple[Stored, pa.Table]:
    with fs.open(path, "rb") as file:
        parquet = open_parquet(file, path)
        return header_of(parquet, path), read_columns(parquet, path, STATE_COLUMNS)


def _read_side(fs: fsspec.AbstractFileSystem, root: str, crs: str, folder: str, stored: Stored) -> pa.Table:
    name = stored.files[folder]
    path = f"{root}/{folder}/{name}"
    body = read_checked(fs, root, folder, name)
    return read_whole_table(open_parquet(io.BytesIO(body), path), path, folder, crs)


def _read_tables(store: str, folders: Sequence[str], domain: str) -> list[gpd.GeoDataFrame]:
    """Read tables of all batches at one moment, each of `SCHEMAS` as one table; empty where the store has none."""
    crs = read_store(store)["crs"]
    fs, root = open_place(store)
    if "fronts" in folders:
        found = read_current(fs, root, partial(_read_fronts_file, fs, crs), domain)
    else:
        found = [(stored, None) for stored in read_batches(store, domain=domain)]
    if domain and not found and domain not in (kept := kept_domains(store)):
        raise ValueError(f"{store} has no domain {domain!r}; it has {sorted(kept)[:20]}")
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
