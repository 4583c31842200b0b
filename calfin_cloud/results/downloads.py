"""Files of a report to take away: scenes, fronts and their series, and outlines of what else was seen."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd

from calfin_cloud.feature_schema import FEATURE_SCHEMAS
from calfin_cloud.results.choosing import CHOICE_COLUMNS
from calfin_cloud.results.page_data import SIMPLIFY_PX
from calfin_cloud.results.seaward import Features, flat, write_features
from calfin_cloud.results.series import Course
from calfin_cloud.results.spreadsheets import write_csv
from calfin_cloud.whole_files import whole_file, write_whole_file

FLAGGED = ("score", "flags", "flag_details")
SERIES_FILES = ("positions.csv", "rates.csv", "yearly.csv", "seasonal.csv", "flags.csv")
AT_TIMES = (*SERIES_FILES, "features.csv", *(f"{name}.geojson" for name in FEATURE_SCHEMAS))
"""Downloads that not every report has."""
LONLAT_PLACES = 5  # decimals of a degree: a metre
DOWNLOADED = (
    *("key", "front", "glacier_id", "datetime", "platform", "quality_flag", "length_m", "confidence", "sigma_m"),
    *("half95_m", "score", "score_reasons", "traced_by", "ends", "verdict", "reviewer", "flags", "flag_details"),
    *CHOICE_COLUMNS,
)
"""Columns of `fronts.geojson`; all others are in `scenes.csv`, by key and front."""
SHORT = {"length_m": 1, "confidence": 3, "sigma_m": 1, "half95_m": 1, "score": 3}
"""Places after the point in `fronts.geojson`."""


def write_downloads(fronts: gpd.GeoDataFrame, series: Course | None, folder: Path) -> list[str]:
    """Write scenes, fronts and, where there is one, the series of a store; return the names of the files."""
    plain = flat(fronts)
    found = plain[plain["state"] == "front"]
    write_csv(plain.drop(columns="geometry").round(3), folder / "scenes.csv")
    if len(found):
        found = found[[*(c for c in DOWNLOADED if c in found), "geometry"]].round(SHORT)
        found.geometry = found.simplify(SIMPLIFY_PX * plain.loc[found.index, "resolution_m"].to_numpy())
        _write_geojson(found, folder / "fronts.geojson", squeezed=True)
    else:
        write_whole_file(folder / "fronts.geojson", '{"type": "FeatureCollection", "features": []}\n')
    if series is None:
        return ["fronts.geojson", "scenes.csv"]
    for name in ("positions", "rates", "yearly", "seasonal"):
        write_csv(getattr(series, name).round(3), folder / f"{name}.csv")
    doubtful = plain[plain["flags"] != ""]
    write_csv(doubtful[["key", "front", *FLAGGED]], folder / "flags.csv")
    return ["fronts.geojson", "scenes.csv", *SERIES_FILES]


def write_outlines(features: Features, folder: Path) -> list[str]:
    """Write the features of the sea as outlines, and their series; nothing where the store has none."""
    if not features:
        return []
    write_features(features, folder)
    names = []
    for name, table in features.items():
        seen = flat(table[table.geometry.notna()])
        if len(seen):
            names.append(_write_geojson(seen, folder / f"{name}.geojson").name)
    return ["features.csv", *names]


def _write_geojson(table: gpd.GeoDataFrame, path: Path, *, squeezed: bool = False) -> Path:
    with whole_file(path) as unfinished:
        table.to_file(unfinished, driver="GeoJSON", RFC7946="YES", COORDINATE_PRECISION=LONLAT_PLACES)
        if squeezed:
            _squeeze(unfinished)
    return path


def _squeeze(path: Path) -> None:
    """Write GeoJSON again without spaces and empty properties, a third of what GDAL writes."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for feature in content["features"]:
        feature["properties"] = {k: v for k, v in feature["properties"].items() if v not in (None, "")}
    path.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")
