"""Pairs of fronts of two products in; a picture (PNG) of their distances and their bias out."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from calfin_cloud.figures.series import COLOURS

MOST_GROUPS = 12


def comparison_png(pairs: pd.DataFrame, *, title: str = "") -> bytes:
    """Draw how the mean distances of pairs are distributed, and how much further out the first lies, by sensor.

    Parameters
    ----------
    pairs
        Columns `common_m`, `advance_m` (NaN where unknown) and `sensor`.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    distances = pairs["common_m"].dropna().to_numpy()
    bins = np.geomspace(max(distances.min(initial=1e3), 1.0), max(distances.max(initial=1.0), 2.0), 30)
    left.hist(distances, bins=bins.tolist(), color=COLOURS[0])
    left.set_xscale("log")
    left.axvline(float(np.median(distances)), color="black", lw=1, label=f"median {np.median(distances):.0f} m")
    left.set_xlabel("mean distance of a pair, where both lines are [m]")
    left.set_ylabel("pairs")
    left.legend(frameon=False)
    known = pairs.dropna(subset="advance_m")
    groups = known["sensor"].value_counts().index[:MOST_GROUPS]
    if len(groups):
        values = [known.loc[known["sensor"] == group, "advance_m"].to_numpy() for group in groups]
        labels = [f"{group} ({len(v)})" for group, v in zip(groups, values, strict=True)]
        right.boxplot(values, orientation="horizontal", tick_labels=labels, showfliers=False)
    right.axvline(0, color="black", lw=0.8)
    right.set_xlabel("first lies further out by [m]")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    return out.getvalue()
