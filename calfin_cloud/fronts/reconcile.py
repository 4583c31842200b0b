"""Scenes of many dates at one place in; what of each is its fronts when all dates are asked, and why, out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.fronts.found import Front
from calfin_cloud.fronts.guided import Guide, Judged, see, trace_guided
from calfin_cloud.fronts.lines import scale_of
from calfin_cloud.fronts.placed import front_of
from calfin_cloud.fronts.sequence import Candidate, Node, SequenceSettings, Source, best_sequences
from calfin_cloud.fronts.settings import DEFAULT, GuideSettings, TraceSettings
from calfin_cloud.termini import DAYS_A_YEAR

ACROSS_PX = 4.0  # to both sides of a line, where the ice mask tells the sea from the ice
LEAST_STEP = 0.1  # of its mean between them

Choice = Literal["kept", "restored", "retraced", "dropped"]


@dataclass(frozen=True)
class Dated:
    """One scene of a place.

    Attributes
    ----------
    when
        Its day.
    fronts, rejected
        Lines (n, 2) x, y in px of its mapped fronts, and of the candidates that were rejected.
    is_settled
        Whether a person has said what its fronts are: they stay, and others follow them.
    is_doubted
        Whether melange touches its mapped fronts (`SequenceSettings.doubted`).
    """

    when: date
    fronts: Sequence[NDArray[np.float64]]
    rejected: Sequence[NDArray[np.float64]] = ()
    is_settled: bool = False
    is_doubted: bool = False


@dataclass(frozen=True)
class Chosen:
    """What becomes of one line of a scene, and why.

    Attributes
    ----------
    choice
        A mapped front is kept or dropped; a rejected candidate is restored; a front is retraced along those of other
        dates where its own scene had none.
    number
        Of the mapped front or of the rejected candidate; -1 of one that is retraced.
    front
        The front; None of one that is dropped.
    why
        In words, with what was measured.
    """

    choice: Choice
    number: int
    front: Front | None
    why: str


def reconcile_scenes(
    scenes: Sequence[Dated],
    read_masks: Callable[[int], NDArray[np.floating]],
    metres: float,
    *,
    settings: SequenceSettings | None = None,
    trace: TraceSettings = DEFAULT,
) -> list[list[Chosen]]:
    """Choose the fronts of scenes of one place that all dates together support; no network is needed.

    First the sequences of each terminus are found among all candidates; then dates that a sequence passes by are traced
    anew, guided by its fronts before and after as by known termini; then the sequences are found once more.

    Parameters
    ----------
    scenes
        In the order of time, all on one grid.
    read_masks
        Gives the masks (mask, y, x) of a scene by its place in the list, probabilities of front and ice, NaN = missing.
    metres
        Side of a pixel on the ground.

    Returns
    -------
    list
        Of each scene what becomes of its lines: all its mapped fronts, and those that come in. With fewer dates with a
        front than `SequenceSettings.fewest` all are kept.
    """
    settings = settings or SequenceSettings()
    if len({scene.when for scene in scenes if len(scene.fronts) > 0}) < settings.fewest:
        return [[_kept(scene, n, "too few dates") for n in range(len(scene.fronts))] for scene in scenes]
    masks = _Masks(read_masks)
    days = [float(scene.when.toordinal()) for scene in scenes]
    dates = [_candidates(scene, masks, n) for n, scene in enumerate(scenes)]
    scale = masks.scale
    guided: dict[Node, tuple[Front, str]] = {}
    near_px = 2 * settings.noise_px * scale
    sequences = best_sequences(dates, days, metres, scale, settings)
    for n, scene in enumerate(scenes):
        passed_by = [sequence for sequence in sequences if n not in dict(sequence)]
        for sequence in [] if scene.is_settled else passed_by:
            near = [(scenes[m].when, dates[m][k]) for m, k in _beside(sequence, n)]
            if made := _retraced(masks(n), scene.when, near, metres, trace):
                again = _candidate(made[0].line, "retraced", masks(n))
                if not any(again.lies_at(mapped, near_px) for mapped in dates[n][: len(scene.fronts)]):
                    dates[n].append(replace(again, support=made[0].confidence))
                    guided[n, len(dates[n]) - 1] = made
    sequences = best_sequences(dates, days, metres, scale, settings)
    found = _Found(scenes, dates, sequences, guided, metres, near_px)
    return [_chosen(n, found) for n in range(len(scenes))]


class _Masks:
    """Masks of scenes, read when they are asked for, the last ones kept."""

    def __init__(self, read: Callable[[int], NDArray[np.floating]]) -> None:
        self._read = read
        self._last: tuple[int, NDArray[np.floating]] | None = None
        self.scale = 1.0

    def __call__(self, number: int) -> NDArray[np.floating]:
        if self._last is None or self._last[0] != number:
            self._last = (number, self._read(number))
            self.scale = scale_of(self._last[1].shape[1:])
        return self._last[1]


def _candidates(scene: Dated, masks: _Masks, number: int) -> list[Candidate]:
    """Candidates of a scene; those that a person left are sure."""
    lines = [(line, "mapped") for line in scene.fronts] + [(line, "rejected") for line in scene.rejected]
    made = [_candidate(line, source, masks(number)) for line, source in lines]  # type: ignore[arg-type]
    if scene.is_settled:
        return [replace(candidate, support=1.0) for candidate in made]
    return [replace(candidate, is_doubted=scene.is_doubted) for candidate in made]


def _candidate(line: NDArray[np.float64], source: Source, masks: NDArray[np.floating]) -> Candidate:
    """Measure the mean edge probability along a line, and on which side of it the ice mask ends."""
    bare = Candidate(line, 0.0, source)
    edge, right, left = (
        float(_at(mask, bare.points + shift * bare.normals).mean())
        for mask, shift in ((masks[0], 0.0), (masks[1], ACROSS_PX), (masks[1], -ACROSS_PX))
    )
    sea = 0 if abs(right - left) < LEAST_STEP else 1 if right < left else -1
    return replace(bare, support=edge, sea=sea)


def _at(mask: NDArray[np.floating], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of a mask (y, x) at points (n, 2) x, y."""
    at = np.clip(np.rint(points[:, ::-1]), 0, np.array(mask.shape) - 1).astype(np.intp)
    return np.asarray(np.nan_to_num(mask[tuple(at.T)]), dtype=np.float64)


