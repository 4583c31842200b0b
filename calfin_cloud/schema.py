"""The words of the house: dims, masks, front columns, states, reasons, and the checks made where rooms hand over."""

from __future__ import annotations

import re

import geopandas as gpd
import numpy as np
import pyarrow as pa
import xarray as xr

SCENE_DIMS = ("time", "band", "y", "x")
BANDS = ("signal", "cloud")
"""`signal`: reflectance, digital number or dB; `cloud`: 1 where the quality band says cloud, 0 where not, else NaN."""

MASK_DIMS = ("time", "mask", "y", "x")
MASKS = ("front", "ice")
"""CALFIN's two output channels: probability of the coastline-and-front edge, probability of land or ice."""

STATES = ("front", "no_front", "failed")

REASONS = {
    "": "a front was found",
    "cloudy": "clouds cover too much of the domain",
    "nodata": "too much of the domain has no data",
    "flat": "the scene shows a single grey level",
    "no_edge": "the network sees no edge",
    "edge_too_short": "the network's edge is shorter than a front",
    "low_confidence": "the network is not sure of its edge",
    "one_sided": "nearly all land, or nearly all ocean: an edge without two sides",
    "only_walls": "every edge follows the fjord walls or the border of the domain",
    "unreadable": "the scene could not be read",
    "no_band": "the scene lacks the band that shows ice",
    "refused_address": "the catalogue names an address that is not opened",
    "worker_lost": "the worker died with the scene",
    "error": "an unexpected error",
}
"""Reason codes of the fronts table; the empty one belongs to the state `front`."""

FAILURES = ("unreadable", "no_band", "refused_address", "worker_lost", "error")
"""Reasons of the state `failed`; all others belong to `no_front`."""

FRONT_SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # scene and domain: what `time` is not, unique
        ("domain", pa.string()),
        ("scene_id", pa.string()),
        ("front", pa.int16()),  # number within the scene, 0 first; -1 for a scene without one
        ("glacier_id", pa.string()),
        ("datetime", pa.timestamp("us", tz="UTC")),
        ("platform", pa.string()),
        ("collection", pa.string()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("quality_flag", pa.int16()),  # CALFIN's: 10 automatic, 13 automatic on Landsat 7 SLC-off
        ("length_m", pa.float64()),
        ("confidence", pa.float64()),  # mean edge probability along the front, 0 to 1
        ("isolation", pa.string()),  # what cut the front out of the coastline: "fjord_boundary" or "none"
        ("cloud_fraction", pa.float64()),
        ("nodata_fraction", pa.float64()),
        ("slc_off_fraction", pa.float64()),
        ("resolution_m", pa.float64()),
        ("model", pa.string()),
        ("code", pa.string()),
    ]
)
"""Columns of the fronts table before its geometry (LineString in the domain CRS, or None)."""


class SceneError(RuntimeError):
    """A scene that cannot be mapped: `reason` is a code of `REASONS`, the message says what was got."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both in args, so that it survives pickling between workers
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


def front_key(domain: str, scene_id: str) -> str:
    """Key of a scene within a store: the scene id with the domain."""
    return f"{domain}/{scene_id}"


def check_name(name: str, *, what: str = "name") -> str:
    """Return `name` if it may become part of a path (word characters, `.`, `-`); raise `ValueError` otherwise."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.\-]{0,199}", name) or ".." in name:
        raise ValueError(
            f"{what} must be 1 to 200 letters, digits, '_', '-' or '.', starting with a letter or digit, got {name!r}: "
            "rename it, since it becomes part of a path"
        )
    return name


def check_scenes(scenes: xr.DataArray) -> xr.DataArray:
    """Return `scenes` if it keeps the contract (time, band, y, x) float32 with the coordinates the pipeline needs."""
    _check_dims(scenes, SCENE_DIMS, "scenes")
    if tuple(scenes["band"].values) != BANDS:
        raise ValueError(f"scenes must have bands {BANDS}, got {tuple(scenes['band'].values)}")
    if scenes.dtype != np.float32:
        raise ValueError(f"scenes must be float32 with NaN for missing data, got {scenes.dtype}")
    missing = {"scene_id", "platform", "collection"} - set(scenes.coords)
    if missing:
        raise ValueError(f"scenes lack the coordinates {sorted(missing)}: make them with stack_scenes")
    return scenes


def check_masks(masks: xr.DataArray) -> xr.DataArray:
    """Return `masks` if it keeps the contract (time, mask, y, x), mask = front, ice."""
    _check_dims(masks, MASK_DIMS, "masks")
    if tuple(masks["mask"].values) != MASKS:
        raise ValueError(f"masks must be {MASKS}, got {tuple(masks['mask'].values)}")
    return masks


def check_fronts(fronts: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return `fronts` if its columns, states and reasons are known and just its rows of state `front` have a line."""
    expected = [*FRONT_SCHEMA.names, "geometry"]
    if list(fronts.columns) != expected:
        raise ValueError(f"fronts must have the columns {expected}, got {list(fronts.columns)}")
    unknown = set(fronts["state"]) - set(STATES) | set(fronts["reason"]) - set(REASONS)
    if unknown:
        raise ValueError(
            f"fronts have unknown states or reasons {sorted(unknown)}, expected {STATES} and {sorted(REASONS)}"
        )
    wrong = fronts["geometry"].notna() != (fronts["state"] == "front")
    if wrong.any():
        raise ValueError(f"state and geometry disagree in {fronts.loc[wrong, 'key'].tolist()[:5]}")
    return fronts


def _check_dims(array: xr.DataArray, dims: tuple[str, ...], what: str) -> None:
    if array.dims != dims:
        raise ValueError(f"{what} must have the dims {dims}, got {array.dims}")
