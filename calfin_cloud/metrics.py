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
N_EQUIDISTANT = 1000


def pixel_distances(front: NDArray[np.bool_], reference: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distances in px from every front pixel to the nearest reference pixel, then the other way round, concatenated.

    CALFIN's definition (Cheng et al. 2021; calfin-method 9.1): Euclidean between pixel centres of lines (y, x) bool.
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


def points_along(line: BaseGeometry, spacing_m: float) -> NDArray[np.object_]:
    """Points along a line or the parts of a multi-line, both ends included, at most `spacing_m` apart."""
    parts = shapely.get_parts(line)
    points = [
        shapely.line_interpolate_point(
            part, np.linspace(0, part.length, max(2, int(np.ceil(part.length / spacing_m)) + 1))
        )
        for part in parts
        if part.length > 0
    ]
    if not points:
        raise ValueError(f"a line of some length is needed, got {line.wkt[:80]}")
    return np.concatenate(points)


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
        `image_mean` (mean over scenes of their mean) with a 95 % bootstrap interval over scenes, `image_median` (median
        over scenes of their mean), `pooled_mean`, `pooled_median`, `hd95` (mean over scenes), `detection_rate` (scenes
        with a front found / scenes that have one), `false_fronts` (scenes with a front found that have none), counts.
    """
    referenced = scenes[scenes["has_reference"] > 0]
    measured = referenced[referenced["n_points"] > 0]
    pooled = np.concatenate([distances[i] for i in measured.index]) if len(measured) else np.array([np.nan])
    low, high = bootstrap_interval(measured["mean"].to_numpy(), seed=seed)
    return {
        "n_scenes": float(len(scenes)),
        "n_referenced": float(len(referenced)),
        "n_found": float(len(measured)),
        "detection_rate": len(measured) / len(referenced) if len(referenced) else float("nan"),
        "false_fronts": float(((scenes["has_reference"] == 0) & (scenes["found"] > 0)).sum()),
        "image_mean": float(measured["mean"].mean()),
        "image_mean_low": low,
        "image_mean_high": high,
        "image_median": float(measured["mean"].median()),
        "pooled_mean": float(measured["sum"].sum() / measured["n_points"].sum()) if len(measured) else float("nan"),
        "pooled_median": float(np.median(pooled)),
        "hd95": float(measured["hd95"].mean()),
    }


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.floating], *, seed: int = 0, n_draws: int = 2000
) -> tuple[float, float]:
    """95 % interval of the mean by drawing scenes with replacement; NaN for fewer than two scenes."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).choice(values, (n_draws, len(values))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
