"""A front or a mask against its reference: distances, overlaps, and their summary over scenes. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt
from shapely.geometry import LineString
from shapely.geometry.base import BaseGeometry

LINE_WIDTH = np.ones((3, 3), dtype=bool)
FAR_M = 5000.0  # fronts without a glacier id are of one glacier up to here
N_EQUIDISTANT = 1000

N_DRAWS, N_LEVELS = 2000, 2048
"""Bootstrap draws of scenes; distances told apart when the pooled ones are drawn again."""


def pixel_distances(front: NDArray[np.bool_], reference: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distances in px from every front pixel to the nearest reference pixel, then the other way round, concatenated.

    CALFIN's definition (Cheng et al. 2021; calfin-method 9.1): Euclidean between pixel centres of lines (y, x) bool.

    Raises
    ------
    ValueError
        The arrays differ in shape, or one has no pixel.
    """
    if front.shape != reference.shape:
        raise ValueError(f"front and reference must share one shape (y, x), got {front.shape} and {reference.shape}")
    if not front.any() or not reference.any():
        raise ValueError("front and reference must each have a pixel: a scene without a front has no distance")
    return np.concatenate([distance_transform_edt(~reference)[front], distance_transform_edt(~front)[reference]])


def line_distances(front: BaseGeometry, reference: BaseGeometry, *, spacing_m: float = 10.0) -> NDArray[np.float64]:
    """Distances in m from points along a front to the nearest point of the reference, then the other way round.

    Lines or multi-lines in one projected CRS; points lie `spacing_m` apart, so that long lines weigh more.
    """
    both = [(front, reference), (reference, front)]
    return np.concatenate([shapely.distance(points_along(a, spacing_m), b) for a, b in both])


def common_distances(front: BaseGeometry, reference: BaseGeometry, *, spacing_m: float = 10.0) -> NDArray[np.float64]:
    """Distances in m as `line_distances`, but only where both lines lie beside each other; empty where nowhere.

    Products cut a front at different ends: a point whose nearest place on the other line is one of its ends has nothing
    beside it, and is left out.
    """
    found = []
    for a, b in ((front, reference), (reference, front)):
        points = points_along(a, spacing_m)
        nearest = shapely.get_point(shapely.shortest_line(points, b), 1)
        ends = shapely.union_all([p for part in _pieces(b) for p in shapely.get_parts(part.boundary)])
        distances = shapely.distance(points, nearest)
        found.append(distances[(shapely.distance(nearest, ends) > 1e-6) | (distances == 0)])
    return np.concatenate(found)


def points_along(line: BaseGeometry, spacing_m: float) -> NDArray[np.object_]:
    """Points along a line or the parts of a multi-line, both ends included, at most `spacing_m` apart.

    Raises
    ------
    ValueError
        The line has no length.
    """
    points = []
    for part in _pieces(line):
        if part.length > 0:
            x, y = shapely.get_coordinates(part).T
            passed = np.r_[0.0, np.cumsum(np.hypot(np.diff(x), np.diff(y)))]
            at = np.linspace(0, passed[-1], max(2, int(np.ceil(part.length / spacing_m)) + 1))
            # `line_interpolate_point` walks along the line for every point: too slow for long coasts.
            points.append(shapely.points(np.interp(at, passed, x), np.interp(at, passed, y)))
    if not points:
        raise ValueError(f"a line of some length is needed, got {line.wkt[:80]}")
    return np.concatenate(points)


def _pieces(line: BaseGeometry) -> NDArray[np.object_]:
    """Parts of a line, those that follow on one another joined: some products write every segment as a part."""
    return np.asarray(shapely.get_parts(shapely.line_merge(line)))


def lengths_within(
    front: BaseGeometry | None, reference: BaseGeometry, within_m: float, *, spacing_m: float = 10.0
) -> dict[str, float]:
    """Measure how much of a front, and of its reference, lies near the other: lengths in m, which add up over scenes.

    `drawn` and `drawn_near`: of the front, 0 where none was found; `known` and `known_near`: of the reference.

    Examples
    --------
    >>> shares_of(lengths_within(front, reference, 300.0))  # precision, recall, F
    """
    if front is None:
        return {"drawn": 0.0, "drawn_near": 0.0, "known": reference.length, "known_near": 0.0}
    drawn, known = (
        float((shapely.distance(points_along(a, spacing_m), b) <= within_m).mean() * a.length)
        for a, b in ((front, reference), (reference, front))
    )
    return {"drawn": front.length, "drawn_near": drawn, "known": reference.length, "known_near": known}


def shares_of(lengths: Mapping[str, float]) -> dict[str, float]:
    """Precision, recall and F of `lengths_within`, or of sums of them over scenes; NaN where nothing is drawn."""
    precision, recall = (
        lengths[near] / lengths[all_] if lengths[all_] > 0 else float("nan")
        for near, all_ in (("drawn_near", "drawn"), ("known_near", "known"))
    )
    both = precision + recall
    return {"precision": precision, "recall": recall, "f": 2 * precision * recall / both if both > 0 else 0.0}


