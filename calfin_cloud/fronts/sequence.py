"""Candidates of many dates in; the sequences out that the network supports best and that no ice is too slow for.

A sequence is the path of one terminus through the dates. Each is found by dynamic programming (Viterbi 1967,
doi:10.1109/TIT.1967.1054010), the best first; what it has taken is out of reach for the next one, that of a tributary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from calfin_cloud.fronts.lines import normals_of

Source = Literal["mapped", "rejected", "retraced"]

N_POINTS = 48  # of a line, evenly spaced, that stand for it
MOST_SEQUENCES = 12  # of a domain: its termini, and what is no terminus

Floats = NDArray[np.float64]
Node = tuple[int, int]
"""Date and number of a candidate."""


@dataclass(frozen=True)
class SequenceSettings:
    """What a sequence of fronts is worth.

    Attributes
    ----------
    rate_m_a_day
        No front moves faster for long: Jakobshavn, the fastest glacier, reached 46 m a day in summer (Joughin et al.
        2014, doi:10.5194/tc-8-209-2014). The longer the gap between two dates, the further a front may have come.
    noise_px
        Mean distance between two fronts, in px of a 256 px frame, that says nothing: so far do their ends differ.
    step, calving
        Price of a step that is faster, and the share of it that a retreat costs, for ice may break off at any speed but
        advances no faster than it flows. One date apart from the others needs two steps, there and back, which it is
        not worth; a step that stays, such as a collapse or a surge, needs one, and all later dates pay it.
    least
        Support that a candidate must have to be worth more than none.
    rejected
        What the support of a candidate counts that was rejected in its own scene.
    doubted
        What that of a mapped front counts which melange touches: it may be the edge of the melange. Where other dates
        have it at the same place it stays all the same.
    look_back
        Dates with candidates that a sequence may pass by.
    fewest
        Dates with a front; where there are fewer, time is no witness.
    """

    rate_m_a_day: float = 50.0
    noise_px: float = 4.0
    step: float = 0.8
    calving: float = 0.25
    least: float = 0.2
    rejected: float = 0.5
    doubted: float = 0.5
    look_back: int = 8
    fewest: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.rate_m_a_day < np.inf:
            raise ValueError(f"a front moves by more than 0 m a day, got {self.rate_m_a_day:g}: give a rate above 0")


@dataclass(frozen=True)
class Candidate:
    """One line that may be a front of a date.

    Attributes
    ----------
    line
        (n, 2) x, y in pixels.
    support
        Mean edge probability along it, 0 to 1; of a retraced one, of as much of the terminus as it covers.
    source
        Whether it was mapped, or rejected, in its own scene, or retraced along fronts of other dates.
    sea
        Which side of the line, walking along it, is the sea: 1 right of it as seen in an image, -1 left, 0 not known.
    is_doubted
        Whether melange touches it.
    """

    line: Floats
    support: float
    source: Source = "mapped"
    sea: int = 0
    is_doubted: bool = False

    def worth(self, settings: SequenceSettings) -> float:
        """Return what a sequence gains by it."""
        counts = settings.rejected if self.source == "rejected" else settings.doubted if self.is_doubted else 1.0
        return self.support * counts - settings.least

    @cached_property
    def points(self) -> Floats:
        """Points (n, 2) evenly along it."""
        at = np.append(0, np.cumsum(np.hypot(*np.diff(self.line, axis=0).T)))
        even = np.linspace(0, at[-1], N_POINTS)
        return np.column_stack([np.interp(even, at, axis) for axis in self.line.T])

    @cached_property
    def tree(self) -> cKDTree:
        """Tree of its points."""
        return cKDTree(self.points)

    def apart_px(self, other: Candidate) -> float:
        """Mean distance in px to another candidate, of the one of both that lies nearer: a piece lies at its whole."""
        there, back = self.tree.query(other.points)[0], other.tree.query(self.points)[0]
        return float(min(there.mean(), back.mean()))

    @cached_property
    def normals(self) -> Floats:
        """Unit vectors (n, 2) across the line at its points, to the right of it as seen in an image."""
        return normals_of(self.points)

    def ahead_px(self, other: Candidate) -> float:
        """Mean distance in px by which another candidate lies seaward of this one, negative: landward; 0: unknown."""
        nearest = self.tree.query(other.points)[1]
        return self.sea * float(((other.points - self.points[nearest]) * self.normals[nearest]).sum(axis=1).mean())

    def lies_at(self, other: Candidate, near_px: float) -> bool:
        """Whether most of it lies at another one."""
        return bool((other.tree.query(self.points)[0] <= near_px).mean() > 0.5)


def best_sequences(
    dates: Sequence[Sequence[Candidate]],
    days: Sequence[float],
    metres: float,
    scale: float = 1.0,
    settings: SequenceSettings | None = None,
) -> list[list[Node]]:
    """Find the termini of a place: of each its candidates through the dates, the best supported terminus first.

    Parameters
    ----------
    dates
        Candidates of each scene, in the order of time; none for a scene without any.
    days
        When that was, in days since any moment, rising. Scenes of one day share the weight of one.
    metres
        Side of a pixel on the ground.
    scale
        Pixels that make one of a 256 px frame.

    Returns
    -------
    list
        Sequences of date and number of a candidate. One whose candidates were mostly not mapped is left out: it is no
        terminus but what was rejected again and again.
    """
    settings = settings or SequenceSettings()
    near_px, apart = settings.noise_px * scale * 0.75, _Apart(dates, days, metres, settings.noise_px * scale, settings)
    free = [{n for n, c in enumerate(of_date) if c.worth(settings) > 0} for of_date in dates]
    on_day = Counter(day for day, numbers in zip(days, free, strict=True) if numbers)
    weights = [1 / max(on_day[day], 1) for day in days]  # scenes of one day are one witness
    found: list[list[Node]] = []
    for number in range(MOST_SEQUENCES):
        sequence = _best_path(dates, weights, free, apart, settings, is_first=number == 0)
        if not sequence:
            break
        for date, taken in sequence:
            chosen = dates[date][taken]
            free[date] -= {n for n in free[date] if n == taken or dates[date][n].lies_at(chosen, near_px)}
        if 2 * sum(dates[date][n].source == "mapped" for date, n in sequence) >= len(sequence):
            found.append(sequence)
    return found


@dataclass
class _Apart:
    """Prices of steps between candidates, each measured once."""

    dates: Sequence[Sequence[Candidate]]
    days: Sequence[float]
    metres: float
    noise_px: float
    settings: SequenceSettings

    def __post_init__(self) -> None:
        self.known: dict[tuple[Node, Node], float] = {}

    def price(self, before: Node, after: Node) -> float:
        """Price of going from one candidate to a later one."""
        if (before, after) not in self.known:
            old, new = self.dates[before[0]][before[1]], self.dates[after[0]][after[1]]
            away = old.apart_px(new)
            reach = max(self.settings.rate_m_a_day * (self.days[after[0]] - self.days[before[0]]), 1.0)
            share = min(max((away - self.noise_px) * self.metres / reach, 0.0), 1.0)
            is_retreat = old.ahead_px(new) < -away / 2
            self.known[before, after] = self.settings.step * share * (self.settings.calving if is_retreat else 1.0)
        return self.known[before, after]


def _best_path(
    dates: Sequence[Sequence[Candidate]],
    weights: Sequence[float],
    free: Sequence[set[int]],
    apart: _Apart,
    settings: SequenceSettings,
    *,
    is_first: bool,
) -> list[Node]:
    """Find the path through the free candidates that is worth most; empty where none is worth anything.

    A further terminus must be worth as much as an excursion of the first one, or every outlier would be one.
    """
    birth = 0.0 if is_first else (1 + settings.calving) * settings.step
    best: dict[Node, float] = {}
    before: dict[Node, Node | None] = {}
    passed: list[int] = []
    for date, numbers in enumerate(free):
        earlier = [node for old in passed[-settings.look_back :] for n in sorted(free[old]) if (node := (old, n))]
        for number in sorted(numbers):
            node = (date, number)
            ways = [(best[old] - apart.price(old, node), old) for old in earlier]
            value, way = max(ways, default=(-birth, None), key=lambda pair: pair[0])
            if value < -birth:
                value, way = -birth, None
            best[node], before[node] = value + weights[date] * dates[date][number].worth(settings), way
        if numbers:
            passed.append(date)
    end = max(best, key=lambda node: best[node], default=None)
    if end is None or best[end] <= 0:
        return []
    path: list[Node] = []
    while end is not None:
        path.append(end)
        end = before[end]
    return path[::-1]
