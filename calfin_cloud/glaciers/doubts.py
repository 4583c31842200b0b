"""What may be wrong with the place of a domain, in sentences."""

from __future__ import annotations

import geopandas as gpd
import shapely

from calfin_cloud.domains import Domain, best_crs, length_scale
from calfin_cloud.glaciers.index import known_termini
from calfin_cloud.glaciers.making import domain_from_point
from calfin_cloud.land import read_land

NEAR_BORDER_M = 500.0  # a front so near to the border of its box may leave it next year
MOST_SIDE_PX = 2048  # beyond, a scene takes long and much memory
MOST_DISTORTION = 0.05  # lengths and areas are freed of it, pictures are not
LEAST_SEA = 0.005  # part of the box, on a map as coarse as the shipped one


def check_place(domain: Domain) -> list[str]:
    """Say what may be wrong with the place of a domain, a sentence a doubt; none is an error.

    Whether known termini leave the box or nearly do, or lie where longitude and latitude change places, whether there
    is sea in it, how much the CRS stretches lengths, and whether it is so large that scenes become slow. Land is known
    to about 500 m.

    Examples
    --------
    >>> from calfin_cloud.glaciers import domain_from_glacier
    >>> check_place(domain_from_glacier("Store"))
    []
    >>> check_place(domain_from_point(-45, 75))
    ['the box is over land and ice only, on a coarse map: move it to where the glacier meets water']
    """
    return [
        doubt for check in (_check_termini, check_order, _check_sea, _check_crs, _check_size) for doubt in check(domain)
    ]


def _check_termini(domain: Domain) -> list[str]:
    termini = known_termini(domain)
    mine = termini[termini["glacier_id"] == domain.glacier_id] if domain.glacier_id else termini
    cut = mine[~mine.within(domain.polygon)]
    near = mine[mine.within(domain.polygon) & ~mine.within(domain.polygon.buffer(-NEAR_BORDER_M))]
    told = []
    if len(cut):
        dates = ", ".join(sorted(cut["date"])[-3:])
        told.append(f"{len(cut)} of {len(mine)} known termini leave the box ({dates}): make it larger")
    elif len(near):
        told.append(f"{len(near)} known termini are within {NEAR_BORDER_M:g} m of the border: make the box larger")
    if domain.glacier_id and mine.empty and len(termini):
        told.append(f"no known terminus of glacier {domain.glacier_id} lies in the box: check the place")
    return told


def check_order(domain: Domain) -> list[str]:
    """Doubt a box without a known terminus, where there are some at its longitude taken as latitude.

    Examples
    --------
    >>> check_order(domain_from_point(-49.68, 69.18))
    []
    """
    lon, lat = domain.middle_lonlat.coords[0]
    if len(known_termini(domain)) or abs(lon) > 90:
        return []
    size_km = domain.grid.boundingbox.span_x / 1000
    there = known_termini(domain_from_point(lat, lon, size_km=size_km, resolution_m=domain.resolution_m))
    if there.empty:
        return []
    place = f"longitude {lat:.2f}, latitude {lon:.2f}"
    return [f"no known terminus is here, but {len(there)} are at {place}: a place is given with its longitude first"]


def _check_sea(domain: Domain) -> list[str]:
    """Doubt boxes without land or sea, unless a terminus is known in them: narrow fjords are on no coarse map."""
    if len(known_termini(domain)):
        return []
    left, bottom, right, top = domain.grid.boundingbox.bbox
    shapes = read_land((left, bottom, right, top), domain.crs)
    land = shapely.union_all([shape for kind in shapes.values() for shape in kind])
    dry = shapely.intersection(domain.polygon, land).area / domain.polygon.area
    if dry > 1 - LEAST_SEA:
        return ["the box is over land and ice only, on a coarse map: move it to where the glacier meets water"]
    if dry < LEAST_SEA:
        return ["the box is over the sea only, on a coarse map: move it to where the glacier meets water"]
    return []


def _check_crs(domain: Domain) -> list[str]:
    stretch = length_scale(domain.crs, domain.polygon) - 1
    if abs(stretch) <= MOST_DISTORTION:
        return []
    better = best_crs(gpd.GeoSeries([domain.polygon.centroid], crs=domain.crs))
    return [f"{domain.crs} stretches lengths by {stretch:+.0%} here: {better} is made for this place"]


def _check_size(domain: Domain) -> list[str]:
    side = max(domain.shape)
    if side <= MOST_SIDE_PX:
        return []
    return [f"the box has {side} pixels a side: scenes take long; make it smaller, or the pixels larger"]
