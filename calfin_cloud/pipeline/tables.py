"""Results of scenes become rows: of fronts, rejected candidates, polygons and features; fronts, a table for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pystac
from distributed.scheduler import KilledWorker

from calfin_cloud.domains import Domain, length_scale
from calfin_cloud.feature_schema import FEATURE_SCHEMAS, NO_FEATURE
from calfin_cloud.features import not_seen
from calfin_cloud.network import network_id
from calfin_cloud.pipeline.scene import Item, Result
from calfin_cloud.pipeline.settings import MapSettings, code_of
from calfin_cloud.schema import (
    FAILURES,
    FRONT_SCHEMA,
    NO_FRONT,
    POLYGON_KINDS,
    POLYGON_SCHEMA,
    REJECTED_SCHEMA,
    SceneError,
    front_key,
)
from calfin_cloud.sensors import acquired, is_slc_off, item_of
from calfin_cloud.storage import Tables

Row = dict[str, Any]

SCENE_COLUMNS = ("domain", "scene_id", "datetime", "platform", "state", "reason")
MOST_YEARS = 4  # of references that have a column each

UNMAPPED = {"cloudy": "cloudy", "nodata": "nodata"}


class Made(NamedTuple):
    """What scenes came to: their tables, and those of the wanted features by name."""

    tables: Tables
    features: Mapping[str, gpd.GeoDataFrame]


def made_of(scenes: Sequence[Row], results: Sequence[Result], domain: Domain, features: Sequence[str]) -> Made:
    """Make all tables of scenes; `scenes` has what is known of each but for its result, see `scene_rows`."""
    return Made(tables_of(scenes, results, domain), feature_tables(scenes, results, domain, features))


def tables_of(scenes: Sequence[Row], results: Sequence[Result], domain: Domain) -> Tables:
    """Make the tables of scenes; `scenes` has what is known of each but for its result, see `scene_rows`."""
    pairs = list(zip(scenes, results, strict=True))
    return Tables(
        _table([r for row, result in pairs for r in _front_rows(row, result, domain.crs)], FRONT_SCHEMA, domain),
        _table([r for row, result in pairs for r in _rejected_rows(row, result)], REJECTED_SCHEMA, domain),
        _table([r for row, result in pairs for r in _polygon_rows(row, result, domain.crs)], POLYGON_SCHEMA, domain),
    )


def feature_tables(
    scenes: Sequence[Row], results: Sequence[Result], domain: Domain, wanted: Sequence[str]
) -> dict[str, gpd.GeoDataFrame]:
    """Make the tables of features of scenes, a row a scene; `scenes` and `results` are those of `tables_of`."""
    return {
        name: _feature_table(
            [_feature_row(row, result, name) for row, result in zip(scenes, results, strict=True)], name, domain
        )
        for name in wanted
    }


def without(made: Made, keys: Collection[str], old: Mapping[str, gpd.GeoDataFrame]) -> Made:
    """Leave scenes out, but for features that have no row of them in the `old` tables."""
    tables = Tables(*(table[~table["key"].isin(keys)] for table in made.tables))
    features = {
        name: table[~table["key"].isin(set(keys) & set(old[name]["key"]))] if name in old else table
        for name, table in made.features.items()
    }
    return Made(tables, features)


def with_new_rows(old: Tables, new: Tables, keys: Sequence[str]) -> Tables:
    """Replace the rows of the scenes in `new`; the scenes keep the order of `keys`, which names the batch."""
    fresh = set(new.fronts["key"])
    return Tables(*(_replaced(before, [after], fresh, keys) for before, after in zip(old, new, strict=True)))


def with_new_features(
    old: Mapping[str, gpd.GeoDataFrame],
    parts: Sequence[Mapping[str, gpd.GeoDataFrame]],
    keys: Sequence[str],
    wanted: Sequence[str],
) -> dict[str, gpd.GeoDataFrame]:
    """Replace the rows of the scenes in `parts`, in which each scene has one; the order is that of `keys`."""
    merged = {}
    for name in wanted:
        new = [part[name] for part in parts if name in part]
        merged[name] = _replaced(old.get(name), new, {key for table in new for key in table["key"]}, keys)
    return merged


def _replaced(
    before: gpd.GeoDataFrame | None, after: Sequence[gpd.GeoDataFrame], fresh: set[str], keys: Sequence[str]
) -> gpd.GeoDataFrame:
    """Take rows of the scenes `fresh` from the tables `after`, all others from that of before, in the order of keys."""
    order = {key: place for place, key in enumerate(keys)}
    kept = [] if before is None else [before[~before["key"].isin(fresh)]]
    table = pd.concat([part for part in (*kept, *after) if len(part)] or after[:1], ignore_index=True)
    return table.sort_values("key", key=lambda k: k.map(order), kind="stable", ignore_index=True)


def scene_rows(items: Sequence[Item], domain: Domain, settings: MapSettings) -> list[Row]:
    """Columns that say which scenes these are and what maps them."""
    by = {"model": network_id(settings.network), "code": code_of(settings)}  # read from files: once a batch
    without_files = ({**item, "assets": {}, "links": []} for item in items)  # which make most of an item, and no column
    return [_scene_row(item_of(item), domain) | by for item in without_files]


def _scene_row(item: pystac.Item, domain: Domain) -> Row:
    return {
        "key": front_key(domain.name, item.id),
        "domain": domain.name,
        "scene_id": item.id,
        "glacier_id": domain.glacier_id,
        "datetime": acquired(item),
        "platform": str(item.properties.get("platform") or "unknown"),
        "collection": item.collection_id or "",
        "quality_flag": 13 if is_slc_off(item) else 10,
        "resolution_m": domain.resolution_m,
    } | dict.fromkeys(("cloud_fraction", "nodata_fraction", "slc_off_fraction"), np.nan)


def _table(rows: Sequence[Row], schema: pa.Schema, domain: Domain) -> gpd.GeoDataFrame:
    nothing = np.empty(0, dtype=object)  # of an empty list pandas makes numbers
    columns = {name: [row.get(name) for row in rows] or nothing for name in (*schema.names, "geometry")}
    return gpd.GeoDataFrame(columns, geometry="geometry", crs=domain.crs)


def _front_rows(scene: Row, result: Result, crs: str) -> list[Row]:
    """Rows of one scene: one a front, or one that says why there is none."""
    row = scene | NO_FRONT
    if isinstance(result, Exception):
        reason, detail = _reason_of(result)
        return [row | {"state": "failed" if reason in FAILURES else "no_front", "reason": reason, "detail": detail}]
    row |= {k: v for k, v in result.items() if k in row or k in ("reason", "detail")}
    found = [
        {"state": "front", "front": n, "length_m": front["geometry"].length / length_scale(crs, front["geometry"])}
        | front
        for n, front in enumerate(result.get("fronts", ()))
    ]
    return [row | front for front in found] or [row | {"state": "no_front"}]


def _rejected_rows(scene: Row, result: Result) -> list[Row]:
    if isinstance(result, Exception):
        return []
    return [
        scene | {"candidate": n, "geometry": line} | objection._asdict()
        for n, (line, objection) in enumerate(result.get("rejected", ()))
    ]


def _polygon_rows(scene: Row, result: Result, crs: str) -> list[Row]:
    """Rows of one scene with a front: its ocean and its ice, or why there are none."""
    if isinstance(result, Exception) or (made := result.get("polygons")) is None:
        return []
    rows = []
    for kind in POLYGON_KINDS:
        shape = getattr(made, kind)
        area = np.nan if shape is None else shape.area / length_scale(crs, shape) ** 2
        reason = made.reason if made.reason or shape is not None else f"no_{kind}"
        row = {"kind": kind, "reason": reason, "detail": made.detail, "area_m2": area, "geometry": shape}
        rows.append(scene | row | {"fjord": result["fjord"]})
    return rows


def _reason_of(error: Exception) -> tuple[str, str]:
    """Reason code and message of a scene's error, without the line breaks and length of a traceback."""
    if isinstance(error, KilledWorker):
        return "worker_lost", "the worker died with the scene several times: it may need more memory"
    reason = error.reason if isinstance(error, SceneError) else "error"
    text = str(error) if isinstance(error, SceneError) else f"{type(error).__name__}: {error}"
    return reason, " ".join(text.split())[:500]


