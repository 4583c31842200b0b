"""How well an edge is a front across a fjord, and no coast along it: soft weights on the front probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from calfin_cloud.fronts.settings import GuideSettings, MapWeights
from calfin_cloud.resampling import TRUNCATE, gaussian_gradient, gaussian_mean

DIRECTION_PX = 3.0  # Gaussian along a path, in pixels, through which its direction is seen
TURN_DEG = 15.0  # over which a wall's weight passes from least to full


class Wall(NamedTuple):
    """A straight piece of a fjord's wall: a point of it, its unit direction, and how far it goes either way, in px."""

    centre: NDArray[np.float64]
    along: NDArray[np.float64]
    first: float
    last: float


def edge_directions(edge: NDArray[np.floating], width_px: float) -> NDArray[np.float64]:
    """Direction (y, x), in radians from the x axis, of the ridge at each pixel of an edge probability (y, x)."""
    directions = np.full(edge.shape, np.pi / 2)  # where no edge is near
    part = _around_edges(edge, 2 * math.ceil(TRUNCATE * width_px + 1))
    down, right = gaussian_gradient(edge[part], width_px, border=cv2.BORDER_REFLECT)
    right_right, down_down, both = (gaussian_mean(a, width_px) for a in (right * right, down * down, right * down))
    directions[part] += 0.5 * np.arctan2(2 * both, right_right - down_down)
    return directions


def across_weight(
    edge: NDArray[np.floating], line: NDArray[np.floating], settings: GuideSettings
) -> NDArray[np.float64]:
    """Weight of edges of some direction beside a line of another, both in radians: full where they are parallel."""
    turned = np.degrees(np.abs((edge - line + np.pi / 2) % np.pi - np.pi / 2))
    share = (settings.across_deg - turned) / (settings.across_deg - settings.along_deg)
    return np.asarray(settings.least_weight + (1 - settings.least_weight) * np.clip(share, 0, 1))


def walls_of(lines: Sequence[NDArray[np.float64]], pixel_m: float, settings: GuideSettings) -> tuple[Wall, ...]:
    """Walls of a fjord, from the ends of termini (n, 2) x, y in px of several dates; none where they lie together."""
    walls = []
    for ends in _ends_by_side(lines):
        centre = ends.mean(axis=0)
        along = np.linalg.svd(ends - centre)[2][0]
        at = (ends - centre) @ along
        if len(ends) > 1 and np.ptp(at) * pixel_m >= settings.wall_span_m:
            beyond = settings.wall_beyond_m / pixel_m
            walls.append(Wall(centre, along, float(at.min() - beyond), float(at.max() + beyond)))
    return tuple(walls)


def wall_weight(
    path: NDArray[np.floating] | NDArray[np.intp], walls: Sequence[Wall], pixel_m: float, settings: GuideSettings
) -> NDArray[np.float64]:
    """Weight of each vertex (n, 2) x, y in px of a path: least where it follows a wall, full where it leads away."""
    weight = np.ones(len(path))
    if not walls or len(path) < 2:
        return weight
    step = np.gradient(gaussian_filter1d(np.asarray(path, dtype=float), DIRECTION_PX, axis=0, mode="nearest"), axis=0)
    step /= np.maximum(np.hypot(*step.T), 1e-9)[:, None]
    for wall in walls:
        at, off = (path - wall.centre) @ wall.along, (path - wall.centre) @ (-wall.along[1], wall.along[0])
        away = np.clip(np.abs(off) * pixel_m / settings.wall_m - 1, 0, 1)
        away[(at < wall.first) | (at > wall.last)] = 1.0
        turned = np.degrees(np.arccos(np.clip(np.abs(step @ wall.along), 0, 1)))
        leads_away = np.clip((turned - settings.wall_deg) / TURN_DEG, 0, 1)
        weight = np.minimum(weight, np.maximum(np.maximum(away, leads_away), settings.least_weight))
    return weight


def map_weight(
    ice: NDArray[np.bool_] | None, ocean: NDArray[np.bool_] | None, pixel_m: float, settings: MapWeights
) -> NDArray[np.float32] | None:
    """Weight (y, x) of an edge by maps of glacier ice and ocean (y, x) bool; None without a map of ice.

    Fronts lie near glacier ice. Out at sea they may lie too, but not where the sea meets land that is no ice.
    """
    if ice is None or not ice.any():
        return None
    distance = distance_transform_edt(~ice) * pixel_m
    share = np.clip((settings.far_m - distance) / (settings.far_m - settings.near_m), 0, 1)
    if ocean is not None and ocean.any():
        from_land = distance_transform_edt(np.pad(ocean, 1, mode="edge"))[1:-1, 1:-1] * pixel_m
        share = np.maximum(share, np.clip(from_land / settings.open_m - 1, 0, 1))
    return np.asarray(settings.least_weight + (1 - settings.least_weight) * share, dtype=np.float32)


def _around_edges(edge: NDArray[np.floating], margin: int) -> tuple[slice, slice]:
    """Find the part of an edge probability (y, x) that holds all that is above 0, with so many px around it."""
    left, top, width, height = cv2.boundingRect((edge > 0).view(np.uint8))
    return slice(max(top - margin, 0), top + height + margin), slice(max(left - margin, 0), left + width + margin)


def _ends_by_side(lines: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Sort the ends (n, 2) of lines by the side of the fjord, as the first line has them."""
    first = lines[0]
    sides: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for line in lines:
        ends = [line[0], line[-1]]
        straight = np.hypot(*(ends[0] - first[0])) + np.hypot(*(ends[1] - first[-1]))
        crossed = np.hypot(*(ends[1] - first[0])) + np.hypot(*(ends[0] - first[-1]))
        for side, end in zip(sides, ends if straight <= crossed else ends[::-1], strict=True):
            side.append(end)
    return [np.array(side) for side in sides]
