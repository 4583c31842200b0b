"""One scene in; how much of it is cloud, missing, or lost to the stripes of Landsat 7 out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.resampling import distance_inside

STRIPE_WIDTH_M = 500.0
"""SLC-off gaps are at most 14 pixels of 30 m wide, at the edge of a Landsat 7 scene."""


def scene_fractions(
    scene: NDArray[np.float32], *, resolution_m: float = 30.0, slc_off_possible: bool = True
) -> dict[str, float]:
    """Measure one scene (band, y, x) over the domain: its cloud, nodata and SLC-off fractions, 0 to 1.

    Cloud counts among the pixels whose quality is known, NaN where there is no quality band. Nodata counts all missing
    pixels, the stripes too. SLC-off counts missing pixels in gaps narrower than `STRIPE_WIDTH_M`, where they are
    possible: in Landsat 7 scenes after 2003-05-31 only.
    """
    signal, cloud = scene
    nodata, known = np.isnan(signal), np.isfinite(cloud)
    slc_off = 0.0
    if slc_off_possible and nodata.any():
        slc_off = float((nodata & ~wide_parts(nodata, STRIPE_WIDTH_M / 2 / resolution_m)).mean())
    return {
        "cloud_fraction": float((cloud if known.all() else cloud[known]).mean()) if known.any() else float("nan"),
        "nodata_fraction": float(nodata.mean()),
        "slc_off_fraction": slc_off,
    }


def wide_parts(mask: NDArray[np.bool_], radius_px: float) -> NDArray[np.bool_]:
    """Open `mask` by a disk of that radius; what touches the border counts as going on beyond it."""
    pad = int(np.ceil(radius_px)) + 1
    core = distance_inside(np.pad(mask, pad, mode="edge")) > radius_px
    wide = distance_inside(~core) <= radius_px if core.any() else core
    return np.asarray(wide[pad:-pad, pad:-pad])
