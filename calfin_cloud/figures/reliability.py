"""What was stated of fronts against what was observed goes in; one picture (PNG) comes out."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from calfin_cloud.figures.charts import open_frame, png_of
from calfin_cloud.figures.pictures import FRONT_COLOUR, REFERENCE_COLOUR
from calfin_cloud.schema import GOOD_PX

MARKS = {"68": ("o", FRONT_COLOUR), "95": ("s", REFERENCE_COLOUR)}
ROOM = 1.25  # factor left around the outermost points


def reliability_png(curve: pd.DataFrame, *, title: str = "") -> bytes:
    """Draw the half-widths and the score that were stated against those observed; on the diagonal they agree.

    Parameters
    ----------
    curve
        Columns `kind` (`68` and `95`: half-widths in px of a 256 px frame; `score`: 0 to 1), `stated`, `observed` and
        `n`, the number of cases behind a point.
    """
    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    widths, score = figure.subplots(1, 2)
    _draw_widths(widths, curve[curve["kind"].isin(list(MARKS))])
    _draw_score(score, curve[curve["kind"] == "score"])
    for axes in (widths, score):
        axes.set_aspect("equal")
    open_frame(widths, score)
    return png_of(figure, title=title, dpi=160)


def _draw_widths(axes: Axes, curve: pd.DataFrame) -> None:
    points = curve[["stated", "observed"]].to_numpy(dtype=float)
    low, high = float(points.min()) / ROOM, float(points.max()) * ROOM
    axes.plot([low, high], [low, high], color="0.6", linewidth=1)
    for kind, part in curve.groupby("kind"):
        mark, colour = MARKS[str(kind)]
        words = f"{kind} %, {part['n'].median():.0f} vertices a point"
        shade = [level / 255 for level in colour]
        axes.plot(part["stated"], part["observed"], mark, color=shade, markeredgecolor="0.2", label=words)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="stated half-width (px of a 256 px frame)", ylabel="half-width that held so many truths (px)")
    axes.legend(loc="upper left", frameon=False)


def _draw_score(axes: Axes, curve: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    words = f"{curve['n'].median():.0f} fronts a point"
    axes.plot(curve["stated"], curve["observed"], "D", color="0.35", markeredgecolor="0.2", label=words)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="score of fronts")
    axes.set_ylabel(f"share with a mean distance below {GOOD_PX:g} px")
    axes.legend(loc="upper left", frameon=False)
