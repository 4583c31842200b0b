"""Masks of one scene in; its calving fronts out, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from calfin_cloud.fronts.filters import Measured, Objection, frame_objection, line_objection
from calfin_cloud.fronts.found import Front, Rejected, Trace
from calfin_cloud.fronts.ice_contrast import IceStep, contrast_along, ice_step, step_at
from calfin_cloud.fronts.isolation import isolate_fronts
from calfin_cloud.fronts.lines import best_path, fill_gaps, length_of, linked, scale_of, skeleton_pixels
from calfin_cloud.fronts.settings import DEFAULT, FRAME, CandidateSettings, TraceSettings
from calfin_cloud.fronts.vertices import vertices_of
from calfin_cloud.fronts.windows import Window, box_of, whole_box, window_around
from calfin_cloud.resampling import border_distance, resize
from calfin_cloud.schema import MOST_BOXES, NO_BOXES

MOST_PIXELS = 100_000  # of a skeleton: noise at 2048 px has half as many, and takes 2 s
MOST_OF_SCENE = 0.2  # of a scene; coasts cover a few per cent


class _Frame(NamedTuple):
    """A scene or a window of it, all (y, x): edge and ice probability, fjord mask or None, where there is data."""

    edge: NDArray[np.floating]
    ice: NDArray[np.floating]
    fjord_mask: NDArray[np.bool_] | None
    valid: NDArray[np.bool_]


class _Candidate(NamedTuple):
    pixels: NDArray[np.intp]  # row, column, a pixel at every step
    line: NDArray[np.float64]  # x, y
    measured: Measured


def trace_fronts(
    front: NDArray[np.floating],
    ice: NDArray[np.floating],
    *,
    fjord_mask: NDArray[np.bool_] | None = None,
    boxes: NDArray[np.integer] = NO_BOXES,
    settings: TraceSettings = DEFAULT,
) -> Trace:
    """Trace the calving fronts of one scene.

    The edge is thinned to a skeleton, linked to a spanning tree, and the best path through it is a line; then the best
    path through what is left away from it, and so on. With a fjord mask, each line is cut down to the runs that lead
    away from the walls (Cheng et al. 2021; calfin-method 6.2 to 6.5).

    Parameters
    ----------
    front, ice
        (y, x) probabilities of the front edge and of ice or land; NaN = missing.
    fjord_mask
        (y, x) bool, True where a front may lie; None where nobody has drawn it. The release needs one: without it
        the border of its windows is the wall.
    boxes
        (n, 4) top, bottom, left, right of the candidates of the first pass, see `candidate_boxes`. Where settings
        ask for one front a window, a window around each is traced; if none has a front, the scene as a whole.
    settings
        Of every step; those of CALFIN's release are `fronts.CALFIN`.

    Returns
    -------
    Trace
        Fronts in pixels of the arrays, x = column, y = row; or the reason that there is none.

    Raises
    ------
    ValueError
        The arrays differ in shape.

    Examples
    --------
    >>> front, ice = step  # two (256, 256) arrays: ice to the left of an edge along column 128
    >>> trace = cc.trace_fronts(front, ice)
    >>> bool(abs(trace.fronts[0].line[:, 0] - 128).max() < 1)
    True
    """
    frame = _frame(front, ice, fjord_mask, settings)
    return _trace_windows(frame, boxes, settings) if settings.window.one_front else _trace_frame(frame, settings)


def candidate_boxes(
    front: NDArray[np.floating],
    ice: NDArray[np.floating],
    shape: tuple[int, ...],
    *,
    fjord_mask: NDArray[np.bool_] | None = None,
    settings: TraceSettings = DEFAULT,
) -> NDArray[np.int32]:
    """Boxes around the candidate fronts of the first pass, (n, 4) top, bottom, left, right in px of a scene of `shape`.

    At most `MOST_BOXES`, the longest candidate first. Candidates need pass no filter of the release, and only half our
    own confidence and contrast: the second pass sees them better.
    """
    asked = settings.candidate
    easy = replace(asked, min_confidence=asked.min_confidence / 2, min_contrast=asked.min_contrast / 2)
    frame = _frame(front, ice, fjord_mask, settings)
    good = [c for c in _candidates(frame, settings) if line_objection(c.measured, easy) is None]
    boxes = [box_of(c.pixels, front.shape, shape) for c in _worth_keeping(good, easy)]
    return np.array(boxes[:MOST_BOXES], dtype=np.int32).reshape(-1, 4)


def _frame(
    front: NDArray[np.floating],
    ice: NDArray[np.floating],
    fjord_mask: NDArray[np.bool_] | None,
    settings: TraceSettings,
) -> _Frame:
    shapes = {front.shape, ice.shape} | ({fjord_mask.shape} if fjord_mask is not None else set())
    if len(shapes) != 1 or front.ndim != 2:
        raise ValueError(f"front, ice and fjord mask must share one shape (y, x), got {sorted(shapes)}")
    if fjord_mask is None and settings.window.one_front:
        fjord_mask = np.ones(front.shape, dtype=bool)
    return _Frame(np.nan_to_num(front), ice, fjord_mask, ~np.isnan(front))


def _trace_windows(frame: _Frame, boxes: NDArray[np.integer], settings: TraceSettings) -> Trace:
    """Trace each window in a frame of 256 px, as the second pass of the release does; the whole scene if none helps."""
    found = [_trace_window(frame, box, settings) for box in boxes]
    if not any(trace.fronts for trace in found):
        found.append(_trace_window(frame, whole_box(frame.edge.shape), settings))
    fronts = tuple(front for trace in found for front in trace.fronts)
    rejected = tuple(candidate for trace in found for candidate in trace.rejected)
    reason, detail = ("", "") if fronts else (found[-1].reason, found[-1].detail)
    return Trace(fronts, reason, detail, rejected)


def _trace_window(frame: _Frame, box: NDArray[np.integer], settings: TraceSettings) -> Trace:
    """At most one front of a window: the one whose box lies nearest to the candidate's, if it lies inside it (6.4)."""
    window = window_around(box, frame.edge.shape, settings.window)
    found = _trace_frame(_window_frame(frame, window), settings)
    centre = np.array([box[2] + box[3], box[0] + box[1]]) / 2 - 0.5
    fronts = sorted(
        (replace(f, line=_to_scene(f.line, window)) for f in found.fronts),
        key=lambda f: float(np.hypot(*((f.line.min(axis=0) + f.line.max(axis=0)) / 2 - centre))),
    )
    kept: list[Front] = []
    rejected = [Rejected(_to_scene(r.line, window), r.objection) for r in found.rejected]
    for front in fronts:
        x, y = front.line.mean(axis=0)
        if front is fronts[0] and box[2] < x < box[3] and box[0] < y < box[1]:
            kept.append(front)
            continue
        off = float(np.hypot(x - centre[0], y - centre[1]))
        far = f"{off:.3g} px from the candidate of the first pass: another is nearer, or it lies outside its box"
        rejected.append(Rejected(front.line, Objection("choice", "elsewhere", off, 0.0, far)))
    if kept:
        return Trace(tuple(kept), rejected=tuple(rejected))
    if found.fronts:
        return Trace((), rejected[-1].objection.reason, rejected[-1].objection.detail, tuple(rejected))
    return Trace((), found.reason, found.detail, tuple(rejected))


