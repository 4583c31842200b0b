"""Tables of many glaciers in; figures as journals print them out: a map, coverage, regions, two products."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
import shapely
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import BoundaryNorm, LogNorm, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from pyproj import Transformer

from calfin_cloud.figures.charts import COLOURS, COUNTS, mark_counts, mark_dates, open_frame
from calfin_cloud.land import read_land
from calfin_cloud.whole_files import write_whole_file

WIDTHS_MM = {"single": 83.0, "double": 177.0}
MM = 1 / 25.4
DPI = 300
KM, SQUARE_KM = 1e3, 1e6
STYLE: dict[Any, Any] = {
    **{"font.size": 7.0, "axes.labelsize": 7.0, "axes.titlesize": 7.5, "legend.fontsize": 6.5},
    **{"xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "axes.linewidth": 0.6, "lines.linewidth": 1.0},
    **{"xtick.major.width": 0.6, "ytick.major.width": 0.6, "pdf.fonttype": 42, "figure.dpi": DPI},
}
LAND, ICE, SEA = "#d9d4c7", "#f7f7f5", "#e6eef3"
LEAST_REACH_M = 120_000.0  # around glaciers, so that one sees where they lie
LARGEST_DOT = 160.0  # points squared
SIZES_KM2 = (0.01, 0.1, 1, 10, 100, 1000)
MOST_SIZES = 4  # in the legend
FEW = 6  # fronts in a year that have a colour each
MOST_NAMED = 20  # glaciers that are named one by one where no region is known
LETTERS = 48  # in a line along the axis of a square
LINEAR_KM = 0.1  # changes below are coloured in proportion, larger ones by their logarithm


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save a figure as vectors (PDF, with text as text) and as a picture (PNG, 300 dpi)."""
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    with rc_context(STYLE):
        for path in paths:
            kind, out = path.suffix[1:], io.BytesIO()
            figure.savefig(out, format=kind, dpi=DPI, metadata={"CreationDate": None} if kind == "pdf" else None)
            write_whole_file(path, out.getvalue())
    return paths


def retreat_map(glaciers: pd.DataFrame, crs: str, *, width: str = "single", span: str = "") -> Figure:
    """Draw a dot for each glacier: its colour is how far the front went, its size how much area changed.

    Parameters
    ----------
    glaciers
        `x`, `y` in the CRS, `change_m` (positive is advance) and `area_change_m2`.
    span
        Words for the time in which the first and the last dates of all glaciers lie.
    """
    reach = max(0.08 * max(np.ptp(glaciers["x"]), np.ptp(glaciers["y"])), LEAST_REACH_M)
    window = (
        *(glaciers["x"].min() - reach, glaciers["y"].min() - reach),
        *(glaciers["x"].max() + reach, glaciers["y"].max() + reach),
    )
    height = 0.95 * (window[3] - window[1]) / (window[2] - window[0])
    below, tallest = (0.3, 1.3) if width == "single" else (0.21, 0.75)  # of the width
    with _page(width, below + float(np.clip(height, 0.4, tallest))) as figure:
        axes = figure.subplots()
        _draw_land(axes, window, crs)
        _draw_graticule(axes, window, crs)
        shown = glaciers.sort_values("area_change_m2", key=np.abs, ascending=False)  # small ones lie above
        area = shown["area_change_m2"].abs() / SQUARE_KM
        unit = LARGEST_DOT / max(float(area.max()) ** 0.5, 1e-9)
        most = max(float(shown["change_m"].abs().max()) / KM, 1.0)
        drawn = axes.scatter(
            shown["x"], shown["y"], s=2 + unit * area**0.5, c=shown["change_m"] / KM, cmap="RdBu",
            norm=SymLogNorm(LINEAR_KM, vmin=-most, vmax=most), edgecolors="0.2", linewidths=0.3, zorder=3,
        )  # fmt: skip
        bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", fraction=0.04, pad=0.015, aspect=30)
        ticks = [tick for tick in (0.1, 1, 10, 100) if tick <= most]
        bar.set_ticks([-t for t in ticks[::-1]] + [0.0, *ticks])
        bar.set_ticklabels([f"−{t:g}" for t in ticks[::-1]] + ["0"] + [f"{t:g}" for t in ticks])
        bar.ax.minorticks_off()
        when = f",\n{span}" if span else ""
        bar.set_label(f"change of the front from its first date to its last{when} [km]")
        sizes = [size for size in SIZES_KM2 if size <= 1.2 * area.max()][-MOST_SIZES:] or [SIZES_KM2[0]]
        dots = [
            Line2D([], [], ls="", marker="o", mfc="0.75", mec="0.2", mew=0.3, ms=(2 + unit * size**0.5) ** 0.5)
            for size in sizes
        ]
        # Outside, since glaciers all around a continent leave no corner free.
        figure.legend(
            dots, [f"{size:g}" for size in sizes], title="area changed [km²]", loc="outside lower center",
            ncols=len(sizes), frameon=False, handleheight=2.2,
        )  # fmt: skip
        return figure


