"""Ice on the sea before the front of one scene: how dense it is by distance, and how far it reaches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.feature_schema import NotSeenError
from calfin_cloud.features.bands import ICE_REFLECTANCE, Bands, check_pixels, check_sun, reason_unseen, seen_part
from calfin_cloud.features.sea import Bools, Floats, Sea, outlines

BAND_M, MOST_BANDS = 500.0, 40
COARSEST_M = BAND_M / 4
LIMIT = 0.5
"""Ice fraction from which a band counts as melange. No class is claimed: fast ice and packed floes count alike."""

LEAST_BAND_PX, LEAST_BAND_SEEN = 50, 0.25


def measure_melange(bands: Bands, sea: Sea, *, zenith_deg: float) -> dict[str, Any]:
    """Measure the ice before the front; columns of `MELANGE_SCHEMA` and the geometry.

    Ice is near-infrared reflectance of 0.12 or more (Fisser et al. 2024); its fraction is that of the sea that is seen
    in bands of 500 m, by the straight distance from the front. The extent goes from the front to the end of the last
    band in a row at or above the limit; it is cut where the next band is not seen.

    Raises
    ------
    NotSeenError
        With the reason why nothing can be said: where the first band is not seen either, and in radar images always,
        since it is not validated there.
    """
    bands.need_light()
    check_pixels(sea, COARSEST_M)
    (nir,) = bands.need("nir")
    check_sun(zenith_deg)
    seen = seen_part(bands, sea, nir)
    ice = seen & (nir >= ICE_REFLECTANCE)
    fractions = _fractions(ice, seen, sea)
    if not np.isfinite(fractions[:1]).any():
        raise _front_unseen(seen, sea, nir)
    n = _n_in_a_row(fractions)
    within = ice & (sea.front_m < n * BAND_M)
    return {
        "sea_area_m2": float(seen.sum() * sea.pixel_area_m2),
        "touches_front": n > 0,
        "fraction_at_front": float(fractions[0]),
        "extent_m": n * BAND_M,
        "is_cut": bool(n > 0 and not np.isfinite(fractions[n : n + 1]).any()),
        "area_m2": float(within.sum() * sea.pixel_area_m2),
        "band_m": BAND_M,
        "fractions": fractions.tolist(),
        "limit": LIMIT,
        "geometry": outlines(within, sea.transform),
    }


def _fractions(ice: Bools, seen: Bools, sea: Sea) -> NDArray[np.float64]:
    """Ice fraction of each band, to the last that is seen; NaN for one that is hardly seen."""
    band = np.minimum(sea.front_m[sea.open] // BAND_M, MOST_BANDS).astype(int)
    there, n_seen, n_ice = (
        np.bincount(band, weights=mask[sea.open], minlength=MOST_BANDS + 1)[:MOST_BANDS]
        for mask in (sea.open, seen, ice)
    )
    known = (n_seen >= LEAST_BAND_PX) & (n_seen >= LEAST_BAND_SEEN * there)
    fractions = np.divide(n_ice, n_seen, out=np.full(MOST_BANDS, np.nan), where=known)
    last = int(np.flatnonzero(known)[-1]) + 1 if known.any() else 0
    return np.asarray(fractions[:last], dtype=np.float64)


def _front_unseen(seen: Bools, sea: Sea, nir: Floats) -> NotSeenError:
    first = sea.open & (sea.front_m < BAND_M)
    reason = "no_sea" if first.sum() < LEAST_BAND_PX else reason_unseen(first, seen, nir)
    told = f"{(first & seen).sum()} of {first.sum()} px of sea within {BAND_M:.0f} m of the front are seen"
    return NotSeenError(reason, told)


def _n_in_a_row(fractions: NDArray[np.float64]) -> int:
    """How many bands from the front on are at or above the limit; NaN ends the row."""
    below = np.flatnonzero(~(fractions >= LIMIT))
    return int(below[0]) if len(below) else len(fractions)
