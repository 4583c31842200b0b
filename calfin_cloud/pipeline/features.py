"""What else a scene shows, in the main job: bands are kept when a scene is read, and measured once its front is known.

Both are asked for by `MapSettings.features` alone. Features are always measured from the bands as they are kept, so
that a retrace, which reads no scene, comes to the same as the run that read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pystac
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from calfin_cloud.domains import Domain
from calfin_cloud.features import Bands, Sea, measure_features, not_seen, sea_of, sun_zenith_deg
from calfin_cloud.imagery import read_further
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import Band, band_of
from calfin_cloud.storage import read_bands, write_bands

Facts = dict[str, Any]
Row = dict[str, Any]

NEEDED = {"icebergs": ("red", "green", "blue", "cross"), "melange": (), "plumes": ("red",)}
"""Bands beyond that which shows ice; only those of the wanted features are read."""

NO_UNIT = "its numbers are digital ones: take a collection of reflectance (Landsat or Sentinel-2 level 2)"


def keep_bands(
    store: str, item: pystac.Item, scene: NDArray[np.float32], domain: Domain, wanted: Sequence[str]
) -> None:
    """Read the further bands of a scene (band, y, x) that is to be mapped, and keep them with those at hand."""
    band = band_of(item)
    values, missing = _own_band(scene[0], band)
    if values:
        names = {name for feature in wanted for name in NEEDED[feature]}
        further, unread = read_further(item, domain.grid, names)
        values |= {name: (_what(band), v) for name, v in further.items()}
        missing |= unread
    values["cloud"] = ("cloud", scene[1])
    about = {"kind": band.kind, "at_surface": band.is_reflectance, "missing": missing, "spacing_m": _spacing_m(item)}
    write_bands(store, domain.name, item.id, values, domain.grid, about)


def measured_features(
    store: str, domain: Domain, scene_id: str, facts: Mapping[str, Any], when: datetime, wanted: Sequence[str]
) -> Facts:
    """Measure the features of a scene whose front is known, from the bands that the store has kept.

    `facts` are those of `scene.trace_scene`. Nothing is raised: what goes wrong becomes a state and a reason.
    """
    about: Row = {"sun_zenith_deg": _zenith(domain, when), "pixel_m": domain.ground_m}
    try:
        kept = read_bands(store, domain.name, scene_id)
        if kept is None:
            gone = not_seen("unreadable", "its bands are not in the store: `calfin retry` reads the scene again")
            return {name: about | gone for name in wanted}
        bands = _bands(kept.bands, kept.about)
        about["sensor_kind"] = bands.kind
        found = measure_features(wanted, bands, _sea(domain, facts), zenith_deg=about["sun_zenith_deg"])
    except Exception as error:
        reason = "unreadable" if isinstance(error, SceneError) else "error"
        found = {name: not_seen(reason, f"{type(error).__name__}: {error}") for name in wanted}
    return {name: about | columns for name, columns in found.items()}


def _own_band(signal: NDArray[np.float32], band: Band) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the band that shows ice, if its numbers have a unit; else say why not."""
    name = "co" if band.kind == "sar" else "nir"
    if band.is_reflectance or band.sensor.decibel:
        return {name: (_what(band), signal)}, {}
    return {}, {name: ("no_band", NO_UNIT)}


def _spacing_m(item: pystac.Item) -> float | None:
    """Distance of the pixels of an image in m, by STAC's extension for radar or its common field; None without it."""
    told = (item.properties.get(name) for name in ("sar:pixel_spacing_range", "gsd"))
    return next((float(value) for value in told if isinstance(value, int | float) and 0 < value < np.inf), None)


def _what(band: Band) -> str:
    return "dB" if band.sensor.decibel else "reflectance"


def _bands(values: Mapping[str, NDArray[np.float32]], about: Mapping[str, Any]) -> Bands:
    """Bands as features take them: backscatter in linear intensity."""
    linear = {
        name: np.asarray(10 ** (v / 10), dtype=np.float32) if name in ("co", "cross") else v
        for name, v in values.items()
        if name != "cloud"
    }
    spacing_m = about.get("spacing_m")  # bands that were kept earlier do not have it
    at_surface = bool(about["at_surface"])
    return Bands(str(about["kind"]), linear, values.get("cloud"), at_surface, about["missing"], spacing_m)


def _sea(domain: Domain, facts: Mapping[str, Any]) -> Sea | None:
    polygons = facts.get("polygons")
    lines = [front["geometry"] for front in facts.get("fronts", ())]
    ocean = polygons.ocean if polygons else None
    return sea_of(
        ocean, lines, domain.shape, domain.grid.transform, pixel_m=domain.ground_m, land=_land_of_maps(domain)
    )


def _land_of_maps(domain: Domain) -> BaseGeometry | None:
    """Neither ocean nor glacier ice by the maps, where there are both: what was ice may be sea by now."""
    if domain.ocean is None or domain.ice is None:
        return None
    return domain.polygon.difference(shapely.union_all([domain.ocean, domain.ice]))


def _zenith(domain: Domain, when: datetime) -> float:
    middle = domain.middle_lonlat
    return sun_zenith_deg(when, middle.x, middle.y)
