"""Masks of one scene in; its calving fronts out, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.signal import savgol_filter
from scipy.spatial import cKDTree
from shapely.geometry import LineString

from calfin_cloud.fronts.isolation import isolate_fronts
from calfin_cloud.fronts.lines import best_path, fill_gaps, linked, scale_of, skeleton_pixels
from calfin_cloud.fronts.settings import TraceSettings
from calfin_cloud.fronts.sides import IceStep, contrast_along, ice_step, step_at

MOST_PIXELS = 100_000  # of a skeleton: noise at 2048 px has half as many, and takes 2 s
MOST_OF_SCENE = 0.2  # of a scene; coasts cover a few per cent


@dataclass(frozen=True)
class Front:
    """One calving front in pixels.

    Attributes
    ----------
    line
        (n, 2) x = column, y = row, the centre of the first pixel at (0, 0).
    confidence
        Mean edge probability along the line, 0 to 1.
    isolation
        What cut it out of the coastline: `fjord_boundary` or `none`.
    """

    line: NDArray[np.float64]
    confidence: float
    isolation: str


@dataclass(frozen=True)
class Rejected:
    """A candidate that is no front: its `line` as in `Front`, the `reason` and the measured values."""

    line: NDArray[np.float64]
    reason: str
    detail: str


@dataclass(frozen=True)
class Trace:
    """Fronts of a scene, the longest first; without one, the reason (of `schema.REASONS`) and the measured values."""

    fronts: tuple[Front, ...]
    reason: str = ""
    detail: str = ""
    rejected: tuple[Rejected, ...] = ()


class _Candidate(NamedTuple):
    pixels: NDArray[np.intp]  # row, column, a pixel at every step
    line: NDArray[np.float64]  # x, y, smoothed
    length_px: float
    border_px: float
    confidence: float
    contrast: float


def trace_fronts(
    front: NDArray[np.floating],
    ice: NDArray[np.floating],
    *,
    fjord_mask: NDArray[np.bool_] | None = None,
    valid: NDArray[np.bool_] | None = None,
    settings: TraceSettings | None = None,
) -> Trace:
    """Trace the calving fronts of one scene.

    The edge is thinned to a skeleton, linked to a spanning tree, and the best path through it is a front; then the best
    path through what is left away from it, and so on. With a fjord mask, each path is cut down to the runs that lead
    away from the walls (Cheng et al. 2021; calfin-method 6.2 to 6.5).

    Parameters
    ----------
    front, ice
        (y, x) probabilities of the front edge and of ice or land; NaN = missing.
    fjord_mask
        (y, x) bool, True where a front may lie; None where nobody has drawn it.
    valid
        (y, x) bool, False where the scene has no data; by default where `front` is NaN.
    """
    settings = settings or TraceSettings()
    _check(front, ice, fjord_mask)
    valid = ~np.isnan(front) if valid is None else valid
    inside = distance_transform_edt(np.pad(valid, 1))[1:-1, 1:-1] / scale_of(front.shape)
    edge = np.nan_to_num(front)
    pixels = skeleton_pixels(edge, settings)
    pixels = pixels[inside[tuple(pixels.T)] > settings.border_px]
    if not 0 < len(pixels) <= MOST_PIXELS:
        return _nothing_to_trace(edge, len(pixels), settings)
    step = ice_step(ice, settings.side_px)
    lines = _lines(pixels, edge, step, fjord_mask, settings)
    candidates = sorted((_measure(line, edge, inside, step, settings) for line in lines), key=lambda c: -c.length_px)
    objections = [_objection(c, settings) for c in candidates]
    rejected = tuple(Rejected(c.line, *no) for c, no in zip(candidates, objections, strict=True) if no)
    good = [c for c, no in zip(candidates, objections, strict=True) if not no]
    if not good and settings.full_contrast is not None:
        # An ice mask without a step makes every path worthless: the edge alone then gives a front, or the reason.
        alone = replace(settings, full_contrast=None)
        return trace_fronts(front, ice, fjord_mask=fjord_mask, valid=valid, settings=alone)
    if not good:
        return (
            Trace((), rejected[0].reason, rejected[0].detail, rejected) if rejected else _nothing_isolated(fjord_mask)
        )
    isolation = "none" if fjord_mask is None else "fjord_boundary"
    long_enough = [c for c in good if c.length_px >= settings.min_share * good[0].length_px][: settings.max_fronts]
    return Trace(tuple(Front(c.line, c.confidence, isolation) for c in long_enough), rejected=rejected)


def candidate_windows(
    front: NDArray[np.floating],
    ice: NDArray[np.floating],
    *,
    fjord_mask: NDArray[np.bool_] | None = None,
    settings: TraceSettings | None = None,
) -> list[tuple[slice, slice]]:
    """Rows and columns of a window around each candidate front of the first pass (calfin-method 6.4, step 1).

    The windows may reach beyond the frame. Candidates need only half the confidence and contrast of a front: the second
    pass sees them better.
    """
    settings = settings or TraceSettings()
    easy = replace(settings, min_confidence=settings.min_confidence / 2, min_contrast=settings.min_contrast / 2)
    windows = []
    for found in trace_fronts(front, ice, fjord_mask=fjord_mask, settings=easy).fronts:
        low, high = found.line.min(axis=0), found.line.max(axis=0)
        half = settings.window_ratio / 2 * max(*(high - low), 1.0)
        (left, top), (right, bottom) = (low + high) / 2 - half, (low + high) / 2 + half
        windows.append((slice(int(top), int(np.ceil(bottom))), slice(int(left), int(np.ceil(right)))))
    return windows


def georeference(line: NDArray[np.floating], transform: Affine) -> LineString:
    """Map coordinates of a line (n, 2) in pixels, x = column, y = row, whose integers are pixel centres."""
    x, y = line[:, 0] + 0.5, line[:, 1] + 0.5
    a, b, c, d, e, f, *_ = transform
    return LineString(np.column_stack([a * x + b * y + c, d * x + e * y + f]))


def _lines(
    pixels: NDArray[np.intp],
    edge: NDArray[np.floating],
    step: IceStep,
    fjord_mask: NDArray[np.bool_] | None,
    settings: TraceSettings,
) -> Iterator[NDArray[np.intp]]:
    """Yield paths through the skeleton, the best first, each away from those before, as ordered (n, 2) row, column."""
    scale = scale_of(edge.shape)
    sure = edge[tuple(pixels.T)]
    if settings.full_contrast is not None and len(pixels):
        sure = sure * np.minimum(np.hypot(*step_at(step, pixels).T) / settings.full_contrast, 1)
    links, gain = linked(pixels, sure, scale, settings)
    for _ in range(settings.max_fronts):
        nodes, worth = best_path(links, gain, ends_at_leaf=settings.zero_probability is None)
        if len(nodes) < 2 or worth <= 0:
            return
        line = pixels[nodes]
        if fjord_mask is None:
            yield line
        else:
            yield from isolate_fronts(line, fjord_mask, must_return=settings.must_return).fronts
        distance, _ = cKDTree(line).query(pixels, distance_upper_bound=settings.apart_px * scale)
        left = np.isinf(distance[links]).all(axis=1)
        links, gain = links[left], gain[left]


def _measure(
    line: NDArray[np.intp],
    edge: NDArray[np.floating],
    inside: NDArray[np.floating],
    step: IceStep,
    settings: TraceSettings,
) -> _Candidate:
    scale = scale_of(edge.shape)
    pixels = fill_gaps(line)
    smooth = _smoothed(pixels, settings.smooth_px * scale)
    return _Candidate(
        pixels,
        smooth,
        length_px=float(np.hypot(*np.diff(smooth, axis=0).T).sum()) / scale,
        border_px=float(np.median(inside[tuple(pixels.T)])),
        confidence=float(edge[tuple(pixels.T)].mean()),
        contrast=contrast_along(step, smooth[:, ::-1]),
    )


def _objection(candidate: _Candidate, settings: TraceSettings) -> tuple[str, str] | None:
    """Reason and measured value why a candidate is no front; None if it is one."""
    c, s = candidate, settings
    for reason, value, limit, what in (
        ("edge_too_short", c.length_px, s.min_length_px, "px of a 256 px frame long"),
        ("only_walls", c.border_px, 3 * s.border_px, "px of a 256 px frame away from the border or missing data"),
        ("low_confidence", c.confidence, s.min_confidence, "mean edge probability"),
        (
            "one_sided",
            c.contrast,
            max(2 * (1 - c.confidence), 0.1) * s.min_contrast,
            "step of the ice mask across the edge",
        ),
    ):
        if value < limit:
            return reason, f"{value:.3g} {what}, at least {limit:.3g} is needed"
    return None


def _nothing_to_trace(edge: NDArray[np.floating], n_pixels: int, settings: TraceSettings) -> Trace:
    """Tell an edge that is everywhere or nowhere from one that is only at the border or at missing data."""
    highest, share = float(edge.max(initial=0)), float((edge > settings.edge_threshold).mean())
    if n_pixels:
        return Trace(
            (), "low_confidence", f"the edge is everywhere: {n_pixels} px long, at most {MOST_PIXELS} are traced"
        )
    if highest <= settings.edge_threshold:
        least = f"above {settings.edge_threshold:g} is needed"
        return Trace((), "no_edge", f"highest edge probability {highest:.2f}, {least}")
    if share > MOST_OF_SCENE:
        return Trace((), "low_confidence", f"the edge covers {share:.0%} of the scene: an area, not a line")
    return Trace((), "only_walls", "the only edge lies at the border of the scene or at missing data")


def _nothing_isolated(fjord_mask: NDArray[np.bool_] | None) -> Trace:
    """Tell an edge of specks from one that the fjord walls take away."""
    if fjord_mask is None:
        return Trace((), "edge_too_short", "the edge is but specks, too far apart to be linked to a line")
    return Trace((), "only_walls", "no run of the edge leads away from the fjord walls")


def _smoothed(pixels: NDArray[np.intp], window_px: float) -> NDArray[np.float64]:
    """Savitzky-Golay filter of order 3 along (n, 2) row, column; returns x = column, y = row."""
    window = int(window_px) // 2 * 2 + 1
    line = pixels[:, ::-1].astype(float)
    return np.asarray(savgol_filter(line, window, 3, axis=0)) if len(line) >= window > 3 else line


def _check(front: NDArray[np.floating], ice: NDArray[np.floating], fjord_mask: NDArray[np.bool_] | None) -> None:
    shapes = {front.shape, ice.shape} | ({fjord_mask.shape} if fjord_mask is not None else set())
    if len(shapes) != 1 or front.ndim != 2:
        raise ValueError(f"front, ice and fjord mask must share one shape (y, x), got {sorted(shapes)}")
