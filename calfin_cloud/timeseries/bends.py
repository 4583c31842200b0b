"""Coordinates along a bent line: shapes of the map are straightened along it, and bent back."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from shapely.geometry import LineString
from shapely.geometry.base import BaseGeometry

STEP = 1 / 40  # of the width between points of an axis
SMOOTH = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Standard deviations of what smooths an axis, in widths: the least that leaves no tight bend is taken.

A smoothed axis cuts the corners of its fjord. What it is off there is lost of the width that all fronts share: of an S
of two arcs with a radius of two widths 14 % of the area with a half, 1 % with an eighth.
"""
TIGHTEST = 0.6  # radius of the tightest bend, in widths: sides of a box that bends more would fold over

Floats = NDArray[np.float64]


def turning_deg(line: BaseGeometry) -> float:
    """Angle in degrees between the most different directions of a line."""
    parts = [shapely.get_coordinates(part) for part in shapely.get_parts(line) if part.geom_type == "LineString"]
    headings = [np.unwrap(np.arctan2(*np.diff(part, axis=0).T[::-1])) for part in parts if len(part) > 1]
    return float(np.degrees(max((np.ptp(heading) for heading in headings), default=0.0)))


def smooth_axis(line: LineString, width_m: float) -> LineString | None:
    """Smooth a line and lead it on straight by three widths at both ends; None where it bends too tightly.

    It is smoothed no more than it takes to have no tight bend. Points lie a fortieth of the width apart, so that
    directions hardly jump from one to the next.
    """
    step = STEP * width_m
    margin = 3 * width_m
    count = max(int(np.ceil(line.length / step)), 2)
    within = shapely.get_coordinates(shapely.line_interpolate_point(line, np.linspace(0, line.length, count + 1)))
    ends = [
        _led_on(within[: max(count // 4, 2)][::-1], margin, step)[::-1],
        _led_on(within[-max(count // 4, 2) :], margin, step),
    ]
    whole = np.concatenate([ends[0], within, ends[1]])
    smoothed = (gaussian_filter1d(whole, share / STEP, axis=0, mode="nearest") for share in SMOOTH)
    return next((LineString(axis) for axis in smoothed if _tightest_m(axis) >= TIGHTEST * width_m), None)


def _tightest_m(points: Floats) -> float:
    """Radius of the tightest bend of a line through points (n, 2)."""
    headings = np.unwrap(np.arctan2(*np.diff(points, axis=0).T[::-1]))
    lengths = np.hypot(*np.diff(points, axis=0).T)
    return float((lengths[:-1] / np.maximum(np.abs(np.diff(headings)), 1e-12)).min())


def straighten(shape: BaseGeometry, axis: LineString) -> BaseGeometry:
    """Bring a shape of the map to x along an axis and y to its left, both in m; sides are cut into short pieces."""
    step = shapely.length(axis) / (shapely.get_num_coordinates(axis) - 1)
    return shapely.transform(shapely.segmentize(shape, 2 * step), lambda points: _along(points, axis))


def bend(shape: BaseGeometry, axis: LineString) -> BaseGeometry:
    """Bring a straightened shape back to the map."""
    step = shapely.length(axis) / (shapely.get_num_coordinates(axis) - 1)
    return shapely.transform(shapely.segmentize(shape, 2 * step), lambda points: _across(points, axis))


def _along(points: Floats, axis: LineString) -> Floats:
    """Distance along the axis (n,) and to its left of points (n, 2)."""
    along = np.asarray(shapely.line_locate_point(axis, shapely.points(points)))
    feet, normals = _feet(along, axis)
    return np.column_stack([along, ((points - feet) * normals).sum(axis=1)])


def _across(points: Floats, axis: LineString) -> Floats:
    """Places on the map of points (n, 2) along the axis and to its left."""
    feet, normals = _feet(points[:, 0], axis)
    return np.asarray(feet + points[:, 1:] * normals)


def _feet(along: Floats, axis: LineString) -> tuple[Floats, Floats]:
    """Points of the axis (n, 2), and unit vectors to its left."""
    corners = shapely.get_coordinates(axis)
    steps = np.diff(corners, axis=0)
    places = np.r_[0.0, np.cumsum(np.hypot(*steps.T))]
    directions = np.gradient(corners, places, axis=0)
    x, y = (np.interp(along, places, column) for column in corners.T)
    east, north = (np.interp(along, places, column) for column in directions.T)
    size = np.hypot(east, north)
    return np.column_stack([x, y]), np.column_stack([-north / size, east / size])


def _led_on(points: Floats, length: float, step: float) -> Floats:
    """Points beyond the last one, in the mean direction of the points."""
    direction = points[-1] - points[0]
    direction = direction / max(float(np.hypot(*direction)), 1e-9)
    far = np.arange(1, int(np.ceil(length / step)) + 1)[:, None] * step
    return np.asarray(points[-1] + far * direction)
