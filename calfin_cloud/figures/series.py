"""Positions in time in; pictures (PNG) of one glacier's series and seasons, and of regional means out."""

from __future__ import annotations

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calfin_cloud.figures.charts import COLOURS, mark_dates, open_frame, png_of

MONTHS = "JFMAMJJASOND"
KILOMETRE = 1000.0
BAND = "band: two standard deviations"


def series_png(
    positions: pd.DataFrame, seasonal: pd.DataFrame, flags: pd.DataFrame, *, title: str = "", rate: str = ""
) -> bytes:
    """Draw one glacier: its change and mean year by branch, with two standard deviations; doubtful fronts are ringed.

    Parameters
    ----------
    positions, seasonal, flags
        Tables of `timeseries.relative_change`, `seasonal_cycle` and `check_series`, of one glacier.
    rate
        Words under the title, such as the rate.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    # A series that leaves a season unseen has no mean year, and its curve gets the room.
    series, season = figure.subplots(1, 2, width_ratios=(3, 1)) if len(seasonal) else (figure.subplots(), None)
    for colour, (branch, part) in zip(cycle(COLOURS), positions.groupby("branch"), strict=False):
        _draw_branch(series, part.dropna(subset="change_m"), str(branch), colour)
        if season is not None:
            _draw_season(season, seasonal[seasonal["branch"] == branch], colour)
    of_all = flags.loc[flags["branch"] == "", "key"]  # a front that is odd as a whole, whatever the branch
    pairs = pd.MultiIndex.from_frame(flags[["key", "branch"]])
    is_odd = positions["key"].isin(of_all) | pd.MultiIndex.from_frame(positions[["key", "branch"]]).isin(pairs)
    odd = positions[is_odd]
    if len(odd):
        series.plot(
            odd["datetime"], odd["change_m"] / KILOMETRE, "o", ms=9, mfc="none", mec="#d55e00", label="doubtful"
        )
    series.set_ylabel("advance since the start [km]")
    mark_dates(series)
    series.legend(frameon=False, title=BAND if positions["sigma_m"].notna().any() else None)
    if season is not None:
        season.set_ylabel("deviation from the year around [km]")
        season.set_xticks(range(1, 13), MONTHS)
        season.set_xlim(0.5, 12.5)
    panels = (series,) if season is None else (series, season)
    return _png(figure, panels, f"{title}\n{rate}" if rate else title)


def regions_png(regions: pd.DataFrame) -> bytes:
    """Draw the mean change of each region with two standard deviations, of `timeseries.regional_change`."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for colour, (region, part) in zip(cycle(COLOURS), regions.groupby("region"), strict=False):
        is_all = region == "all"
        colour = "black" if is_all else colour  # noqa: PLW2901
        label = f"{region} ({part['n'].max()})"
        axes.plot(part["month"], part["change_m"] / KILOMETRE, color=colour, lw=2 if is_all else 1.2, label=label)
        low, high = ((part["change_m"] + side * 2 * part["sigma_m"]) / KILOMETRE for side in (-1, 1))
        axes.fill_between(part["month"], low, high, color=colour, alpha=0.12, lw=0)
    axes.set_ylabel("mean advance since the start [km]")
    axes.legend(frameon=False, ncols=2, title=f"region (most glaciers)\n{BAND}")
    return _png(figure, (axes,))


def _draw_branch(axes: Axes, part: pd.DataFrame, branch: str, colour: str) -> None:
    if part.empty:
        return
    change, sigma = part["change_m"] / KILOMETRE, part["sigma_m"].fillna(0) / KILOMETRE
    axes.plot(part["datetime"], change, ".-", color=colour, lw=0.8, ms=4, label=branch)
    axes.fill_between(part["datetime"], change - 2 * sigma, change + 2 * sigma, color=colour, alpha=0.2, lw=0)


def _draw_season(axes: Axes, part: pd.DataFrame, colour: str) -> None:
    error = 2 * part["sigma_m"].fillna(0) / KILOMETRE
    axes.errorbar(part["month"], part["deviation_m"] / KILOMETRE, error, color=colour, fmt="o-", ms=4, lw=1)


def _png(figure: Figure, panels: tuple[Axes, ...], title: str = "") -> bytes:
    open_frame(*panels)
    for axes in panels:
        axes.margins(x=0.02)
    return png_of(figure, title=title)
