"""Which asset of a STAC item shows ice, and how its numbers become a signal and a cloud mask."""

from calfin_cloud.sensors.bands import Band, band_of, cloud_from_quality, further_bands_of, is_slc_off, kind_of
from calfin_cloud.sensors.items import (
    CATALOG_FIELD,
    GRANULES_FIELD,
    IMAGE_DRIVERS,
    ONE_FILE,
    acquired,
    granules_of,
    in_utc,
    item_of,
)
from calfin_cloud.sensors.table import (
    BQA,
    QA_PIXEL,
    SCL,
    SENSORS,
    Kind,
    Quality,
    Sensor,
    listed_assets,
    own_sensors,
    read_assets,
    register_sensor,
)

__all__ = [
    "BQA",
    "CATALOG_FIELD",
    "GRANULES_FIELD",
    "IMAGE_DRIVERS",
    "ONE_FILE",
    "QA_PIXEL",
    "SCL",
    "SENSORS",
    "Band",
    "Kind",
    "Quality",
    "Sensor",
    "acquired",
    "band_of",
    "cloud_from_quality",
    "further_bands_of",
    "granules_of",
    "in_utc",
    "is_slc_off",
    "item_of",
    "kind_of",
    "listed_assets",
    "own_sensors",
    "read_assets",
    "register_sensor",
]
