"""Pairs of fronts of two products in; a picture (PNG) of their distances and their bias out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from calfin_cloud.figures.charts import COLOURS, open_frame, png_of

MOST_GROUPS = 12
WIDER = 1.2  # the axis reaches so far beyond the smallest and largest distance
NUMBERS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]


def comparison_png(pairs: pd.DataFrame, *, title: str = "") -> bytes:
    """Draw how the mean distances of pairs are distributed, and how much further out the first lies, by sensor.

    Parameters
    ----------
    pairs
        Columns `common_m`, `advance_m` (NaN where unknown) and `sensor`.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_distances(left, pairs["common_m"].dropna().to_numpy())
    known = pairs.dropna(subset="advance_m")
    groups = known["sensor"].value_counts().index[:MOST_GROUPS]
    if len(groups):
        values = [known.loc[known["sensor"] == group, "advance_m"].to_numpy() for group in groups]
        labels = [f"{group} ({len(v)})" for group, v in zip(groups, values, strict=True)]
        right.boxplot(values, orientation="horizontal", tick_labels=labels, showfliers=False)
    right.axvline(0, color="black", lw=0.8)
    right.set_xlabel("first lies further out by [m]")
    open_frame(left, right, has_grid=False)
    return png_of(figure, title=title)


def _draw_distances(axes: Axes, distances: NDArray[np.float64]) -> None:
    """Draw the distribution of distances on a logarithmic axis with plain numbers, whatever their count."""
    axes.set_xlabel("mean distance of a pair, where both lines are [m]")
    axes.set_ylabel("pairs")
    if not len(distances):
        axes.text(0.5, 0.5, "no pair lies side by side", transform=axes.transAxes, ha="center")
        axes.set_axis_off()
        return
    low, high = max(float(distances.min()), 1.0) / WIDER, max(float(distances.max()), 1.0) * WIDER
    bins = np.geomspace(low, high, min(len(distances), 29) + 2).tolist()
    axes.hist(np.maximum(distances, 1.0), bins=bins, color=COLOURS[0])
    axes.set_xscale("log")
    shown = [tick for tick in NUMBERS if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])  # room for the legend
    middle = float(np.median(distances))
    axes.axvline(middle, color="black", lw=1, label=f"median of {len(distances)} pairs: {middle:.0f} m")
    axes.legend(frameon=False)
