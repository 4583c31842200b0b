"""Synthetic seas in; tables of their true icebergs, melange and plumes out."""

from __future__ import annotations

from collections.abc import Mapping

import geopandas as gpd
import numpy as np
import pandas as pd

from calfin_cloud.domains import Domain
from calfin_cloud.sample.seascape import SyntheticSea


def sea_truth(
    seas: Mapping[str, SyntheticSea], domain: Domain, pixel_m: Mapping[str, float]
) -> dict[str, pd.DataFrame]:
    """Tables of the truth by feature; `seas` by scene id, with the side of their pixels on the map in metres.

    Returns
    -------
    dict
        `icebergs`: `scene_id, area_m2, geometry`, a row an iceberg. `melange`: `scene_id, extent_m`. `plumes`:
        `scene_id, area_m2, turbidity_median_fnu, ambient_fnu`, of the scene's own pixels. All in metres of the map.
    """
    bergs = [(name, of.polygon.area, of.polygon) for name, sea in seas.items() for of in sea.seascape.icebergs]
    melange = [(name, sea.seascape.melange_m) for name, sea in seas.items()]
    plumes = [
        (
            name,
            float(sea.plume.sum()) * pixel_m[name] ** 2,
            float(np.median(sea.turbidity[sea.plume])) if sea.plume.any() else np.nan,
            sea.seascape.ambient_fnu,
        )
        for name, sea in seas.items()
    ]
    return {
        "icebergs": gpd.GeoDataFrame(bergs, columns=["scene_id", "area_m2", "geometry"], crs=domain.crs),
        "melange": pd.DataFrame(melange, columns=["scene_id", "extent_m"]),
        "plumes": pd.DataFrame(plumes, columns=["scene_id", "area_m2", "turbidity_median_fnu", "ambient_fnu"]),
    }
