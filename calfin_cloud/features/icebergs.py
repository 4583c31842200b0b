"""Icebergs of one scene: what radar shows brighter than speckle, what light shows brighter than water."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.feature_schema import NotSeenError
from calfin_cloud.features.bands import (
    COARSEST_M,
    ICE_REFLECTANCE,
    LEAST_SEEN,
    Bands,
    check_pixels,
    check_sun,
    seen_part,
)
from calfin_cloud.features.cfar import CfarSettings, bright_pixels
from calfin_cloud.features.sea import Bools, Sea, grown, labelled, outlines

LEAST_PX = 4
"""Objects of fewer pixels are dropped. Of icebergs below 60 m, 85 to 90 % are missed in radar images of 40 m, of those
of 60 to 120 m 20 to 40 % (Faerch et al. 2023, doi:10.5194/tc-17-5335-2023): four pixels of 40 m are 80 m a side."""

LARGEST_M2 = 1e6
"""From here on an object is sea ice or melange."""

ICEBERG_MEANS = {"nir": 0.306, "red": 0.427, "green": 0.455, "blue": 0.501}
SEA_ICE_MEANS = {"nir": 0.196, "red": 0.268, "green": 0.297, "blue": 0.338}
"""Mean reflectance of icebergs and of sea ice in Sentinel-2's B8, B4, B3, B2 (Fisser et al. 2024)."""

COARSER = 1.1
"""Times the pixels of the grid, from which on those of a radar image make icebergs too large."""

FEWEST_FOR_A_LAW, FROM_PX = 20, 16
"""An exponent needs so many icebergs of so many pixels: of smaller ones the sensor decides how many are seen."""


def find_icebergs(bands: Bands, sea: Sea, *, zenith_deg: float, settings: CfarSettings | None = None) -> dict[str, Any]:
    """Find the icebergs of a scene; columns of `ICEBERG_SCHEMA` and the geometry.

    Radar: pixels brighter than a gamma CFAR allows, in HH (or VV) and in the cross-polarised image apart, joined; its
    rate of false alarms is that of both together. Light: near-infrared reflectance of 0.12 or more (Fisser et al.
    2024). Objects share sides; those of less than four pixels are dropped, and those that are too large, too dark or
    touch a shore count as sea ice.

    A radar image of coarser pixels than the grid makes icebergs too large; `detail` then says so.

    Raises
    ------
    NotSeenError
        With the reason why nothing can be said.
    """
    check_pixels(sea, COARSEST_M)
    looks = np.nan
    if bands.kind == "sar":
        ice, seen, looks = _in_radar(bands, sea, settings)
    else:
        bands.need_light()
        (nir,) = bands.need("nir")
        check_sun(zenith_deg)
        seen = seen_part(bands, sea, nir)
        ice = seen & (nir >= ICE_REFLECTANCE)
    labels, sizes = labelled(ice)
    is_iceberg = _are_icebergs(labels, sizes, bands, sea)
    is_ice = (sizes >= LEAST_PX) & ~is_iceberg
    is_ice[0] = False
    return _columns(labels, sizes, is_iceberg, sea) | {
        "sea_area_m2": float(seen.sum() * sea.pixel_area_m2),
        "sea_ice_area_m2": float(sizes[is_ice].sum() * sea.pixel_area_m2),
        "looks": looks,
        "detail": _told_coarse(bands, sea),
    }


def power_law(areas: NDArray[np.floating], smallest: float) -> tuple[float, float]:
    """Exponent of the power law of areas (n,) from `smallest` on, and its standard error; NaN for fewer than 20.

    Maximum likelihood (Clauset et al. 2009, SIAM Review 51, eq. 3.1 and 3.2).

    Examples
    --------
    >>> areas = (1 - np.random.default_rng(0).random(4000)) ** -1.0  # exponent 2
    >>> [round(v, 1) for v in power_law(areas, 1.0)]
    [2.0, 0.0]
    """
    known = areas[areas >= smallest]
    total = np.log(known / smallest).sum()
    if len(known) < FEWEST_FOR_A_LAW or total <= 0:
        return np.nan, np.nan
    exponent = 1 + len(known) / total
    return float(exponent), float((exponent - 1) / np.sqrt(len(known)))