def equidistant_distance(front: LineString, reference: LineString) -> float:
    """Mean distance between points of equal index among 1000 equidistant ones (Mohajerani et al. 2019).

    Reported for comparison only: it needs both lines cut by the same fjord walls and swings with that cut.
    """
    fractions = np.linspace(0, 1, N_EQUIDISTANT)
    a = shapely.line_interpolate_point(front, fractions, normalized=True)
    b = shapely.line_interpolate_point(reference, fractions, normalized=True)
    return float(min(shapely.distance(a, b).mean(), shapely.distance(a, b[::-1]).mean()))


def front_iou(front: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Intersection over union of two lines (y, x) bool, each drawn 3 px wide (calfin-method 9.2)."""
    return ice_iou(binary_dilation(front, LINE_WIDTH), binary_dilation(reference, LINE_WIDTH))


def ice_iou(ice: NDArray[np.bool_], reference: NDArray[np.bool_], known: NDArray[np.bool_] | None = None) -> float:
    """Intersection over union of two masks (y, x) bool where the reference is known; NaN where both are empty."""
    known = np.ones_like(reference) if known is None else known
    union = ((ice | reference) & known).sum()
    return float((ice & reference & known).sum() / union) if union else float("nan")


def soft_ice_iou(ice: NDArray[np.floating], reference: NDArray[np.bool_]) -> float:
    """CALFIN's ice measure: mean probability inside the true ice, blind to ocean taken for ice (calfin-method 9.2)."""
    return float((reference * ice).sum() / (((reference + ice) >= 1).sum() + 1e-6))


def score_scene(distances: NDArray[np.floating] | None, *, has_reference: bool) -> dict[str, float]:
    """Measure one scene in sums and counts, so that tables of scenes can be cut and joined: a missed front stays.

    Parameters
    ----------
    distances
        What `pixel_distances` or `line_distances` gave; None where no front was found.
    has_reference
        Whether the scene has a hand-drawn front.
    """
    found = distances is not None
    measured = found and has_reference
    return {
        "has_reference": float(has_reference),
        "found": float(found),
        "n_points": float(len(distances)) if measured and distances is not None else 0.0,
        "sum": float(distances.sum()) if measured and distances is not None else 0.0,
        "mean": float(distances.mean()) if measured and distances is not None else float("nan"),
        "median": float(np.median(distances)) if measured and distances is not None else float("nan"),
        "hd95": float(np.percentile(distances, 95)) if measured and distances is not None else float("nan"),
    }


def is_false(front: NDArray[np.bool_], reference: NDArray[np.bool_], reach_px: float) -> bool:
    """Whether most of a front (y, x) bool lies further than `reach_px` from its reference; always, if there is none."""
    if not reference.any():
        return True
    return bool(np.mean(distance_transform_edt(~reference)[front] > reach_px) > 0.5)


def summarise(
    scenes: pd.DataFrame, distances: Mapping[Any, NDArray[np.floating]], *, seed: int = 0
) -> dict[str, float]:
    """Summary of a table of `score_scene` rows: distances of the detected fronts, always beside the detection rate.

    Parameters
    ----------
    scenes
        A row a scene, any index.
    distances
        The points' distances of each scene that has them, by index; needed for the pooled median.

    Returns
    -------
    dict
        `image_mean` and `image_median` (mean and median over scenes of their mean), `pooled_mean`, `pooled_median`,
        `hd95` (mean over scenes), `detection_rate` (scenes with a front found / scenes that have one), each with the
        `_low` and `_high` end of its 95 % bootstrap interval over scenes; `image_median_all` (every missed front counts
        as infinitely far), `false_fronts` (scenes with a front found that have none), counts.
    """
    referenced = scenes[scenes["has_reference"] > 0]
    measured = referenced[referenced["n_points"] > 0]
    found, means = referenced["n_points"].to_numpy() > 0, measured["mean"].to_numpy()
    by_scene = [distances[i] for i in measured.index]
    summary = {
        "n_scenes": float(len(scenes)),
        "n_referenced": float(len(referenced)),
        "n_found": float(len(measured)),
        "false_fronts": float(((scenes["has_reference"] == 0) & (scenes["found"] > 0)).sum()),
        "detection_rate": _mean(found),
        "image_mean": _mean(means),
        "image_median": float(np.median(means)) if len(means) else float("nan"),
        "image_median_all": float(np.median(np.where(found, referenced["mean"], np.inf))) if len(found) else np.nan,
        "pooled_mean": float(measured["sum"].sum() / measured["n_points"].sum()) if len(measured) else float("nan"),
        "pooled_median": float(np.median(np.concatenate(by_scene))) if by_scene else float("nan"),
        "hd95": _mean(measured["hd95"]),
    }
    intervals = {"detection_rate": bootstrap_interval(found, seed=seed)} | _intervals(measured, by_scene, seed)
    for name, (low, high) in intervals.items():
        summary |= {f"{name}_low": low, f"{name}_high": high}
    return summary


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.generic], *, seed: int = 0, n_draws: int = N_DRAWS
) -> tuple[float, float]:
    """95 % interval of the mean by drawing scenes with replacement; NaN for fewer than two scenes."""
    if len(values) < 2:
        return float("nan"), float("nan")
    return _middle(_draws(len(values), seed, n_draws) @ np.asarray(values, dtype=float) / len(values))


