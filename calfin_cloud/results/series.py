"""From the fronts of a store or of any product to positions, trends and flags, glacier by glacier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.geometry import LineString
from shapely.geometry.base import BaseGeometry

from calfin_cloud.domains import Domain
from calfin_cloud.figures.series import regions_png, series_png
from calfin_cloud.object_stores import store_text
from calfin_cloud.products import product_of
from calfin_cloud.results.boxes import (
    CENTER,
    Lines,
    Watch,
    check_lines,
    free_name,
    gates_table,
    glacier_gate,
    regions_of,
    unwatched,
)
from calfin_cloud.results.reviewing import usable_fronts
from calfin_cloud.results.spreadsheets import write_csv
from calfin_cloud.schema import short_name
from calfin_cloud.storage import outside_stores, read_polygons, read_store_domains, write_flags
from calfin_cloud.timeseries import (
    BOX,
    POSITION_COLUMNS,
    break_points,
    check_fjord,
    check_series,
    flag_fronts,
    measure_positions,
    monthly_grid,
    rates,
    regional_change,
    relative_change,
    seasonal_cycle,
    yearly_positions,
)
from calfin_cloud.vectors import check_metres
from calfin_cloud.whole_files import whole_file, write_whole_file

MOST_PICTURES = 300


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


class Course(NamedTuple):
    """The tables of a `Series` that a report shows; the others take as long again."""

    positions: pd.DataFrame
    rates: pd.DataFrame
    yearly: pd.DataFrame
    seasonal: pd.DataFrame
    flags: pd.DataFrame
    gates: gpd.GeoDataFrame


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
    store = store_text(store)
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
            own[free_name(CENTER, own)] = domain.centerline
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


def write_series(series: Series, fronts: gpd.GeoDataFrame, folder: Path, *, watch: Watch = unwatched) -> None:
    """Write the tables (CSV, gates as GeoPackage), the fronts with their flags (GeoParquet) and a picture a glacier.

    A glacier without a position has no picture. `watch` is that of `measure_series`.

    Raises
    ------
    ValueError
        The folder lies within a store.
    """
    outside_stores(folder).mkdir(parents=True, exist_ok=True)
    for name in ("positions", "rates", "yearly", "seasonal", "monthly", "breaks", "regions", "flags"):
        write_csv(getattr(series, name), folder / f"{name}.csv")
    with whole_file(folder / "gates.gpkg") as unfinished:
        series.gates.to_file(unfinished, driver="GPKG")
    with whole_file(folder / "fronts.parquet") as unfinished:
        flag_fronts(fronts, series.flags).to_parquet(unfinished, schema_version="1.1.0")
    if len(series.regions):
        write_whole_file(folder / "regions.png", regions_png(series.regions))
    measured = series.positions.dropna(subset="position_m")
    for glacier, part in watch("pictures drawn", list(measured.groupby("glacier_id"))[:MOST_PICTURES]):
        mine = [table[table["glacier_id"] == glacier] for table in (series.seasonal, series.rates)]
        rate = rate_words(mine[1])
        flags = series.flags[series.flags["key"].isin(part["key"])]
        name = short_name(quote(str(glacier), safe=" ").replace(".", "%2E"), of=str(glacier))
        picture = series_png(part, mine[0], flags, title=str(glacier), rate=rate)
        write_whole_file(folder / f"series-{name}.png", picture)


def rate_words(rates: pd.DataFrame) -> str:
    """Tell the rate of each branch of a glacier in words, as far as it and its standard deviation are known."""
    known = rates.dropna(subset="rate_m_a")
    told = []
    for branch, rate, sigma in zip(known["branch"], known["rate_m_a"], known["rate_sigma_m_a"], strict=True):
        error = "" if np.isnan(sigma) else f" ± {sigma:.0f}"
        told.append(f"{branch} {rate:+.0f}{error} m/a")
    return "; ".join(told)


def measure_series(
    fronts: gpd.GeoDataFrame,
    lines: Lines,
    regions: gpd.GeoDataFrame | None = None,
    *,
    watch: Watch = unwatched,
) -> Series:
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
    watch
        Called with words for a step and its parts, to give these on: `lambda what, parts: tqdm(parts, what)` is a bar.

    Returns
    -------
    Series
        Its `gates` have, beside the box, `seaward_deg`, where the ice flows in its middle (degrees from north,
        clockwise), how many of the `fronts` were `measured` in it, the change from the first measured front to the
        last, and `swept_m`, the mean way from the first front to the last by the area between them, which needs no box.
        Where the two differ by more than a tenth and 200 m the box `is_doubtful`: it may not hold what changed. Written
        to a file, the boxes serve later runs (`read_lines(boxes=...)`), so that a new or redrawn front moves no other
        position.

    Raises
    ------
    ValueError
        There are no fronts, they are not in a projected CRS in metres, or `lines` are no `Lines`.

    Examples
    --------
    >>> from calfin_cloud.results import read_lines
    >>> fronts, (mapped, lines) = cc.read_product("real/reference.parquet"), cc.store_product("fronts")
    >>> rate = cc.measure_series(fronts[::8], lines).rates.iloc[0]
    >>> bool(-1000 < rate["rate_m_a"] < -500)
    True
    """
    course = measure_course(fronts, lines, watch=watch)
    positions = course.positions
    glaciers = [part for _, part in positions.groupby("glacier_id", sort=True)]
    return Series(
        positions,
        course.rates,
        course.yearly,
        course.seasonal,
        monthly_grid(positions),
        _joined([break_points(part) for part in watch("break points sought", glaciers)]),
        regional_change(positions[positions["branch"] == BOX], regions_of(course.gates, regions)),
        course.flags,
        course.gates,
    )


