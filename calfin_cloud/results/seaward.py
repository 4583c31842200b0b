"""Features of the sea of a store: as one series in time, as layers of the page, as what `calfin show` tells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from calfin_cloud.feature_schema import FEATURE_REASONS, FEATURE_SCHEMAS, FEATURES, NO_FEATURE, check_features
from calfin_cloud.land import packed
from calfin_cloud.results.page_data import plain
from calfin_cloud.results.reviewed_polygons import changed_scenes
from calfin_cloud.results.reviewing import reviewed_fronts
from calfin_cloud.results.spreadsheets import write_csv
from calfin_cloud.storage import read_features

Features = Mapping[str, gpd.GeoDataFrame]

SERIES = {
    "icebergs": ("icebergs", "area_m2", "exponent", "exponent_sigma", "sea_ice_area_m2"),
    "melange": ("extent_m", "fraction_at_front", "touches_front", "area_m2"),
    "plumes": ("area_m2", "extent_m", "relative_turbidity_median_fnu"),
}
"""Columns of the series of each feature, and what the page shows of a scene."""

SCENE_COLUMNS = ("key", "glacier_id", "domain", "datetime", "platform")
LISTS = ["areas_m2", "fractions", "vertex_sigma_m"]
SIMPLIFY_PX, LEAST_CORNERS = 0.7, 4
MOST_PARTS = 400  # of a layer, of a scene: the largest


def features_of(store: str) -> dict[str, gpd.GeoDataFrame]:
    """Read the tables of features that a store has; a feature that was never asked for is not among them.

    A scene whose front people or all dates changed is `not_seen`, `other_front`: its sea lay before the mapped front.
    `storage.read_features` has what was measured there all the same.
    """
    tables = {name: table for name in FEATURES if len(table := read_features(store, name))}
    changed = changed_scenes(reviewed_fronts(store, flagged=False)) if tables else set[str]()
    return {name: _without(changed, name, table) for name, table in tables.items()}


def feature_series(features: Features) -> pd.DataFrame:
    """Put what was measured into one table, a row a scene, columns as `icebergs.area_m2`; NaN where it was not seen.

    Examples
    --------
    >>> feature_series(features_of("fronts"))[["datetime", "icebergs.area_m2"]]                    # doctest: +SKIP
    """
    joined = pd.DataFrame(columns=list(SCENE_COLUMNS))
    for name, table in features.items():
        seen = table[table["state"] == "measured"]
        own = pd.DataFrame(seen[[*SCENE_COLUMNS, *SERIES[name]]])
        own = own.rename(columns={column: f"{name}.{column}" for column in SERIES[name]})
        joined = own if joined.empty else joined.merge(own, on=list(SCENE_COLUMNS), how="outer")
    return joined.sort_values(["domain", "datetime", "key"], ignore_index=True)


def write_features(features: Features, folder: Path) -> Path:
    """Write the series of features as `features.csv`."""
    return write_csv(feature_series(features), folder / "features.csv")


def flat(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return a table of fronts or features without its lists, which GeoPackage, GeoJSON and CSV do not have."""
    return table.drop(columns=LISTS, errors="ignore")


def page_features(features: Features, domain: str, resolution_m: float) -> dict[str, list[dict[str, Any]]]:
    """Gather what the page shows of the features of a domain: by feature a line a scene, its outlines as `packed`."""
    return {
        name: [
            _shown(row, SERIES[name], resolution_m)
            for row in table[table["domain"] == domain].sort_values("datetime").to_dict("records")
        ]
        for name, table in features.items()
    }


def told_features(features: Features, key: str) -> dict[str, dict[str, Any]]:
    """Tell what is known of the features of one scene, as JSON values by feature."""
    told = {}
    for name, table in features.items():
        for row in table[table["key"] == key].to_dict("records"):
            told[name] = {c: plain(row[c]) for c in ("state", "reason", "detail", *SERIES[name])}
    return told


def _without(changed: set[str], name: str, table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Take out of a table of a feature what was measured in scenes whose front has changed."""
    gone = table["key"].isin(changed) & (table["state"] == "measured")
    if not gone.any():
        return table
    schema = FEATURE_SCHEMAS[name].names
    blank = {
        column: NO_FEATURE.get(column, np.nan) for column in ("sea_area_m2", *schema[schema.index("pixel_m") + 1 :])
    }
    blank |= {"state": "not_seen", "reason": "other_front", "detail": FEATURE_REASONS["other_front"], "geometry": None}
    columns = {
        column: [value if is_gone else kept for is_gone, kept in zip(gone, table[column], strict=True)]
        for column, value in blank.items()
    }
    return check_features(table.assign(**columns).astype(dict(table.dtypes)), name)


def _shown(row: Mapping[Any, Any], columns: tuple[str, ...], resolution_m: float) -> dict[str, Any]:
    facts = {c: value for c in columns if (value := plain(row[c])) is not None}
    about = {"key": row["key"], "date": f"{row['datetime']:%Y-%m-%d}", "state": row["state"], "reason": row["reason"]}
    return about | facts | {"outlines": _outlines(row["geometry"], resolution_m)}


def _outlines(shape: Any, resolution_m: float) -> list[list[int]]:  # noqa: ANN401 - a MultiPolygon or None
    """Outer rings of the largest parts, simplified to below a pixel."""
    parts = np.empty(0, dtype=object) if shape is None else np.asarray(shapely.get_parts(shape))
    largest = parts[np.argsort(-shapely.area(parts), kind="stable")][:MOST_PARTS]
    simple = shapely.simplify(shapely.get_exterior_ring(largest), SIMPLIFY_PX * resolution_m)
    return [packed(points) for ring in simple if len(points := shapely.get_coordinates(ring)) >= LEAST_CORNERS]
