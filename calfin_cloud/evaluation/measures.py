"""The fronts of one labelled scene and their reference go in; its measures come out, a row of the table of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString
from skimage.graph import route_through_array
from skimage.measure import label
from skimage.morphology import skeletonize

from calfin_cloud.datasets import ICE, UNKNOWN, Sample
from calfin_cloud.evaluation.references import WITHIN_M
from calfin_cloud.fronts import extract_line
from calfin_cloud.fronts.lines import length_of
from calfin_cloud.metrics import (
    equidistant_distance,
    front_iou,
    ice_iou,
    is_false,
    pixel_distances,
    score_scene,
    soft_ice_iou,
)
from calfin_cloud.sensors import is_slc_off
from calfin_cloud.timeseries import season_of

REACH_PX = 10.0
"""A front is false if most of it lies further than this from the reference, in px of a 256 px frame."""

IN_METRES = ("mean", "median", "hd95")
LEAST_COST = 0.01  # of a pixel on a sure front, so that a longer path is never free

Line = NDArray[np.float64]


def score_lines(
    sample: Sample, name: str, drawn: list[NDArray[np.bool_]], reason: str
) -> tuple[dict[str, Any], NDArray[np.float64] | None]:
    """Measure the fronts of a scene, each (y, x) bool, against its reference: row of the table, and the distances."""
    reference = skeletonize(sample.front)
    line = np.logical_or.reduce(drawn) if drawn else np.zeros_like(reference)
    apart = pixel_distances(line, reference) if line.any() and reference.any() else None
    row = {"method": name, "scene": sample.name} | _conditions(sample)
    row |= {"reason": reason} | _counts(drawn, reference)
    row |= _distances(apart, line, reference, sample.pixel_size_m)
    row |= _lengths(apart, line, reference, sample.pixel_size_m)
    row |= dict.fromkeys(("equidistant", "between_ends", "ice_iou", "soft_ice_iou"), float("nan"))
    return row | {"front_iou": front_iou(line, reference) if reference.any() else float("nan")}, apart


def _lengths(
    apart: NDArray[np.float64] | None, line: NDArray[np.bool_], reference: NDArray[np.bool_], metres: float | None
) -> dict[str, float]:
    """Lengths in m of front and reference, and what of them lies within `WITHIN_M` of the other; NaN without a scale.

    They add up over scenes, for `metrics.shares_of`; a length is that of its pixels.
    """
    n_drawn, n_known, scale = int(line.sum()), int(reference.sum()), metres or float("nan")
    row = {"drawn": n_drawn * scale, "known": n_known * scale}
    for within in WITHIN_M:
        near = np.zeros(n_drawn + n_known, dtype=bool) if apart is None else apart * scale <= within
        row[f"drawn_near_{within:.0f}"] = float(near[:n_drawn].sum()) * scale
        row[f"known_near_{within:.0f}"] = float(near[n_drawn:].sum()) * scale
    return row


def _conditions(sample: Sample) -> dict[str, Any]:
    when, platform = sample.datetime, sample.platform or ""
    unknown = not platform or (platform == "LE07" and when is None)
    slc_off = "" if unknown else "yes" if is_slc_off(platform, when) else "no"
    return {
        "glacier": sample.glacier,
        "sensor": sample.sensor,
        "platform": sample.platform,
        "date": when.date().isoformat() if when else "",
        "season": season_of(when, is_southern=sample.is_southern) if when else "",
        "slc_off": slc_off,
        "pixel_size_m": np.nan if sample.pixel_size_m is None else sample.pixel_size_m,
    }


def _counts(drawn: list[NDArray[np.bool_]], reference: NDArray[np.bool_]) -> dict[str, float]:
    """Count the fronts and the false ones among them, and say whether a true one is left."""
    reach = REACH_PX * max(reference.shape) / 256
    n_false = sum(is_false(line, reference, reach) for line in drawn)
    return {"n_fronts": float(len(drawn)), "n_false": float(n_false), "hit": float(len(drawn) > n_false)}


def _distances(
    apart: NDArray[np.float64] | None, line: NDArray[np.bool_], reference: NDArray[np.bool_], metres: float | None
) -> dict[str, float]:
    has_reference = bool(reference.any())
    found = np.zeros(0) if line.any() and not has_reference else apart
    row = score_scene(found, has_reference=has_reference)
    return row | {f"{name}_m": row[name] * metres if metres else np.nan for name in IN_METRES}


def equidistant(lines: list[Line], reference: NDArray[np.bool_]) -> float:
    """Mohajerani's distance in px of the longest front from a reference of one piece, not cut by fjord walls."""
    if not lines or label(reference, connectivity=2).max() != 1:
        return float("nan")
    drawn = extract_line(reference.astype(np.float32))
    if len(drawn) < 2:
        return float("nan")
    longest = max(lines, key=length_of)
    return equidistant_distance(LineString(longest), LineString(drawn[:, ::-1]))


def between_ends(front: NDArray[np.float32], reference: NDArray[np.bool_]) -> float:
    """Mean distance in px of the cheapest paths through the front probability between the ends of each piece.

    Mohajerani et al. (2019) trace so between the fjord walls, which the ends of the reference stand for here.
    """
    cost = 1 - np.nan_to_num(front) + LEAST_COST
    pieces, n_pieces = label(reference, connectivity=2, return_num=True)
    line = np.zeros_like(reference)
    for piece in range(1, n_pieces + 1):
        drawn = extract_line((pieces == piece).astype(np.float32))
        if len(drawn) > 1:
            path, _ = route_through_array(cost, drawn[0], drawn[-1])
            line[tuple(np.transpose(path))] = True
    return float(pixel_distances(line, reference).mean()) if line.any() else float("nan")


def overlaps(sample: Sample, ice: NDArray[np.float32] | None) -> dict[str, float]:
    """Overlap of the ice where it is known."""
    row: dict[str, float] = {}
    if ice is None:
        return row
    known = (sample.ice != UNKNOWN) & ~np.isnan(ice)
    if known.any():
        row["ice_iou"] = ice_iou(ice > 0.5, sample.ice == ICE, known)
        row["soft_ice_iou"] = soft_ice_iou(np.where(known, ice, 0), (sample.ice == ICE) & known)
    return row
