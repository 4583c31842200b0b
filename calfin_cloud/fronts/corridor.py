"""A known terminus in pixels becomes a corridor: where a front may lie today, and how far along the line."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter, gaussian_filter1d
from shapely.geometry import LineString

from calfin_cloud.fronts.settings import GuideSettings

Line = NDArray[np.float64]

MOST_SMOOTH = 0.5  # of the line's length; from there on it is nearly straight
ROUND_PX = 0.7  # by which a pixel's centre may lie beyond a border


class Corridor(NamedTuple):
    """The part of a scene around a line, cut to its box; all arrays (y, x).

    `top`, `left`: first row and column in the scene; `inside`: where a front may lie; `along`: number of the nearest
    point of `line`; `away`: distance to it in px; `beyond`: px beyond its own ends, negative between them; `stretch`:
    points of the line that a pixel of the scene makes; `line`: (n, 2) x, y of points 1 px apart, carried on straight
    beyond its ends; `first`, `last`: numbers of its own ends.
    """

    top: int
    left: int
    inside: NDArray[np.bool_]
    along: NDArray[np.intp]
    away: NDArray[np.float64]
    beyond: NDArray[np.float64]
    stretch: NDArray[np.float64]
    line: Line
    first: int
    last: int


def corridor_along(line: Line, half_px: float, valid: NDArray[np.bool_], settings: GuideSettings) -> Corridor | None:
    """Lay a corridor of a half-width along a line (n, 2) x, y through a scene (y, x); None where it lies outside.

    Its ends are flat and open outwards like a fan: the line's ends lie on the walls, which may draw apart.
    """
    smooth = smoothed_line(line, half_px, settings)
    slope = float(np.tan(np.radians(settings.fan_deg)))
    reach = int(half_px * slope) + 1
    carried = carry_on(smooth, reach)
    area = LineString(carried + 0.5).buffer(half_px, cap_style="flat")
    left, top, right, bottom = (int(v) for v in (*np.floor(area.bounds[:2]), *np.ceil(area.bounds[2:])))
    shape = (bottom - top + 1, right - left + 1)
    inside = rasterize([(area, 1)], out_shape=shape, transform=Affine.translation(left, top), dtype="uint8") > 0
    number = np.full(shape, -1)
    columns, rows = np.clip(np.rint(carried.T - [[left], [top]]).astype(int), 0, [[shape[1] - 1], [shape[0] - 1]])
    number[rows[::-1], columns[::-1]] = np.arange(len(carried))[::-1]  # of several points in a pixel the first
    away, nearest = distance_transform_edt(number < 0, return_indices=True)
    along = number[tuple(nearest)]
    beyond = np.maximum(reach - along, along - (reach + len(smooth) - 1)).astype(float)
    inside &= beyond <= away * slope + ROUND_PX
    stretch = np.maximum(np.hypot(*np.gradient(gaussian_filter(along.astype(float), 1.0))), 0.5)
    rows_in, columns_in = (
        slice(max(-first, 0), max(min(n, size - first), 0))
        for first, n, size in zip((top, left), shape, valid.shape, strict=True)
    )
    cut = (rows_in, columns_in)
    top, left = top + rows_in.start, left + columns_in.start
    inside = inside[cut]
    if min(inside.shape, default=0) < 1:
        return None
    inside &= valid[top : top + inside.shape[0], left : left + inside.shape[1]]
    parts = (inside, along[cut], away[cut], beyond[cut], stretch[cut])
    return Corridor(top, left, *parts, carried, reach, reach + len(smooth) - 1)


def ends_of(corridor: Corridor, half_px: float, settings: GuideSettings) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels (n, 2) row, column of the corridor's two ends, between which a front leads.

    Where the scene or its data end before the corridor does, that is the end.
    """
    limit = corridor.away * np.tan(np.radians(settings.fan_deg))
    edge = corridor.inside & (corridor.beyond > limit - 1.2) & (corridor.away < half_px)
    middle = (corridor.first + corridor.last) / 2
    ends = [edge & (corridor.along < middle), edge & (corridor.along > middle)]
    if not all(end.any() for end in ends):
        ends = [end if end.any() else cut for end, cut in zip(ends, _cut_ends(corridor, half_px), strict=True)]
    return np.argwhere(ends[0]), np.argwhere(ends[1])


def _cut_ends(corridor: Corridor, half_px: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Border (y, x) of what is seen of a corridor, but for its long sides, in the two halves of that."""
    seen = corridor.inside & (corridor.beyond <= 0)
    if not seen.any():
        return seen, seen
    border = seen & ~binary_erosion(corridor.inside) & (corridor.away < half_px - 2)
    middle = (corridor.along[seen].min() + corridor.along[seen].max()) / 2
    return border & (corridor.along < middle), border & (corridor.along > middle)


def smoothed_line(line: Line, half_px: float, settings: GuideSettings) -> Line:
    """Points (n, 2) 1 px apart along a line, smoothed the more, the wider the corridor; its ends stay in place."""
    whole = LineString(line)
    n_points = max(int(whole.length) + 1, 3)
    points = shapely.get_coordinates(shapely.line_interpolate_point(whole, np.linspace(0, whole.length, n_points)))
    share = max(settings.smooth_share, min(settings.smooth_width * half_px / whole.length, MOST_SMOOTH))
    width = share * n_points
    beyond = int(min(n_points - 1, 4 * width))
    before = 2 * points[0] - points[beyond:0:-1]  # turned about its ends, which smoothing then leaves in place
    after = 2 * points[-1] - points[-2 : -beyond - 2 : -1]
    smooth = gaussian_filter1d(np.vstack([before, points, after]), width, axis=0)
    return np.asarray(smooth[beyond : beyond + n_points])


def carry_on(line: Line, n_points: int) -> Line:
    """Carry a line of points 1 px apart on straight beyond both ends, by so many points."""
    look = max(2, len(line) // 8)
    before, after = (
        end + np.arange(n_points, 0, -1)[:, None] * (end - inner) / max(float(np.hypot(*(end - inner))), 1e-9)
        for end, inner in ((line[0], line[look]), (line[-1], line[-1 - look]))
    )
    return np.vstack([before, line, after[::-1]])


def directions_of(line: Line) -> NDArray[np.float64]:
    """Direction (n,) in radians of each point of a line (n, 2) x, y."""
    x, y = np.gradient(line, axis=0).T
    return np.asarray(np.arctan2(y, x))
