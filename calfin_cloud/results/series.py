"""From the fronts of a store or of any product to positions, trends and flags, glacier by glacier."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from calfin_cloud.domains import Domain, id_text
from calfin_cloud.figures.series import regions_png, series_png
from calfin_cloud.products import PRODUCT_COLUMNS, product_of
from calfin_cloud.results.reviewing import usable_fronts
from calfin_cloud.results.spreadsheets import write_csv
from calfin_cloud.storage import read_polygons, read_store_domains, write_flags
from calfin_cloud.timeseries import (
    BOX,
    POSITION_COLUMNS,
    Gate,
    break_points,
    check_fjord,
    check_series,
    derive_gate,
    flag_fronts,
    gate_along,
    gate_around,
    gate_of,
    length_scale,
    measure_positions,
    monthly_grid,
    rates,
    read_velocity,
    regional_change,
    relative_change,
    seasonal_cycle,
    seaward_of,
    stream_line,
    swept_m,
    yearly_positions,
)
from calfin_cloud.vectors import read_vectors

CENTER = "center"
BRANCH_COLUMNS = ("branch", "BranchName", "BranchID")
MOST_PICTURES = 300
GATE_COLUMNS = (
    *("glacier_id", "width_m", "fronts", "measured", "change_m", "swept_m", "is_doubtful", "centerline", "geometry"),
)
MOST_APART, LEAST_APART_M = 0.1, 200.0  # a box is doubtful where it differs by more than both from what was swept
BEYOND_BOX = 0.05  # of the side of a box, so much of a coast is kept around it
REACH_M = 30_000.0  # ice further than this from the fronts does not say where their sea lies

Vector = tuple[float, float]


class Series(NamedTuple):
    """What the fronts of many glaciers show in time; see `timeseries` for the columns of the tables."""

    positions: pd.DataFrame
    rates: pd.DataFrame
    yearly: pd.DataFrame
    seasonal: pd.DataFrame
    monthly: pd.DataFrame
    breaks: pd.DataFrame
    regions: pd.DataFrame
    flags: pd.DataFrame
    gates: gpd.GeoDataFrame


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


def store_product(store: str | Path) -> tuple[gpd.GeoDataFrame, Lines]:
    """Read the usable fronts of a store as a product, and the centrelines and ice polygons of its domains.

    Parameters
    ----------
    store
        Folder or object prefix that `calfin map` made.

    Returns
    -------
    tuple
        The fronts as `read_product` has them, and the `Lines` of the domains: centrelines, ice and fjords by
        glacier id, for `measure_series` and `compare_products`.

    Raises
    ------
    ValueError
        There is no store.

    Examples
    --------
    >>> fronts, lines = cc.store_product("fronts")
    >>> fronts["glacier_id"].tolist(), list(lines.ice)
    (['75'], ['75'])
    """
    store = str(store)
    found = usable_fronts(store, flagged=False)
    fronts = product_of(found, source=store)
    polygons = read_polygons(store).dropna(subset="geometry")
    names = dict(
        zip(found["domain"], found["glacier_id"].where(found["glacier_id"] != "", found["domain"]), strict=True)
    )
    fronts["glacier_id"] = fronts["key"].str.split("/").str[0].map(names)
    ice = polygons[polygons["kind"] == "ice"]
    by_glacier = ice.groupby(ice["domain"].map(names)).geometry
    drawn: dict[str, dict[str, LineString]] = {}
    around: dict[str, list[Domain]] = {}
    for domain in (d for d in read_store_domains(store) if d.name in names):
        around.setdefault(names[domain.name], []).append(domain)
        if domain.centerline is not None:
            own = drawn.setdefault(names[domain.name], {})
            own[_free_name(CENTER, own)] = domain.centerline
    fjords = {glacier: fjord for glacier, domains in around.items() if (fjord := _fjord_of(domains)) is not None}
    return fronts, Lines(drawn, {}, {str(g): part.union_all() for g, part in by_glacier}, fjords)


def keep_flags(store: str, fronts: gpd.GeoDataFrame, flags: pd.DataFrame) -> list[str]:
    """Keep the flags of a series with the store it was measured from; return the domains for which that is news.

    Parameters
    ----------
    fronts
        What was measured: fronts of `store_product`, or of some of its glaciers, whose domains alone are touched.
    """
    usable = usable_fronts(store, flagged=False)
    return write_flags(store, usable[usable["key"].isin(fronts["key"])], flags)


def read_lines(
    known: Lines | None = None,
    fronts: gpd.GeoDataFrame | None = None,
    *,
    centerlines: str | None = None,
    boxes: str | None = None,
    ice: str | None = None,
    velocity: str | None = None,
) -> Lines:
    """Add to what is known the centrelines, boxes, ice and velocity of files, in the CRS of the fronts.

    Centrelines and boxes belong to the glacier of their id column, those without an id to every glacier. Centrelines of
    one glacier are told apart by `BRANCH_COLUMNS`, or numbered. Of ice, such as basins, each glacier gets what lies
    within 30 km of its fronts. Boxes that an earlier run has derived along bent centrelines (its `gates.geojson`) keep
    these.
    """
    known = known or Lines()
    if fronts is None:
        return known
    glaciers = {str(g): part for g, part in fronts.groupby("glacier_id")}
    shapes, covers, axes = dict(known.boxes), dict(known.ice), dict(known.axes)
    drawn: dict[str, dict[str, LineString]] = {}
    for row in _rows(centerlines, fronts):
        for glacier in [row["glacier_id"]] if row["glacier_id"] else glaciers:
            own = drawn.setdefault(glacier, {})
            own[_free_name(_branch_of(row), own)] = LineString(row["geometry"].coords)
    lines = {g: {**known.centerlines.get(g, {}), **drawn.get(g, {})} for g in {*known.centerlines, *drawn}}
    for row in _rows(boxes, fronts):
        for glacier in [row["glacier_id"]] if row["glacier_id"] else glaciers:
            shapes[glacier] = row["geometry"]
            axes.pop(glacier, None)
            if isinstance(line := row.get("centerline"), str) and line:
                axes[glacier] = LineString(shapely.get_coordinates(shapely.from_wkt(line)))
    if ice:
        table = read_vectors(ice, "file of ice").to_crs(fronts.crs)
        for glacier, part in glaciers.items():
            near = shapely.box(*part.total_bounds).buffer(REACH_M)
            covers[glacier] = table.geometry.iloc[table.sindex.query(near, "intersects")].union_all().intersection(near)
    field = read_velocity(velocity, fronts.crs) if velocity else known.velocity
    return Lines(lines, shapes, covers, known.fjords, axes, field)


def cut_to_boxes(fronts: gpd.GeoDataFrame, boxes: str) -> gpd.GeoDataFrame:
    """Cut lines that belong to no glacier, such as coasts of a continent, to the boxes of a file that name glaciers.

    Lines are kept some way beyond the sides of a box, so that they cross it. A product that has glacier ids, or boxes
    that have none, are left as they are.
    """
    named = [row for row in _rows(boxes, fronts) if row["glacier_id"]]
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


def write_series(series: Series, fronts: gpd.GeoDataFrame, folder: Path) -> None:
    """Write the tables (CSV, gates as GeoJSON), the fronts with their flags (GeoParquet) and a picture a glacier."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("positions", "rates", "yearly", "seasonal", "monthly", "breaks", "regions", "flags"):
        write_csv(getattr(series, name), folder / f"{name}.csv")
    series.gates.to_file(folder / "gates.geojson", driver="GeoJSON")
    flag_fronts(fronts, series.flags).to_parquet(folder / "fronts.parquet", schema_version="1.1.0")
    if len(series.regions):
        (folder / "regions.png").write_bytes(regions_png(series.regions))
    for glacier, part in list(series.positions.groupby("glacier_id"))[:MOST_PICTURES]:
        mine = [table[table["glacier_id"] == glacier] for table in (series.seasonal, series.rates)]
        rate = "; ".join(f"{r.branch} {r.rate_m_a:+.0f} ± {r.rate_sigma_m_a:.0f} m/a" for r in mine[1].itertuples())
        flags = series.flags[series.flags["key"].isin(part["key"])]
        name = quote(str(glacier), safe=" ").replace(".", "%2E")
        (folder / f"series-{name}.png").write_bytes(series_png(part, mine[0], flags, title=str(glacier), rate=rate))


