"""A place in longitude and latitude -> the region and the name that tables of the community have for it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd
import pyproj
import shapely
from shapely.geometry import Point, Polygon

REGIONS: dict[str, Polygon] = {
    "Greenland": Polygon(
        # Along Nares Strait, Baffin Bay and Davis Strait, around the south, along Denmark Strait and north of Iceland.
        [
            *((-73.5, 75), (-74, 77), (-73.5, 78.5), (-68, 80.2), (-65.5, 81.1), (-61, 82.2), (-50, 84.5), (-8, 84.5)),
            *((-8, 72), (-22, 69), (-30, 66.9), (-42, 59), (-50, 59), (-57, 64), (-58, 69), (-62, 73)),
        ]
    ),
    "Antarctica": shapely.box(-180, -90, 180, -60),
    "Svalbard": shapely.box(9, 74, 35, 81.5),
    "Alaska": shapely.box(-170, 54, -130, 72),
}
ELSEWHERE = "World"
CRS = {"Greenland": "EPSG:3413", "Antarctica": "EPSG:3031"}
"""CRS of the community's tables of a region; elsewhere that of the store."""

NAMES_FILE = "glacier_names.csv"
"""Numbers and places of the 239 glaciers of MEaSUREs (Joughin et al., doi:10.5067/ESFWE11AVFKW), computed from their
lines, and for 54 of them the name of the domain in CALFIN's data (Cheng et al. 2021, doi:10.5194/tc-15-1663-2021) that
comes within 700 m of those lines."""
NEAR_M = 50_000.0  # a number further from its glacier's place is another product's


def region_at(place: Point) -> str:
    """Name of the region (of `REGIONS`) where a place lies (longitude, latitude), else `World`.

    Examples
    --------
    >>> region_at(Point(-146.9, 61.1))  # Columbia Glacier
    'Alaska'
    """
    return next((name for name, polygon in REGIONS.items() if polygon.covers(place)), ELSEWHERE)


def known_name(glacier_id: str, place: Point) -> str:
    """Name of a glacier of Greenland by its MEaSUREs number; empty where it has none, or its place is another.

    `place` is its longitude and latitude.
    """
    row = _known().get(glacier_id)
    if row is None:
        return ""
    longitude, latitude, name = row
    _, _, apart = pyproj.Geod(ellps="WGS84").inv(place.x, place.y, longitude, latitude)
    return name if apart <= NEAR_M else ""


@cache
def _known() -> dict[str, tuple[float, float, str]]:
    with files("calfin_cloud.exports").joinpath(NAMES_FILE).open(encoding="utf-8") as file:
        table = pd.read_csv(file, keep_default_na=False)
    columns = (table[name].tolist() for name in ("glacier_id", "longitude", "latitude", "name"))
    return {str(number): (x, y, name) for number, x, y, name in zip(*columns, strict=True)}
