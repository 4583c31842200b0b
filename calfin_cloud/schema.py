"""The words of the house: dims, masks, front columns, states, reasons, and the checks made where rooms hand over."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import xarray as xr
from numpy.typing import NDArray

from calfin_cloud.outcomes import LEVELS as LEVELS  # noqa: PLC0414 - words of this module too
from calfin_cloud.outcomes import MISSING as MISSING  # noqa: PLC0414
from calfin_cloud.outcomes import SceneError as SceneError  # noqa: PLC0414

SCENE_DIMS = ("time", "band", "y", "x")
BANDS = ("signal", "cloud")
"""`signal`: reflectance, digital number or dB; `cloud`: 1 where the quality band says cloud, 0 where not, else NaN."""

MASK_DIMS = ("time", "mask", "y", "x")
MASKS = ("front", "ice")
"""CALFIN's two output channels: probability of the coastline-and-front edge, probability of land or ice."""

PROBABILITIES = np.append(np.arange(MISSING, dtype=np.float32) / np.float32(LEVELS), np.float32(np.nan))

MOST_BOXES = 8
"""Most candidate fronts of a first pass that a second one looks at, and that are stored with the masks."""

NO_BOXES = np.empty((0, 4), dtype=np.int32)

GOOD_PX = 2.5
"""Mean distance in px of a 256 px frame below which a front is good: what the score is the probability of."""

FIRST_YEAR, LAST_YEAR = 1900, 2149
"""Of scenes: any two of their dates differ by less than the 292 years that pandas and xarray can tell, in nanoseconds
of 64 bits. One other date would end reports, comparisons and exports of a store."""

SEASONS = ("winter", "spring", "summer", "autumn")

LONGEST_NAME = 200
"""Bytes of the name of a file without its ending: file systems take 255."""

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
    "unbalanced": "the edge does not part about as much land as ocean",
    "not_across": "no edge that is sure enough lies across the fjord at the known terminus",
    "not_chosen": "another line is better supported at the known terminus",
    "out_of_sequence": "the front lies apart from those of the dates before and after",
    "elsewhere": "the second look finds an edge, but not where the first one saw the front",
    "only_walls": "every edge follows the fjord walls or the border of the domain",
    "unreadable": "the scene could not be read",
    "unreachable": "the server of the scene was silent or busy: try again later",
    "no_band": "the scene lacks the band that shows ice",
    "refused_address": "the catalogue names an address that is not opened",
    "worker_lost": "the worker died with the scene",
    "out_of_memory": "the memory of the GPU or worker does not hold one tile of the scene in the network",
    "error": "an unexpected error",
}
"""Reason codes of a scene and of a rejected candidate; the empty one belongs to the state `front`."""

FAILURES = ("unreadable", "unreachable", "no_band", "refused_address", "worker_lost", "out_of_memory", "error")
"""Reasons of the state `failed`; all others belong to `no_front`."""

UNSEEN = ("cloudy", "nodata", "flat", *FAILURES)
"""Reasons of scenes that the network has not seen to the end: they have no masks."""

FRONT_SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # domain and scene, `DOMAIN/SCENE`: unique, unlike `datetime`
        ("domain", pa.string()),  # name of the domain
        ("scene_id", pa.string()),  # id of the scene in its catalogue
        ("front", pa.int16()),  # number within the scene, 0 first; -1 for a scene without one
        ("glacier_id", pa.string()),  # id of the glacier, as the domain says it
        ("datetime", pa.timestamp("us", tz="UTC")),  # when the scene was taken
        ("platform", pa.string()),  # satellite
        ("collection", pa.string()),  # collection of the catalogue
        ("state", pa.string()),  # `front`, `no_front` or `failed`
        ("reason", pa.string()),  # why there is no front, a code; empty with a front
        ("detail", pa.string()),  # what was measured or got, in words
        ("quality_flag", pa.int16()),  # CALFIN's: 10 automatic, 13 automatic on Landsat 7 SLC-off
        ("length_m", pa.float64()),  # on the ground, as every length in m: the distortion of the map is taken out
        ("confidence", pa.float64()),  # mean edge probability along the front, 0 to 1
        ("least_confidence", pa.float64()),  # least edge probability along it
        ("traced_by", pa.string()),  # `guided` by a known terminus, by `neighbours` in time, or `free`
        ("guide_distance_m", pa.float64()),  # mean distance to that terminus; NaN where none is known
        ("ends", pa.string()),  # why it ends there, on either side: `corridor`, `faint`, `turned`, `wall`
        # half-width on the ground that holds the front's mean distance to the truth in 68 % of the cases; NaN for
        # weights without a calibration
        ("sigma_m", pa.float64()),
        ("half95_m", pa.float64()),  # the same in 95 % of the cases
        ("vertex_sigma_m", pa.list_(pa.float32())),  # the same of each vertex, in 68 %; empty without a calibration
        ("score", pa.float64()),  # 0 to 1: probability that the mean distance is below 2.5 px of a 256 px frame
        ("score_reasons", pa.string()),  # what costs the score most
        # what cut the front out of the coastline: `fjord_boundary` (drawn by hand), `dates` (walls are what never
        # changes), `ice_mask` (given by the user), `scene` (its own ice mask), `none`; empty without a front
        ("isolation", pa.string()),
        ("cloud_fraction", pa.float64()),  # part of the domain under cloud
        ("nodata_fraction", pa.float64()),  # part of the domain without data
        ("slc_off_fraction", pa.float64()),  # part of the domain in stripes of Landsat 7 that were looked across
        ("resolution_m", pa.float64()),  # side of a pixel on the map
        ("model", pa.string()),  # networks with the digests of their weights
        ("code", pa.string()),  # version of calfin_cloud, and the engine that ran the network
    ]
)
"""Columns of the fronts table before its geometry (LineString in the domain CRS, or None)."""

