"""A coastline and the fjord's walls in; the runs of the line that are calving fronts out (calfin-method 6.3)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import label, regionprops

from calfin_cloud.fronts.settings import IsolationSettings
from calfin_cloud.resampling import border_distance, distance_inside

OUTLIER_Z = 2.5
SMALLEST_PART, SMALLEST_BOX = 0.0001, 0.00025  # of the frame's area
PART_OF_LARGEST = 0.15
FEWEST_VERTICES = 10
SQUARE = np.ones((3, 3), dtype=np.uint8)


def isolate_fronts(
    line: NDArray[np.intp], fjord_mask: NDArray[np.bool_], settings: IsolationSettings | None = None
) -> list[NDArray[np.intp]]:
    """Keep the runs (n, 2) of a line that lead away from the fjord's walls and back.

    Parameters
    ----------
    line
        (n, 2) row, column of the ordered coastline.
    fjord_mask
        (y, x) bool, True where a front may lie; the frame's border counts as wall.
    """
    settings = settings or IsolationSettings()
    shape = fjord_mask.shape
    away = border_distance(fjord_mask)
    drawn = draw_line(line, shape)
    threshold = wall_distance(away[tuple(line.T)])
    kept = _large_parts(drawn & (away > threshold), SMALLEST_PART)
    if not kept.any():
        return []
    kept = drawn & (away > 0) & (kept | (distance_inside(~kept) < threshold))
    regions = regionprops(label(_large_parts(kept, SMALLEST_BOX), connectivity=2))
    fronts = []
    for region in regions:
        part = np.zeros(shape, dtype=np.uint8)
        part[tuple(region.coords.T)] = 1
        run = _run_inside(line, cv2.dilate(part, SQUARE) > 0, longest=settings.longest_run)
        if _leads_away(away[tuple(run.T)], must_return=settings.must_return):
            fronts.append(run)
    return fronts


def draw_line(line: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Draw ordered vertices (n, 2) row, column as an 8-connected line, one pixel wide, on (y, x) bool."""
    drawn = np.zeros(shape, dtype=np.uint8)
    cv2.polylines(drawn, [np.ascontiguousarray(line[:, ::-1], dtype=np.int32)[:, None]], isClosed=False, color=1)
    return drawn > 0


def wall_distance(distances: NDArray[np.floating]) -> float:
    """Distance in px up to which a line follows the walls, from the histogram of its vertices' distances to them.

    The left edge of the first of the bins 2 to 6 that is no taller than the tallest bin that is no outlier.
    """
    n_bins = max(int(distances.max() / 2), 12)
    counts, edges = np.histogram(distances, bins=n_bins)
    inlier = counts[_robust_z(counts) < OUTLIER_Z]
    tallest = inlier.max() if len(inlier) else 0
    for i in range(2, 7):
        if counts[i] <= tallest and edges[i - 1] != 0:
            return float(edges[i - 1])
    return float(edges[3])


def _robust_z(counts: NDArray[np.intp]) -> NDArray[np.float64]:
    deviation = np.abs(counts - np.median(counts))
    spread = 1.486 * np.median(deviation) or 1.253314 * deviation.mean() or 1.0
    return np.asarray(deviation / spread, dtype=np.float64)


def _large_parts(mask: NDArray[np.bool_], share_of_frame: float) -> NDArray[np.bool_]:
    """Keep connected parts of at least that share of the frame, and of the largest part."""
    numbers = label(mask, connectivity=2)
    areas = np.bincount(numbers.ravel())
    areas[0] = 0
    large = areas >= max(share_of_frame * mask.size, PART_OF_LARGEST * areas.max())
    large[0] = False
    return np.asarray(large[numbers], dtype=bool)


def _run_inside(line: NDArray[np.intp], part: NDArray[np.bool_], *, longest: bool) -> NDArray[np.intp]:
    """Vertices in a row that lie in `part`: the first such run, which loses the line's last vertex, or the longest."""
    inside = np.concatenate([[False], part[tuple(line.T)], [False]])
    first, last = np.flatnonzero(np.diff(inside.astype(int)) > 0), np.flatnonzero(np.diff(inside.astype(int)) < 0)
    if len(first) == 0:
        return line[:0]
    if longest:
        best = int((last - first).argmax())
        return line[first[best] : last[best]]
    return line[first[0] : min(last[0], len(line) - 1)]


def _leads_away(away: NDArray[np.floating], *, must_return: bool) -> bool:
    """Whether the distance to the walls rises (and falls again) along the run, with few peaks for its length."""
    n = len(away)
    if n < FEWEST_VERTICES:
        return False
    a, b = int(0.15 * n), int(0.85 * n)
    start, middle, end = away[:a].min(), away[a:b].max(), away[b:].min()
    n_peaks = count_peaks(away, int(max(10, n / 3)))
    returns = n_peaks > 0 and np.sign(middle - start) == np.sign(middle - end)
    return bool((returns or not must_return) and middle > n / (4 * max(n_peaks, 1)))


def count_peaks(values: NDArray[np.floating], apart: int) -> int:
    """Count the local maxima of values (n,), the highest first, without those less than `apart` from a higher one.

    They are those of `scipy.signal.find_peaks`, which takes half a second to import. A level top counts once, at its
    middle; the ends of the values are none.

    Examples
    --------
    >>> count_peaks(np.array([0, 1, 0, 2, 2, 0, 3]), 1), count_peaks(np.array([0, 1, 0, 2, 2, 0, 3]), 3)
    (2, 1)
    """
    begins = np.flatnonzero(np.append(True, np.diff(values) != 0))
    rises = np.diff(values[begins]) > 0
    tops = np.flatnonzero(rises[:-1] & ~rises[1:]) + 1
    places = (begins[tops] + begins[tops + 1] - 1) // 2
    kept: list[int] = []
    for place in places[np.argsort(values[places])[::-1]]:
        if all(abs(place - other) >= apart for other in kept):
            kept.append(place)
    return len(kept)
