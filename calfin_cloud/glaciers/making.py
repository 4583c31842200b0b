"""A glacier of the index, a point or a box becomes a domain."""

from __future__ import annotations

from collections.abc import Sequence

import geopandas as gpd
import shapely

from calfin_cloud.domains import DEFAULT_RESOLUTION_M, Domain, best_crs, box_grid, domains_from_termini
from calfin_cloud.domains.grids import check_side
from calfin_cloud.glaciers.index import find_glacier, read_termini

DEFAULT_SIZE_KM = 20.0
MARGIN = 0.75


def domain_from_glacier(
    name: str, *, resolution_m: float = DEFAULT_RESOLUTION_M, margin: float = MARGIN, crs: str | None = None
) -> Domain:
    """Make the domain of a glacier of the index, around all its known termini, or 20 km around its point.

    Parameters
    ----------
    name
        As `find_glacier` takes.
    resolution_m
        Pixel side in metres.
    margin
        Room on either side of the termini, in lengths of their box.
    crs
        Of the grid; by place where not given.

    Returns
    -------
    Domain
        With the termini of the index, if it has some.

    Raises
    ------
    ValueError
        The index has no such glacier, or several.

    Examples
    --------
    >>> domain_from_glacier("Humboldt").crs
    'EPSG:3413'
    """
    glacier = find_glacier(name)
    if not glacier.id:
        return domain_from_point(glacier.lon, glacier.lat, resolution_m=resolution_m, crs=crs, name=glacier.name)
    termini = read_termini(glacier.id).assign(name=glacier.name)
    (domain,) = domains_from_termini(termini, resolution_m=resolution_m, margin=margin, crs=crs)
    return domain


def domain_from_point(
    lon: float,
    lat: float,
    *,
    size_km: float = DEFAULT_SIZE_KM,
    resolution_m: float = DEFAULT_RESOLUTION_M,
    name: str = "",
    crs: str | None = None,
) -> Domain:
    """Make a square domain of `size_km` around a point in degrees.

    Parameters
    ----------
    lon, lat
        Centre in degrees.
    size_km
        Side of the square.
    resolution_m
        Side of a pixel in metres.
    name
        Of the domain; its place where not given.
    crs
        Of the grid; EPSG:3413, EPSG:3031 or UTM by place where not given.

    Returns
    -------
    Domain
        A square whose edges are multiples of the pixel.

    Raises
    ------
    ValueError
        The point is not on earth, or the square has fewer than 64 or more than 8192 pixels a side.

    Examples
    --------
    >>> domain_from_point(-49.7, 69.2, size_km=30).shape
    (1000, 1000)
    """
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise ValueError(f"a point must be longitude -180 to 180 and latitude -90 to 90, got {lon:g}, {lat:g}")
    check_side(resolution_m)
    point = gpd.GeoSeries(gpd.points_from_xy([lon], [lat]), crs=4326)
    crs = crs or best_crs(point)
    x, y = (round(v / resolution_m) * resolution_m for v in point.to_crs(crs).iloc[0].coords[0])
    half = size_km * 500
    return Domain(name or _name_of(lon, lat), box_grid((x - half, y - half, x + half, y + half), crs, resolution_m))


def domain_from_box(
    bounds: Sequence[float], *, resolution_m: float = DEFAULT_RESOLUTION_M, name: str = "", crs: str | None = None
) -> Domain:
    """Make the domain around a box of degrees: west, south, east, north; west may be east of the antimeridian.

    Parameters
    ----------
    bounds
        West, south, east, north in degrees.
    resolution_m
        Side of a pixel in metres.
    name
        Of the domain; its place where not given.
    crs
        Of the grid; by place where not given.

    Returns
    -------
    Domain
        The rectangle of the grid that covers the box.

    Raises
    ------
    ValueError
        The box is not one, or the grid has fewer than 64 or more than 8192 pixels a side.

    Examples
    --------
    >>> domain_from_box((-50.5, 69.0, -49.3, 69.3)).crs
    'EPSG:3413'
    """
    west, south, east, north = bounds
    east = east + 360 if east < west else east
    if not (-180 <= west < east <= 540 and -90 <= south < north <= 90):
        raise ValueError(f"a box must be west, south, east, north in degrees, got {tuple(bounds)}")
    outline = shapely.segmentize(shapely.box(west, south, east, north), 0.05)
    box = gpd.GeoSeries([outline], crs=4326)
    centre = gpd.GeoSeries([shapely.Point(_turn((west + east) / 2), (south + north) / 2)], crs=4326)
    crs = crs or best_crs(centre)
    return Domain(name or _name_of(west, south), box_grid(box.to_crs(crs).total_bounds, crs, resolution_m))


def _name_of(lon: float, lat: float) -> str:
    return f"{abs(lat):.2f}{'S' if lat < 0 else 'N'}-{abs(lon):.2f}{'W' if lon < 0 else 'E'}"


def _turn(lon: float) -> float:
    """Longitude within -180 to 180."""
    return (lon + 180) % 360 - 180
