"""Where items and domains lie, in longitude and latitude: over the antimeridian, around the poles, without geometry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from calfin_cloud.domains import Domain

log = logging.getLogger(__name__)


def footprint_touches(
    item_id: str, geometry: dict[str, Any] | None, bbox: Sequence[float] | None, area: BaseGeometry
) -> bool:
    """Whether an item's GeoJSON geometry, else its box, touches an area; an item with neither may."""
    footprint = _footprint(item_id, geometry, bbox)
    if footprint is None:
        return True
    # An item east and one west of the antimeridian may name the same place by longitudes 360 degrees apart.
    return any(bool(shapely.transform(footprint, _shifted(d)).intersects(area)) for d in (0, -360, 360))


def lonlat_area(domain: Domain) -> BaseGeometry:
    """Take the domain in longitude and latitude, cut in two at the antimeridian as GeoJSON wants it."""
    if (cap := _polar_cap(domain)) is not None:
        return cap
    polygon = _unwrapped(domain.polygon_lonlat)
    if polygon.bounds[2] <= 180:
        return polygon
    west = polygon.intersection(shapely.box(-180, -90, 180, 90))
    east = shapely.transform(polygon.intersection(shapely.box(180, -90, 540, 90)), _shifted(-360))
    return shapely.union_all([west, east])


def _polar_cap(domain: Domain) -> BaseGeometry | None:
    """All longitudes from the pole to the domain's farthest point, where a domain holds a pole; else None."""
    poles = gpd.GeoSeries(gpd.points_from_xy([0, 0], [90, -90]), crs=4326).to_crs(domain.crs)
    has_north, has_south = domain.polygon.contains(poles.to_numpy())
    _, lowest, _, highest = domain.polygon_lonlat.bounds
    if has_north:
        return shapely.box(-180, lowest, 180, 90)
    return shapely.box(-180, -90, 180, highest) if has_south else None


def _footprint(item_id: str, geometry: dict[str, Any] | None, bbox: Sequence[float] | None) -> BaseGeometry | None:
    """Geometry of an item in longitude and latitude, else its box; None where it has neither that can be read."""
    try:
        footprint = _unwrapped(shapely.make_valid(shape(geometry))) if geometry else None
        if footprint is not None and not footprint.is_empty:
            return footprint
    except (ValueError, TypeError, LookupError, AttributeError, shapely.errors.ShapelyError) as error:
        log.warning("item %s: cannot read its geometry (%s), taking its box", item_id, error)
    if not bbox or len(bbox) not in (4, 6):
        return None
    left, bottom, right, top = bbox if len(bbox) == 4 else [bbox[i] for i in (0, 1, 3, 4)]
    return shapely.box(left, bottom, right + 360 if right < left else right, top)


def _unwrapped(geometry: BaseGeometry) -> BaseGeometry:
    """Take longitudes 0 to 360 where a polygon spans half the globe but not all of it: it crosses the antimeridian."""
    left, _, right, _ = geometry.bounds
    if geometry.geom_type != "Polygon" or right - left <= 180 or right - left >= 360:
        return geometry
    return shapely.transform(geometry, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))


def _shifted(degrees: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda lonlat: lonlat + np.array([degrees, 0.0])
