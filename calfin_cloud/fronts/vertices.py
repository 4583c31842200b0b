"""Pixels of a front become its vertices: on the crest of the probability, smooth, on the map (calfin-method 6.5)."""

from __future__ import annotations

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from shapely.geometry import LineString

from calfin_cloud.fronts.lines import normals_of
from calfin_cloud.fronts.settings import VertexSettings
from calfin_cloud.resampling import smooth_line

DIRECTION_PX = 2.0  # of the Gaussian through which a line is seen for its direction
STEPS_PER_PX = 4  # of the probability across a line


def vertices_of(
    pixels: NDArray[np.intp], edge: NDArray[np.floating], scale: float, settings: VertexSettings
) -> NDArray[np.float64]:
    """Vertices (n, 2) x = column, y = row of pixels (n, 2) row, column; `scale` px make one of the 256 px frame."""
    line = pixels.astype(float)
    if settings.ridge_px > 0 and len(line) > 2:
        line = on_crest(smoothed(line, settings.smooth_px * scale), edge, settings.ridge_px * scale)
    line = smoothed(line, settings.smooth_px * scale)[:, ::-1]
    return line - 0.5 if settings.at_corner else line


def smoothed(line: NDArray[np.float64], window_px: float) -> NDArray[np.float64]:
    """Smooth vertices (n, 2) over so many px; shorter lines stay as they are."""
    return smooth_line(line, int(window_px) // 2 * 2 + 1)


def on_crest(line: NDArray[np.float64], edge: NDArray[np.floating], reach_px: float) -> NDArray[np.float64]:
    """Move each vertex (n, 2) row, column across the line to the centre of mass of the probability within reach."""
    across = normals_of(line, DIRECTION_PX)
    offsets = np.linspace(-reach_px, reach_px, 2 * round(reach_px * STEPS_PER_PX) + 1)
    places = line[:, None] + offsets[:, None] * across[:, None]
    sure = map_coordinates(edge, np.moveaxis(places, -1, 0), order=1, mode="nearest")
    weight = np.maximum(sure - sure.min(axis=1, keepdims=True), 0) ** 2
    shift = (weight * offsets).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-9)
    return np.asarray(line + shift[:, None] * across)


def pixels_of(line: LineString, transform: Affine) -> NDArray[np.float64]:
    """Vertices (n, 2) in pixels, x = column, y = row, of a line on the map: the other way round of `georeference`."""
    a, b, c, d, e, f, *_ = ~transform
    x, y = np.asarray(line.coords)[:, :2].T
    return np.column_stack([a * x + b * y + c, d * x + e * y + f]) - 0.5


def georeference(line: NDArray[np.floating], transform: Affine) -> LineString:
    """Map coordinates of a line (n, 2) in pixels, x = column, y = row, whose integers are pixel centres."""
    x, y = line[:, 0] + 0.5, line[:, 1] + 0.5
    a, b, c, d, e, f, *_ = transform
    return LineString(np.column_stack([a * x + b * y + c, d * x + e * y + f]))
