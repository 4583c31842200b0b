"""How many fronts a product has, by glacier, year and quarter, in; a heat map (PNG) out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from calfin_cloud.figures.charts import mark_counts, png_of

QUARTERS = ("DJF", "MAM", "JJA", "SON")
MOST_GLACIERS = 60


def coverage_png(counts: pd.DataFrame, *, title: str = "") -> bytes:
    """Draw how many fronts each glacier has in each quarter of each year; white where it has none.

    Parameters
    ----------
    counts
        Columns `glacier_id`, `year`, `months`, `fronts`. Of more than 60 glaciers those with the most fronts are drawn.
    """
    totals = counts.groupby("glacier_id")["fronts"].sum().sort_values(ascending=False)
    shown = list(totals.index[:MOST_GLACIERS])
    years = np.arange(counts["year"].min(), counts["year"].max() + 1)
    grid = np.full((len(shown), 4 * len(years)), np.nan)
    for row in counts[counts["glacier_id"].isin(shown)].itertuples():
        grid[shown.index(row.glacier_id), 4 * (row.year - years[0]) + QUARTERS.index(row.months)] = row.fronts
    height = 1.6 + 0.16 * len(shown)
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots()
    most = max(float(np.nanmax(grid)), 2.0)
    drawn = axes.imshow(grid, aspect="auto", interpolation="none", cmap="cividis_r", norm=LogNorm(1, most))
    every = max(1, len(years) // 12)
    axes.set_xticks(np.arange(0, 4 * len(years), 4 * every) - 0.5, [str(year) for year in years[::every]])
    axes.set_yticks(range(len(shown)), [str(name) for name in shown], fontsize=7)
    axes.set_ylabel(f"glacier ({len(shown)} of {len(totals)})" if len(shown) < len(totals) else "glacier")
    axes.set_xlabel("quarters of each year: December to February, March to May, ...")
    bar = figure.colorbar(drawn, ax=axes, label="fronts", fraction=0.03, pad=0.01)
    mark_counts(bar, most)
    return png_of(figure, title=title)
