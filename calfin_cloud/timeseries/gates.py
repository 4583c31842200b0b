"""Where a front's position is measured: along a centreline, or in a box across the glacier; given or derived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import affine_transform
from shapely.geometry import LineString, Point, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import substring

from calfin_cloud.timeseries.bends import bend, smooth_axis, straighten, turning_deg

MARGIN = 0.5  # a derived box or centreline reaches so many widths beyond the outermost fronts
ACROSS_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Shares of the fronts that shall reach across a derived box: the largest for which it stays wide enough.

Fronts that reach less far across are mostly those far up the fjord: a box as wide as the others would lose the retreat.
"""
INSET_M = 0.01  # a derived box is narrower than its fronts reach, or rounding would say which of them cross its sides
WIDE_ENOUGH = 0.5  # of the box for the smallest of these shares
STRIP = 0.3  # of the length of the fronts: width of the strip in which ice is sought behind them
BENT_DEG = 20.0  # a box follows a centreline that turns by more than this within it


@dataclass(frozen=True)
class Gate:
    """A box across a glacier (Moon and Joughin 2008, doi:10.1029/2007JF000927), in a projected CRS in metres.

    Attributes
    ----------
    box
        Polygon that the fronts cross from side to side.
    seaward
        Unit vector (x, y) along the flow.
    width_m
        Extent of the box across the flow.
    axis
        Bent line from ice to sea that the box follows (Lea et al. 2014, doi:10.5194/tc-8-2031-2014); None: it is
        straight.
    """

    box: Polygon
    seaward: tuple[float, float]
    width_m: float
    axis: LineString | None = None

    def to_flow(self, shape: BaseGeometry) -> BaseGeometry:
        """Bring a shape of the map to coordinates of the flow: x grows along it, y to its left."""
        return _turned([shape], self.seaward)[0] if self.axis is None else straighten(shape, self.axis)

    def to_map(self, shape: BaseGeometry) -> BaseGeometry:
        """Bring a shape in coordinates of the flow back to the map."""
        return _turned([shape], self.seaward, back=True)[0] if self.axis is None else bend(shape, self.axis)

    @cached_property
    def flow_box(self) -> BaseGeometry:
        """The box in coordinates of the flow."""
        flat = self.to_flow(self.box)
        return flat if self.axis is None else shapely.box(*flat.bounds)

    @cached_property
    def centerline(self) -> LineString:
        """Line through the middle of the box along the flow, from ice to sea."""
        left, bottom, right, top = self.flow_box.bounds
        middle = LineString([(left, (bottom + top) / 2), (right, (bottom + top) / 2)])
        return LineString(self.to_map(middle).coords)


def gate_around(box: Polygon, seaward: tuple[float, float]) -> Gate:
    """Make a gate of a box drawn by hand: the flow in it is along the side that is nearest to `seaward`."""
    corners = shapely.get_coordinates(shapely.oriented_envelope(box))
    sides = np.diff(corners[:3], axis=0)
    sides /= np.hypot(*sides.T)[:, None]
    along = sides[np.argmax(np.abs(sides @ seaward))]
    x, y = along * np.sign(along @ seaward)
    _, bottom, _, top = _turned([box], (x, y))[0].bounds
    return Gate(box, (float(x), float(y)), float(top - bottom))


def derive_gate(fronts: Sequence[BaseGeometry], seaward: tuple[float, float]) -> Gate:
    """Derive a box across the flow from a glacier's fronts, as long as all of them lie.

    It is as wide as all fronts reach, if that is at least half as wide as four fifths of them do; else a share of them
    between these. Raises `ValueError` where no band across the flow is shared by that many fronts.
    """
    bounds = shapely.bounds(_turned(fronts, seaward))
    bands = [(np.quantile(bounds[:, 1], share), np.quantile(bounds[:, 3], 1 - share)) for share in ACROSS_SHARES]
    usual = bands[-1][1] - bands[-1][0]
    if usual < 0.1 * float(np.median(bounds[:, 3] - bounds[:, 1])):
        raise ValueError(
            f"{len(fronts)} fronts share no band across the flow: give a box or a centreline for this glacier"
        )
    lower, upper = next((float(low), float(high)) for low, high in bands if high - low >= WIDE_ENOUGH * usual)
    lower, upper = lower + INSET_M, upper - INSET_M
    margin = MARGIN * (upper - lower)
    rectangle = shapely.box(bounds[:, 0].min() - margin, lower, bounds[:, 2].max() + margin, upper)
    corners = shapely.get_coordinates(_turned([rectangle], seaward, back=True)[0])
    return Gate(Polygon(corners.round(3)), seaward, upper - lower)  # to the millimetre: the same in every format


