"""Fronts become positions: where each crosses a centreline, and how far the ice reaches in a box (calfin-method 10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString
from shapely.geometry.base import BaseGeometry
from shapely.ops import polygonize

from calfin_cloud.domains import length_scale
from calfin_cloud.timeseries.gates import Gate

BOX = "box"
STEEPEST = 0.34  # sine of 20 degrees: a front that runs along a centreline says little of where they cross
REACH = 0.15  # ends of a front are drawn on to the side of a box over so much of its width
TOUCHING_M = 1e-3  # parts of a front that are nearer to each other are one
BEYOND = 1e-3  # and so much further, so that they cross it in spite of rounding

POSITION_COLUMNS = (
    *("key", "glacier_id", "branch", "datetime", "position_m", "sigma_m", "area_m2", "crossings", "reason"),
)


class Measured(NamedTuple):
    """Position of a front in m along the flow, its standard deviation, the ice area of a box, or why there is none."""

    position_m: float = np.nan
    sigma_m: float = np.nan
    area_m2: float = np.nan
    crossings: int = 0
    reason: str = ""


class IceInBox(NamedTuple):
    """Parts of a box that are ice, in coordinates of the flow; how many fronts lie in it, and why nothing is told."""

    ice: Sequence[BaseGeometry]
    fronts: int
    reason: str


def measure_positions(
    fronts: gpd.GeoDataFrame,
    centerlines: Mapping[str, LineString] | None = None,
    gate: Gate | None = None,
) -> pd.DataFrame:
    """Measure where the fronts of one glacier end, a row a front and branch, sorted by branch and time.

    Parameters
    ----------
    fronts
        Rows with `key`, `glacier_id`, `datetime`, `sigma_m` (on the ground) and a line, in a projected CRS in
        metres. Rows that share a key are parts of one front.
    centerlines
        Lines by the name of the branch, from ice to sea.
    gate
        Box across the glacier; its rows have the branch `box`.

    Returns
    -------
    DataFrame
        `POSITION_COLUMNS`. `position_m` grows as the glacier advances: the length along the centreline to its outermost
        crossing, or the ice area of the box over its width. Lengths and areas are true ones, freed of the distortion of
        the map. Where a front cannot be measured, position is NaN and `reason` says why.

    Raises
    ------
    ValueError
        There is neither a centreline nor a box.
    """
    if not centerlines and gate is None:
        raise ValueError("positions need a centreline or a box: give one, or derive a box with derive_gate")
    rows: list[dict[str, Any]] = []
    scale = length_scale(fronts.crs, gate.box if gate else next(iter((centerlines or {}).values())))
    for key, parts in fronts.groupby("key", sort=False):
        first = parts.iloc[0]
        same = {"key": key, "glacier_id": first["glacier_id"], "datetime": first["datetime"]}
        lines, sigma = parts.geometry.union_all(), float(parts["sigma_m"].max()) * scale  # in map metres, as lines
        for branch, centerline in (centerlines or {}).items():
            rows.append(same | {"branch": branch} | _true(crossing(lines, centerline, sigma), scale))
        if gate:
            rows.append(same | {"branch": BOX} | _true(box_position(lines, gate, sigma), scale))
    table = pd.DataFrame(rows, columns=list(POSITION_COLUMNS))
    return table.sort_values(["branch", "datetime", "key"], ignore_index=True)


def crossing(front: BaseGeometry, centerline: LineString, sigma_m: float = np.nan) -> Measured:
    """Position of a front along a centreline that runs from ice to sea, in map metres.

    Of several crossings the outermost counts, for the ice reaches there. The uncertainty is that of the front, more
    where it crosses at a slant, and half the way between the outermost and innermost crossing is added to it.
    """
    shared = front.intersection(centerline)
    corners = shapely.get_coordinates(shared)
    if not len(corners):
        return Measured(reason="not_crossed")
    places = np.sort(shapely.line_locate_point(centerline, shapely.points(corners)))
    sine = _sine_between(front, centerline, float(places[-1]))
    spread = (places[-1] - places[0]) / 2
    return Measured(float(places[-1]), float(np.hypot(sigma_m / max(sine, STEEPEST), spread)), crossings=len(places))


def box_position(front: BaseGeometry, gate: Gate, sigma_m: float = np.nan) -> Measured:
    """Ice area of a box over its width, in map metres: the mean position of the front across the glacier.

    Ends that stop short of a side of the box are drawn on to it over at most `REACH` of its width. What lies behind an
    even number of fronts, looking along the flow, is ice. Where that makes the seaward end of the box ice, two fronts
    of the scene cross the whole box, and nobody can tell which one ends the glacier: it has no position (`two_fronts`).
    """
    found = ice_in_box(front, gate)
    if found.reason:
        return Measured(reason=found.reason)
    area = sum(gate.to_map(piece).area for piece in found.ice)
    return Measured(area / gate.width_m, sigma_m, area, crossings=found.fronts)


def ice_in_box(front: BaseGeometry, gate: Gate) -> IceInBox:
    """Find the parts of a box that are ice, see `box_position`, in coordinates of the flow."""
    box = gate.flow_box
    near = front.intersection(gate.box.buffer(gate.width_m)) if gate.axis is not None else front
    flow = gate.to_flow(near)
    if flow.geom_type != "LineString":  # its parts may touch but for rounding, as where the antimeridian has cut it
        flow = shapely.line_merge(shapely.set_precision(flow, TOUCHING_M))
    parts = [part for part in shapely.get_parts(flow) if part.geom_type == "LineString"]
    joints = Counter(part.coords[end] for part in parts for end in (0, -1))
    free = {end for end, count in joints.items() if count == 1}  # where parts meet the front goes on
    lines = [_to_sides(part, box, gate.width_m, free) for part in parts if part.intersects(box)]
    if not lines:
        return IceInBox([], 0, "outside_box")
    drawn = shapely.union_all(lines)
    inside = [p for p in polygonize(shapely.union_all([box.boundary, *lines])) if box.covers(p.representative_point())]
    ice = [p for p in inside if _fronts_behind(p, drawn, box) % 2 == 0]
    upstream, seaward = _ends_of(box)
    if len(ice) == len(inside) or not ice or any(p.intersects(upstream) and p.intersects(seaward) for p in inside):
        return IceInBox([], len(lines), "not_across")
    if any(p.intersects(seaward) for p in ice):
        return IceInBox([], len(lines), "two_fronts")
    return IceInBox(ice, len(lines), "")


def _true(measured: Measured, scale: float) -> dict[str, Any]:
    """Take the distortion of the map out of a measurement."""
    lengths = {"position_m": measured.position_m / scale, "sigma_m": measured.sigma_m / scale}
    return measured._asdict() | lengths | {"area_m2": measured.area_m2 / scale**2}


def _sine_between(front: BaseGeometry, centerline: LineString, place: float) -> float:
    """Sine of the angle at which a front crosses a centreline."""
    ahead, behind = (centerline.interpolate(np.clip(place + step, 0, centerline.length)) for step in (1.0, -1.0))
    flow = shapely.get_coordinates(ahead)[0] - shapely.get_coordinates(behind)[0]
    near = front.intersection(centerline.interpolate(place).buffer(1.0))
    ends = shapely.get_coordinates(near)
    along = ends[-1] - ends[0] if len(ends) > 1 else np.zeros(2)
    size = np.hypot(*flow) * np.hypot(*along)
    return float(abs(flow[0] * along[1] - flow[1] * along[0]) / size) if size else 1.0


def _to_sides(line: LineString, box: BaseGeometry, width_m: float, free: Container[tuple[float, ...]]) -> LineString:
    """Draw the free ends of a line that lie in the box on to its nearer side, straight across the flow, if near."""
    coordinates = [tuple(c) for c in line.coords]
    ends = (coordinates[0], coordinates[-1])
    first, last = (_beyond_side(np.asarray(end), box, width_m) if end in free else [] for end in ends)
    return LineString([*first, *coordinates, *last])


def _beyond_side(end: NDArray[np.float64], box: BaseGeometry, width_m: float) -> list[tuple[float, ...]]:
    """Place a little beyond the nearer side of the box across the flow from an end; none if it is far or outside."""
    if not box.covers(shapely.Point(end)):
        return []
    found = []
    for across in (np.array([0.0, -1.0]), np.array([0.0, 1.0])):
        hit = LineString([end, end + REACH * width_m * across]).intersection(box.boundary)
        if hit.is_empty:
            continue
        way = shapely.shortest_line(shapely.Point(end), hit)
        # A fixed length, since an end that lies on the side but for rounding would not be led across it by a share.
        beyond = np.asarray(way.coords[-1]) + BEYOND * width_m * across
        if not box.contains(shapely.Point(beyond)):
            found.append((way.length, tuple(beyond.tolist())))
    return [min(found)[1]] if found else []


def _fronts_behind(piece: BaseGeometry, fronts: BaseGeometry, box: BaseGeometry) -> int:
    """Fronts between a piece of the box and its upstream end."""
    (x, y), *_ = piece.representative_point().coords
    path = LineString([(x, y), (box.bounds[0] - 1.0, y)]).intersection(box)
    return len(shapely.get_coordinates(fronts.intersection(path)))


def _ends_of(box: BaseGeometry) -> tuple[BaseGeometry, BaseGeometry]:
    """Places in the middle of the upstream and the seaward end of a box in coordinates of the flow."""
    left, bottom, right, top = box.bounds
    reach = 1e-6 * (top - bottom)
    upstream, seaward = (shapely.Point(x, (bottom + top) / 2).buffer(reach) for x in (left, right))
    return upstream, seaward
