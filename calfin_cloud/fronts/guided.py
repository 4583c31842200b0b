"""The front across a corridor along a known terminus: the cheapest path through the front probability, trimmed.

The terminus says where ice meets water and how it lies across the fjord. Nothing draws the path towards it: the cost
has no term for the distance, and is counted per px of the terminus, so that all distances from it cost alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.graph import MCP_Geometric

from calfin_cloud.fronts.corridor import Corridor, corridor_along, directions_of, ends_of, smoothed_line
from calfin_cloud.fronts.evidence import Wall, across_weight, edge_directions, wall_weight, walls_of
from calfin_cloud.fronts.lines import scale_of
from calfin_cloud.fronts.settings import GuideSettings

FEWEST_PX = 4  # of a path
WIDER = 1.05  # times as much must a path of a wider corridor be worth to be taken
SEEN = 0.3  # mean probability from which on the network sees an edge beyond an end
CLEARLY = 0.6  # of its probability; an end that keeps less of it was trimmed for its direction or a wall

Floats = NDArray[np.float64]


class Guide(NamedTuple):
    """A known terminus in pixels: `line` (n, 2) x, y, those of `other_dates`; `years` since, and metres a pixel."""

    line: Floats
    other_dates: tuple[Floats, ...]
    years: float
    pixel_m: float


@dataclass(frozen=True)
class Seen:
    """The front probability of a scene (y, x), 0 where nothing is known, where that is, and the edge's directions."""

    edge: Floats
    valid: NDArray[np.bool_]
    directions: Floats


@dataclass(frozen=True)
class Judged:
    """A path across a fjord and what speaks for it.

    Attributes
    ----------
    path
        (n, 2) row, column, a pixel at every step, trimmed.
    support
        Mean of the weighted probability along it, 0 to 1.
    least
        Least probability along it.
    cover
        Share of the terminus that it lies beside.
    away_m
        Mean distance to the terminus.
    lean
        Share of its vertices on the corridor's border.
    ends
        Why it ends where it does, on either side: "corridor", "faint", "turned" or "wall".
    """

    path: NDArray[np.intp]
    support: float
    least: float
    cover: float
    away_m: float
    lean: float
    ends: tuple[str, str]

    @property
    def worth(self) -> float:
        """Support of what is covered, so that a long doubtful front compares with a short sure one."""
        return self.support * min(self.cover, 1.0) * max(1 - 5 * self.lean, 0.0)

    def is_credible(self, settings: GuideSettings) -> bool:
        """Whether it is believed."""
        return self.support >= settings.credible and self.cover >= settings.least_cover

    def is_sure(self, settings: GuideSettings) -> bool:
        """Whether no wider corridor needs to be tried."""
        return self.support >= settings.sure and self.cover >= settings.sure_cover and self.lean < settings.lean


def see(front: NDArray[np.floating], settings: GuideSettings) -> Seen:
    """Look at the front probability (y, x) of a scene, NaN = missing, once for all its guides."""
    edge = np.nan_to_num(front).astype(float)
    return Seen(edge, ~np.isnan(front), edge_directions(edge, settings.ridge_px * max(scale_of(front.shape), 1.0)))


def trace_guided(seen: Seen, guide: Guide, settings: GuideSettings) -> Judged | None:
    """Find the best path along a guide, in corridors wider and wider until one is sure; None if no edge is there.

    The caller asks whether it is credible.
    """
    walls = walls_of([guide.line, *guide.other_dates], guide.pixel_m, settings)
    best: Judged | None = None
    for half_m in widths_m(guide.years, settings):
        found = _across(seen, guide, half_m / guide.pixel_m, walls, settings)
        if found is not None and (best is None or found.worth > WIDER * best.worth):
            best = found
        if found is not None and found.is_sure(settings):
            break
    return best