def gate_along(fronts: Sequence[BaseGeometry], centerline: LineString, seaward: tuple[float, float]) -> Gate:
    """Derive a box that follows a centreline from ice to sea, where it turns by more than 20 degrees among the fronts.

    Where it does not, or bends within less than about the width of the glacier, the box is the straight one of
    `derive_gate`.
    """
    bounds = shapely.bounds(np.array(fronts))
    width = float(np.median(np.hypot(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])))
    places = shapely.line_locate_point(centerline, shapely.centroid(np.array(fronts)))
    among = substring(centerline, max(places.min() - MARGIN * width, 0), places.max() + MARGIN * width)
    axis = smooth_axis(centerline, width) if turning_deg(among) > BENT_DEG else None
    if axis is None:
        return derive_gate(fronts, seaward)
    near = axis.buffer(2 * width, cap_style="flat")
    clipped = [line for front in fronts if not (line := front.intersection(near)).is_empty]
    flat = derive_gate([straighten(line, axis) for line in clipped], (1.0, 0.0))
    return Gate(Polygon(shapely.get_coordinates(bend(flat.box, axis))), seaward, flat.width_m, axis)


def gate_of(box: Polygon, axis: LineString, seaward: tuple[float, float]) -> Gate:
    """Make the gate of a bent box that an earlier run has derived (`gate_along`)."""
    _, bottom, _, top = straighten(box, axis).bounds
    return Gate(box, seaward, float(top - bottom), axis)


def flow_axis(fronts: Sequence[BaseGeometry]) -> NDArray[np.float64]:
    """Find the unit vector (x, y) across the mean front: the flow, up to its sign.

    The mean is over segments, weighted by length, of doubled angles, since a segment has no direction.
    """
    parts = [np.diff(shapely.get_coordinates(part), axis=0) for line in fronts for part in shapely.get_parts(line)]
    steps = np.concatenate(parts)
    lengths = np.hypot(*steps.T)
    doubled = (lengths * np.exp(2j * np.arctan2(steps[:, 1], steps[:, 0]))).sum()
    along_front = np.exp(0.5j * np.angle(doubled))
    return np.array([-along_front.imag, along_front.real])


def ice_behind(fronts: Sequence[BaseGeometry], ice: BaseGeometry, seaward: tuple[float, float]) -> float:
    """Share of ice in a strip up the flow from the middle of the fronts, as long as these and 0.3 times as wide.

    Little of it is ice where a map lacks that of the glacier: then what it has beside it, such as ice caps, may turn
    `seaward_of` around.
    """
    middle, reach = _middle_and_reach(fronts)
    strip = LineString([middle, middle - reach * np.array(seaward)]).buffer(STRIP * reach / 2, cap_style="flat")
    return float(ice.intersection(strip).area / strip.area)


def seaward_of(fronts: Sequence[BaseGeometry], ice: BaseGeometry | None) -> tuple[float, float] | None:
    """Find the unit vector (x, y) of the flow across the fronts; None where the ice does not tell where the sea lies.

    `ice` is any polygon of the glacier's ice or basin that reaches up to about the fronts.
    """
    if ice is None or ice.is_empty:
        return None
    axis = flow_axis(fronts)
    middle, reach = _middle_and_reach(fronts)
    behind, before = (ice.intersection(Point(middle + side * reach * axis).buffer(reach)).area for side in (-1, 1))
    if np.isclose(behind, before, rtol=0.05):
        return None
    x, y = axis if behind > before else -axis
    return float(x), float(y)


def _middle_and_reach(fronts: Sequence[BaseGeometry]) -> tuple[NDArray[np.float64], float]:
    """Mean middle (x, y) of fronts, and their usual length in map metres."""
    middle = np.mean([shapely.get_coordinates(line.centroid)[0] for line in fronts], axis=0)
    return middle, max(float(np.median([shapely.length(line) for line in fronts])), 1.0)


def swept_m(first: BaseGeometry, last: BaseGeometry, seaward: tuple[float, float]) -> float:
    """Mean way in map metres from one front to another along the flow: the area between them over their mean width.

    It needs no box, and so tells whether one holds what changed.
    """
    ways = [shapely.get_coordinates(line) for line in _turned([_in_order(first), _in_order(last)], seaward)]
    up, down = (way if way[0, 1] <= way[-1, 1] else way[::-1] for way in ways)
    x, y = np.concatenate([up, down[::-1], up[:1]]).T
    width = np.mean([np.ptp(way[:, 1]) for way in ways])
    return float(-np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2 / max(width, 1e-9))


def _in_order(front: BaseGeometry) -> BaseGeometry:
    """Join the parts of a front, end to nearest end."""
    parts = [shapely.get_coordinates(part) for part in shapely.get_parts(front)]
    way = parts.pop(int(np.argmax([len(part) for part in parts])))
    while parts:
        choices = [
            (np.hypot(*(way[e] - part[b])), k, e, b) for k, part in enumerate(parts) for e in (0, -1) for b in (0, -1)
        ]
        _, k, end, begin = min(choices)
        part = parts.pop(k) if begin == 0 else parts.pop(k)[::-1]
        way = np.concatenate([way, part]) if end == -1 else np.concatenate([part[::-1], way])
    return LineString(way)


def _turned(shapes: Sequence[BaseGeometry], seaward: tuple[float, float], *, back: bool = False) -> list[BaseGeometry]:
    """Turn shapes so that x grows along the flow and y to its left, or back."""
    x, y = seaward
    matrix = [x, -y, y, x, 0, 0] if back else [x, y, -y, x, 0, 0]
    return [affine_transform(shape, matrix) for shape in shapes]
