"""What else a scene shows seaward of its front: icebergs, melange, sediment plumes; by physics, without a network."""

from calfin_cloud.features.bands import Bands
from calfin_cloud.features.cfar import CfarSettings, bright_pixels, number_of_looks, threshold
from calfin_cloud.features.icebergs import find_icebergs, power_law
from calfin_cloud.features.measuring import measure_features, not_seen
from calfin_cloud.features.melange import measure_melange
from calfin_cloud.features.plumes import measure_plume, relative_turbidity
from calfin_cloud.features.sea import Sea, outlines, sea_of
from calfin_cloud.features.sun import sun_zenith_deg

__all__ = [
    "Bands",
    "CfarSettings",
    "Sea",
    "bright_pixels",
    "find_icebergs",
    "measure_features",
    "measure_melange",
    "measure_plume",
    "not_seen",
    "number_of_looks",
    "outlines",
    "power_law",
    "relative_turbidity",
    "sea_of",
    "sun_zenith_deg",
    "threshold",
]