def judge_line(seen: Seen, path: NDArray[np.intp], guide: Guide, settings: GuideSettings) -> Judged | None:
    """Trim any line (n, 2) row, column, a pixel at every step, and judge it by the same measure as a guided path."""
    line = smoothed_line(guide.line, 0.0, settings)
    away, along = cKDTree(line).query(path[:, ::-1])
    weight = across_weight(seen.directions[tuple(path.T)], directions_of(line)[along], settings)
    walls = walls_of([guide.line, *guide.other_dates], guide.pixel_m, settings)
    walled = wall_weight(path[:, ::-1], walls, guide.pixel_m, settings)
    way = _Way(path, seen.edge[tuple(path.T)], weight, walled, along, away, (0, len(line) - 1))
    kept = _trimmed(way, settings)
    return None if kept is None else _judged(way, kept, guide.pixel_m, np.inf)


def widths_m(years: float, settings: GuideSettings) -> list[float]:
    """Half-widths of corridors in m: as far as a front may have moved in so many years, the first in any case."""
    reach = settings.width_m + settings.rate_m * years
    tried = [settings.width_m]
    for n in range(1, settings.doublings + 1):
        if tried[-1] < reach:
            tried.append(min(settings.width_m * 2**n, reach))
    return tried


class _Way(NamedTuple):
    """A path before it is trimmed; of each of its n vertices what is measured.

    `path` (n, 2) row, column in the scene; `edge` probability; `across`, `walled` weights; `along` number of the
    nearest point of the guide; `away` distance in px; `ends` numbers of the guide's own ends.
    """

    path: NDArray[np.intp]
    edge: Floats
    across: Floats
    walled: Floats
    along: NDArray[np.intp]
    away: Floats
    ends: tuple[int, int]

    @property
    def support(self) -> Floats:
        return self.edge * self.across * self.walled

    @property
    def steps(self) -> Floats:
        """Length of each step in px; of a path of one vertex 1."""
        return np.append(np.hypot(*np.diff(self.path, axis=0).T), 1.0)

    def cover(self, part: slice) -> float:
        first, last = self.ends
        return (int(np.ptp(np.clip(self.along[part], first, last))) + 1) / (last - first + 1)


def _across(seen: Seen, guide: Guide, half_px: float, walls: Sequence[Wall], settings: GuideSettings) -> Judged | None:
    """Find the cheapest path from one end of a corridor to the other, trimmed; None where no edge is there."""
    corridor = corridor_along(guide.line, half_px, seen.valid, settings)
    if corridor is None:
        return None
    cut = tuple(
        slice(n, n + size) for n, size in zip((corridor.top, corridor.left), corridor.inside.shape, strict=True)
    )
    weight = across_weight(seen.directions[cut], directions_of(corridor.line)[corridor.along], settings)
    path = _cheapest(corridor, seen.edge[cut] * weight, half_px, settings)
    if path is None or len(path) < FEWEST_PX:
        return None
    at, in_scene = tuple(path.T), path + np.array([corridor.top, corridor.left])
    walled = wall_weight(in_scene[:, ::-1], walls, guide.pixel_m, settings)
    ends = (corridor.first, corridor.last)
    way = _Way(in_scene, seen.edge[cut][at], weight[at], walled, corridor.along[at], corridor.away[at], ends)
    kept = _trimmed(way, settings)
    if kept is None:
        return None
    return _judged(way, _with_flanks(way, kept, guide.pixel_m, settings), guide.pixel_m, half_px)


def _cheapest(corridor: Corridor, support: Floats, half_px: float, settings: GuideSettings) -> NDArray[np.intp] | None:
    starts, ends = ends_of(corridor, half_px, settings)
    if not len(starts) or not len(ends):
        return None
    cost = np.where(corridor.inside, corridor.stretch / (settings.cost + support), -1)
    paths = MCP_Geometric(cost, fully_connected=True)
    total, _ = paths.find_costs(starts, ends, find_all_ends=False)  # the first one reached is the cheapest
    if _has_rival(total, cost, ends):  # which of them is taken must not depend on when they were reached
        total, _ = paths.find_costs(starts, ends)
    end = ends[int(np.argmin(total[tuple(ends.T)]))]
    return np.array(paths.traceback(end), dtype=np.intp) if np.isfinite(total[tuple(end)]) else None


