"""The words of what else a scene shows: icebergs, melange, sediment plumes; their tables, states and reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import pyarrow as pa

FEATURES = ("icebergs", "melange", "plumes")
"""What is looked for in the sea, and how its tables are called."""

FEATURE_STATES = ("measured", "not_seen")

FEATURE_REASONS = {
    "": "it was measured, also where nothing was found",
    "no_scene": "the scene was not mapped, see the fronts table",
    "other_front": "a person or `calfin reconcile` changed the front before which it was measured",
    "no_sea": "nothing tells the sea: the scene has no ocean polygon, or next to nothing of it is sea by the maps",
    "cloudy": "clouds cover too much of the domain or of the sea",
    "nodata": "too much of the sea has no data",
    "no_band": "the scene lacks a band that is needed, or has none in reflectance",
    "unreadable": "a further band could not be read",
    "too_coarse": "the pixels of the domain are too large for it, or for so narrow a sea",
    "sun_too_low": "the sun is too low: shadows and path radiance decide what is bright",
    "error": "an unexpected error",
}
"""Reason codes of a scene in the tables of features; the empty one belongs to the state `measured`."""

FEATURE_FAILURES = ("unreadable", "error")
"""Reasons that another try may end: `calfin retry` maps such scenes again."""

_SCENE = [
    ("key", pa.string()),  # that of the fronts table
    ("domain", pa.string()),
    ("scene_id", pa.string()),
    ("glacier_id", pa.string()),
    ("datetime", pa.timestamp("us", tz="UTC")),
    ("platform", pa.string()),
    ("sensor_kind", pa.string()),  # "optical" or "sar"; "unknown" of a scene that was not mapped
    ("state", pa.string()),  # of FEATURE_STATES
    ("reason", pa.string()),  # a code of FEATURE_REASONS
    ("detail", pa.string()),
    ("sun_zenith_deg", pa.float64()),  # of the domain's middle, reckoned from the time
    ("sea_area_m2", pa.float64()),  # sea that was seen; all areas and lengths are on the ground
    ("pixel_m", pa.float64()),  # side of a pixel on the ground
]

ICEBERG_SCHEMA = pa.schema(
    [
        *_SCENE,
        ("icebergs", pa.int32()),
        ("area_m2", pa.float64()),  # of all icebergs
        ("areas_m2", pa.list_(pa.float64())),  # of each, in the order of the geometry's parts
        ("smallest_m2", pa.float64()),  # smaller objects were dropped
        ("exponent", pa.float64()),  # of the power law of their areas; NaN for fewer than 20
        ("exponent_sigma", pa.float64()),
        ("sea_ice_area_m2", pa.float64()),  # of objects that are too large or too dark for icebergs, or lie at a shore
        ("looks", pa.float64()),  # equivalent number of looks of the radar image; NaN of light
    ]
)
"""Columns of the icebergs table before its geometry: a MultiPolygon of all icebergs of the scene, None without any."""

MELANGE_SCHEMA = pa.schema(
    [
        *_SCENE,
        ("touches_front", pa.bool_()),  # the front is then to be doubted
        ("fraction_at_front", pa.float64()),  # ice fraction of the first band
        ("extent_m", pa.float64()),  # from the front over all bands whose ice fraction is at the limit or above
        ("is_cut", pa.bool_()),  # the band beyond was not seen: `extent_m` is a lower bound
        ("area_m2", pa.float64()),  # of ice within that extent
        ("band_m", pa.float64()),
        ("fractions", pa.list_(pa.float64())),  # ice fraction by distance from the front; NaN for a band hardly seen
        ("limit", pa.float64()),
    ]
)
"""Columns of the melange table before its geometry: a MultiPolygon of the ice within `extent_m`, None without."""

PLUME_SCHEMA = pa.schema(
    [
        *_SCENE,
        ("source", pa.string()),  # "front" or "coast": what the plume touches; "" without a plume
        ("area_m2", pa.float64()),
        ("extent_m", pa.float64()),  # greatest distance of the plume from the front
        # By the calibration of Dogliotti et al. (2015), which is none of Greenland: they compare scenes, no more.
        ("relative_turbidity_median_fnu", pa.float64()),
        ("relative_turbidity_ambient_fnu", pa.float64()),
    ]
)
"""Columns of the plumes table before its geometry: a MultiPolygon of the plume, None without one."""

FEATURE_SCHEMAS = {"icebergs": ICEBERG_SCHEMA, "melange": MELANGE_SCHEMA, "plumes": PLUME_SCHEMA}


NO_FEATURE: dict[str, Any] = {
    "icebergs": 0,
    "areas_m2": [],
    "fractions": [],
    "touches_front": False,
    "is_cut": False,
    "source": "",
}
"""What a row has in the columns that hold no floating-point numbers where nothing was measured; NaN in the others."""


def check_features(table: gpd.GeoDataFrame, feature: str) -> gpd.GeoDataFrame:
    """Return a table of `feature` if its columns, states and reasons are known, and each scene is in it once."""
    expected = [*FEATURE_SCHEMAS[feature].names, "geometry"]
    if list(table.columns) != expected:
        raise ValueError(f"{feature} must have the columns {expected}, got {list(table.columns)}")
    unknown = set(table["state"]) - set(FEATURE_STATES) | set(table["reason"]) - set(FEATURE_REASONS)
    if unknown:
        raise ValueError(
            f"{feature} have unknown states or reasons {sorted(unknown)}, expected {FEATURE_STATES} and "
            f"{sorted(FEATURE_REASONS)}"
        )
    wrong = (table["state"] == "measured") != (table["reason"] == "")
    wrong |= table.duplicated("key") | (table["geometry"].notna() & (table.geom_type != "MultiPolygon"))
    if wrong.any():
        got = table.loc[wrong, "key"].tolist()[:5]
        raise ValueError(f"{feature} must have a row a scene, measured or with a reason why not, not so of {got}")
    return table


def check_wanted(features: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Return names of features in the order of `FEATURES`, each once; raise `ValueError` for an unknown one."""
    features = [features] if isinstance(features, str) else features
    if unknown := sorted(set(features) - set(FEATURES)):
        raise ValueError(f"got the unknown features {unknown}, expected some of {list(FEATURES)}")
    return tuple(name for name in FEATURES if name in features)


def same_batch(features: Mapping[str, gpd.GeoDataFrame], keys: list[str]) -> None:
    """Raise `ValueError` unless each table of features has just the scenes of a batch."""
    for name, table in features.items():
        check_features(table, name)
        if sorted(table["key"]) != sorted(keys):
            raise ValueError(f"{name} must have a row of each scene of the batch: {len(keys)}, got {len(table)}")


class NotSeenError(RuntimeError):
    """A feature that cannot be measured in a scene: `reason` is a code of `FEATURE_REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)  # both in args, so that it survives pickling between workers
        self.reason = reason
        self.detail = detail