def _feature_row(scene: Row, result: Result, feature: str) -> Row:
    schema = FEATURE_SCHEMAS[feature]
    row = {n: NO_FEATURE.get(n, np.nan) for n in schema.names} | {"geometry": None, "sensor_kind": "unknown"}
    row |= {n: scene[n] for n in schema.names if n in scene and n not in ("state", "reason", "detail")}
    return row | _found_feature(result, feature)


def _found_feature(result: Result, feature: str) -> Row:
    if isinstance(result, Exception):  # a scene that was left out is one too when it is traced anew
        reason, detail = _reason_of(result)
    elif "features" in result:
        return dict(result["features"][feature])
    else:
        reason, detail = str(result.get("reason", "")), str(result.get("detail", ""))
    return not_seen(UNMAPPED.get(reason, "no_scene"), detail)


def _feature_table(rows: Sequence[Row], feature: str, domain: Domain) -> gpd.GeoDataFrame:
    columns = [*FEATURE_SCHEMAS[feature].names, "geometry"]
    return gpd.GeoDataFrame(pd.DataFrame(rows, columns=columns), geometry="geometry", crs=domain.crs)


# For people


def summarise_scenes(fronts: gpd.GeoDataFrame, distances: pd.DataFrame | None = None) -> pd.DataFrame:
    """Make the table for people, a row a scene: date, state, reason, fronts, length in m, distances to a reference.

    `distances` is what `evaluation.compare_fronts` returns: `key`, `reference_date`, `distance_m`. Where a scene lies
    between two references, those of each year have a column.

    Parameters
    ----------
    fronts
        Table of `read_fronts`.
    distances
        What `compare_fronts` returns; without it there is no column of distances.

    Returns
    -------
    DataFrame
        `domain, scene_id, datetime` (day), `platform, state, reason, n_fronts, length_m, confidence, sigma_m,
        score`.

    Raises
    ------
    TypeError
        The fronts are no such table.

    Examples
    --------
    >>> cc.summarise_scenes(cc.read_fronts("fronts"))[["datetime", "platform", "state", "n_fronts"]].values.tolist()
    [['2021-09-27', 'landsat-8', 'front', 1]]
    """
    wanted = ("key", *SCENE_COLUMNS, "front", "length_m", "confidence", "sigma_m", "score")
    if missing := [name for name in wanted if name not in getattr(fronts, "columns", ())]:
        got = f"without the columns {missing}" if isinstance(fronts, pd.DataFrame) else type(fronts).__name__
        raise TypeError(f"the scenes of a table of `read_fronts` are summarised, got {got}")
    by_key = fronts.groupby("key", sort=False)
    scenes = by_key[[*SCENE_COLUMNS]].first()
    scenes["n_fronts"] = by_key["front"].max() + 1
    scenes["length_m"] = by_key["length_m"].sum(min_count=1).round()
    scenes["confidence"] = by_key["confidence"].max().round(2)
    scenes["sigma_m"] = by_key["sigma_m"].max().round()
    scenes["score"] = by_key["score"].min().round(2)
    scenes["datetime"] = scenes["datetime"].astype("datetime64[us, UTC]").dt.strftime("%Y-%m-%d")
    if distances is not None and not distances.empty:
        scenes = scenes.join(_distance_columns(distances))
    table: pd.DataFrame = scenes.reset_index(drop=True)
    return table


def _distance_columns(distances: pd.DataFrame) -> pd.DataFrame | pd.Series:
    """Distances by key: one column, or one for each year of the references where scenes have several."""
    years = distances["reference_date"].str[:4]
    if not distances["key"].duplicated().any() or years.nunique() > MOST_YEARS:
        return distances.groupby("key")["distance_m"].min().round(1)
    by_year = distances.assign(year=years).pivot_table(index="key", columns="year", values="distance_m")
    return by_year.round(1).add_prefix("m_to_")