def measure_series(fronts: gpd.GeoDataFrame, lines: Lines, regions: gpd.GeoDataFrame | None = None) -> Series:
    """Measure the fronts of a product (`products.read_product`) in time.

    Parameters
    ----------
    fronts
        In a projected CRS in metres.
    lines
        Centrelines, boxes and ice by glacier id; a glacier without a box gets one derived from its fronts, which needs
        ice (its own, or any basin) to tell where the sea lies. The box follows the glacier's first centreline, or the
        flow of `velocity`, where that bends.
    regions
        Polygons with a column `region`; a glacier belongs to the one around, or nearest to, the middle of its gate.

    Returns
    -------
    Series
        Its `gates` have, beside the box, how many of the `fronts` were `measured` in it, the change from the first
        measured front to the last, and `swept_m`, the mean way from the first front to the last by the area between
        them, which needs no box. Where the two differ by more than a tenth and 200 m the box `is_doubtful`: it may not
        hold what changed. Written to a file, the boxes serve later runs (`read_lines(boxes=...)`), so that a new or
        redrawn front moves no other position.

    Raises
    ------
    ValueError
        The fronts are not in a projected CRS in metres.

    Examples
    --------
    >>> from calfin_cloud.results import read_lines
    >>> fronts, (mapped, lines) = cc.read_product("real/reference.parquet"), cc.store_product("fronts")
    >>> rate = cc.measure_series(fronts[::8], lines).rates.iloc[0]
    >>> bool(-1000 < rate["rate_m_a"] < -500)
    True
    """
    if not fronts.crs or not fronts.crs.is_projected:
        raise ValueError(f"positions need fronts in a projected CRS in metres, got {fronts.crs}: use to_crs(3413)")
    parts, gates = [], []
    for _, of_glacier in fronts.groupby("glacier_id", sort=True):
        gate, reason, centerlines = glacier_gate(of_glacier, lines)
        if gate is not None:
            centerlines = centerlines or {CENTER: gate.centerline}
        parts.append(
            measure_positions(of_glacier, centerlines, gate) if centerlines else _unmeasured(of_glacier, reason)
        )
        if gate is not None:
            gates.append((gate, of_glacier, parts[-1]))
    positions = relative_change(pd.concat(parts, ignore_index=True))
    boxes = gates_table(gates, fronts.crs)
    return Series(
        positions,
        rates(positions),
        yearly_positions(positions),
        seasonal_cycle(positions),
        monthly_grid(positions),
        break_points(positions),
        regional_change(positions[positions["branch"] == BOX], regions_of(boxes, regions)),
        _flags(fronts, positions, lines),
        boxes,
    )


