"""Centrelines, boxes and ice of glaciers, from files or derived from fronts: what positions are measured with."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import chain, count
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from calfin_cloud.columns import first_column, glacier_ids, id_text
from calfin_cloud.domains import azimuth_deg
from calfin_cloud.timeseries import (
    BOX,
    Gate,
    derive_gate,
    gate_along,
    gate_around,
    gate_of,
    ice_behind,
    length_scale,
    read_velocity,
    seaward_of,
    stream_line,
    swept_m,
)
from calfin_cloud.vectors import Shapes, check_metres, read_vectors

CENTER = "center"
BRANCH_COLUMNS = ("branch", "BranchName", "BranchID")
GATE_COLUMNS = (
    *("glacier_id", "width_m", "seaward_deg", "fronts", "measured", "change_m", "swept_m", "is_doubtful"),
    *("centerline", "geometry"),
)
MOST_APART, LEAST_APART_M = 0.1, 200.0  # a box is doubtful where it differs by more than both from what was swept
BEYOND_BOX = 0.05  # of the side of a box, so much of a coast is kept around it
REACH_M = 30_000.0  # ice further than this from the fronts does not say where their sea lies
OCEAN_FILE = re.compile(r"_closed_v[\w.]+(\||$)")  # as CALFIN and `calfin export` call their polygons of ocean
LEAST_BEHIND = 0.5  # share of ice behind the fronts of a glacier that its map of ice should have

Vector = tuple[float, float]

Watch = Callable[[str, Sequence[Any]], Iterable[Any]]
"""Called with the name of a step and its parts; yields the parts, so that a bar can show the progress."""


def unwatched(_: str, parts: Sequence[Any]) -> Iterable[Any]:
    """Yield the parts and show nothing."""
    return parts


class Lines(NamedTuple):
    """What positions are measured with and held against, as far as it is known, by glacier id.

    `axes` are the bent lines that `boxes` of an earlier run follow; `velocity` is that of the ice (`read_velocity`),
    and gives glaciers without a centreline one along the flow.
    """

    centerlines: Mapping[str, Mapping[str, LineString]] = {}
    boxes: Mapping[str, Polygon] = {}
    ice: Mapping[str, BaseGeometry] = {}
    fjords: Mapping[str, BaseGeometry] = {}
    axes: Mapping[str, LineString] = {}
    velocity: xr.Dataset | None = None


def check_lines(lines: Any) -> None:  # noqa: ANN401 - whatever was given
    """Refuse what is no `Lines`, such as the domains that they come from."""
    if not isinstance(lines, Lines):
        raise ValueError(
            f"lines must be `Lines`, got a {type(lines).__name__}: take those of `store_product`, or `read_lines`"
        )


def move_lines(lines: Lines, of: Any, to: Any) -> Lines:  # noqa: ANN401 - CRSs
    """Bring what is known of glaciers, but for a velocity, into the CRS that fronts were brought into."""

    def moved(shapes: Mapping[str, Any]) -> dict[str, Any]:
        return dict(gpd.GeoSeries(dict(shapes), crs=of).to_crs(to)) if shapes else {}

    if of == to:
        return lines
    drawn = {glacier: moved(branches) for glacier, branches in lines.centerlines.items()}
    return Lines(drawn, moved(lines.boxes), moved(lines.ice), moved(lines.fjords), moved(lines.axes), lines.velocity)


def read_lines(
    known: Lines | None,
    fronts: gpd.GeoDataFrame,
    *,
    centerlines: str | None = None,
    boxes: str | None = None,
    ice: str | None = None,
    velocity: str | None = None,
) -> Lines:
    """Add to what is known the centrelines, boxes, ice and velocity of files, in the CRS of the fronts.

    Centrelines and boxes belong to the glacier of their id column, those without an id to every glacier. Centrelines of
    one glacier are told apart by `BRANCH_COLUMNS`, or numbered. Of ice, such as basins, each glacier gets what lies
    within 30 km of its fronts. Boxes that an earlier run has derived along bent centrelines (its `gates.gpkg`) keep
    these. Raises `ValueError` where the fronts are not in metres, or the file of ice holds ocean by its name or its
    column `kind`, as polygons of a store have it.
    """
    check_metres(fronts.crs, "measuring")  # in degrees, 30 km are all of the earth, and take many minutes
    known = known or Lines()
    glaciers = {str(g): part for g, part in fronts.groupby("glacier_id")}
    shapes, covers, axes = dict(known.boxes), dict(known.ice), dict(known.axes)
    drawn: dict[str, dict[str, LineString]] = {}
    for row in _rows(centerlines, fronts, "lines"):
        for glacier in [row["glacier_id"]] if row["glacier_id"] else glaciers:
            own = drawn.setdefault(glacier, {})
            own[free_name(_branch_of(row), own)] = LineString(row["geometry"].coords)
    lines = {g: {**known.centerlines.get(g, {}), **drawn.get(g, {})} for g in {*known.centerlines, *drawn}}
    for row in _rows(boxes, fronts, "polygons"):
        for glacier in [row["glacier_id"]] if row["glacier_id"] else glaciers:
            shapes[glacier] = row["geometry"]
            axes.pop(glacier, None)
            if isinstance(line := row.get("centerline"), str) and line:
                axes[glacier] = _line_of(line)
    if ice:
        table = _read_ice(ice).to_crs(fronts.crs).explode(ignore_index=True)
        for glacier, part in glaciers.items():
            near = _around(list(part.geometry))
            covers[glacier] = table.geometry.iloc[table.sindex.query(near, "intersects")].intersection(near).union_all()
    field = read_velocity(velocity, fronts.crs) if velocity else known.velocity
    return Lines(lines, shapes, covers, known.fjords, axes, field)


def cut_to_boxes(fronts: gpd.GeoDataFrame, boxes: str) -> gpd.GeoDataFrame:
    """Cut lines that belong to no glacier, such as coasts of a continent, to the boxes of a file that name glaciers.

    Lines are kept some way beyond the sides of a box, so that they cross it. A product that has glacier ids, or boxes
    that have none, are left as they are.
    """
    named = [row for row in _rows(boxes, fronts, "polygons") if row["glacier_id"]]
    if (fronts["glacier_id"] != "").any() or not named:
        return fronts
    parts = []
    for row in named:
        around = row["geometry"].buffer(BEYOND_BOX * row["geometry"].area ** 0.5)
        cut = fronts.set_geometry(fronts.geometry.intersection(around))
        cut = cut[cut.geometry.length > 0].assign(glacier_id=row["glacier_id"])
        parts.append(cut.assign(key=row["glacier_id"] + cut["key"]))
    made = pd.concat(parts, ignore_index=True)
    if made.empty:
        raise ValueError(f"no line crosses a box of {boxes}: check the CRS of both")
    return gpd.GeoDataFrame(made, crs=fronts.crs)


def seaward_near(fronts: Sequence[BaseGeometry], ice: BaseGeometry | None) -> Vector | None:
    """Find the direction of the sea by the ice within `REACH_M` of fronts; None where it does not tell."""
    return seaward_of(fronts, None if ice is None else ice.intersection(_around(fronts)))


def seas_deg(fronts: gpd.GeoDataFrame, lines: Lines) -> dict[str, float]:
    """Where the sea of each glacier lies by its ice, in degrees from north; without those whose ice does not tell."""
    seas = {}
    for glacier, part in fronts.groupby("glacier_id", sort=True):
        seaward = seaward_near(list(part.geometry), lines.ice.get(str(glacier)))
        if seaward is not None:
            seas[str(glacier)] = azimuth_deg(fronts.crs, part.union_all(), seaward)
    return seas


def doubtful_sea(fronts: gpd.GeoDataFrame, lines: Lines) -> tuple[list[str], list[str]]:
    """Glaciers behind whose fronts less than half is ice, and those with centrelines whose sea nothing tells.

    A map that lacks the ice of the first may take land for their sea; centrelines of the others are not turned.
    """
    far, untold = [], []
    for glacier, part in fronts.groupby("glacier_id", sort=True):
        shapes, ice = list(part.geometry), lines.ice.get(str(glacier))
        seaward = seaward_near(shapes, ice)
        if seaward is None or ice is None:
            untold += [str(glacier)] if lines.centerlines.get(str(glacier)) else []
        elif ice_behind(shapes, ice, seaward) < LEAST_BEHIND:
            far.append(str(glacier))
    return far, untold


def glacier_gate(fronts: gpd.GeoDataFrame, lines: Lines) -> tuple[Gate | None, str, dict[str, LineString]]:
    """Gate of one glacier, given or derived, or why it has none; and its centrelines from ice to sea."""
    glacier = str(fronts["glacier_id"].iloc[0])
    seaward = seaward_near(list(fronts.geometry), lines.ice.get(glacier))
    drawn = lines.centerlines.get(glacier, {})
    centerlines = {branch: _outward(line, fronts, seaward) for branch, line in drawn.items()}
    if seaward is None:
        return None, "no_seaward", centerlines
    box, axis = lines.boxes.get(glacier), lines.axes.get(glacier)
    if box is None:
        along = next(iter(centerlines.values()), None)
        if along is None and lines.velocity is not None:
            along = _stream_line(fronts, seaward, lines.velocity)
        try:
            shapes = list(fronts.geometry)
            derived = derive_gate(shapes, seaward) if along is None else gate_along(shapes, along, seaward)
        except ValueError:
            return None, "no_box", centerlines
        # Measured as read from its file, so that the next run comes to the same positions, to the last digit.
        box, axis = derived.box, None if derived.axis is None else _line_of(_text_of(derived.axis))
    return (gate_around(box, seaward) if axis is None else gate_of(box, axis, seaward)), "", centerlines


def gates_table(gates: Sequence[tuple[Gate, gpd.GeoDataFrame, pd.DataFrame]], crs: Any) -> gpd.GeoDataFrame:  # noqa: ANN401 - a CRS
    """Make the table of boxes, each with its fronts and their positions."""
    return gpd.GeoDataFrame([_checked_gate(*one) for one in gates], columns=list(GATE_COLUMNS), crs=crs)


def _around(fronts: Sequence[BaseGeometry]) -> BaseGeometry:
    return shapely.box(*shapely.total_bounds(fronts)).buffer(REACH_M)


def _stream_line(fronts: gpd.GeoDataFrame, seaward: Vector, velocity: xr.Dataset) -> LineString:
    """Line along the flow through the middle of the fronts, as far as these and their widths reach."""
    middle = shapely.get_coordinates(fronts.geometry.centroid).mean(axis=0)
    left, bottom, right, top = fronts.total_bounds
    return stream_line(velocity, middle, seaward, float(np.hypot(right - left, top - bottom)))


def _checked_gate(gate: Gate, fronts: gpd.GeoDataFrame, positions: pd.DataFrame) -> dict[str, Any]:
    """Row of a box: what it measured, beside what the fronts swept."""
    scale = length_scale(fronts.crs, gate.box)
    of_box = positions[positions["branch"] == BOX].sort_values("datetime")
    known = of_box["position_m"].dropna()
    ends = fronts.sort_values("datetime")["key"].iloc[[0, -1]]
    first, last = (fronts.geometry[fronts["key"] == key].union_all() for key in ends)
    swept = swept_m(gate.to_flow(first), gate.to_flow(last), (1.0, 0.0)) / scale
    change = float(known.iloc[-1] - known.iloc[0]) if len(known) else float("nan")
    apart = abs(change - swept)
    return {
        "glacier_id": fronts["glacier_id"].iloc[0],
        "width_m": gate.width_m / scale,
        "seaward_deg": _seaward_deg(gate, fronts.crs),
        "fronts": len(of_box),
        "measured": len(known),
        "change_m": change,
        "swept_m": swept,
        "is_doubtful": not apart <= max(MOST_APART * max(abs(swept), abs(change)), LEAST_APART_M),
        "centerline": "" if gate.axis is None else _text_of(gate.axis),
        "geometry": gate.box,
    }


def _seaward_deg(gate: Gate, crs: Any) -> float:  # noqa: ANN401 - a CRS
    """Direction of the flow in the middle of a box, straight or bent, in degrees from north, clockwise."""
    here, ahead = (gate.centerline.interpolate(share, normalized=True) for share in (0.5, 0.51))
    return round(azimuth_deg(crs, here, (ahead.x - here.x, ahead.y - here.y)), 1)


def _outward(line: LineString, fronts: gpd.GeoDataFrame, seaward: Vector | None) -> LineString:
    """Let a centreline run from ice to sea, by its direction at the fronts; as given where nobody knows the sea."""
    if seaward is None:
        return line
    place, reach = line.project(fronts.union_all().centroid), float(fronts.length.median())
    (x, y), (x_next, y_next) = (line.interpolate(max(place + side * reach, 0)).coords[0] for side in (-1, 1))
    is_inward = (x_next - x) * seaward[0] + (y_next - y) * seaward[1] < 0
    return LineString(line.reverse().coords) if is_inward else line


def regions_of(gates: gpd.GeoDataFrame, regions: gpd.GeoDataFrame | None) -> dict[str, str]:
    """Region of each glacier: the one around, or nearest to, the middle of its box."""
    if regions is None or gates.empty:
        return {}
    middles = gates.set_geometry(gates.geometry.centroid)[["glacier_id", "geometry"]]
    near = middles.sjoin_nearest(regions.to_crs(gates.crs)[["region", "geometry"]]).drop_duplicates("glacier_id")
    return dict(zip(near["glacier_id"].astype(str), near["region"].astype(str), strict=True))


def _read_ice(path: str) -> gpd.GeoDataFrame:
    """Read polygons of ice; of the polygons of a store, which have a `kind`, those of ice alone."""
    if OCEAN_FILE.search(path):
        raise ValueError(f"{path} is named as CALFIN names files of ocean: give polygons of ice or basins")
    table = read_vectors(path, "file of ice", of="polygons")
    kinds = set(table["kind"]) if "kind" in table else set()
    if kinds == {"ocean"}:
        raise ValueError(f"{path} holds ocean alone, by its column `kind`: give polygons of ice or basins")
    return table[table["kind"] == "ice"] if kinds == {"ice", "ocean"} else table


def _rows(path: str | None, fronts: gpd.GeoDataFrame, of: Shapes) -> list[dict[str, Any]]:
    """Rows of a vector file in the CRS of the fronts, with `glacier_id`, empty where a row has none."""
    if path is None:
        return []
    what = "file of boxes" if of == "polygons" else "file of centrelines"
    table = read_vectors(path, what, of=of).to_crs(fronts.crs).explode(index_parts=False)
    column = first_column(("glacier_id",), table)
    ids = glacier_ids(table, column) if column else ""
    rows: list[dict[str, Any]] = table.assign(glacier_id=ids).to_dict("records")
    return rows


def _text_of(axis: LineString) -> str:
    """Write the bent line of a box as a file of boxes has it, to a centimetre."""
    return str(shapely.to_wkt(axis, rounding_precision=2))


def _line_of(text: str) -> LineString:
    return LineString(shapely.get_coordinates(shapely.from_wkt(text)))


def _branch_of(row: Mapping[str, Any]) -> str:
    return next((name for column in BRANCH_COLUMNS if (name := id_text(row.get(column)))), CENTER)


def free_name(name: str, taken: Container[str]) -> str:
    """Name with the first number from 2 on that makes it a new one, where it is taken."""
    return next(n for n in chain([name], (f"{name}-{k}" for k in count(2))) if n not in taken)