def _window_frame(frame: _Frame, window: Window) -> _Frame:
    shape = (FRAME, FRAME)
    fjord = window.cut(frame.fjord_mask).astype("uint8") if frame.fjord_mask is not None else None
    return _Frame(
        resize(window.cut(frame.edge), shape),
        resize(window.cut(np.nan_to_num(frame.ice)), shape),
        None if fjord is None else resize(fjord, shape, nearest=True) > 0,
        resize(window.cut(frame.valid).astype("uint8"), shape, nearest=True) > 0,
    )


def _to_scene(line: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """Vertices (n, 2) x, y of a window's 256 px frame in px of the scene."""
    factor = np.array([window.shape[1], window.shape[0]]) / FRAME
    return np.asarray((line + 0.5) * factor - 0.5 + (window.left, window.top))


def _trace_frame(frame: _Frame, settings: TraceSettings) -> Trace:
    """Trace a scene or a window as one frame."""
    candidates = _candidates(frame, settings)
    of_frame = frame_objection(frame.edge, frame.ice, frame.fjord_mask, settings.filter) if settings.filter else None
    objections = [of_frame or line_objection(c.measured, settings.candidate) for c in candidates]
    rejected = tuple(Rejected(c.line, no) for c, no in zip(candidates, objections, strict=True) if no)
    good = [c for c, no in zip(candidates, objections, strict=True) if not no]
    if not good and settings.line.full_contrast is not None:
        # An ice mask without a step makes every path worthless: the edge alone then gives a front, or the reason.
        return _trace_frame(frame, replace(settings, line=replace(settings.line, full_contrast=None)))
    if not candidates:
        return Trace((), *_nothing_found(frame, settings))
    if not good:
        return Trace((), rejected[0].objection.reason, rejected[0].objection.detail, rejected)
    kept = _worth_keeping(good, settings.candidate)
    fronts = (Front(c.line, c.measured.confidence, least=float(frame.edge[tuple(c.pixels.T)].min())) for c in kept)
    return Trace(tuple(fronts), rejected=rejected)


def _worth_keeping(good: list[_Candidate], settings: CandidateSettings) -> list[_Candidate]:
    """Candidates, the longest first, without those far shorter than it."""
    return [c for c in good if c.measured.length_px >= settings.min_share * good[0].measured.length_px]


def _candidates(frame: _Frame, settings: TraceSettings) -> list[_Candidate]:
    """All lines of a frame that may be fronts, the longest first."""
    pixels, inside = _edge_pixels(frame, settings)
    if not 0 < len(pixels) <= MOST_PIXELS:
        return []
    step = ice_step(frame.ice, settings.candidate.side_px)
    lines = _lines(pixels, frame, step, settings)
    candidates = [_measure(line, frame, inside, step, settings) for line in lines if len(line) > 1]
    return sorted(candidates, key=lambda c: -c.measured.length_px)


def _edge_pixels(frame: _Frame, settings: TraceSettings) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Skeleton pixels (n, 2) of the edge away from the border, and everybody's distance (y, x) to it in frame px."""
    inside = border_distance(frame.valid) / scale_of(frame.edge.shape)
    pixels = skeleton_pixels(frame.edge, settings.line)
    return pixels[inside[tuple(pixels.T)] > settings.line.border_px], inside


def _lines(
    pixels: NDArray[np.intp], frame: _Frame, step: IceStep, settings: TraceSettings
) -> Iterator[NDArray[np.intp]]:
    """Yield paths through the skeleton, the best first, each away from those before, as ordered (n, 2) row, column."""
    how, scale = settings.line, scale_of(frame.edge.shape)
    sure = frame.edge[tuple(pixels.T)]
    if how.full_contrast is not None:
        sure = sure * np.minimum(np.hypot(*step_at(step, pixels).T) / how.full_contrast, 1)
    links, gain = linked(pixels, sure, scale, how)
    for _ in range(how.max_lines):
        nodes, worth = best_path(links, gain, ends_at_leaf=how.zero_probability is None)
        if len(nodes) < 2 or worth <= 0:
            return
        line = pixels[nodes]
        if np.hypot(*line[0]) > np.hypot(*line[-1]):
            line = line[::-1]
        if frame.fjord_mask is None:
            yield line
        else:
            yield from isolate_fronts(line, frame.fjord_mask, settings.isolation)
        distance, _ = cKDTree(line).query(pixels, distance_upper_bound=how.apart_px * scale)
        left = np.isinf(distance[links]).all(axis=1)
        links, gain = links[left], gain[left]


def _measure(
    line: NDArray[np.intp], frame: _Frame, inside: NDArray[np.floating], step: IceStep, settings: TraceSettings
) -> _Candidate:
    scale = scale_of(frame.edge.shape)
    pixels = fill_gaps(line)
    vertices = vertices_of(pixels if settings.vertex.fill_gaps else line, frame.edge, scale, settings.vertex)
    measured = Measured(
        length_px=length_of(vertices) / scale,
        border_px=float(np.median(inside[tuple(pixels.T)])),
        confidence=_confidence(frame.edge[tuple(pixels.T)], settings.line.edge_threshold),
        contrast=contrast_along(step, vertices[:, ::-1]),
    )
    return _Candidate(pixels, vertices, measured)


def _confidence(sure: NDArray[np.floating], threshold: float) -> float:
    """Mean edge probability along a line, without ends that are fainter than the edge itself."""
    clear = np.flatnonzero(sure > threshold)
    return float(sure[clear[0] : clear[-1] + 1].mean()) if len(clear) else float(sure.mean())


def _nothing_found(frame: _Frame, settings: TraceSettings) -> tuple[str, str]:
    """Reason and measured values of a frame without any candidate."""
    edge, threshold = frame.edge, settings.line.edge_threshold
    highest, share = float(edge.max(initial=0)), float((edge > threshold).mean())
    if highest <= threshold:
        return "no_edge", f"highest edge probability {highest:.2f}, above {threshold:g} is needed"
    n_pixels = len(_edge_pixels(frame, settings)[0])
    if n_pixels > MOST_PIXELS:
        return "low_confidence", f"the edge is everywhere: {n_pixels} px long, at most {MOST_PIXELS} are traced"
    if n_pixels:
        return _nothing_isolated(frame.fjord_mask)
    if share > MOST_OF_SCENE:
        return "low_confidence", f"the edge covers {share:.0%} of the scene: an area, not a line"
    return "only_walls", "the only edge lies at the border of the scene or at missing data"


def _nothing_isolated(fjord_mask: NDArray[np.bool_] | None) -> tuple[str, str]:
    """Tell an edge of specks from one that the fjord walls take away."""
    if fjord_mask is None:
        return "edge_too_short", "the edge is but specks, too far apart to be linked to a line"
    return "only_walls", "no run of the edge leads away from the fjord walls"
