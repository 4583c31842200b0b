"""Fronts of a store or a product become the figures of a paper."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pandas as pd
import shapely
from matplotlib.figure import Figure

from calfin_cloud.figures.paper import coverage_map, product_scatter, region_curves, retreat_map, save_figure
from calfin_cloud.results.boxes import Lines, regions_of
from calfin_cloud.results.comparison import count_fronts
from calfin_cloud.results.series import Series, measure_course, measure_series
from calfin_cloud.storage import outside_stores
from calfin_cloud.timeseries import BOX

LEAST_PAIRS = 2


def write_figures(figures: dict[str, Figure], folder: str | Path) -> list[Path]:
    """Save figures by name, each as PDF and PNG.

    Parameters
    ----------
    figures
        Those of `paper_figures`.
    folder
        Is made where it is not there.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ValueError
        The folder lies within a store.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> [path.name for path in write_figures({"map": Figure()}, "figures")]
    ['map.pdf', 'map.png']
    """
    folder = outside_stores(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [path for name, figure in figures.items() for path in save_figure(figure, folder, name)]


def paper_figures(
    fronts: gpd.GeoDataFrame,
    lines: Lines,
    *,
    regions: gpd.GeoDataFrame | None = None,
    against: gpd.GeoDataFrame | None = None,
    names: tuple[str, str] = ("first product", "second product"),
    days: float = 30.0,
    width: str = "single",
    series: Series | None = None,
) -> dict[str, Figure]:
    """Draw the figures of a paper: `retreat_map`, `coverage`, `regions`, and `products` where there is a second one.

    Parameters
    ----------
    fronts, lines, regions
        As of `measure_series`.
    against
        Fronts of another product: pairs within so many `days`, in the boxes of the first.
    names
        What the two products are called.
    days
        Between the two fronts of a pair, at most.
    width
        `single` (83 mm) or `double` (177 mm).
    series
        What `measure_series` made of them, so that it is not measured again.

    Returns
    -------
    dict of Figure
        Figures of matplotlib by name, for `write_figures`.

    Raises
    ------
    ValueError
        No glacier has a box or two fronts in it, or the products have too few pairs.

    Examples
    --------
    >>> fronts, (mapped, lines) = cc.read_product("real/reference.parquet"), cc.store_product("fronts")
    >>> sorted(paper_figures(fronts[::20], lines))
    ['coverage', 'regions', 'retreat_map']
    """
    series = _with_change(measure_series(fronts, lines, regions) if series is None else series, len(fronts))
    crs = fronts.crs.to_string()
    glaciers = glacier_changes(series)
    first, last = (getattr(series.positions["datetime"].dt.year, end)() for end in ("min", "max"))
    made = {
        "retreat_map": retreat_map(glaciers, crs, width=width, span=f"{first} to {last}"),
        "coverage": coverage_map(count_fronts(fronts), regions_of(series.gates, regions), width=width),
        "regions": region_curves(series.regions, width=width),
    }
    if against is not None:
        pairs = _enough(paired_positions(series, against.to_crs(fronts.crs), lines, days=days), days)
        made["products"] = product_scatter(pairs, names, width=width)
    return made


def _with_change(series: Series, n_fronts: int) -> Series:
    """Return a series if it has boxes, and two fronts in one of them."""
    if series.gates.empty:
        raise ValueError("no glacier has a box: give --ice, which tells where the sea lies, or --boxes")
    if series.regions.empty:
        raise ValueError(f"got {n_fronts} fronts, but no glacier has two in its box: figures of change need more dates")
    return series


def _enough(pairs: pd.DataFrame, days: float) -> pd.DataFrame:
    if len(pairs) < LEAST_PAIRS:
        raise ValueError(
            f"the products have {len(pairs)} pairs within {days:g} days in the same boxes: take more --days"
        )
    return pairs


def glacier_changes(series: Series) -> pd.DataFrame:
    """Change of each glacier from its first front in the box to its last, in length and area, and where it lies."""
    known = series.positions[series.positions["branch"] == BOX].dropna(subset="position_m").sort_values("datetime")
    ends = known.groupby("glacier_id")[["position_m", "area_m2"]]
    change = (ends.last() - ends.first()).rename(columns={"position_m": "change_m", "area_m2": "area_change_m2"})
    middles = series.gates.set_index("glacier_id").geometry.centroid
    return change.assign(x=middles.x, y=middles.y).dropna().reset_index()


def paired_positions(series: Series, others: gpd.GeoDataFrame, lines: Lines, *, days: float) -> pd.DataFrame:
    """Measure the fronts of another product in the boxes of a series, and pair each with the nearest of it in time.

    A front belongs to every box it crosses, whatever its product calls the glacier. Columns: `glacier_id`, `datetime`,
    `a_m` of the series and `b_m` of the others, both less the mean position of the glacier in the series.
    """
    rows = [(str(row.glacier_id), row) for row in series.gates.itertuples()]
    boxes = {glacier: row.geometry for glacier, row in rows}
    axes = {glacier: shapely.from_wkt(row.centerline) for glacier, row in rows if row.centerline}
    crossed = others.drop(columns="glacier_id").sjoin(series.gates[["glacier_id", "geometry"]], predicate="intersects")
    if crossed.empty:
        return pd.DataFrame(columns=["glacier_id", "datetime", "a_m", "b_m"])
    crossed["key"] = crossed["glacier_id"] + "/" + crossed["key"]
    given = lines._replace(boxes=boxes, axes=axes, centerlines={})
    theirs = measure_course(crossed.drop(columns="index_right"), given).positions
    tables = [
        t[t["branch"] == BOX].dropna(subset="position_m").sort_values("datetime") for t in (theirs, series.positions)
    ]
    b, a = (t[["glacier_id", "datetime", "position_m"]] for t in tables)
    pairs = pd.merge_asof(
        b.rename(columns={"position_m": "b_m"}), a.rename(columns={"position_m": "a_m"}),
        on="datetime", by="glacier_id", direction="nearest", tolerance=pd.Timedelta(days=days),
    ).dropna()  # fmt: skip
    middle = pairs["glacier_id"].map(a.groupby("glacier_id")["position_m"].mean())
    return pairs.assign(a_m=pairs["a_m"] - middle, b_m=pairs["b_m"] - middle)
