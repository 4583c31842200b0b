"""Boxes around the candidates of the first pass, and the square windows of the second (calfin-method 6.4, step 1)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.fronts.settings import FRAME, WindowSettings

TAPER_PX = 16
"""A window fades into the first pass over so many pixels."""


class Window(NamedTuple):
    """A rectangle of a scene in pixels; the last row and column lie outside it."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """Part of an image (y, x[, c]) inside the window."""
        return image[self.top : self.bottom, self.left : self.right]

    def taper(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Weight of its pixels: 1 inside, falling to 0 at its border, but not where a scene (y, x) ends too."""
        ramps = []
        for first, last, n in ((self.top, self.bottom, shape[0]), (self.left, self.right, shape[1])):
            pixel = np.arange(first, last, dtype="float32")
            lower = np.full_like(pixel, np.inf) if first == 0 else pixel - first + 0.5
            upper = np.full_like(pixel, np.inf) if last == n else last - pixel - 0.5
            ramps.append(np.clip(np.minimum(lower, upper) / TAPER_PX, 0, 1))
        return np.asarray(np.minimum.outer(*ramps), dtype="float32")


def window_around(box: NDArray[np.integer], shape: tuple[int, ...], settings: WindowSettings) -> Window:
    """Square window around a box (top, bottom, left, right) of a scene (y, x), in px of the scene.

    Its side is `settings.ratio` times the longer side of the box, at least 256 px; it is moved to lie inside the scene.
    Where the scene is narrower, the window is: only that side of it, or both, if it must be a square.
    """
    top, bottom, left, right = (int(edge) for edge in box)
    rows, columns = shape[:2]
    side = max(math.ceil(settings.ratio * max(bottom - top, right - left)), FRAME)
    if settings.square:
        side = min(side, min(rows, columns) // 2 * 2)
    height, width = min(side, rows), min(side, columns)
    first_row = int(np.clip(round((top + bottom - height) / 2), 0, rows - height))
    first_column = int(np.clip(round((left + right - width) / 2), 0, columns - width))
    return Window(first_row, first_row + height, first_column, first_column + width)


def whole_box(shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Box of a whole scene (y, x)."""
    return np.array([0, shape[0], 0, shape[1]], dtype=np.int32)


def box_of(
    line: NDArray[np.floating] | NDArray[np.intp], from_shape: tuple[int, ...], to_shape: tuple[int, ...]
) -> NDArray[np.int32]:
    """Box (top, bottom, left, right) around a line (n, 2) row, column of one frame, in px of another of the scene."""
    factor = np.array([n / m for n, m in zip(to_shape[:2], from_shape[:2], strict=True)])
    low, high = np.floor(line.min(axis=0) * factor), np.ceil((line.max(axis=0) + 1) * factor)
    return np.array([low[0], high[0], low[1], high[1]], dtype=np.int32)
