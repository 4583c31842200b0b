"""The bands that features are measured in, and how much of the sea they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.feature_schema import NotSeenError
from calfin_cloud.features.sea import LEAST_SEA_PX, Bools, Floats, Sea, grown

ICE_REFLECTANCE = 0.12
"""Near-infrared reflectance from which the sea is ice (Fisser et al. 2024, Annals of Glaciology)."""

COARSEST_M = 100.0  # pixels in which icebergs and plumes are seen

SUN_LIMIT_DEG = 65.0
"""Solar zenith above which icebergs are not measured; errors of their area grow beyond (Fisser et al. 2024)."""

CLOUD_RIM_PX = 2
LEAST_SEEN = 0.5
"""Part of the sea that must be seen."""


@dataclass(frozen=True)
class Bands:
    """Calibrated bands of one scene, each (y, x) float32 with NaN = missing.

    Attributes
    ----------
    kind
        `optical`, `sar` or `unknown`.
    values
        Of light `nir`, `red`, `green`, `blue`, in reflectance; of radar `co` (HH, else VV) and `cross`, in linear
        intensity; as many as there are.
    cloud
        1 cloud, 0 none, NaN unknown; None where there is no quality band.
    at_surface
        Whether reflectance is that of the surface (level 2), not of the top of the atmosphere.
    missing
        Why a band is not there: a code of `FEATURE_REASONS` and words, by band.
    spacing_m
        Distance of the pixels of the image in its file, in metres; None where its item does not tell it.
    """

    kind: str
    values: Mapping[str, Floats]
    cloud: Floats | None = None
    at_surface: bool = False
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spacing_m: float | None = None

    def need(self, *names: str) -> list[Floats]:
        """Return bands; raise `NotSeenError` for the first that is not there."""
        for name in names:
            if name not in self.values:
                reason, detail = self.missing.get(name, ("no_band", f"the scene has no band `{name}` in reflectance"))
                raise NotSeenError(reason, detail)
        return [self.values[name] for name in names]

    def need_light(self) -> None:
        """Raise `NotSeenError` for a scene that was not taken by light."""
        if self.kind != "optical":
            raise NotSeenError("no_band", f"it is measured in scenes of light alone, this one is of kind {self.kind}")


def seen_part(bands: Bands, sea: Sea, *needed: NDArray[np.floating]) -> Bools:
    """Open sea (y, x) where the needed bands have data and that is not beside a cloud.

    Raises
    ------
    NotSeenError
        `cloudy` or `nodata` where that is less than half of the open sea, or next to nothing.
    """
    total = int(sea.open.sum())
    if total < LEAST_SEA_PX:
        raise NotSeenError("no_sea", f"{total} px of open sea, at least {LEAST_SEA_PX} are needed")
    has_data = sea.open & np.all([np.isfinite(band) for band in needed], axis=0)
    cloud = np.zeros_like(sea.open) if bands.cloud is None else np.asarray(bands.cloud > 0.5)  # NaN is unknown
    seen = has_data & ~grown(cloud, CLOUD_RIM_PX) if cloud.any() else has_data
    if seen.sum() < max(LEAST_SEA_PX, LEAST_SEEN * total):
        share = f"{seen.sum() / total:.0%} of the open sea is seen, at least {LEAST_SEEN:.0%} are needed"
        raise NotSeenError(reason_unseen(sea.open, seen, *needed), share)
    return np.asarray(seen)


def reason_unseen(where: Bools, seen: Bools, *needed: NDArray[np.floating]) -> str:
    """`cloudy` or `nodata`: what hides most of what is not seen of a part of the sea (y, x)."""
    has_data = np.all([np.isfinite(band) for band in needed], axis=0)
    hidden = where & ~seen
    return "cloudy" if (hidden & has_data).sum() > (hidden & ~has_data).sum() else "nodata"


def check_pixels(sea: Sea, coarsest_m: float) -> None:
    """Raise `NotSeenError` for pixels that are too large."""
    if sea.pixel_m > coarsest_m:
        raise NotSeenError("too_coarse", f"pixels of {sea.pixel_m:.0f} m, at most {coarsest_m:.0f} m")


def check_sun(zenith_deg: float) -> None:
    """Raise `NotSeenError` for a sun that is too low."""
    if not zenith_deg <= SUN_LIMIT_DEG:
        raise NotSeenError(
            "sun_too_low", f"the sun is {zenith_deg:.1f} deg from the zenith, at most {SUN_LIMIT_DEG:.0f}"
        )
