"""Fronts of all glaciers of an ice sheet become one cube of ice on a grid, month by month, and tables of area."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from calfin_cloud.domains import box_grid
from calfin_cloud.exports import cells_of, consolidate, create_composite, tiles_of, write_base, write_tile
from calfin_cloud.results.boxes import Lines, Watch, check_lines, gates_table, glacier_gate, regions_of, unwatched
from calfin_cloud.results.spreadsheets import write_csv
from calfin_cloud.storage import outside_stores
from calfin_cloud.timeseries import ORIGINS, Course, Gate, course_of, measure_positions, monthly_follow, regional_change
from calfin_cloud.vectors import check_metres
from calfin_cloud.whole_files import whole_file, whole_folder

GRID_M = {"EPSG:3031": 240.0}
OTHERS_GRID_M = 120.0
ROWS_A_CELL = 2
AREA_COLUMNS = ("by", "name", "month", "n", "area_change_m2", "area_sigma_m2")


class _Measured(NamedTuple):
    """Box of a glacier, its fronts, and their positions in it."""

    gate: Gate
    fronts: gpd.GeoDataFrame
    positions: pd.DataFrame

    @property
    def known(self) -> pd.DataFrame:
        """Positions of the fronts that cross the box."""
        return self.positions.dropna(subset="position_m")


def write_composite(
    fronts: gpd.GeoDataFrame,
    lines: Lines,
    folder: str | Path,
    *,
    grid_m: float | None = None,
    period: str | None = None,
    regions: gpd.GeoDataFrame | None = None,
    base: gpd.GeoDataFrame | None = None,
    watch: Watch = unwatched,
) -> pd.DataFrame:
    """Write the ice of all glaciers on the first of every month, and what they changed in area.

    In its box (`measure_series`) the front of each glacier moves in straight lines from one of its dates to the next,
    along the flow where the box bends; before the first and after the last it stands. A cell in two boxes belongs to
    the one nearer to its middle. Tiles are written one by one, so memory does not grow with their number.

    Parameters
    ----------
    fronts, lines, regions
        As of `measure_series`.
    folder
        Is made where it is not there.
    grid_m
        Side of a cell; 240 m in EPSG:3031, else 120 m.
    period
        First and last month, as `1985-01/2021-12`; those of the first and last front where it is not given.
    base
        Polygons of ice: what is ice outside of all boxes.
    watch
        As in `measure_series`: many glaciers take minutes.

    Returns
    -------
    DataFrame
        The table `areas.csv`: change since the first front by glacier and region (`by`), of `regional_change`. Beside
        it lie `composite.zarr`, `positions.csv` (of each glacier, with `origin` and `age_days`) and `gates.gpkg`.
        Wherever a `month` stands, the row holds for its first day.

    Raises
    ------
    ValueError
        The fronts are not in metres, no glacier has a box with a front across it, the period has no month, or the
        folder lies within a store.

    Examples
    --------
    >>> fronts, (mapped, lines) = cc.read_product("real/reference.parquet"), cc.store_product("fronts")
    >>> areas = write_composite(fronts[::20], lines, "composite")
    >>> bool(areas["area_change_m2"].iloc[-1] < 0)
    True
    """
    folder = outside_stores(folder)
    check_metres(fronts.crs, "a composite")
    check_lines(lines)
    crs = fronts.crs.to_string()
    size = grid_m or GRID_M.get(crs, OTHERS_GRID_M)
    if size <= 0:
        raise ValueError(f"cells must have a side above 0 m, got {size:g}")
    days = _days(fronts, period)
    measured = _measure(fronts, lines, watch)
    courses = {
        glacier: course_of(one.fronts, list(one.known["key"]), one.gate, days, size / ROWS_A_CELL)
        for glacier, one in measured.items()
        if len(one.known)
    }
    folder.mkdir(parents=True, exist_ok=True)
    grid = box_grid([*shapely.total_bounds([c.gate.box for c in courses.values()])], crs, size)
    with whole_folder(folder / "composite.zarr") as unfinished:
        _write_cube(unfinished, grid, days, courses, base, watch)
    return _write_tables(measured, courses, days, regions, folder)


def _measure(fronts: gpd.GeoDataFrame, lines: Lines, watch: Watch) -> dict[str, _Measured]:
    """Box, fronts and positions in it of each glacier that has a box; `ValueError` where no front is across one."""
    measured = {}
    for glacier, part in watch("glaciers measured", list(fronts.groupby("glacier_id", sort=True))):
        gate = glacier_gate(part, lines)[0]
        if gate is not None:
            measured[str(glacier)] = _Measured(gate, part, measure_positions(part, None, gate))
    if not any(len(one.known) for one in measured.values()):
        raise ValueError(
            "no glacier has a box with a front across it: give --ice, which tells where the sea lies, or --boxes"
        )
    return measured


def _days(fronts: gpd.GeoDataFrame, period: str | None) -> pd.DatetimeIndex:
    """First days of the months from one to another, UTC."""
    first, last = fronts["datetime"].min(), fronts["datetime"].max() + pd.offsets.MonthBegin(1)
    if period is not None:
        try:
            first, last = (pd.to_datetime(part, format="%Y-%m", utc=True) for part in period.split("/"))
        except ValueError:  # a year alone would be its January
            raise ValueError(f"a period is FIRST/LAST month, as 1985-01/2021-12, got {period!r}") from None
    days = pd.date_range(first.normalize().replace(day=1), last.normalize(), freq="MS")
    if days.empty:
        raise ValueError(f"the period {period!r} holds no month: the first comes after the last")
    return days


def _write_cube(
    path: Path,
    grid: GeoBox,
    days: pd.DatetimeIndex,
    courses: dict[str, Course],
    base: gpd.GeoDataFrame | None,
    watch: Watch,
) -> None:
    group = create_composite(path, grid, days, list(courses), ORIGINS)
    if base is not None:
        write_base(group, grid, base.to_crs(str(grid.crs)).geometry)
    in_order = list(courses.values())
    for window, numbers in watch("tiles written", list(tiles_of(grid, [course.gate.box for course in in_order]))):
        _write_tile(group, grid, window, [(number, in_order[number]) for number in numbers], len(days))
    consolidate(path)


def _write_tile(
    group: zarr.Group, grid: GeoBox, window: tuple[slice, slice], courses: Sequence[tuple[int, Course]], n_days: int
) -> None:
    """Write one tile, where any of its cells lies in a box."""
    cells = cells_of(grid, window)
    glacier, nearest = np.full(len(cells), -1, dtype=np.int16), np.full(len(cells), np.inf)
    values: dict[str, NDArray[Any]] = {
        "ice": np.full((n_days, len(cells)), 255, dtype=np.uint8),
        "origin": np.zeros((n_days, len(cells)), dtype=np.uint8),
        "age": np.full((n_days, len(cells)), 65535, dtype=np.uint16),
    }
    for number, course in courses:
        inside, aside, ice = course.ice_at(cells)
        wins = aside < nearest[inside]
        mine = inside[wins]
        glacier[mine], nearest[mine] = number, aside[wins]
        values["ice"][:, mine] = ice[:, wins]
        values["origin"][:, mine] = course.origin[:, None]
        values["age"][:, mine] = np.minimum(np.rint(course.age_days), 65534).astype(np.uint16)[:, None]
    if (glacier >= 0).any():
        write_tile(group, window, values | {"glacier": glacier})


def _write_tables(
    measured: dict[str, _Measured],
    courses: dict[str, Course],
    days: pd.DatetimeIndex,
    regions: gpd.GeoDataFrame | None,
    folder: Path,
) -> pd.DataFrame:
    """Write boxes, monthly positions and areas; return the areas."""
    boxes = gates_table(list(measured.values()), next(iter(measured.values())).fronts.crs)
    with whole_file(folder / "gates.gpkg") as unfinished:
        boxes.to_file(unfinished, driver="GPKG")
    tables = [one.positions for glacier, one in measured.items() if glacier in courses]
    positions = pd.concat(tables, ignore_index=True).dropna(subset="position_m")
    write_csv(_monthly(positions, courses, days), folder / "positions.csv")
    areas = _areas(positions, regions_of(boxes, regions))
    write_csv(areas, folder / "areas.csv")
    return areas


def _monthly(positions: pd.DataFrame, courses: dict[str, Course], days: pd.DatetimeIndex) -> pd.DataFrame:
    """Position of every glacier on the first of every month, with where it is from."""
    table = monthly_follow(positions, days)
    names = np.array(ORIGINS)
    told = [
        pd.DataFrame({"glacier_id": g, "month": days, "origin": names[c.origin], "age_days": c.age_days.round(1)})
        for g, c in courses.items()
    ]
    merged = table.merge(pd.concat(told), on=["glacier_id", "month"])
    merged["sigma_m"] = merged["sigma_m"].where(merged["origin"] != "extrapolated")
    return merged


def _areas(positions: pd.DataFrame, region_of: dict[str, str]) -> pd.DataFrame:
    """Change of area of each glacier, of each region, and of all."""
    own = regional_change(positions, {g: g for g in positions["glacier_id"].unique()}, whole=None).assign(by="glacier")
    both = pd.concat([own, regional_change(positions, region_of).assign(by="region")], ignore_index=True)
    return both.rename(columns={"region": "name"})[list(AREA_COLUMNS)]