def _fjord_of(domains: Sequence[Domain]) -> BaseGeometry | None:
    """Where the fronts of a glacier may lie: all of a domain without a boundary, if others of the glacier have one."""
    if all(d.fjord_boundary is None for d in domains):
        return None
    return shapely.union_all([d.polygon if d.fjord_boundary is None else d.fjord_boundary for d in domains])


def _rows(path: str | None, fronts: gpd.GeoDataFrame) -> list[dict[str, Any]]:
    """Rows of a vector file in the CRS of the fronts, with `glacier_id`, empty where a row has none."""
    if path is None:
        return []
    table = read_vectors(path).to_crs(fronts.crs).explode(index_parts=False)
    column = next((c for c in PRODUCT_COLUMNS["glacier_id"][:4] if c in table.columns), None)
    ids = table[column].map(id_text) if column else ""
    rows: list[dict[str, Any]] = table.assign(glacier_id=ids).to_dict("records")
    return rows


def _branch_of(row: Mapping[str, Any]) -> str:
    return next((name for column in BRANCH_COLUMNS if (name := id_text(row.get(column)))), CENTER)


def _free_name(name: str, taken: Container[str]) -> str:
    return next(n for n in chain([name], (f"{name}-{k}" for k in count(2))) if n not in taken)


def _flags(fronts: gpd.GeoDataFrame, positions: pd.DataFrame, lines: Lines) -> pd.DataFrame:
    """Objections of all checks in time, and of the fjord where it is known."""
    by_glacier = fronts.groupby("glacier_id", sort=True)
    outside = [check_fjord(part, lines.fjords[str(g)]) for g, part in by_glacier if str(g) in lines.fjords]
    found = [table for table in (check_series(positions), *outside) if len(table)]
    return pd.concat(found, ignore_index=True) if found else check_series(positions)