NO_FRONT: dict[str, Any] = {"front": -1, "isolation": "", "vertex_sigma_m": [], "score_reasons": "", "geometry": None}
NO_FRONT |= {"traced_by": "", "ends": ""} | dict.fromkeys(("least_confidence", "guide_distance_m"), np.nan)
NO_FRONT |= dict.fromkeys(("length_m", "confidence", "sigma_m", "half95_m", "score"), np.nan)
"""What the row of a scene without a front has in the columns that tell of one."""

REJECTED_SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # domain and scene, `DOMAIN/SCENE`
        ("domain", pa.string()),  # name of the domain
        ("scene_id", pa.string()),  # id of the scene in its catalogue
        ("candidate", pa.int16()),  # number within the scene, 0 first
        ("datetime", pa.timestamp("us", tz="UTC")),  # when the scene was taken
        ("filter", pa.string()),  # which one rejected it
        ("reason", pa.string()),  # why it was rejected: a code, see States and reasons
        ("value", pa.float64()),  # what the filter measured
        ("limit", pa.float64()),  # what it asks for
        ("detail", pa.string()),  # both in words
    ]
)
"""Columns of the table of rejected candidates before its geometry (LineString in the domain CRS)."""

POLYGON_KINDS = ("ocean", "ice")

POLYGON_REASONS = {
    "": "polygons were made",
    "no_front": "the scene has no front within the grid",
    "front_not_closed": "an end of a front is too far from a fjord wall and from the edge of the image",
    "no_ocean": "no part of the fjord that is large enough counts as ocean",
    "no_ice": "no part of the fjord is more surely ice than its ocean: the fronts do not tell them apart",
}
"""Why a scene has no polygons; the empty reason belongs to one that has."""

POLYGON_SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # domain and scene, `DOMAIN/SCENE`
        ("domain", pa.string()),  # name of the domain
        ("scene_id", pa.string()),  # id of the scene in its catalogue
        ("glacier_id", pa.string()),  # id of the glacier, as the domain says it
        ("datetime", pa.timestamp("us", tz="UTC")),  # when the scene was taken
        ("platform", pa.string()),  # satellite
        ("kind", pa.string()),  # `ocean` or `ice`
        ("fjord", pa.string()),  # whose walls close the front: `fjord_boundary`, `dates`, `ice_mask` or `scene`
        ("reason", pa.string()),  # why there is none, a code; empty with a polygon
        ("detail", pa.string()),  # what was measured, in words
        ("area_m2", pa.float64()),  # on the ground
    ]
)
"""Columns of the polygons table before its geometry (MultiPolygon in the domain CRS, or None).

Every scene of state `front` has at least one row.
"""


def to_levels(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Round probabilities 0 to 1 to uint8 steps of 0.004; NaN becomes `MISSING`.

    Examples
    --------
    >>> to_levels(np.array([0.0, 0.5, 1.0, np.nan])).tolist()
    [0, 125, 250, 255]
    """
    levels = np.clip(probability, 0, 1) * LEVELS
    np.copyto(np.rint(levels, out=levels), MISSING, where=np.isnan(levels))
    return np.asarray(levels, dtype=np.uint8)


def from_levels(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities float32 of uint8 steps; `MISSING` becomes NaN, the inverse of `to_levels` up to rounding.

    Examples
    --------
    >>> from_levels(np.array([0, 125, 255], np.uint8)).tolist()
    [0.0, 0.5, nan]
    """
    return PROBABILITIES.take(levels)


def front_key(domain: str, scene_id: str) -> str:
    """Key of a scene within a store: the scene id with the domain."""
    return f"{domain}/{scene_id}"


def short_name(name: str, *, of: str) -> str:
    """Name of a file, made of a text `of` a catalogue; a long one is cut, and told apart by the digest of the text.

    >>> short_name("a%2Fb", of="a/b"), len(short_name("x" * 300, of="x" * 300))
    ('a%2Fb', 200)
    """
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 17]}-{hashlib.sha256(of.encode()).hexdigest()[:16]}"