def compare_paired(a: pd.Series, b: pd.Series, *, seed: int = 0) -> dict[str, float]:
    """Compare two methods scene by scene: the mean difference a - b with its 95 % bootstrap interval over scenes.

    Parameters
    ----------
    a, b
        Distance of each scene that has a reference, by one index; NaN where the method found no front.

    Returns
    -------
    dict
        `n_scenes`, and how they divide: `n_both`, `only_a`, `only_b`, `neither` found a front. Over those found by both
        `mean_a`, `mean_b`, `difference` and `relative` (mean_a / mean_b - 1), these with `_low` and `_high`;
        `a_is_closer`, the scenes in which `a` is better, those that only `a` found among them.

    Raises
    ------
    ValueError
        The methods were not scored on the same scenes.
    """
    if not a.index.equals(b.index):
        raise ValueError("two methods must be compared on the same scenes in one order: score both on all of them")
    found_a, found_b = a.notna().to_numpy(), b.notna().to_numpy()
    both = found_a & found_b
    of_a, of_b = a.to_numpy(dtype=float)[both], b.to_numpy(dtype=float)[both]
    compared = {
        "n_scenes": float(len(a)),
        "n_both": float(both.sum()),
        "only_a": float((found_a & ~found_b).sum()),
        "only_b": float((found_b & ~found_a).sum()),
        "neither": float((~found_a & ~found_b).sum()),
        "a_is_closer": float((of_a < of_b).sum() + (found_a & ~found_b).sum()),
        "mean_a": _mean(of_a),
        "mean_b": _mean(of_b),
        "difference": _mean(of_a - of_b),
        "relative": _mean(of_a) / _mean(of_b) - 1 if _mean(of_b) else float("nan"),
    }
    intervals = {"difference": (np.nan, np.nan), "relative": (np.nan, np.nan)}
    if len(of_a) > 1 and of_b.any():
        draws = _draws(len(of_a), seed)
        intervals["difference"] = _middle(draws @ (of_a - of_b) / len(of_a))
        intervals["relative"] = _middle(draws @ of_a / np.maximum(draws @ of_b, 1e-12) - 1)
    for name, (low, high) in intervals.items():
        compared |= {f"{name}_low": low, f"{name}_high": high}
    return compared


def _intervals(
    measured: pd.DataFrame, by_scene: list[NDArray[np.floating]], seed: int
) -> dict[str, tuple[float, float]]:
    """95 % intervals of what is said of distances, all from the same draws of the scenes that have some."""
    names = ("image_mean", "image_median", "pooled_mean", "pooled_median", "hd95")
    if len(measured) < 2:
        return dict.fromkeys(names, (float("nan"), float("nan")))
    draws, means = _draws(len(measured), seed), measured["mean"].to_numpy()
    levels, counts = _histograms(by_scene)
    order = np.argsort(means)
    drawn = (
        draws @ means / len(means),
        _medians(means[order], draws[:, order]),
        draws @ measured["sum"].to_numpy() / (draws @ measured["n_points"].to_numpy()),
        _medians(levels, draws @ counts),
        draws @ measured["hd95"].to_numpy() / len(means),
    )
    return {name: _middle(values) for name, values in zip(names, drawn, strict=True)}


def _draws(n: int, seed: int, n_draws: int = N_DRAWS) -> NDArray[np.float64]:
    """How often each of n scenes is drawn when n are drawn with replacement: (n_draws, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_draws).astype(float)


def _histograms(by_scene: list[NDArray[np.floating]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ascending levels of all distances, and how many distances of each scene lie at each: (scenes, levels).

    Distances between pixels are roots of whole numbers, so that few are lost where there are more than the levels.
    """
    pooled = np.concatenate(by_scene)
    levels = np.unique(np.quantile(pooled, np.linspace(0, 1, N_LEVELS), method="nearest"))
    places = [np.minimum(np.searchsorted(levels, d), len(levels) - 1) for d in by_scene]
    return levels, np.stack([np.bincount(p, minlength=len(levels)) for p in places]).astype(float)


def _medians(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of ascending values (n,) under each row of weights (draws, n)."""
    total = weights.cumsum(axis=1)
    return np.asarray(values[(total >= total[:, -1:] / 2).argmax(axis=1)])


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _mean(values: NDArray[np.generic] | pd.Series) -> float:
    return float(np.asarray(values, dtype=float).mean()) if len(values) else float("nan")
