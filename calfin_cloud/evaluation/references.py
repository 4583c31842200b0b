"""Mapped fronts against hand-drawn ones of any vector file: a distance a scene and date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from calfin_cloud.metrics import line_distances

DATE_COLUMNS = ("date", "Date", "SourceDate", "datetime")
ID_COLUMNS = ("glacier_id", "GlacierID", "Glacier_ID", "GLACIER_ID")
MAX_DAYS = 366
FAR_M = 5000.0  # references without a glacier id belong to the fronts they come this close to


def read_reference(path: str | Path) -> gpd.GeoDataFrame:
    """Read hand-drawn fronts of any vector format into `geometry`, `date`, and `scene_id`, `glacier_id` where they are.

    The date is the column date, Date, SourceDate or datetime, the id glacier_id, GlacierID, Glacier_ID or GLACIER_ID.
    """
    table = gpd.read_parquet(path) if str(path).endswith("parquet") else gpd.read_file(path)
    date = next((c for c in DATE_COLUMNS if c in table.columns), None)
    if date is None or table.crs is None:
        raise ValueError(f"{path}: fronts need a CRS and a date in one of {DATE_COLUMNS}, got {list(table.columns)}")
    made = gpd.GeoDataFrame(geometry=table.geometry)
    made["date"] = pd.to_datetime(table[date], utc=True, format="ISO8601").dt.strftime("%Y-%m-%d")
    if "scene_id" in table.columns:
        made["scene_id"] = table["scene_id"]
    if column := next((c for c in ID_COLUMNS if c in table.columns), None):
        made["glacier_id"] = table[column].astype(str)
    return made[made.geometry.notna()].reset_index(drop=True)


def compare_fronts(fronts: gpd.GeoDataFrame, reference: gpd.GeoDataFrame, *, max_days: int = MAX_DAYS) -> pd.DataFrame:
    """Measure mapped fronts against hand-drawn ones: `key, reference_date, distance_m`, a row a scene and date.

    All fronts of a scene together against the reference of that scene where it is named; else against that of the
    same glacier (by id, by place without ids) of the same day; else against the last before and the first after within
    `max_days`. The distance is the symmetric mean in m (`metrics.line_distances`).
    """
    rows: list[dict[str, Any]] = []
    reference = reference.to_crs(fronts.crs)
    for key, of_scene in fronts[fronts["state"] == "front"].groupby("key", sort=False):
        line = of_scene.geometry.union_all()
        first = of_scene.iloc[0]
        for date, drawn in _references(first, line, reference, max_days):
            rows.append({"key": key, "reference_date": date, "distance_m": float(line_distances(line, drawn).mean())})
    return pd.DataFrame(rows, columns=["key", "reference_date", "distance_m"])


def _references(
    scene: pd.Series,
    line: Any,  # noqa: ANN401 - shapely's geometries have no common type with a name
    reference: gpd.GeoDataFrame,
    max_days: int,
) -> Iterator[tuple[str, Any]]:
    """Date and geometry of the references that a scene is measured against."""
    if "scene_id" in reference.columns:
        mine = reference[reference["scene_id"] == scene["scene_id"]]
    elif "glacier_id" in reference.columns and scene["glacier_id"]:
        mine = reference[reference["glacier_id"] == scene["glacier_id"]]
    else:
        mine = reference[reference.distance(line) < FAR_M]
    days = (pd.to_datetime(mine["date"], utc=True) - scene["datetime"].normalize()).dt.days
    if "scene_id" not in reference.columns and not (days == 0).any():
        days = days[days.abs() <= max_days]
        nearest = {int(side.iloc[side.abs().argmin()]) for side in (days[days < 0], days[days > 0]) if len(side)}
    else:
        nearest = set(days) if "scene_id" in reference.columns else {0}
    for day in sorted(nearest):
        drawn = mine.loc[days.index[days == day]]
        yield str(drawn["date"].iloc[0]), drawn.geometry.union_all()
