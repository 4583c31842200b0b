"""What charts of matplotlib share: colours, counts on a colour bar, an axis of dates, and the bytes of a PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a00")
"""Those of Okabe and Ito, which the colour-blind tell apart; black is for all together."""

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def png_of(figure: Figure, *, title: str = "", dpi: int = 110) -> bytes:
    """Bytes of a figure as PNG, under its title."""
    figure.suptitle(title)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})  # which would name a version
    return out.getvalue()


def open_frame(*panels: Axes, has_grid: bool = True) -> None:
    """Leave out the upper and right side of the frame; draw a pale grid below the data."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        if has_grid:
            axes.set_axisbelow(True)
            axes.grid(color="0.92")


def mark_counts(bar: Colorbar, most: float, counts: Iterable[int] = COUNTS) -> None:
    """Mark whole numbers up to `most` on a colour bar."""
    ticks = [count for count in counts if count <= most]
    bar.set_ticks(ticks, labels=[str(tick) for tick in ticks])
    bar.ax.minorticks_off()


def mark_dates(axes: Axes, *, most: int | None = None, has_offset: bool = True) -> None:
    """Mark dates along x in few letters, at most so many of them."""
    least = 5 if most is None else 3  # at least five and at most eight leave nothing to mark four years with
    locator = AutoDateLocator(minticks=least, maxticks=most)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=has_offset))  # type: ignore[no-untyped-call]
