"""Drawn coasts and fronts with known lines, for the tests of tracing."""

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from calfin_cloud.fronts import draw_line
from calfin_cloud.metrics import pixel_distances


def front_rows(width, height, *, wave=0.1):
    """Row of a wavy front in every column of an image."""
    x = np.linspace(0, 1, width)
    return height * (0.5 + wave * np.sin(5 * x) + 0.3 * wave * np.sin(19 * x))


def paint(shape, *, part=(0.2, 0.8), sigma=1.5, gap=None, wave=0.1):
    """Front, ice, and the drawn line of a scene with ocean above a wavy front, seen in a part of the columns."""
    height, width = shape
    rows = front_rows(width, height, wave=wave)
    columns = np.arange(int(part[0] * width), int(part[1] * width))
    line = draw_line(np.column_stack([np.rint(rows[columns]), columns]).astype(int), shape)
    front = 0.97 * np.exp(-0.5 * (distance_transform_edt(~line) / sigma) ** 2)
    if gap:
        front[:, gap[0] : gap[1]] = 0
    ice = gaussian_filter((np.arange(height)[:, None] > rows).astype(float), 2 * sigma)
    return front, ice, line


def drawn(trace, shape):
    lines = [draw_line(np.rint(f.line[:, ::-1]).astype(int), shape) for f in trace.fronts]
    return np.any(lines, axis=0) if lines else np.zeros(shape, dtype=bool)


def distance_px(trace, line):
    return pixel_distances(drawn(trace, line.shape), line).mean()