def coverage_map(counts: pd.DataFrame, region_of: dict[str, str], *, width: str = "single") -> Figure:
    """Draw how many fronts each glacier has in each year, glaciers by region and then by how many they have.

    `counts` has the columns `glacier_id`, `year` and `fronts`.
    """
    by_year = counts.groupby(["glacier_id", "year"])["fronts"].sum().reset_index()
    by_year = by_year.pivot_table(index="glacier_id", columns="year", values="fronts", fill_value=0)
    known = by_year.columns.to_numpy(dtype=int)
    years = np.arange(known.min(), known.max() + 1)
    by_year = by_year.reindex(columns=years, fill_value=0)
    regions = pd.Series([region_of.get(str(glacier), "") for glacier in by_year.index], index=by_year.index)
    order = pd.DataFrame({"region": regions, "total": -by_year.sum(axis=1)}).sort_values(["region", "total"]).index
    grid = by_year.loc[order].to_numpy(dtype=float)
    height = min(1.6, max(0.55, 0.1 + len(order) / 150)) * (1.0 if width == "single" else 0.6)
    with _page(width, height) as figure:
        axes = figure.subplots()
        most = max(grid.max(), 2.0)
        drawn = axes.pcolormesh(
            np.arange(years[0], years[-1] + 2), np.arange(len(order) + 1),
            np.where(grid > 0, grid, np.nan), cmap="cividis_r", rasterized=len(order) > 400,
            norm=BoundaryNorm(np.arange(0.5, most + 1), 256) if most <= FEW else LogNorm(1, most),
        )  # fmt: skip
        axes.invert_yaxis()
        if (regions != "").any() or len(order) > MOST_NAMED:
            _label_groups(axes, regions[order].tolist())
        else:
            axes.set_yticks(np.arange(len(order)) + 0.5, [str(glacier) for glacier in order])
        axes.set_xlabel("year")
        every = int(np.ceil(grid.shape[1] / (6 if width == "single" else 14)))
        axes.set_xticks(years[::every] + 0.5, [str(year) for year in years[::every]])
        bar = figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02, label="fronts in a year")
        mark_counts(bar, most, range(1, FEW + 1) if most <= FEW else COUNTS)
        return figure


def region_curves(regions: pd.DataFrame, *, width: str = "single") -> Figure:
    """Draw the area that each region has changed since its first front, one above the other, with two sigma.

    `regions` is a table of `timeseries.regional_change`; all together come last.
    """
    names = sorted(set(regions["region"]) - {"all"}) + (["all"] if (regions["region"] == "all").any() else [])
    with _page(width, 0.13 + (0.24 if width == "single" else 0.13) * len(names)) as figure:
        panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for number, (axes, name) in enumerate(zip(panels, names, strict=True)):
            part = regions[regions["region"] == name]
            colour = "black" if name == "all" else COLOURS[number % len(COLOURS)]
            change, sigma = part["area_change_m2"] / SQUARE_KM, part["area_sigma_m2"] / SQUARE_KM
            axes.fill_between(part["month"], change - 2 * sigma, change + 2 * sigma, color=colour, alpha=0.3, lw=0)
            axes.plot(part["month"], change, color=colour)
            axes.axhline(0, color="0.7", lw=0.5, zorder=0)
            axes.margins(x=0.01, y=0.12)
            last = _with_sigma(change.iloc[-1], sigma.iloc[-1])
            axes.set_title(f"{name} (glaciers: {part['n'].max()}): {last} km²", color=colour, loc="right", pad=2)
            open_frame(axes, has_grid=False)
            axes.locator_params(axis="y", nbins=4)
        mark_dates(panels[-1], most=8, has_offset=False)
        panels[-1].set_xlabel("bands: ± 2 sigma, numbers: ± 1 sigma")
        figure.supylabel("change of area since\nthe first front [km²]", fontsize=7, multialignment="center")
        return figure


def product_scatter(pairs: pd.DataFrame, names: tuple[str, str], *, width: str = "single") -> Figure:
    """Draw the positions of two products in the same boxes against each other, a point a pair of fronts.

    `pairs` has `glacier_id`, `a_m` and `b_m`, less the mean position of the first product of each glacier.
    """
    with _page(width, 1.0 if width == "single" else 0.6) as figure:
        axes = figure.subplots()
        a, b = pairs["a_m"] / KM, pairs["b_m"] / KM
        ends = np.array([min(a.min(), b.min()), max(a.max(), b.max())])
        ends += np.array([-0.06, 0.06]) * max(np.ptp(ends), 0.1)
        axes.plot(ends, ends, color="0.6", lw=0.8, zorder=1)
        axes.scatter(a, b, s=8, color=COLOURS[0], alpha=0.6, linewidths=0, zorder=2)
        axes.set(xlim=ends, ylim=ends, aspect="equal")
        words = [f"{fill(name, LETTERS)}:\nposition less the glacier's mean [km]" for name in names]
        axes.set(xlabel=words[0], ylabel=words[1])
        apart = pairs["b_m"] - pairs["a_m"]
        told = (
            f"{len(pairs)} pairs, glaciers: {pairs['glacier_id'].nunique()}\n"
            f"mean of y - x: {round(apart.mean()):+d} m\nmedian of |y - x|: {apart.abs().median():.0f} m"
        )
        axes.text(0.04, 0.96, told.replace("-", "−"), transform=axes.transAxes, va="top")
        open_frame(axes, has_grid=False)
        axes.locator_params(nbins=6)
        return figure