def check_name(name: str, *, what: str = "name") -> str:
    """Return `name` if it may become part of a path (word characters, `.`, `-`); raise `ValueError` otherwise."""
    good = isinstance(name, str) and re.fullmatch(r"\w[\w.\-]*", name) and ".." not in name
    if not good or len(name.encode()) > LONGEST_NAME:
        raise ValueError(
            f"{what} must be 1 to 200 bytes of letters, digits, '_', '-' or '.', starting with a letter or digit, got "
            f"{name!r}: rename it, since it becomes part of a path"
        )
    return name


def check_scenes(scenes: xr.DataArray) -> xr.DataArray:
    """Return `scenes` if it keeps the contract (time, band, y, x) float32 with the coordinates the pipeline needs.

    Raises
    ------
    ValueError
        Dims, bands, type or coordinates differ from the contract.
    """
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
    """Return `masks` if it keeps the contract (time, mask, y, x), mask = front, ice.

    Raises
    ------
    ValueError
        Dims or masks differ from the contract.
    """
    _check_dims(masks, MASK_DIMS, "masks")
    if tuple(masks["mask"].values) != MASKS:
        raise ValueError(f"masks must be {MASKS}, got {tuple(masks['mask'].values)}")
    return masks


def check_fronts(fronts: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return `fronts` if its columns, states and reasons are known and just its rows of state `front` have a line.

    Raises
    ------
    ValueError
        Columns, states or reasons are not known, or a state and its line disagree.
    """
    _check_columns(fronts, FRONT_SCHEMA, "fronts")
    unknown = set(fronts["state"]) - set(STATES) | set(fronts["reason"]) - set(REASONS)
    if unknown:
        raise ValueError(
            f"fronts have unknown states or reasons {sorted(unknown)}, expected {STATES} and {sorted(REASONS)}"
        )
    wrong = fronts["geometry"].notna() != (fronts["state"] == "front")
    if wrong.any():
        raise ValueError(f"state and geometry disagree in {fronts.loc[wrong, 'key'].tolist()[:5]}")
    return fronts


def check_rejected(rejected: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return `rejected` if each of its rows is a numbered candidate with a line, a filter and a known reason.

    Raises
    ------
    ValueError
        Columns or reasons are not known, or a candidate lacks its line, filter or number.
    """
    _check_columns(rejected, REJECTED_SCHEMA, "rejected candidates")
    codes = set(REASONS) - {""}
    if unknown := set(rejected["reason"]) - codes:
        raise ValueError(f"rejected candidates have unknown reasons {sorted(unknown)}, expected {sorted(codes)}")
    wrong = rejected["geometry"].isna() | (rejected["filter"] == "") | rejected.duplicated(["key", "candidate"])
    if wrong.any():
        got = rejected.loc[wrong, "key"].tolist()[:5]
        raise ValueError(f"rejected candidates must have a line, a filter and a number of their own, not so in {got}")
    return rejected


def check_polygons(polygons: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return `polygons` if their kinds are known, each scene has each at most once, and those without say why.

    Raises
    ------
    ValueError
        Columns, kinds or reasons are not known, or a scene has a kind twice.
    """
    _check_columns(polygons, POLYGON_SCHEMA, "polygons")
    unknown = set(polygons["kind"]) - set(POLYGON_KINDS) | set(polygons["reason"]) - set(POLYGON_REASONS)
    if unknown:
        raise ValueError(
            f"polygons have unknown kinds or reasons {sorted(unknown)}, expected {POLYGON_KINDS} and "
            f"{sorted(POLYGON_REASONS)}"
        )
    there = polygons["geometry"].notna()
    wrong = (there != (polygons["reason"] == "")) | (there & (polygons.geom_type != "MultiPolygon"))
    wrong |= polygons.duplicated(["key", "kind"])
    if wrong.any():
        got = polygons.loc[wrong, "key"].tolist()[:5]
        raise ValueError(f"a scene must have one MultiPolygon a kind, or None with a reason, not so in {got}")
    return polygons


def _check_columns(table: gpd.GeoDataFrame, schema: pa.Schema, what: str) -> None:
    expected = [*schema.names, "geometry"]
    if list(table.columns) != expected:
        raise ValueError(f"{what} must have the columns {expected}, got {list(table.columns)}")


def _check_dims(array: xr.DataArray, dims: tuple[str, ...], what: str) -> None:
    if array.dims != dims:
        raise ValueError(f"{what} must have the dims {dims}, got {array.dims}")
