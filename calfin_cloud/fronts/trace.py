"""Masks of one scene in; its calving fronts out, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.signal import savgol_filter
from scipy.spatial import cKDTree
from shapely.geometry import LineString

from calfin_cloud.fronts.isolation import isolate_fronts
from calfin_cloud.fronts.lines import best_path, linked, scale_of, skeleton_pixels
from calfin_cloud.fronts.settings import TraceSettings

MIN_SIDE_PX = 64


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
class Trace:
    """Fronts of a scene, the longest first; without one, the reason (of `schema.REASONS`) and the measured values."""

    fronts: tuple[Front, ...]
    reason: str = ""
    detail: str = ""


class _Candidate(NamedTuple):
    pixels: NDArray[np.intp]
    length_px: float
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
    edge = np.where(_inside(valid, settings.border_px * scale_of(front.shape)), np.nan_to_num(front), 0.0)
    if not (edge > settings.edge_threshold).any():
        return _nothing_to_trace(front, edge, settings)
    candidates = [_measure(line, edge, ice, settings) for line in _lines(edge, fjord_mask, settings)]
    if not candidates:
        return Trace((), "only_walls", "no run of the edge leads away from the fjord walls and back")
    candidates.sort(key=lambda c: -c.length_px)
    good = [c for c in candidates if _objection(c, settings) is None]
    if not good:
        return Trace((), *(_objection(candidates[0], settings) or ("", "")))
    long_enough = [c for c in good if c.length_px >= settings.min_share * good[0].length_px][: settings.max_fronts]
    isolation = "none" if fjord_mask is None else "fjord_boundary"
    window = settings.smooth_px * scale_of(front.shape)
    return Trace(tuple(Front(_smoothed(c.pixels, window), c.confidence, isolation) for c in long_enough))


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
    edge: NDArray[np.float64], fjord_mask: NDArray[np.bool_] | None, settings: TraceSettings
) -> Iterator[NDArray[np.intp]]:
    """Yield paths through the skeleton, the best first, each away from those before, as ordered (n, 2) row, column."""
    pixels = skeleton_pixels(edge, settings)
    apart = settings.apart_px * scale_of(edge.shape)
    links, gain = linked(pixels, edge, settings)
    for _ in range(settings.max_fronts):
        nodes, worth = best_path(links, gain, ends_at_leaf=settings.zero_probability is None)
        if len(nodes) < 2 or worth <= 0:
            return
        line = pixels[nodes]
        yield from [line] if fjord_mask is None else isolate_fronts(line, fjord_mask).fronts
        distance, _ = cKDTree(line).query(pixels, distance_upper_bound=apart)
        left = np.isinf(distance[links]).all(axis=1)
        links, gain = links[left], gain[left]


def _measure(
    line: NDArray[np.intp], edge: NDArray[np.float64], ice: NDArray[np.floating], settings: TraceSettings
) -> _Candidate:
    scale = scale_of(edge.shape)
    length = float(np.hypot(*np.diff(line, axis=0).T).sum()) / scale
    smooth = _smoothed(line, settings.smooth_px * scale)
    along = np.gradient(smooth, axis=0)
    normal = np.column_stack([-along[:, 1], along[:, 0]]) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    sides = [
        map_coordinates(
            np.nan_to_num(ice), (smooth + sign * settings.side_px * scale * normal)[:, ::-1].T, order=1, mode="nearest"
        )
        for sign in (1, -1)
    ]
    contrast = float(abs(np.mean(sides[0] - sides[1])))
    return _Candidate(line, length, float(edge[tuple(line.T)].mean()), contrast)


def _objection(candidate: _Candidate, settings: TraceSettings) -> tuple[str, str] | None:
    """Reason and measured value why a candidate is no front; None if it is one."""
    c, s = candidate, settings
    for reason, value, limit, what in (
        ("edge_too_short", c.length_px, s.min_length_px, "px of a 256 px frame long"),
        ("low_confidence", c.confidence, s.min_confidence, "mean edge probability"),
        ("one_sided", c.contrast, s.min_contrast, "difference of the ice mask across the edge"),
    ):
        if value < limit:
            return reason, f"{value:.3g} {what}, at least {limit:g} is needed"
    return None


def _nothing_to_trace(front: NDArray[np.floating], edge: NDArray[np.float64], settings: TraceSettings) -> Trace:
    """Tell an edge that is nowhere from one that is only at the border or at missing data."""
    highest = float(np.nan_to_num(front).max())
    if highest > settings.edge_threshold:
        return Trace((), "only_walls", "the only edge lies at the border of the scene or at missing data")
    return Trace((), "no_edge", f"highest edge probability {highest:.2f}, above {settings.edge_threshold:g} is needed")


def _inside(valid: NDArray[np.bool_], margin_px: float) -> NDArray[np.bool_]:
    """Pixels further than a margin from missing data and from the border."""
    return np.asarray(distance_transform_edt(np.pad(valid, 1))[1:-1, 1:-1] > margin_px, dtype=bool)


def _smoothed(pixels: NDArray[np.intp], window_px: float) -> NDArray[np.float64]:
    """Savitzky-Golay filter of order 3 along (n, 2) row, column; returns x = column, y = row."""
    window = int(window_px) // 2 * 2 + 1
    line = pixels[:, ::-1].astype(float)
    return np.asarray(savgol_filter(line, window, 3, axis=0)) if len(line) >= window > 3 else line


def _check(front: NDArray[np.floating], ice: NDArray[np.floating], fjord_mask: NDArray[np.bool_] | None) -> None:
    shapes = {front.shape, ice.shape} | ({fjord_mask.shape} if fjord_mask is not None else set())
    if len(shapes) != 1 or front.ndim != 2 or min(front.shape) < MIN_SIDE_PX:
        raise ValueError(f"masks must share one shape (y, x) of at least {MIN_SIDE_PX} px a side, got {sorted(shapes)}")
