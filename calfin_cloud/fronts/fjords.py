"""Where a front may lie, told from the scenes themselves: no hand-made fjord mask (calfin-method 1.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString

from calfin_cloud.fronts.lines import scale_of
from calfin_cloud.resampling import burn, touched_parts

REACH_PX = 24.0  # of a 256 px frame, up and down the fjord from a front
MIN_SHARE = 0.1  # of the dates
FEWEST_DATES = 5
"""Fewer dates than these do not tell a wall from a glacier that did not move."""

Scene = tuple[NDArray[np.floating], Sequence[NDArray[np.floating]]]


def fjord_from_scenes(
    scenes: Iterable[Scene], *, glacier: NDArray[np.bool_] | None = None, min_share: float = MIN_SHARE
) -> NDArray[np.bool_] | None:
    """Tell where fronts may lie from many dates of one domain: (y, x) bool, None without any front.

    Walls are what never changes: land or ice in nearly all dates, and not beside a front. So a pixel belongs to the
    fjord if it is open water, or lies straight up- or downstream of a front, in at least `min_share` of the dates.
    Waters that no front reaches are left out. With a single date this is the fjord as that scene shows it.

    Parameters
    ----------
    scenes
        Of each date the ice mask (y, x), NaN = missing, and its fronts (n, 2) x = column, y = row.
    glacier
        (y, x) bool, True where a map shows glacier ice: it belongs to the fjord too, so that all other land is wall.
    """
    counts = None
    n_dates = 0
    for ice, lines in scenes:
        known = ~np.isnan(ice)
        one = np.stack([known, ice < 0.5, beside_fronts(lines, ice.shape)])
        counts = one.astype(np.int32) if counts is None else counts + one
        n_dates += bool(lines)
    if counts is None or not counts[2].any():
        return None
    seen, open_water, beside = counts
    swept = beside >= max(min_share * n_dates, 1)
    if glacier is not None:
        swept |= glacier
    fjord = swept | (open_water >= np.maximum(min_share * seen, 1))
    return touched_parts(fjord, swept)


def beside_fronts(lines: Sequence[NDArray[np.floating]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels (y, x) straight up- or downstream of fronts (n, 2) x, y; nothing beyond their ends."""
    reach = REACH_PX * scale_of(shape)
    bands = [LineString(line + 0.5).buffer(reach, cap_style="flat") for line in lines if len(line) > 1]
    return burn(bands, np.ones(len(bands)), shape) > 0
