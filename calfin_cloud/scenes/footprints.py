"""Where items lie, in longitude and latitude: over the antimeridian, or without a geometry that can be read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from calfin_cloud.domains import shifted, unwrapped

log = logging.getLogger(__name__)


def footprint_touches(
    item_id: str, geometry: dict[str, Any] | None, bbox: Sequence[float] | None, area: BaseGeometry
) -> bool:
    """Whether an item's GeoJSON geometry, else its box, touches an area; an item with neither may."""
    footprint = _footprint(item_id, geometry, bbox)
    if footprint is None:
        return True
    # An item east and one west of the antimeridian may name the same place by longitudes 360 degrees apart.
    return bool(footprint.intersects(area)) or any(
        bool(shapely.transform(footprint, shifted(d)).intersects(area)) for d in (-360, 360)
    )


def covered_part(
    item_id: str, geometry: dict[str, Any] | None, bbox: Sequence[float] | None, area: BaseGeometry
) -> BaseGeometry | None:
    """Part of an area (longitude, latitude) that an item's geometry, else its box, covers; None if it has neither."""
    footprint = _footprint(item_id, geometry, bbox)
    if footprint is None:
        return None
    turned = (footprint if d == 0 else shapely.transform(footprint, shifted(d)) for d in (-360, 0, 360))
    return shapely.union_all([part.intersection(area) for part in turned])


def _footprint(item_id: str, geometry: dict[str, Any] | None, bbox: Sequence[float] | None) -> BaseGeometry | None:
    """Geometry of an item in longitude and latitude, else its box; None where it has neither that can be read."""
    try:
        footprint = _shape(geometry) if geometry else None
        if footprint is not None:
            footprint = unwrapped(footprint if footprint.is_valid else shapely.make_valid(footprint))
        if footprint is not None and not footprint.is_empty:
            return footprint
    except (ValueError, TypeError, LookupError, AttributeError, shapely.errors.ShapelyError) as error:
        log.warning("item %s: cannot read its geometry (%s), taking its box", item_id, error)
    try:
        corners = [float(v) for v in bbox or ()]
    except (ValueError, TypeError):
        return None
    if len(corners) not in (4, 6):
        return None
    left, bottom, right, top = corners if len(corners) == 4 else [corners[i] for i in (0, 1, 3, 4)]
    return shapely.box(left, bottom, right + 360 if right < left else right, top)


def _shape(geometry: dict[str, Any]) -> BaseGeometry:
    """Geometry of GeoJSON values; nearly all are polygons without holes, which are made in two thirds of the time."""
    coordinates = geometry.get("coordinates")
    if geometry.get("type") == "Polygon" and isinstance(coordinates, list) and len(coordinates) == 1:
        return shapely.polygons(coordinates[0])
    return shape(geometry)
