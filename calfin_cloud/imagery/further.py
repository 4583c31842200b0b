"""An item in; its bands beyond that which shows ice, calibrated, on the domain's grid, out; and why one is missing."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pystac
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from calfin_cloud.imagery.reader import layer_of, read_layer
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import further_bands_of

Floats = NDArray[np.float32]


def read_further(
    item: pystac.Item, grid: GeoBox, names: Collection[str]
) -> tuple[dict[str, Floats], dict[str, tuple[str, str]]]:
    """Read those of `names` that the item has: red, green and blue in reflectance, or `cross` in dB.

    Read as the signal is (bilinear, with its deadline and retries), one after the other: each (y, x) float32, NaN where
    it has no data.

    Returns
    -------
    tuple
        Bands by name, and of those that could not be read a reason and words: the scene's front needs none of them.
    """
    bands, missing = {}, {}
    for name, band in further_bands_of(item).items():
        if name not in names:
            continue
        try:
            bands[name] = band.signal(read_layer(layer_of(item, band.asset, nodata=band.nodata), grid))
        except SceneError as error:
            missing[name] = ("unreadable", f"band {name}: {error.message}")
        except Exception as error:  # whatever else is wrong with one band takes no front with it
            missing[name] = ("error", f"band {name}: {type(error).__name__}: {error}")
    return bands, missing
