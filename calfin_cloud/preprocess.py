"""One scene goes in, the three-channel network input of CALFIN comes out: raw, local contrast, lifted shadows."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from calfin_cloud.resampling import resize
from calfin_cloud.schema import SceneError

CLAHE_CLIP, CLAHE_TILES = 25.0, (4, 4)
"""Contrast-limited adaptive histogram equalisation of the second channel (CALFIN, open preprocessing)."""

SHADOW_AMOUNT, SHADOW_TONE, SHADOW_RADIUS_PX = 0.35, 0.5, 30
"""Shadow correction of the third channel (CALFIN, open preprocessing); its highlight amount is 0."""

STRETCH_PERCENTILES = (0.5, 99.5)
"""Share of the valid pixels, in percent, between which the grey scale is stretched."""


def to_eight_bit(signal: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Stretch a scene to 8-bit grey; missing pixels become 0.

    The 0.5th to the 99.5th percentile of the valid pixels become 1..255, so that neither a few saturated pixels nor the
    unit (reflectance, digital number, dB) decide the contrast. The original's `round((v - min) / max * 255)` knows no
    negative values (CALFIN, open preprocessing).

    Parameters
    ----------
    signal
        (y, x) of any unit; NaN = missing.

    Raises
    ------
    SceneError
        `nodata` if no pixel is valid, `flat` if all valid pixels are equal.
    """
    if signal.ndim != 2:
        raise ValueError(f"signal must be one band (y, x), got shape {signal.shape}: pass the bands one by one")
    valid = np.isfinite(signal)
    if not valid.any():
        raise SceneError("nodata", f"none of the {signal.size} pixels has data")
    grey = _stretch_percentiles(np.asarray(signal, dtype=np.float64), valid).astype(np.uint8)
    grey[~valid] = 0
    return grey


def eight_bit_channels(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stack 8-bit grey (y, x), its CLAHE and its shadow correction: (y, x, 3) uint8."""
    clahe = cv2.createCLAHE(clipLimit=CLAHE_CLIP, tileGridSize=CLAHE_TILES).apply(np.ascontiguousarray(grey))
    return np.asarray(cv2.merge([grey, clahe, lift_shadows(grey)]))


def lift_shadows(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brighten dark surroundings and leave the bright ones: shadow correction of 8-bit grey (y, x) as in CALFIN.

    The luminance of grey is summed from colour weights as in the original; its rounding moves some levels by up to 3.
    All but the mean over the surroundings depends on the level alone, and is looked up.
    """
    tone, level = SHADOW_TONE * 255, np.arange(256)
    luminance = 0.3 * level + 0.59 * level + 0.11 * level
    shadow = np.where(luminance < tone, 255 - luminance * 255 / tone, 0)
    lifted = np.floor((1 - (1 - level / 255) ** (1 + 6 * SHADOW_AMOUNT)) * 255 + 0.5)[luminance.astype(np.uint8)]
    # The highlight correction has amount 0: its tone curve is the identity on whole levels, so it only rounds down.
    highlight = np.where(luminance > tone, 1 - (255 - luminance) / tone, 0)
    weight = cv2.blur(cv2.LUT(grey, shadow), (SHADOW_RADIUS_PX, SHADOW_RADIUS_PX)) / 255
    corrected = cv2.LUT(grey, lifted)
    corrected *= weight
    corrected += np.multiply(np.subtract(1, weight, out=weight), cv2.LUT(grey, luminance), out=weight)
    rounded_down = cv2.LUT(grey, highlight)
    whole = np.floor(corrected)
    whole *= rounded_down
    corrected *= np.subtract(1, rounded_down, out=rounded_down)
    corrected += whole
    corrected += 0.5
    return np.asarray(np.minimum(corrected, 255, out=corrected), dtype=np.uint8)


def resize_channels(channels: NDArray[np.uint8], shape: tuple[int, int] = (256, 256)) -> NDArray[np.float32]:
    """Resize grey levels (y, x, c) to `shape` bilinearly with anti-aliasing."""
    return np.asarray(resize(channels.astype(np.float32), shape, smooth=True), dtype=np.float32)


def normalise(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale grey levels 0..255 to the network's -1..1; keeps shape and float32."""
    return (channels / 127.5 - 1).astype(np.float32)


def _stretch_percentiles(signal: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    values = signal[valid]
    low, high = np.percentile(values, STRETCH_PERCENTILES, overwrite_input=True)
    if low == high:  # nearly all pixels alike; the few others still tell something
        low, high = values.min(), values.max()
    if low == high:
        raise SceneError("flat", f"all {values.size} valid pixels have the value {low:g}")
    scaled = np.where(valid, signal, low)
    scaled -= low
    scaled /= high - low
    np.clip(scaled, 0, 1, out=scaled)
    scaled *= 254
    scaled += 1
    return np.asarray(np.round(scaled, out=scaled))
