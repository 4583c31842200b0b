"""The fronts of a glacier -> where its front stands across the whole box on any day, moved between its own dates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, MultiPoint
from shapely.geometry.base import BaseGeometry

from calfin_cloud.termini import DAYS_A_YEAR
from calfin_cloud.timeseries.bridging import years_of
from calfin_cloud.timeseries.gates import Gate
from calfin_cloud.timeseries.positions import ice_in_box
from calfin_cloud.timeseries.processes import Floats

ORIGINS = ("none", "observed", "interpolated", "extrapolated")
OBSERVED_DAYS = 15.5  # half a month: a front so near to a day shows it

Bools = NDArray[np.bool_]


class Course(NamedTuple):
    """How the front of one glacier moves.

    Attributes
    ----------
    gate
        Its box.
    rows
        Middles (r,) of strips along the flow, all of one width, in m to the left of the flow.
    extents
        (t, r) float32, how far the ice of each strip reaches along the flow, in coordinates of the flow.
    origin, age_days
        (t,) of `ORIGINS`, and days to the nearest front.
    """

    gate: Gate
    rows: Floats
    extents: NDArray[np.float32]
    origin: NDArray[np.uint8]
    age_days: Floats

    def front(self, when: int) -> LineString:
        """Front at one of the days, on the map."""
        return LineString(self.gate.to_map(LineString(np.column_stack([self.extents[when], self.rows]))).coords)

    def ice_at(self, points: Floats) -> tuple[NDArray[np.intp], Floats, Bools]:
        """Find which points (n, 2) of the map are in the box, how far off its middle in widths, and ice (t, k)."""
        inside = np.flatnonzero(shapely.contains_xy(self.gate.box, *points.T))
        if not len(inside):
            return inside, np.empty(0), np.empty((len(self.extents), 0), dtype=bool)
        along, left = shapely.get_coordinates(self.gate.to_flow(MultiPoint(points[inside]))).T
        step = self.rows[1] - self.rows[0]
        row = np.clip(np.rint((left - self.rows[0]) / step).astype(int), 0, len(self.rows) - 1)
        aside = np.abs(left - self.rows.mean()) / np.ptp(self.rows)
        return inside, aside, along < self.extents[:, row]


def course_of(
    fronts: gpd.GeoDataFrame, keys: Sequence[str], gate: Gate, days: pd.DatetimeIndex, row_m: float
) -> Course:
    """Move the front of a glacier along its box, in straight lines between its dates, strip by strip.

    In a straight box the mean over the strips at the date of a front is its position (`box_position`), and their sum
    the area; in a bent one lengths are those along the axis, and nearly so. Before the first front stands the first,
    after the last the last.

    Parameters
    ----------
    fronts
        As `measure_positions` takes them.
    keys
        Those with a position in the box; at least one.
    days
        UTC.
    row_m
        Width of the strips, at most.
    """
    rows = _strips(gate, row_m)
    known = fronts[fronts["key"].isin(set(keys))]
    by_time = {
        when: np.mean([_reaches(part.geometry.union_all(), gate, rows) for _, part in same.groupby("key")], axis=0)
        for when, same in known.groupby("datetime", sort=True)
    }
    years, wanted = years_of(pd.DatetimeIndex(by_time)), years_of(days)
    lengths = np.array(list(by_time.values()))
    after = np.clip(np.searchsorted(years, wanted), 1, max(len(years) - 1, 1))
    before, after = after - 1, np.minimum(after, len(years) - 1)
    span = years[after] - years[before]
    share = np.divide(wanted - years[before], span, out=np.zeros_like(wanted), where=span > 0).clip(0, 1)[:, None]
    between = (1 - share) * lengths[before] + share * lengths[after]
    extents = np.array([np.interp(column, *strip) for column, strip in zip(between.T, _ways(gate, rows), strict=True)])
    age = np.abs(wanted[:, None] - years).min(axis=1) * DAYS_A_YEAR
    is_inside = (wanted >= years[0]) & (wanted <= years[-1])
    origin = np.select([age <= OBSERVED_DAYS, is_inside], [1, 2], 3).astype(np.uint8)
    return Course(gate, rows, extents.T.astype(np.float32), origin, age)


def _strips(gate: Gate, row_m: float) -> Floats:
    _, bottom, _, top = gate.flow_box.bounds
    count = max(int(np.ceil((top - bottom) / row_m)), 2)
    return np.asarray(bottom + (np.arange(count) + 0.5) * (top - bottom) / count)


def _lines(gate: Gate, rows: Floats) -> NDArray[np.object_]:
    """Straight lines through the box along the middles of its strips."""
    left, _, right, _ = gate.flow_box.bounds
    return np.array([LineString([(left - 1, row), (right + 1, row)]) for row in rows], dtype=object)


def _reaches(front: BaseGeometry, gate: Gate, rows: Floats) -> Floats:
    """Length of ice (r,) in each strip."""
    ice = shapely.union_all(list(ice_in_box(front, gate).ice))
    return np.asarray(shapely.length(shapely.intersection(ice, _lines(gate, rows))))


def _ways(gate: Gate, rows: Floats) -> list[tuple[Floats, Floats]]:
    """Length of box behind a place in each strip, and the place: rocks in a box are no part of it."""
    ways = []
    for line in shapely.intersection(gate.flow_box, _lines(gate, rows)):
        pieces = sorted(part.bounds[::2] for part in shapely.get_parts(line) if part.length > 0)
        ends = np.array(pieces or [(gate.flow_box.bounds[0],) * 2])
        lengths = np.cumsum(np.column_stack([np.zeros(len(ends)), np.diff(ends, axis=1)[:, 0]]).ravel())
        ways.append((lengths, ends.ravel()))
    return ways