def _beside(sequence: Sequence[Node], number: int) -> list[Node]:
    """Nodes of a sequence just before and just after a date that it passes by."""
    before, after = [node for node in sequence if node[0] < number], [node for node in sequence if node[0] > number]
    return [*before[-1:], *after[:1]]


def _retraced(
    masks: NDArray[np.floating],
    when: date,
    near: Sequence[tuple[date, Candidate]],
    metres: float,
    trace: TraceSettings,
) -> tuple[Front, str] | None:
    """Find the best credible front along those of other dates, and say along which; None where there is none."""
    guide = trace.guide or GuideSettings()
    seen, best, along = see(masks[0], guide), None, when
    for day, candidate in near:
        years = abs((day - when).days) / DAYS_A_YEAR
        judged = trace_guided(seen, Guide(candidate.line, (), years, metres), guide)
        if judged is not None and judged.is_credible(guide) and (best is None or judged.worth > best.worth):
            best, along = judged, day
    if best is None:
        return None
    made = front_of(seen, best, "neighbours", trace)
    return replace(made, confidence=best.worth), _why_retraced(best, along)


def _why_retraced(judged: Judged, along: date) -> str:
    return (
        f"along the front of {along}: mean probability {judged.support:.2f} on {judged.cover:.0%} of it, "
        f"{judged.away_m:.0f} m away"
    )


class _Found(NamedTuple):
    """Scenes with their candidates, the sequences through them, why some were retraced, and pixels in m and px."""

    scenes: Sequence[Dated]
    dates: Sequence[Sequence[Candidate]]
    sequences: Sequence[Sequence[Node]]
    guided: Mapping[Node, tuple[Front, str]]
    metres: float
    near_px: float


def _chosen(number: int, found: _Found) -> list[Chosen]:
    """Say what becomes of the lines of a scene."""
    scene, taken, made = found.scenes[number], set(chain.from_iterable(found.sequences)), []
    for n, candidate in enumerate(found.dates[number]):
        is_taken, is_mapped = (number, n) in taken, n < len(scene.fronts)
        if scene.is_settled:
            made.append(_kept(scene, n, "a person has said so"))
        elif is_mapped and is_taken:
            made.append(_kept(scene, n, "the other dates agree"))
        elif is_mapped:
            made.append(_kept_or_dropped(number, n, found))
        elif is_taken and (number, n) in found.guided:
            made.append(Chosen("retraced", -1, *found.guided[number, n]))
        elif is_taken:
            why = f"rejected in its own scene (support {candidate.support:.2f}), but the other dates have a front there"
            made.append(Chosen("restored", n - len(scene.fronts), Front(candidate.line, candidate.support), why))
    return made


def _kept_or_dropped(number: int, n: int, found: _Found) -> Chosen:
    """Drop a mapped front that no sequence has, unless a date before or after has a front where it lies.

    It may be a piece of that, or more of it, since a front is traced in one piece on some dates and in two on others.
    Another scene of the same day is no witness, unless a sequence has its front.
    """
    candidate, scenes, taken = found.dates[number][n], found.scenes, set(chain.from_iterable(found.sequences))
    for other in _scenes_beside(number, scenes):
        is_witness = scenes[other].when != scenes[number].when
        for k, front in enumerate(found.dates[other][: len(scenes[other].fronts)]):
            if not is_witness and (other, k) not in taken:
                continue
            if candidate.lies_at(front, found.near_px) or front.lies_at(candidate, found.near_px):
                return _kept(scenes[number], n, f"it lies at a front of {scenes[other].when}")
    told: list[tuple[float, date]] = []
    for sequence in found.sequences:
        beside = [(scenes[m].when, found.dates[m][k]) for m, k in _beside(sequence, number)]
        apart = [(candidate.apart_px(front) * found.metres, when) for when, front in beside]
        told = min(told, apart, key=_nearest) if told else apart
    why = " and ".join(f"{away:.0f} m from the front of {when}" for away, when in told)
    return Chosen("dropped", n, None, f"it lies {why}" if why else "no other date has a front there")


def _scenes_beside(number: int, scenes: Sequence[Dated]) -> list[int]:
    """Places of the last scene with a front on a day before, the first one on a day after, and others of its day."""
    when, with_front = scenes[number].when, [n for n, scene in enumerate(scenes) if scene.fronts and n != number]
    before, after = ([n for n in with_front if test(scenes[n].when)] for test in (when.__gt__, when.__lt__))
    return [*before[-1:], *after[:1], *[n for n in with_front if scenes[n].when == when]]


def _nearest(apart: Sequence[tuple[float, date]]) -> float:
    return min((away for away, _ in apart), default=np.inf)


def _kept(scene: Dated, number: int, why: str) -> Chosen:
    return Chosen("kept", number, Front(scene.fronts[number], float("nan")), why)
