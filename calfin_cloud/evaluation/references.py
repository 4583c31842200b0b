"""Mapped fronts against hand-drawn ones of any product: a distance a scene and date."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import geopandas as gpd
import pandas as pd

from calfin_cloud.metrics import line_distances

MAX_DAYS = 366
FAR_M = 5000.0  # references without a glacier id belong to the fronts they come this close to


def compare_fronts(fronts: gpd.GeoDataFrame, reference: gpd.GeoDataFrame, *, max_days: int = MAX_DAYS) -> pd.DataFrame:
    """Measure mapped fronts against hand-drawn ones: `key, reference_date, distance_m`, a row a scene and date.

    All fronts of a scene together against the reference (`products.read_product`) of the same glacier (by id, by place
    without ids): that of the same scene, where it names this one; else that of the same day; else the last before and
    the first after within `max_days`. The distance is the symmetric mean in m (`metrics.line_distances`).
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
    if scene["glacier_id"] and (reference["glacier_id"] != "").any():
        mine = reference[reference["glacier_id"] == scene["glacier_id"]]
    else:
        mine = reference[reference.distance(line) < FAR_M]
    of_scene = mine[mine["scene_id"] == scene["scene_id"]]
    by_scene = len(of_scene) > 0
    mine = of_scene if by_scene else mine
    days = (mine["datetime"].dt.normalize() - scene["datetime"].normalize()).dt.days
    if not by_scene and not (days == 0).any():
        days = days[days.abs() <= max_days]
        nearest = {int(side.iloc[side.abs().argmin()]) for side in (days[days < 0], days[days > 0]) if len(side)}
    else:
        nearest = set(days) if by_scene else {0}
    for day in sorted(nearest):
        drawn = mine.loc[days.index[days == day]]
        yield drawn["datetime"].iloc[0].strftime("%Y-%m-%d"), drawn.geometry.union_all()