def _seaward(fronts: gpd.GeoDataFrame, ice: BaseGeometry | None) -> Vector | None:
    near = shapely.box(*fronts.total_bounds).buffer(REACH_M)
    return seaward_of(list(fronts.geometry), None if ice is None else ice.intersection(near))


def glacier_gate(fronts: gpd.GeoDataFrame, lines: Lines) -> tuple[Gate | None, str, dict[str, LineString]]:
    """Gate of one glacier, given or derived, or why it has none; and its centrelines from ice to sea."""
    glacier = str(fronts["glacier_id"].iloc[0])
    seaward = _seaward(fronts, lines.ice.get(glacier))
    drawn = lines.centerlines.get(glacier, {})
    centerlines = {branch: _outward(line, fronts, seaward) for branch, line in drawn.items()}
    if seaward is None:
        return None, "no_seaward", centerlines
    if (box := lines.boxes.get(glacier)) is not None:
        axis = lines.axes.get(glacier)
        return (gate_around(box, seaward) if axis is None else gate_of(box, axis, seaward)), "", centerlines
    along = next(iter(centerlines.values()), None)
    if along is None and lines.velocity is not None:
        along = _stream_line(fronts, seaward, lines.velocity)
    try:
        shapes = list(fronts.geometry)
        gate = derive_gate(shapes, seaward) if along is None else gate_along(shapes, along, seaward)
    except ValueError:
        return None, "no_box", centerlines
    return gate, "", centerlines


def gates_table(gates: Sequence[tuple[Gate, gpd.GeoDataFrame, pd.DataFrame]], crs: Any) -> gpd.GeoDataFrame:  # noqa: ANN401 - a CRS
    """Make the table of boxes, each with its fronts and their positions."""
    return gpd.GeoDataFrame([_checked_gate(*one) for one in gates], columns=list(GATE_COLUMNS), crs=crs)


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
        "fronts": len(of_box),
        "measured": len(known),
        "change_m": change,
        "swept_m": swept,
        "is_doubtful": not apart <= max(MOST_APART * max(abs(swept), abs(change)), LEAST_APART_M),
        "centerline": "" if gate.axis is None else shapely.to_wkt(gate.axis, rounding_precision=2),
        "geometry": gate.box,
    }


def _outward(line: LineString, fronts: gpd.GeoDataFrame, seaward: Vector | None) -> LineString:
    """Let a centreline run from ice to sea, by its direction at the fronts; as given where nobody knows the sea."""
    if seaward is None:
        return line
    place, reach = line.project(fronts.union_all().centroid), float(fronts.length.median())
    (x, y), (x_next, y_next) = (line.interpolate(max(place + side * reach, 0)).coords[0] for side in (-1, 1))
    is_inward = (x_next - x) * seaward[0] + (y_next - y) * seaward[1] < 0
    return LineString(line.reverse().coords) if is_inward else line


def _unmeasured(fronts: gpd.GeoDataFrame, reason: str) -> pd.DataFrame:
    """Rows of fronts that cannot be measured, so that none is lost."""
    table = fronts[["key", "glacier_id", "datetime"]].drop_duplicates("key")
    blank = dict.fromkeys(("position_m", "sigma_m", "area_m2"), np.nan)
    made: pd.DataFrame = table.assign(branch="", crossings=0, reason=reason, **blank)[list(POSITION_COLUMNS)]
    return made


def regions_of(gates: gpd.GeoDataFrame, regions: gpd.GeoDataFrame | None) -> dict[str, str]:
    """Region of each glacier: the one around, or nearest to, the middle of its box."""
    if regions is None or gates.empty:
        return {}
    middles = gates.set_geometry(gates.geometry.centroid)[["glacier_id", "geometry"]]
    near = middles.sjoin_nearest(regions.to_crs(gates.crs)[["region", "geometry"]]).drop_duplicates("glacier_id")
    return dict(zip(near["glacier_id"].astype(str), near["region"].astype(str), strict=True))