def _in_radar(bands: Bands, sea: Sea, settings: CfarSettings | None) -> tuple[Bools, Bools, float]:
    """Pixels that are bright in either polarisation, the sea that was judged, and looks of the co-polarised image."""
    (co,) = bands.need("co")
    seen = seen_part(bands, sea, co)
    settings = settings or CfarSettings()
    if "cross" in bands.values:  # a pixel that either calls bright is: both together shall be wrong as often as stated
        settings = replace(settings, false_alarms=1 - math.sqrt(1 - settings.false_alarms))
    bright, judged, looks = bright_pixels(co, seen, pixel_m=sea.pixel_m, settings=settings)
    if judged.sum() < LEAST_SEEN * seen.sum():
        narrow = (
            f"{judged.sum() / seen.sum():.0%} of the sea has enough sea around it, at least {LEAST_SEEN:.0%} is needed"
        )
        raise NotSeenError("too_coarse", f"{narrow} with pixels of {sea.pixel_m:.0f} m")
    if "cross" in bands.values:
        bright = bright | bright_pixels(bands.values["cross"], seen, pixel_m=sea.pixel_m, settings=settings)[0]
    return bright, judged, looks


def _told_coarse(bands: Bands, sea: Sea) -> str:
    if bands.kind != "sar" or bands.spacing_m is None or bands.spacing_m <= COARSER * sea.pixel_m:
        return ""
    return (
        f"icebergs are too large: the pixels of the radar image are {bands.spacing_m:.0f} m apart, those of the domain "
        f"{sea.pixel_m:.0f} m; give the domain pixels of {bands.spacing_m:.0f} m (--resolution)"
    )


def _are_icebergs(labels: NDArray[np.int32], sizes: NDArray[np.int64], bands: Bands, sea: Sea) -> Bools:
    """Which of the numbered objects are icebergs (n,), the first, which is all else, not."""
    at_shore = np.unique(labels[grown(sea.water & ~sea.open, 1)])
    is_iceberg = (sizes >= LEAST_PX) & (sizes * sea.pixel_area_m2 < LARGEST_M2)
    is_iceberg[at_shore] = is_iceberg[0] = False
    return is_iceberg & ~_are_dark(labels, sizes, bands) if bands.kind != "sar" else is_iceberg


def _are_dark(labels: NDArray[np.int32], sizes: NDArray[np.int64], bands: Bands) -> Bools:
    """Which objects are nearer to sea ice than to icebergs in the mean of the bands that there are.

    Of an object the pixels count that are no darker than its mean in the near infrared: those at its rim are mixed,
    and of a small iceberg that is most of them.
    """
    where = labels > 0
    numbers = labels[where]
    nir = bands.values["nir"][where]
    pure = nir >= _means(nir, numbers, len(sizes))[numbers]
    nearness = [
        (_means(bands.values[name][where][pure], numbers[pure], len(sizes)) - dark) / (ICEBERG_MEANS[name] - dark)
        for name, dark in SEA_ICE_MEANS.items()
        if name in bands.values
    ]
    return np.asarray(np.mean(nearness, axis=0) < 0.5)


def _means(values: NDArray[np.floating], numbers: NDArray[np.int32], n: int) -> NDArray[np.float64]:
    """Mean of the known values (k,) of each of `n` objects by their numbers (k,); 0 of one without."""
    known = np.isfinite(values)
    sums = np.bincount(numbers, weights=np.where(known, values, 0), minlength=n)
    return np.asarray(sums / np.maximum(np.bincount(numbers, weights=known, minlength=n), 1))


def _columns(labels: NDArray[np.int32], sizes: NDArray[np.int64], is_iceberg: Bools, sea: Sea) -> dict[str, Any]:
    shape = outlines(is_iceberg[labels], sea.transform)
    side = abs(sea.transform.a)
    areas = np.array([part.area for part in shape.geoms] if shape else []) / side**2 * sea.pixel_area_m2
    exponent, sigma = power_law(areas, FROM_PX * sea.pixel_area_m2)
    return {
        "icebergs": len(areas),
        "area_m2": float(areas.sum()),
        "areas_m2": areas.tolist(),
        "smallest_m2": LEAST_PX * sea.pixel_area_m2,
        "exponent": exponent,
        "exponent_sigma": sigma,
        "geometry": shape,
    }
