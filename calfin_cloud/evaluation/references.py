"""Mapped fronts against hand-drawn ones of any product: a distance a scene and date, beside that of persistence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely import affinity

from calfin_cloud.domains import Domain, length_scale
from calfin_cloud.metrics import FAR_M, lengths_within, line_distances, shares_of
from calfin_cloud.products import check_product
from calfin_cloud.termini import nearest_in_time

MAX_DAYS = 366
WITHIN_M = (150.0, 300.0)
"""Distances within which a drawn kilometre is right, and a kilometre of the reference found."""

COLUMNS = ("key", "reference_date", "distance_m", "persistence_m")


def compare_fronts(
    fronts: gpd.GeoDataFrame,
    reference: gpd.GeoDataFrame,
    *,
    max_days: int = MAX_DAYS,
    domains: Sequence[Domain] = (),
) -> pd.DataFrame:
    """Measure mapped fronts against hand-drawn ones: `key, reference_date, distance_m`, a row a scene and date.

    All fronts of a scene together against the reference (`products.read_product`) of the same glacier (by id, by place
    without ids): that of the same scene, where it names this one; else that of the same day; else the last before and
    the first after within `max_days`. The distance is the symmetric mean in m (`metrics.line_distances`).

    `persistence_m` is the distance of the known terminus that guided the scene, of the `domains` that have termini; NaN
    elsewhere: a method must be nearer than that to be worth its while.

    Parameters
    ----------
    fronts
        Table of `read_fronts`.
    reference
        Table of `read_product`, in any CRS.
    max_days
        Longest time to a reference of another day.
    domains
        Those whose termini guided the fronts, to measure persistence with.

    Returns
    -------
    DataFrame
        `key, reference_date, distance_m, persistence_m`, a row a scene and date of the reference; distances in m on
        the ground.

    Raises
    ------
    ValueError
        A table has no CRS, or the reference is none of `read_product`.

    Examples
    --------
    >>> reference = cc.read_product("real/reference.parquet")
    >>> table = cc.compare_fronts(cc.read_fronts("fronts"), reference)
    >>> table["reference_date"].tolist(), bool(table["distance_m"].iloc[0] < 150)
    (['2021-09-27'], True)
    """
    check_product(reference)
    by_name = {domain.name: domain for domain in domains}
    rows: list[dict[str, Any]] = []
    reference = reference.to_crs(fronts.crs)
    for key, of_scene in fronts[fronts["state"] == "front"].groupby("key", sort=False):
        line = of_scene.geometry.union_all()
        first = of_scene.iloc[0]
        guide = _guide(first, by_name.get(str(first.get("domain"))))
        scale = length_scale(fronts.crs, line)
        for date, drawn in _references(first, line, reference, max_days):
            of_guide = float("nan") if guide is None else float(line_distances(guide, drawn).mean()) / scale
            row = {"distance_m": float(line_distances(line, drawn).mean()) / scale, "persistence_m": of_guide}
            rows.append({"key": key, "reference_date": date} | row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def skill_of(
    fronts: gpd.GeoDataFrame,
    reference: gpd.GeoDataFrame,
    domains: Sequence[Domain],
    *,
    max_days: int = MAX_DAYS,
) -> pd.DataFrame:
    """Say what fronts are worth beside persistence, the known terminus itself: rows `fronts` and `persistence`.

    Where no domain knows a terminus there is no second row.
    Each scene counts by the nearer one of its references. Columns: `scenes` with a reference, `found` among them,
    `mean_m` and `worst_m` over those found, and for each of `WITHIN_M` `precision_`, `recall_` and `f_`: the share of
    drawn kilometres within that distance, of the reference's, and their harmonic mean, pooled over all scenes; a
    scene without a front has found none of its kilometres.
    """
    by_name = {domain.name: domain for domain in domains}
    reference = reference.to_crs(fronts.crs)
    lines: dict[str, list[tuple[Any, list[Any]]]] = {"fronts": [], "persistence": []}
    for _, of_scene in fronts.groupby("key", sort=False):
        first, domain = of_scene.iloc[0], by_name.get(str(of_scene["domain"].iloc[0]))
        guide = _guide(first, domain)
        found = of_scene.geometry.union_all() if first["state"] == "front" else None
        place: Any = found or guide or (domain.polygon if domain else None)
        drawn = [] if place is None else [shape for _, shape in _references(first, place, reference, max_days)]
        if drawn:
            ground = partial(_on_ground, scale=length_scale(fronts.crs, place))
            lines["fronts"].append((ground(found), [*map(ground, drawn)]))
            lines["persistence"].append((ground(guide), [*map(ground, drawn)]))
    known = [name for name, pairs in lines.items() if name == "fronts" or any(line is not None for line, _ in pairs)]
    return pd.DataFrame({name: _skill(lines[name]) for name in known}).T


def why_unmatched(fronts: gpd.GeoDataFrame, reference: gpd.GeoDataFrame) -> str:
    """Say why no front of a reference is that of a mapped scene: of other glaciers, or of other years."""
    mapped, drawn = (", ".join(sorted(set(table["glacier_id"]) - {""})[:5]) or "none" for table in (fronts, reference))
    return (
        f"no front of the reference is of a mapped scene: its glacier ids are {drawn}, those of the store {mapped}: "
        "use the same, or leave its ids out, so that the place decides; its dates must lie within a year"
    )


def _on_ground(shape: Any, scale: float) -> Any:  # noqa: ANN401 - a line, a multi-line or None
    """Shrink a shape of the map by its stretch, so that its lengths are those on the ground."""
    return None if shape is None else affinity.scale(shape, 1 / scale, 1 / scale, origin=(0, 0))


def _skill(pairs: Sequence[tuple[Any, list[Any]]]) -> dict[str, float]:
    """Summary of lines, None where there is none, each with the references that it may be near."""
    nearer = [(line, min(drawn, key=lambda d: _mean_m(line, d))) for line, drawn in pairs]
    means = [_mean_m(line, drawn) for line, drawn in nearer if line is not None]
    made: dict[str, float] = {
        "scenes": len(pairs),
        "found": len(means),
        "mean_m": float(np.mean(means)) if means else float("nan"),
        "worst_m": max(means, default=float("nan")),
    }
    for within in WITHIN_M:
        lengths = [lengths_within(line, drawn, within) for line, drawn in nearer]
        total = {name: sum(of_scene[name] for of_scene in lengths) for name in lengths[0]} if lengths else {}
        made |= {f"{name}_{within:.0f}": value for name, value in shares_of(total).items()} if total else {}
    return made


def _mean_m(line: Any, drawn: Any) -> float:  # noqa: ANN401 - shapely's geometries have no common type with a name
    """Symmetric mean distance in m; 0 of no line, so that its first reference stands."""
    return 0.0 if line is None else float(line_distances(line, drawn).mean())


def _guide(scene: pd.Series, domain: Domain | None) -> Any:  # noqa: ANN401 - a line, a multi-line or None
    """Known terminus of a scene's domain that is nearest in time, None where there is none."""
    if domain is None or not domain.termini:
        return None
    return shapely.union_all([t.line for t in nearest_in_time(domain.termini, scene["datetime"].date())])


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
