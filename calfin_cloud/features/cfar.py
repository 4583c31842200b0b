"""Bright pixels in speckle at a constant false alarm rate: linear intensity in, what is above the ring's mean out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammainccinv, gammaincinv, gammaln

from calfin_cloud.features.sea import Bools, Floats


@dataclass(frozen=True)
class CfarSettings:
    """Windows and rate, chosen on synthetic scenes (`tests/benchmarks/features.py --choose`).

    Attributes
    ----------
    false_alarms
        Probability that a pixel of sea alone is called bright, in all polarisations together.
    largest_m
        Largest iceberg that shall not hide itself: half the guard window's side.
    ring_m
        Width of the ring around the guard window whose mean is that of the sea.
    least_ring_px
        A pixel is not judged where its ring has less sea than this.
    """

    false_alarms: float = 1e-3
    largest_m: float = 200.0
    ring_m: float = 300.0
    least_ring_px: int = 64


def bright_pixels(
    intensity: Floats, sea: Bools, *, pixel_m: float, settings: CfarSettings | None = None
) -> tuple[Bools, Bools, float]:
    """Find the pixels of sea that are brighter than speckle allows: mask (y, x), which were judged, number of looks.

    A pixel is bright if I > t m, m the mean of the sea in a ring around it, and t from P_FA = Q(L, t L): the intensity
    of L looks has a gamma distribution, of which Q is the regularised upper incomplete gamma function (cell-averaging
    CFAR of multi-look radar images).

    Parameters
    ----------
    intensity
        (y, x) linear, NaN where missing.
    sea
        (y, x), where to look, and what rings are made of.

    Examples
    --------
    >>> speckle = np.random.default_rng(0).gamma(4.0, 0.25, (300, 300)).astype(np.float32)
    >>> bright, judged, looks = bright_pixels(speckle, speckle > 0, pixel_m=40.0)
    >>> bool(bright.mean() < 2e-3), round(looks)
    (True, 4)
    """
    settings = settings or CfarSettings()
    use = np.asarray(sea & (intensity > 0))  # NaN is not
    looks = number_of_looks(intensity[use])
    mean = _ring_mean(intensity, use, pixel_m, settings)
    with np.errstate(invalid="ignore"):
        bright = use & (intensity > threshold(looks, settings.false_alarms) * mean)
    return np.asarray(bright), np.asarray(use & np.isfinite(mean)), looks


def threshold(looks: float, false_alarms: float) -> float:
    """Return t of P_FA = Q(L, t L).

    Examples
    --------
    >>> round(threshold(1.0, 1e-3), 3)  # one look is exponential: -ln(P_FA)
    6.908
    """
    return float(gammainccinv(looks, false_alarms) / looks)


def number_of_looks(intensity: NDArray[np.floating]) -> float:
    """Equivalent number of looks of sea (n,): mean^2 / variance of the pixels below twice the median.

    The cut keeps icebergs out, and takes the upper tail of the speckle with it. So the ratio is that of a gamma
    distribution cut in the same way, and L is the number of looks that has it; without this, one look would pass for
    two, and false alarms would be several times as frequent as asked for.
    """
    if intensity.size < 2:
        return 1.0
    kept = intensity[intensity < 2 * np.median(intensity)].astype(np.float64)
    variance = float(kept.var()) if kept.size else 0.0
    looks, ratios = _ratios()
    return float(np.interp(kept.mean() ** 2 / variance, ratios, looks)) if variance > 0 else float(looks[-1])


@lru_cache(maxsize=1)
def _ratios() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numbers of looks, and mean^2 / variance of their gamma distributions below twice the median."""
    looks = np.geomspace(0.3, 1000, 400)
    cut = 2 * gammaincinv(looks, 0.5)  # of L times the intensity, whose mean is 1
    below = gammainc(looks, cut)

    def moment(k: int) -> NDArray[np.float64]:
        rising = np.exp(gammaln(looks + k) - gammaln(looks) - k * np.log(looks))
        return np.asarray(rising * gammainc(looks + k, cut) / below)

    return looks, moment(1) ** 2 / (moment(2) - moment(1) ** 2)


def _ring_mean(intensity: Floats, use: Bools, pixel_m: float, settings: CfarSettings) -> NDArray[np.float64]:
    """Mean of the sea in the ring around each pixel, NaN where the ring has too little of it."""
    guard = max(1, round(settings.largest_m / pixel_m))
    outer = guard + max(1, round(settings.ring_m / pixel_m))
    sums, counts = (
        _box_sum(values, outer) - _box_sum(values, guard)
        for values in (np.where(use, intensity, 0).astype(np.float64), use.astype(np.float64))
    )
    enough = counts >= settings.least_ring_px
    return np.asarray(np.divide(sums, counts, out=np.full(use.shape, np.nan), where=enough))


def _box_sum(values: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    """Sum over the square of `2 half + 1` pixels around each; there is nothing beyond the border."""
    side = (2 * half + 1,) * 2
    return np.asarray(cv2.boxFilter(values, -1, side, normalize=False, borderType=cv2.BORDER_CONSTANT))
