"""Turbid water that comes from under the ice or off the land: a relative turbidity, and the plume in it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calfin_cloud.feature_schema import NotSeenError
from calfin_cloud.features.bands import COARSEST_M, ICE_REFLECTANCE, Bands, check_pixels, check_sun, seen_part
from calfin_cloud.features.sea import SHORE_PX, Bools, Floats, Sea, grown, labelled, outlines

RED_A, RED_C = 228.1, 0.1641
NIR_A, NIR_C = 3078.9, 0.2112
"""Turbidity T = A r / (1 - r / C) in FNU at 645 and 859 nm (Dogliotti et al. 2015, Remote Sens. Environ. 156)."""

RED_BELOW, NIR_ABOVE = 0.05, 0.07
"""Red reflectance below which the red one alone is used, and above which the near infrared; linear between."""

ICE_RIM_PX = 2
TIMES_AMBIENT, ABOVE_AMBIENT_FNU = 2.0, 5.0
"""A plume is so many times, and so much, more turbid than the clearest twentieth of the sea."""

AMBIENT_PERCENT = 5.0

REACH_M = 300.0
"""A plume that comes so near to the front touches it: ice and its rim lie between."""

LEAST_PX, SMOOTH_PX = 50, 5

WIDEST_GAP_M = 500.0
"""Turbid water on both sides of an unseen stripe that is no wider is one plume: gaps of Landsat 7 are up to 420 m."""


def measure_plume(bands: Bands, sea: Sea, *, zenith_deg: float) -> dict[str, Any]:
    """Measure the plume of a scene; columns of `PLUME_SCHEMA` and the geometry.

    It is the largest part of the turbid water that touches the front, else the largest that touches a coast, where a
    glacier that ends on land may feed it. The turbidity is relative: nobody has calibrated it in Greenland, and Schild
    et al. (2017) warn of taking one from elsewhere.

    Raises
    ------
    NotSeenError
        With the reason why nothing can be said; always for reflectance at the top of the atmosphere, and in radar.
    """
    bands.need_light()
    check_pixels(sea, COARSEST_M)
    nir, red = bands.need("nir", "red")
    if not bands.at_surface:
        raise NotSeenError("no_band", "reflectance is that of the top of the atmosphere: take a level-2 collection")
    check_sun(zenith_deg)
    seen = seen_part(bands, sea, red, nir)
    clear = seen & ~grown(np.asarray(nir >= ICE_REFLECTANCE), ICE_RIM_PX)
    if clear.sum() < LEAST_PX:
        raise NotSeenError("no_sea", f"{clear.sum()} px of water without ice, at least {LEAST_PX} are needed")
    own = relative_turbidity(red, nir)
    turbidity = _smoothed(own, clear)
    ambient = float(np.percentile(turbidity[clear], AMBIENT_PERCENT))
    limit = max(TIMES_AMBIENT * ambient, ambient + ABOVE_AMBIENT_FNU)
    turbid = clear & (turbidity >= limit) & (own >= limit)  # the mean alone would widen a plume by half its window
    plume, source = _plume(turbid, sea.open & ~seen, sea)
    return {
        "sea_area_m2": float(clear.sum() * sea.pixel_area_m2),
        "source": source,
        "area_m2": float(plume.sum() * sea.pixel_area_m2),
        "extent_m": float(sea.front_m[plume].max(initial=0)),
        "relative_turbidity_median_fnu": float(np.median(turbidity[plume])) if source else np.nan,
        "relative_turbidity_ambient_fnu": ambient,
        "geometry": outlines(plume, sea.transform),
    }


def relative_turbidity(red: NDArray[np.floating], nir: NDArray[np.floating]) -> Floats:
    """Turbidity in FNU of water-leaving reflectance, any shape; relative, since no Greenland calibration exists.

    Examples
    --------
    >>> relative_turbidity(np.array([0.02, 0.1]), np.array([0.005, 0.05])).round(1).tolist()
    [5.2, 201.7]
    """
    by_red, by_nir = _turbidity(red, RED_A, RED_C), _turbidity(nir, NIR_A, NIR_C)
    share = np.clip((red - RED_BELOW) / (NIR_ABOVE - RED_BELOW), 0, 1)
    return np.asarray((1 - share) * by_red + share * by_nir, dtype=np.float32)


def _turbidity(reflectance: NDArray[np.floating], a: float, c: float) -> NDArray[np.floating]:
    """T = A r / (1 - r / C) up to nine tenths of C, beyond which the formula has no meaning; noise below 0 is 0."""
    r = np.clip(reflectance, 0, 0.9 * c)
    return np.asarray(a * r / (1 - r / c))


def _smoothed(values: Floats, clear: Bools) -> Floats:
    """Mean of the clear pixels around each, so that the sensor's noise makes no plume."""
    side = (SMOOTH_PX, SMOOTH_PX)
    sums, counts = (
        cv2.boxFilter(part.astype(np.float32), -1, side, normalize=False)
        for part in (np.where(clear, np.nan_to_num(values), 0), clear)
    )
    return np.asarray(sums / np.maximum(counts, 1), dtype=np.float32)


def _plume(turbid: Bools, hidden: Bools, sea: Sea) -> tuple[Bools, str]:
    """Largest part that touches the front, else a coast: where it is (y, x), and what it touches."""
    labels, _ = labelled(turbid | _bridges(turbid, hidden, sea.pixel_m))
    labels[~turbid] = 0
    sizes = np.bincount(labels.ravel())
    land = grown(~sea.water & (sea.front_m > REACH_M), SHORE_PX + 1)
    for source, place in (("front", sea.front_m <= REACH_M), ("coast", land)):
        touching = np.unique(labels[place & turbid])
        touching = touching[sizes[touching] >= LEAST_PX]
        if len(touching):
            return np.asarray(labels == touching[np.argmax(sizes[touching])]), source
    return np.zeros_like(turbid), ""


def _bridges(turbid: Bools, hidden: Bools, pixel_m: float) -> Bools:
    """Find what is hidden (y, x) between turbid water no further apart than `WIDEST_GAP_M`."""
    if not hidden.any():
        return hidden
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(WIDEST_GAP_M / 2 / pixel_m) + 1,) * 2)
    return np.asarray(hidden & (cv2.morphologyEx(turbid.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0))
