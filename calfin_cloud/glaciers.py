"""A glacier by its name, a point or a box becomes a domain: an index of glaciers, their termini, and checks."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import geopandas as gpd
import pandas as pd
import shapely

from calfin_cloud.domains import DEFAULT_RESOLUTION_M, Domain, best_crs, box_grid, domains_from_termini, length_scale
from calfin_cloud.land import read_land

DEFAULT_SIZE_KM = 20.0
MARGIN = 0.75
NEAR_BORDER_M = 500.0  # a front so near to the border of its box may leave it next year
MOST_SIDE_PX = 2048  # beyond, a scene takes long and much memory
MOST_DISTORTION = 0.05  # lengths and areas are freed of it, pictures are not
LEAST_SEA = 0.005  # part of the box, on a map as coarse as the shipped one
KIND = re.compile(r"(glacier|gletscher|gletsjer|isbrae|brae|isstrom|sermia|gl)$")
"""Words for glacier at the end of a name, as `_plain` writes it: the index has Petermann, people add Glacier."""


class Glacier(NamedTuple):
    """A row of the index: `id` of MEaSUREs or empty, names, longitude and latitude, source."""

    id: str
    name: str
    other_names: str
    lon: float
    lat: float
    source: str

    def __str__(self) -> str:
        return f"{self.name or 'glacier'} ({self.id or self.source})"


def read_glaciers() -> pd.DataFrame:
    """Read the index: `id` (MEaSUREs, else empty), `name`, `other_names` (`;` between), `lon`, `lat`, `source`.

    239 glaciers of Greenland, 67 of them with a name, and 39 elsewhere. Sources and licences are in `places/README.md`
    of the package.

    Examples
    --------
    >>> read_glaciers().set_index("id").loc["92", "name"]
    'Humboldt'
    """
    table: pd.DataFrame = pd.read_csv(_place("glaciers.csv"), dtype={"id": str}, keep_default_na=False)
    return table


def read_termini(glacier_id: str | None = None) -> gpd.GeoDataFrame:
    """Read the dated termini (`glacier_id`, `date`, line in EPSG:3413) of the index, or those of one glacier.

    Examples
    --------
    >>> read_termini("92")["date"].min()
    '2009-01-22'
    """
    termini = _all_termini()
    return termini if glacier_id is None else termini[termini["glacier_id"] == glacier_id].reset_index(drop=True)


def find_glacier(text: str) -> Glacier:
    """Find one glacier of the index by name, by another name, by part of a name, or by number.

    Accents do not matter, nor does a word for glacier at the end.

    Parameters
    ----------
    text
        Name, part of a name, or number of MEaSUREs; upper and lower case are alike.

    Returns
    -------
    Glacier
        Its row of the index: `id`, `name`, `other_names`, `lon`, `lat`, `source`.

    Raises
    ------
    ValueError
        None has it, or several do: the message names the nearest ones.

    Examples
    --------
    >>> find_glacier("sermersuaq").name
    'Humboldt'
    """
    glaciers = [Glacier(*row) for row in read_glaciers().itertuples(index=False, name=None)]
    wanted = _plain(str(text))
    bare = KIND.sub("", wanted)
    names = [[_plain(n) for n in (g.name, *g.other_names.split(";")) if n] for g in glaciers]
    number = re.fullmatch(r"(?:no|glacier)?(\d+)", wanted)
    exact = [g for g, own in zip(glaciers, names, strict=True) if wanted in own]
    numbered = [g for g in glaciers if number and g.id == number[1]]
    alike = [g for g, own in zip(glaciers, names, strict=True) if bare and any(bare == KIND.sub("", n) for n in own)]
    part = [g for g, own in zip(glaciers, names, strict=True) if bare and any(bare in n for n in own)]
    for found in (exact, numbered, alike, part):
        if len(found) == 1:
            return found[0]
        if found:
            told = ", ".join(map(str, found[:8]))
            raise ValueError(
                f"{len(found)} glaciers have {text!r} in their name: {told}; give the whole name or number"
            )
    known = {n: g for g, own in zip(glaciers, names, strict=True) for n in own}
    near = dict.fromkeys(str(known[n]) for n in difflib.get_close_matches(bare, known, n=4, cutoff=0.6))
    hint = f"did you mean {', '.join(near)}?" if near else "`calfin domains --list` prints all."
    raise ValueError(
        f"no glacier of the index is called {text!r}: {hint} Or give a place: --point LON,LAT, `domain_from_point`"
    )


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


def known_termini(domain: Domain) -> gpd.GeoDataFrame:
    """Read the termini of the index that touch a domain, in its CRS."""
    termini = read_termini().to_crs(domain.crs)
    return termini[termini.intersects(domain.polygon)].reset_index(drop=True)


def check_place(domain: Domain) -> list[str]:
    """Say what may be wrong with the place of a domain, a sentence a doubt; none is an error.

    Whether known termini leave the box or nearly do, or lie where longitude and latitude change places, whether there
    is sea in it, how much the CRS stretches lengths, and whether it is so large that scenes become slow. Land is known
    to about 500 m.

    Examples
    --------
    >>> check_place(domain_from_glacier("Store"))
    []
    >>> check_place(domain_from_point(-45, 75))
    ['the box is over land and ice only, on a coarse map: move it to where the glacier meets water']
    """
    return [
        doubt
        for check in (_check_termini, _check_order, _check_sea, _check_crs, _check_size)
        for doubt in check(domain)
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


def _check_order(domain: Domain) -> list[str]:
    """Doubt a box without a known terminus, where there are some at its longitude taken as latitude."""
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


@lru_cache(maxsize=1)
def _all_termini() -> gpd.GeoDataFrame:
    return gpd.read_parquet(_place("termini.parquet"))


def _place(name: str) -> str:
    return str(files("calfin_cloud") / "places" / name)


def _plain(text: str) -> str:
    """Letters and digits alone, without accents, in small letters: `Kong-Oscar` as `kong oscar` is found."""
    apart = unicodedata.normalize("NFD", text.lower().replace("æ", "ae").replace("ø", "o"))
    return "".join(c for c in apart if c.isalnum())


def _name_of(lon: float, lat: float) -> str:
    return f"{abs(lat):.2f}{'S' if lat < 0 else 'N'}-{abs(lon):.2f}{'W' if lon < 0 else 'E'}"


def _turn(lon: float) -> float:
    """Longitude within -180 to 180."""
    return (lon + 180) % 360 - 180
