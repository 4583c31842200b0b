"""Grids of pixels, the CRS of a place, and shapes in longitude and latitude at the antimeridian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from pyproj import CRS, Proj
from shapely.geometry.base import BaseGeometry

DEFAULT_RESOLUTION_M = 30.0


def cut_at_antimeridian(lonlat: BaseGeometry) -> BaseGeometry:
    """Cut a polygon or line in longitude and latitude in two where it crosses the antimeridian, as GeoJSON wants it.

    Of one that only touches the antimeridian no point or edge is left on its other side.
    """
    whole = unwrapped(lonlat)
    east, beyond = (whole.intersection(shapely.box(left, -90, left + 360, 90)) for left in (-180, 180))
    parts = [east, shapely.transform(beyond, shifted(-360))]
    same = [p for p in shapely.get_parts(parts) if shapely.get_dimensions(p) == shapely.get_dimensions(lonlat)]
    return whole if whole.bounds[2] <= 180 else shapely.union_all(same)


def unwrapped(lonlat: BaseGeometry) -> BaseGeometry:
    """Take longitudes 0 to 360 where one part spans half the globe but not all of it: it crosses the antimeridian."""
    left, _, right, _ = lonlat.bounds
    if lonlat.geom_type not in ("Polygon", "LineString") or right - left <= 180 or right - left >= 360:
        return lonlat
    return shapely.transform(lonlat, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))


def shifted(degrees: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Give what moves longitudes and latitudes (n, 2) to the east, for `shapely.transform`."""
    return lambda lonlat: lonlat + np.array([degrees, 0.0])


def box_grid(bounds: Sequence[float], crs: str | int | CRS, resolution_m: float = DEFAULT_RESOLUTION_M) -> GeoBox:
    """Grid of square pixels around `bounds` (left, bottom, right, top in `crs`), edges on multiples of the pixel.

    Parameters
    ----------
    bounds
        Left, bottom, right, top in `crs`, in metres.
    crs
        Projected CRS in metres, by name, number or as a `pyproj.CRS`.
    resolution_m
        Side of a pixel in metres.

    Returns
    -------
    GeoBox
        North up, rows from the top; it covers the bounds with less than a pixel to spare.

    Raises
    ------
    ValueError
        `crs` is in degrees: pixels of 30 degrees would be meant; a pixel has no side; bounds are out of order, or
        look like degrees, which would make a single pixel.

    Examples
    --------
    >>> cc.box_grid((100, 100, 6_000, 6_000), "EPSG:3413", 30.0).shape
    Shape2d(x=197, y=197)
    """
    if CRS.from_user_input(crs).is_geographic:
        raise ValueError(f"a grid needs a projected CRS in metres, got {crs}: use EPSG:3413, EPSG:3031 or UTM")
    check_side(resolution_m)
    if not (bounds[0] <= bounds[2] and bounds[1] <= bounds[3]):
        got = [float(value) for value in bounds]
        raise ValueError(f"bounds are left, bottom, right, top, with left <= right and bottom <= top, got {got}")
    is_small = min(bounds[2] - bounds[0], bounds[3] - bounds[1]) < resolution_m
    if is_small and max(abs(value) for value in bounds) <= 360:
        got = [float(value) for value in bounds]
        raise ValueError(
            f"bounds are in metres of {crs}, got {got}, less than a pixel: `domain_from_box` takes degrees"
        )
    left, bottom = (math.floor(v / resolution_m + 1e-6) * resolution_m for v in bounds[:2])
    right, top = (math.ceil(v / resolution_m - 1e-6) * resolution_m for v in bounds[2:])
    return GeoBox.from_bbox(BoundingBox(left, bottom, right, top, crs=crs), resolution=resolution_m, tight=True)


def check_side(resolution_m: float) -> None:
    """Refuse a pixel without a side in metres."""
    if not 0 < resolution_m < math.inf:
        raise ValueError(f"the side of a pixel must be some metres long, got {resolution_m}: 30 is usual")


def best_crs(geometries: gpd.GeoSeries) -> str:
    """EPSG:3413 for Greenland, Iceland, eastern Baffin Island and the pole, EPSG:3031 for Antarctica, UTM elsewhere."""
    left, bottom, right, top = geometries.to_crs(4326).total_bounds
    if right - left > 180:  # over the antimeridian
        east = geometries.to_crs(4326).get_coordinates()["x"] % 360
        left, right = east.min(), east.max()
    lon, lat = ((left + right) / 2 + 180) % 360 - 180, (bottom + top) / 2
    if lat < -60:
        return "EPSG:3031"
    if (lat > 59 and -75 < lon < -10) or lat >= 84:  # where UTM ends
        return "EPSG:3413"
    return str(gpd.GeoSeries.from_xy([lon], [lat], crs=4326).estimate_utm_crs())


@lru_cache(maxsize=64)
def other_unit(epsg: int) -> str:
    """Name of the unit of a CRS that is not in metres; empty for metres."""
    (axis, *_) = CRS.from_epsg(epsg).axis_info
    return "" if math.isclose(axis.unit_conversion_factor, 1.0) else axis.unit_name


def length_scale(crs: Any, place: BaseGeometry) -> float:  # noqa: ANN401 - whatever pyproj reads as a CRS
    """Find the factor by which the map of a projected CRS stretches lengths at a place; its square stretches areas.

    Lengths of the map over this factor are lengths on the ground, which is what every column in `_m` or `_m2` means.

    Examples
    --------
    >>> round(length_scale("EPSG:3413", Point(0, -3_300_000)), 3)  # at 60 degrees north
    1.038
    """
    projection = _projection(str(crs))
    lonlat = projection(place.centroid.x, place.centroid.y, inverse=True)
    return float(np.sqrt(projection.get_factors(*lonlat).areal_scale))


def azimuth_deg(crs: Any, place: BaseGeometry, direction: tuple[float, float]) -> float:  # noqa: ANN401 - as above
    """Find where a direction (x, y) on the map of a projected CRS points at a place: degrees from north, clockwise.

    Examples
    --------
    >>> round(azimuth_deg("EPSG:3413", Point(-300_000, -2_000_000), (0.0, 1.0)))  # up on the map
    351
    """
    projection = _projection(str(crs))
    lonlat = projection(place.centroid.x, place.centroid.y, inverse=True)
    turned = projection.get_factors(*lonlat).meridian_convergence
    return float((np.degrees(np.arctan2(*direction)) + turned) % 360)


@lru_cache(maxsize=16)
def _projection(crs: str) -> Proj:
    return Proj(crs)  # takes longer than all that is asked of it