def _with_sigma(value: float, sigma: float) -> str:
    """Write a change with its standard deviation, to its second digit that counts; alone where it is not known."""
    if not sigma > 0:  # two fronts tell of no spread
        return f"{value:+.2g}".replace("-", "−")
    places = max(0, 1 - int(np.floor(np.log10(sigma))))
    return f"{value:+.{places}f} ± {sigma:.{places}f}".replace("-", "−")


@contextmanager
def _page(width: str, height: float) -> Iterator[Figure]:
    """Open a figure as wide as a column of a journal, and as high as a share of that."""
    if width not in WIDTHS_MM:
        raise ValueError(f"a figure is {' or '.join(WIDTHS_MM)} in width, got {width!r}")
    with rc_context(STYLE):
        inches = WIDTHS_MM[width] * MM
        yield Figure(figsize=(inches, height * inches), layout="constrained")


def _draw_land(axes: Axes, window: tuple[float, float, float, float], crs: str) -> None:
    left, bottom, right, top = window
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[], facecolor=SEA)
    axes.autoscale(False)
    for kind, colour in (("land", LAND), ("ice", ICE)):
        patches = [PathPatch(_outline(polygon)) for polygon in read_land(window, crs)[kind]]
        axes.add_collection(PatchCollection(patches, facecolor=colour, edgecolor="0.55", linewidth=0.25, zorder=1))


def _outline(polygon: shapely.Polygon) -> Outline:
    rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
    return Outline.make_compound_path(*(Outline(ring, closed=True) for ring in rings))


def _draw_graticule(axes: Axes, window: tuple[float, float, float, float], crs: str) -> None:
    """Draw meridians and parallels, and name those that leave the map at the left and below."""
    to_map = Transformer.from_crs(4326, crs, always_xy=True)
    left, bottom, right, top = window
    step = 5.0 if top - bottom > 1_200_000 else 2.0 if top - bottom > 400_000 else 0.5
    box = shapely.box(*window)
    edge = shapely.segmentize(box, (right - left) / 20)
    x, y = shapely.get_coordinates(edge).T
    _, lat = to_map.transform(x, y, direction="INVERSE")
    lats = np.arange(np.ceil(lat.min() / step) * step, min(lat.max(), 89), step)
    lons = np.arange(-180, 180, 4 * step if abs(lat).max() > 70 else 2 * step)
    curves = [(f"{abs(v):g}°{'N' if v >= 0 else 'S'}", np.linspace(-180, 180, 721), np.full(721, v), 0) for v in lats]
    curves += [
        (f"{abs(v):g}°{'W' if v < 0 else 'E'}", np.full(181, v), np.linspace(lat.min(), lat.max(), 181), 1)
        for v in lons
    ]
    for name, x, y, side in curves:
        line = shapely.LineString(np.column_stack(to_map.transform(x, y)))
        for part in shapely.get_parts(line.intersection(box)):
            points = shapely.get_coordinates(part)
            if len(points) < 2:
                continue
            axes.plot(*points.T, color="0.75", lw=0.3, zorder=2)
            start = points[np.argmin(points[:, side])]
            if start[side] - window[side] < 1e-6 * (right - left):
                place: dict[str, Any] = {"ha": "right", "va": "center"} if side == 0 else {"ha": "center", "va": "top"}
                axes.annotate(
                    name,
                    start,
                    (-2, 0) if side == 0 else (0, -2),
                    textcoords="offset points",
                    fontsize=5.5,
                    color="0.35",
                    annotation_clip=False,
                    **place,
                )


def _label_groups(axes: Axes, groups: list[str]) -> None:
    """Name groups of rows at the left, with a line between them."""
    edges = [0, *(k for k in range(1, len(groups)) if groups[k] != groups[k - 1]), len(groups)]
    for edge in edges[1:-1]:
        axes.axhline(edge, color="white", lw=1.2)
        axes.axhline(edge, color="0.4", lw=0.4)
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    axes.set_yticks(middles, [f"{groups[a] or 'no region'} ({b - a})" for a, b in pairwise(edges)])
    axes.tick_params(axis="y", length=0)
