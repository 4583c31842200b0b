"""What a candidate must show to be believed: the released filters of a window (calfin-method 6.4), ours of a line."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calfin_cloud.fronts.lines import scale_of
from calfin_cloud.fronts.settings import CandidateSettings, FilterSettings

EDGE_WIDTH_PX = 3  # of the labels; the number of edge pixels over it is a length
FAINT = 0.05  # edge probability below which a pixel is no part of the edge's confidence
LIKELY = 0.33
AROUND_PX = 15  # side of the square by which the walls are kept off, and the edge is widened


class Objection(NamedTuple):
    """Why a candidate is no front: the filter, the reason (of `schema.REASONS`), what was measured and the limit."""

    filter: str
    reason: str
    value: float
    limit: float
    detail: str


class Measured(NamedTuple):
    """What is measured of a single line; lengths in px of a 256 px frame."""

    length_px: float
    border_px: float
    confidence: float
    contrast: float


def frame_objection(
    edge: NDArray[np.floating],
    ice: NDArray[np.floating],
    fjord_mask: NDArray[np.bool_] | None,
    settings: FilterSettings,
) -> Objection | None:
    """Return the first of the released filters that a window (y, x) fails (6.4, step 3), None if it passes all."""
    length = edge_length(edge, settings.edge_probability)
    if length < settings.min_edge_px:
        return _below("edge size", "edge_too_short", length, settings.min_edge_px, "px of a 256 px frame of edge")
    ratio = land_ratio(ice, settings.ice_probability)
    if ratio > settings.max_land_ratio:
        return _above("land ratio", "one_sided", ratio, settings.max_land_ratio, "pixels of land for one of ocean")
    confidence = edge_confidence(edge)
    if confidence < settings.min_edge_confidence:
        return _below("edge confidence", "low_confidence", confidence, settings.min_edge_confidence, "edge confidence")
    imbalance = abs(buffered_mean(edge, ice, fjord_mask))
    if imbalance > settings.max_imbalance:  # NaN, where no edge lies off the walls, passes as in the release
        what = "from equal land and ocean around the edge"
        return _above("buffered mean", "unbalanced", imbalance, settings.max_imbalance, what)
    return None


def line_objection(measured: Measured, settings: CandidateSettings) -> Objection | None:
    """Return the first of our own limits that a line fails, None if it passes all."""
    m, s = measured, settings
    frame = "px of a 256 px frame"
    contrast_needed = max(2 * (1 - m.confidence), 0.1) * s.min_contrast
    for name, reason, value, limit, what in (
        ("length", "edge_too_short", m.length_px, s.min_length_px, f"{frame} long"),
        ("border", "only_walls", m.border_px, s.min_border_px, f"{frame} away from the border or missing data"),
        ("confidence", "low_confidence", m.confidence, s.min_confidence, "mean edge probability"),
        ("contrast", "one_sided", m.contrast, contrast_needed, "step of the ice mask across the edge"),
    ):
        if value < limit:
            return _below(name, reason, value, limit, what)
    return None


def edge_length(edge: NDArray[np.floating], probability: float) -> float:
    """Length of the edge (y, x) in px of a 256 px frame: its pixels above a probability over its width."""
    return float((edge > probability).sum() / EDGE_WIDTH_PX / scale_of(edge.shape) ** 2)


def land_ratio(ice: NDArray[np.floating], probability: float) -> float:
    """Pixels of (y, x) with more ice than the probability for each one with less."""
    land = ice > probability
    return float(land.sum() / (land.size - land.sum() + 1))


def edge_confidence(edge: NDArray[np.floating]) -> float:
    """Twice the mean distance from 1/2 of the edge probability (y, x) where there is any edge; 0 without."""
    seen = edge[edge > FAINT]
    return float(2 * np.abs(0.5 - seen).mean()) if seen.size else 0.0


def buffered_mean(edge: NDArray[np.floating], ice: NDArray[np.floating], fjord_mask: NDArray[np.bool_] | None) -> float:
    """Mean of ice - 1/2 around the edge, away from the walls; NaN where no edge lies away from them."""
    side = max(3, round(AROUND_PX * scale_of(edge.shape)))
    square = np.ones((side, side), dtype=np.uint8)
    likely = (edge > LIKELY).astype(np.uint8)
    if fjord_mask is not None:
        likely &= cv2.erode(fjord_mask.astype(np.uint8), square)
    around = cv2.dilate(likely, square) > 0
    return float((ice[around] - 0.5).mean()) if around.any() else float("nan")


def _below(name: str, reason: str, value: float, limit: float, what: str) -> Objection:
    return Objection(name, reason, value, limit, f"{value:.3g} {what}, at least {limit:.3g} is needed")


def _above(name: str, reason: str, value: float, limit: float, what: str) -> Objection:
    return Objection(name, reason, value, limit, f"{value:.3g} {what}, at most {limit:.3g} is allowed")