def _has_rival(total: Floats, cost: Floats, ends: NDArray[np.intp]) -> bool:
    """Whether a search that stopped at the first of some ends was a step away from another one that is as cheap."""
    reached = total[tuple(ends.T)]
    cheapest, waiting = reached.min(), ends[np.isinf(reached)] + 1
    total, cost = np.pad(total, 1, constant_values=np.inf), np.pad(cost, 1)
    for step in np.argwhere(np.ones((3, 3))) - 1:
        before = tuple((waiting + step).T)
        then = total[before] + np.hypot(*step) / 2 * (cost[before] + cost[tuple(waiting.T)])
        if np.isfinite(cheapest) and (then <= cheapest * (1 + 1e-9)).any():
            return True
    return False


def _trimmed(way: _Way, settings: GuideSettings) -> slice | None:
    """Stretch of a path whose support, less what is faint, adds up to most; None where none of it is supported."""
    gain = np.append(0.0, np.cumsum((way.support - settings.faint) * way.steps))
    before = np.minimum.accumulate(gain)
    last = int(np.argmax(gain - before))
    first = int(np.argmin(gain[: last + 1]))
    return slice(first, last) if last - first >= FEWEST_PX else None


def _with_flanks(way: _Way, kept: slice, pixel_m: float, settings: GuideSettings) -> slice:
    """Keep a flank too that the network does not see, where the rest still stands at the terminus.

    Its way through the blank runs parallel to the terminus, since no pixel there is cheaper than another.
    """
    first, last = kept.start, kept.stop
    if way.cover(kept) >= settings.sure_cover:
        return kept
    between = np.flatnonzero((way.along >= way.ends[0]) & (way.along <= way.ends[1]))
    n_guide = way.ends[1] - way.ends[0] + 1
    for rest, joint in (
        (slice(min(between[0], first), first), first),
        (slice(last, max(between[-1] + 1, last)), last - 1),
    ):
        length = way.steps[rest].sum() / n_guide
        wider = slice(min(rest.start, first), max(rest.stop, last))
        if (
            settings.flank_from <= length <= settings.flank_to
            and way.away[joint] * pixel_m <= settings.flank_m
            and np.average(way.edge[rest], weights=way.steps[rest]) <= settings.contrary
            and way.walled[rest].mean() > CLEARLY
            and np.average(way.support[wider], weights=way.steps[wider]) >= settings.credible
        ):
            first, last = wider.start, wider.stop
    return slice(first, last)


def _judged(way: _Way, kept: slice, pixel_m: float, half_px: float) -> Judged:
    steps = way.steps[kept]
    return Judged(
        way.path[kept],
        support=float(np.average(way.support[kept], weights=steps)),
        least=float(way.edge[kept].min()),
        cover=way.cover(kept),
        away_m=float(np.average(way.away[kept], weights=steps)) * pixel_m,
        lean=float((way.away[kept] > half_px - 1.5).mean()),
        ends=(_why(way, slice(0, kept.start)), _why(way, slice(kept.stop, len(way.path)))),
    )


def _why(way: _Way, rest: slice) -> str:
    """Why a path goes on no further than its rest: what weakens the edge there most."""
    if rest.stop - rest.start < FEWEST_PX:
        return "corridor"
    seen = float(way.edge[rest].sum())
    walled, across = (float((way.edge * weight)[rest].sum()) for weight in (way.walled, way.across))
    if seen < SEEN * (rest.stop - rest.start):
        return "faint"
    return "wall" if walled < min(across, CLEARLY * seen) else "turned" if across < CLEARLY * seen else "faint"
