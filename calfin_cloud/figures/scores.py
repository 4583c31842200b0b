"""Scenes with fronts and their reference masks go in, one contact sheet (PNG) comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calfin_cloud.figures.pictures import contact_sheet, scene_png

COLUMNS = 5
HALF_OF_NEIGHBOURS = ((0, 1), (1, -1), (1, 0), (1, 1))  # each pair of touching pixels once


class Picture(NamedTuple):
    """A scene to be drawn: caption, grey (y, x) uint8, fronts (n, 2) x, y in px, reference (y, x) bool, 1 px wide."""

    caption: str
    grey: NDArray[np.uint8]
    lines: Sequence[ArrayLike]
    reference: NDArray[np.bool_]


def scores_png(pictures: Sequence[Picture]) -> bytes:
    """Draw each scene with its fronts (amber) over its reference (blue), and lay them out on one sheet."""
    drawn = [(p.caption, scene_png(p.grey, p.lines, reference=mask_segments(p.reference))) for p in pictures]
    return contact_sheet(drawn, columns=COLUMNS)


def mask_segments(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Segments (2, 2) x, y in px between all touching pixels of a thin mask (y, x), in no order."""
    padded = np.pad(mask, 1)
    segments: list[NDArray[np.float64]] = []
    for rows, columns in HALF_OF_NEIGHBOURS:
        both = padded & np.roll(padded, (-rows, -columns), axis=(0, 1))
        starts = np.argwhere(both)[:, ::-1] - 1.0
        segments += [np.stack([start, start + np.array([columns, rows])]) for start in starts]
    return segments