def measure_course(fronts: gpd.GeoDataFrame, lines: Lines, *, watch: Watch = unwatched) -> Course:
    """Measure what a report shows of fronts in time, as `measure_series` does."""
    check_metres(fronts.crs, "a series")
    check_lines(lines)
    if fronts.empty:
        raise ValueError("got no fronts to measure: expected at least one with a line")
    parts, gates, years, seasons = [], [], [], []
    for of_glacier in watch("positions measured", [part for _, part in fronts.groupby("glacier_id", sort=True)]):
        gate, reason, centerlines = glacier_gate(of_glacier, lines)
        if gate is not None:
            centerlines = centerlines or {CENTER: gate.centerline}
        parts.append(
            measure_positions(of_glacier, centerlines, gate) if centerlines else _unmeasured(of_glacier, reason)
        )
        if gate is not None:
            gates.append((gate, of_glacier, parts[-1]))
        years.append(yearly_positions(parts[-1]))
        seasons.append(seasonal_cycle(parts[-1]))
    positions = relative_change(pd.concat(parts, ignore_index=True))
    return Course(
        positions,
        rates(positions),
        _joined(years),
        _joined(seasons),
        _flags(fronts, positions, lines),
        gates_table(gates, fronts.crs),
    )


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of all tables of the same columns; those without a row have no types that others should take."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def _fjord_of(domains: Sequence[Domain]) -> BaseGeometry | None:
    """Where the fronts of a glacier may lie: all of a domain without a boundary, if others of the glacier have one."""
    if all(d.fjord_boundary is None for d in domains):
        return None
    return shapely.union_all([d.polygon if d.fjord_boundary is None else d.fjord_boundary for d in domains])


def _flags(fronts: gpd.GeoDataFrame, positions: pd.DataFrame, lines: Lines) -> pd.DataFrame:
    """Objections of all checks in time, and of the fjord where it is known."""
    by_glacier = fronts.groupby("glacier_id", sort=True)
    outside = [check_fjord(part, lines.fjords[str(g)]) for g, part in by_glacier if str(g) in lines.fjords]
    found = [table for table in (check_series(positions), *outside) if len(table)]
    return pd.concat(found, ignore_index=True) if found else check_series(positions)


def _unmeasured(fronts: gpd.GeoDataFrame, reason: str) -> pd.DataFrame:
    """Rows of fronts that cannot be measured, so that none is lost."""
    table = fronts[["key", "glacier_id", "datetime"]].drop_duplicates("key")
    blank = dict.fromkeys(("position_m", "sigma_m", "area_m2"), np.nan)
    made: pd.DataFrame = table.assign(branch="", crossings=0, reason=reason, **blank)[list(POSITION_COLUMNS)]
    return made
