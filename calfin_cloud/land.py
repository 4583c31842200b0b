"""Land, and the ice of Antarctica, around a store's domains: what the map lies on where there is no picture."""

from __future__ import annotations

import math
from importlib.resources import files

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import Polygon

LEAST_REACH_M = 600_000.0  # around the domains: a map of one glacier shows where on earth it lies
FINEST_M = 300.0  # the shipped shapes are no finer
LONGEST_DEG = 1.0  # of a side in longitude and latitude
LEAST_RADIUS_M, FARTHEST_DEG = 6.0e6, 100.0  # of the earth, less some distortion; beyond it polar maps have no end
POINTS_ACROSS = 6000  # detail of a large window
LAYERS = {"land": "land", "ice": "antarctica"}

Bounds = tuple[float, float, float, float]


def land_around(bounds: Bounds, crs: str) -> dict[str, list[list[list[int]]]]:
    """Cut land and ice to `window_around(bounds)` (left, bottom, right, top in `crs`, m), for a page.

    Returns
    -------
    dict
        `land` and `ice`, each a list of polygons; a polygon is a list of rings (outline first), a ring what
        `packed` makes of it.
    """
    return {
        kind: [[packed(shapely.get_coordinates(ring)) for ring in (p.exterior, *p.interiors)] for p in shapes]
        for kind, shapes in read_land(window_around(bounds), crs).items()
    }


def window_around(bounds: Bounds) -> Bounds:
    """Find the bounds within which a page has land, and which its map does not leave.

    They reach far, since a wide screen shows far beyond a tall store.

    Examples
    --------
    >>> window_around((0, 0, 30_000, 700_000))
    (-700000, -700000, 730000, 1400000)
    """
    reach = max(LEAST_REACH_M, bounds[2] - bounds[0], bounds[3] - bounds[1])
    return bounds[0] - reach, bounds[1] - reach, bounds[2] + reach, bounds[3] + reach


def read_land(window: Bounds, crs: str) -> dict[str, list[Polygon]]:
    """Read `land` and `ice` within a window (left, bottom, right, top in `crs`, m), as coarse as suits its size.

    Examples
    --------
    >>> sorted(read_land((-200_000, -2_300_000, -150_000, -2_250_000), "EPSG:3413"))
    ['ice', 'land']
    """
    detail = max(FINEST_M, (window[2] - window[0]) / POINTS_ACROSS)
    return {kind: _cut(name, shapely.box(*window), crs, detail) for kind, name in LAYERS.items()}


def packed(points: NDArray[np.float64]) -> list[int]:
    """Points (n, 2) as one list of whole numbers, the first as it is, the others as steps.

    Examples
    --------
    >>> packed(np.array([[100.2, 50.0], [101.0, 49.0]]))
    [100, 50, 1, -1]
    """
    whole = np.rint(points).astype(int)
    steps: list[int] = np.diff(whole, axis=0, prepend=0).ravel().tolist()
    return steps


def _cut(name: str, window: Polygon, crs: str, detail: float) -> list[Polygon]:
    """Polygons of one shipped file within a window of `crs`."""
    table = gpd.read_parquet(str(files("calfin_cloud") / "basemap" / f"{name}.parquet"))
    near = table.geometry if table.crs == crs else _near(table.geometry, window, crs)
    if near.empty:
        return []
    drawn = near.to_crs(crs).make_valid()
    inside = shapely.clip_by_rect(drawn.to_numpy(), *window.bounds)
    parts = [p for p in shapely.get_parts(shapely.get_parts(inside)) if p.geom_type == "Polygon"]
    shapes = [s for p in parts if p.area > detail**2 for s in shapely.get_parts(p.simplify(detail))]
    return [s for s in shapes if isinstance(s, Polygon) and not s.is_empty]


def _near(shapes: gpd.GeoSeries, window: Polygon, crs: str) -> gpd.GeoSeries:
    """Shapes that may lie in the window, cut in lon and lat: what is half the globe away has no place on it."""
    west, south, east, north = _lonlat_around(window, crs)
    lonlat = shapes.to_crs(4326)
    turns = (-360, 0, 360)  # degrees, for windows on the antimeridian
    windows = [(west - degrees, south, east - degrees, north) for degrees in turns]
    if not shapes.crs.is_geographic:
        envelopes = lonlat.envelope
        return shapes[np.any([envelopes.intersects(shapely.box(*bounds)) for bounds in windows], axis=0)]
    parts = [lonlat.clip_by_rect(*bounds) for bounds in windows]
    cut = pd.concat([part[~part.is_empty].translate(degrees) for part, degrees in zip(parts, turns, strict=True)])
    return cut.segmentize(LONGEST_DEG)  # a long side along a parallel is no straight line on the map


def _lonlat_around(window: Polygon, crs: str) -> Bounds:
    """West, south, east, north in degrees, with room around the window; around a pole all longitudes."""
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(window.centroid.x, window.centroid.y)
    half = math.hypot(*(np.subtract(window.bounds[2:], window.bounds[:2]) / 2))
    reach = min(math.degrees(half / LEAST_RADIUS_M), FARTHEST_DEG)
    south, north = max(lat - reach, -90), min(lat + reach, 90)
    if abs(lat) + reach > 75:
        return -180, south, 180, north
    wide = reach / math.cos(math.radians(abs(lat) + reach))
    return lon - wide, south, lon + wide, north
