"""A domain is one terminus on a map grid; reads and writes domain files, and makes domains around termini."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from html import escape
from pathlib import Path
from typing import Any, BinaryIO

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from pyproj import CRS
from rasterio.features import rasterize, shapes
from shapely.geometry import LineString, MultiPolygon, Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry

from calfin_cloud.schema import check_name
from calfin_cloud.termini import Terminus, read_termini, termini_json, termini_of

MIN_SIDE_PX = 64
MAX_SIDE_PX = 8192
LONGEST_NAME = 100  # bytes of a name that is made of a table's
DEFAULT_RESOLUTION_M = 30.0
ID_COLUMNS = ("glacier_id", "GlacierID", "Glacier_ID", "GLACIER_ID", "ID")
FJORD_SOURCES = ("fjord_boundary", "dates", "ice_mask")
NAME_COLUMNS = ("name", "RefName", "GlacierName", "Official_N", "OfficialN")


@dataclass(frozen=True)
class Domain:
    """Fixed map rectangle around one terminus, and what is known of the place; a notebook shows it as an outline.

    Attributes
    ----------
    name
        Word characters, `.` and `-`: it becomes part of paths.
    grid
        North-up `GeoBox` with square pixels in a projected CRS in metres (EPSG:3413, EPSG:3031 or UTM), 64 to 8192
        px a side.
    glacier_id
        Number or name that fronts of this glacier carry, as in MEaSUREs.
    fjord_boundary
        Where a front may lie, in the grid's CRS; None where nobody knows.
    centerline
        Line along the flow, in the grid's CRS.
    fjord_source
        Where the boundary is from: `fjord_boundary` (drawn by hand), `dates` or `ice_mask` (derived).
    termini
        Lines where the glacier is known to have ended, with date and source, in the grid's CRS.
    ice, ocean
        Glacier ice and sea as maps show them, in the grid's CRS.

    Raises
    ------
    ValueError
        The grid is not of this kind, or the name cannot be part of a path.

    Examples
    --------
    >>> domain = cc.Domain("Store", cc.box_grid((0, 0, 12_000, 12_000), "EPSG:3413"))
    >>> domain.crs, domain.shape, domain.resolution_m
    ('EPSG:3413', (400, 400), 30.0)
    """

    name: str
    grid: GeoBox
    glacier_id: str = ""
    fjord_boundary: Polygon | MultiPolygon | None = None
    centerline: LineString | None = None
    fjord_source: str = ""
    termini: tuple[Terminus, ...] = field(default=(), repr=False)  # long: `_repr_html_` shows them
    ice: Polygon | MultiPolygon | None = field(default=None, repr=False)
    ocean: Polygon | MultiPolygon | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        source = "" if self.fjord_boundary is None else self.fjord_source or FJORD_SOURCES[0]
        object.__setattr__(self, "fjord_source", source)
        if source and source not in FJORD_SOURCES:
            raise ValueError(f"domain {self.name}: fjord_source must be one of {FJORD_SOURCES}, got {source!r}")
        check_name(self.name, what="name of a domain")
        crs = self.grid.crs
        if crs is None or not crs.projected or crs.epsg is None:
            raise ValueError(
                f"domain {self.name}: the grid needs a projected CRS in metres that has an EPSG code, got {crs}; "
                "use EPSG:3413, EPSG:3031 or UTM"
            )
        if unit := _other_unit(crs.epsg):
            raise ValueError(
                f"domain {self.name}: {crs} is in units of {unit}, and a grid must be in metres: "
                "use EPSG:3413, EPSG:3031 or UTM"
            )
        a, b, _, d, e, *_ = self.grid.transform
        if b or d or not math.isclose(a, -e) or a <= 0:
            raise ValueError(
                f"domain {self.name}: the grid must be north-up with square pixels, got {self.grid.transform!r}"
            )
        if not all(MIN_SIDE_PX <= n <= MAX_SIDE_PX for n in self.grid.shape):
            raise ValueError(
                f"domain {self.name}: a side must have {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, "
                f"got {tuple(self.grid.shape)} at {a:g} m; change the resolution or the box"
            )
        if self.fjord_boundary is not None and not self.fjord_boundary.intersection(self.polygon).area > 0:
            raise ValueError(
                f"domain {self.name}: its fjord boundary is empty or lies outside its box, so that no front could lie "
                f"in it: give it in {crs}, or leave it out"
            )

    @property
    def crs(self) -> str:
        """CRS of grid, fjord boundary, centreline and fronts, an EPSG code where it has one."""
        return str(self.grid.crs)

    @property
    def resolution_m(self) -> float:
        """Pixel side of the grid in metres."""
        return float(self.grid.transform.a)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return int(self.grid.shape[0]), int(self.grid.shape[1])

    @property
    def polygon(self) -> Polygon:
        """The rectangle in the domain's CRS."""
        return Polygon(shapely.box(*self.grid.boundingbox.bbox))

    @property
    def area_lonlat(self) -> BaseGeometry:
        """The rectangle in longitude and latitude (EPSG:4326), its sides densified to follow the map's curves.

        It is cut in two at the antimeridian, as GeoJSON wants it; around a pole it is all longitudes up to the farthest
        point.
        """
        box = self.grid.boundingbox
        dense = gpd.GeoSeries([shapely.segmentize(self.polygon, max(box.span_x, box.span_y) / 16)], crs=self.crs)
        lonlat = dense.to_crs(4326).iloc[0]
        _, lowest, _, highest = lonlat.bounds
        poles = gpd.GeoSeries(gpd.points_from_xy([0, 0], [90, -90]), crs=4326).to_crs(self.crs)
        has_north, has_south = self.polygon.contains(poles.to_numpy())
        if has_north or has_south:
            return Polygon(shapely.box(-180, lowest if has_north else -90, 180, 90 if has_north else highest))
        return cut_at_antimeridian(lonlat)

    @cached_property
    def fjord_mask(self) -> NDArray[np.bool_] | None:
        """Fjord boundary on the grid, (y, x) bool: True where a front may lie; None without a boundary."""
        if self.fjord_boundary is None:
            return None
        burnt = rasterize(
            [(self.fjord_boundary, 1)], out_shape=self.shape, transform=self.grid.transform, dtype="uint8"
        )
        return np.asarray(burnt, dtype=bool)

    def _repr_html_(self) -> str:
        """Outline with what is known of the place, the oldest terminus lightest, and its facts, for a notebook."""
        left, bottom, right, top = self.polygon.bounds
        inks = [_mixed("#bcd3e2", "#0b4a8f", i / max(1, len(self.termini) - 1)) for i in range(len(self.termini))]
        shapes = [
            (self.ocean, "#d7e8f2", "none", 0),
            (self.ice, "#ffffff", "none", 0),
            (self.fjord_boundary, "#cfdee8", "#7d99ab", 1),
            (self.centerline, "none", "#d6336c", 1),
            *((terminus.line, "none", ink, 0.6) for terminus, ink in zip(self.termini, inks, strict=True)),
        ]
        side = (right - left) / 90
        drawn = [
            f'<path d="{_svg_path(shape, left, top)}" fill="{fill}" stroke="{ink}" stroke-width="{width * side:g}"/>'
            for shape, fill, ink, width in shapes
            if shape is not None
        ]
        facts = "<br>".join(escape(fact) for fact in self._facts())
        return (
            f'<div style="display:flex;gap:14px;align-items:center"><svg width="150" height="150" role="img" '
            f'aria-label="Outline of the domain" viewBox="0 0 {right - left:g} {top - bottom:g}" '
            f'style="background:#eef2f5;border:1px solid #8a99a5">{"".join(drawn)}</svg>'
            f"<div><b>{self.name}</b><br>{facts}</div></div>"
        )

    def _facts(self) -> list[str]:
        """Facts of the domain in words, one a line."""
        lon, lat = self.area_lonlat.centroid.coords[0]
        years = sorted(t.date.year for t in self.termini if t.date is not None)
        span = f", {years[0]} to {years[-1]}" if years else ""
        known = [name for name in ("ice", "ocean", "centerline") if getattr(self, name) is not None]
        return [
            *([f"glacier {self.glacier_id}"] if self.glacier_id else []),
            f"{abs(lat):.3f}° {'S' if lat < 0 else 'N'}, {abs(lon):.3f}° {'W' if lon < 0 else 'E'}",
            f"{self.crs}, {self.shape[1]} x {self.shape[0]} pixels of {self.resolution_m:g} m",
            f"{len(self.termini) or 'no'} known termini{span}",
            f"fjord boundary: {self.fjord_source or 'none'}",
            *([f"also known: {', '.join(known)}"] if known else []),
        ]


def _mixed(first: str, last: str, share: float) -> str:
    """Colour between two colours #rrggbb."""
    ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (first, last)]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*ends, strict=True))


@lru_cache(maxsize=64)
def _other_unit(epsg: int) -> str:
    """Name of the unit of a CRS that is not in metres; empty for metres."""
    (axis, *_) = CRS.from_epsg(epsg).axis_info
    return "" if math.isclose(axis.unit_conversion_factor, 1.0) else axis.unit_name


def _svg_path(shape: BaseGeometry, left: float, top: float) -> str:
    """Path of a polygon or line from its upper left corner, y down."""
    lines = [
        r for p in shapely.get_parts(shape) for r in ((p.exterior, *p.interiors) if "Poly" in p.geom_type else (p,))
    ]
    points = [[f"{x - left:.0f} {top - y:.0f}" for x, y in shapely.get_coordinates(line)] for line in lines]
    return "".join(f"M{'L'.join(part)}" for part in points)


def cut_at_antimeridian(lonlat: BaseGeometry) -> BaseGeometry:
    """Cut a polygon or line in longitude and latitude in two where it crosses the antimeridian, as GeoJSON wants it."""
    whole = unwrapped(lonlat)
    east, beyond = (whole.intersection(shapely.box(left, -90, left + 360, 90)) for left in (-180, 180))
    return whole if beyond.is_empty else shapely.union_all([east, shapely.transform(beyond, shifted(-360))])


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
        `crs` is in degrees: pixels of 30 degrees would be meant.

    Examples
    --------
    >>> cc.box_grid((100, 100, 6_000, 6_000), "EPSG:3413", 30.0).shape
    Shape2d(x=197, y=197)
    """
    if CRS.from_user_input(crs).is_geographic:
        raise ValueError(f"a grid needs a projected CRS in metres, got {crs}: use EPSG:3413, EPSG:3031 or UTM")
    left, bottom = (math.floor(v / resolution_m + 1e-6) * resolution_m for v in bounds[:2])
    right, top = (math.ceil(v / resolution_m - 1e-6) * resolution_m for v in bounds[2:])
    return GeoBox.from_bbox(BoundingBox(left, bottom, right, top, crs=crs), resolution=resolution_m, tight=True)


def best_crs(geometries: gpd.GeoSeries) -> str:
    """EPSG:3413 for Greenland and around the pole, EPSG:3031 for Antarctica, the UTM zone of the centre elsewhere."""
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


def write_domains(domains: Sequence[Domain], path: str | Path) -> Path:
    """Write a domain file: GeoJSON of the rectangles in longitude and latitude that `read_domains` reads back exactly.

    Properties: `name, glacier_id, crs, resolution_m, bounds` (in `crs`), `fjord_boundary`, `centerline` (WKT in `crs`),
    `fjord_source`, and where they are known `termini` (line, date, source), `ice` and `ocean` (WKT in `crs`).

    Parameters
    ----------
    domains
        Their names must differ.
    path
        File to write.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        Two domains share a name.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> cc.write_domains([cc.domain_from_glacier("Store")], "store.geojson").name
    'store.geojson'
    """
    path = Path(path)
    path.write_text(domains_json(domains))
    return path


def domains_json(domains: Sequence[Domain]) -> str:
    """Text of a domain file, see `write_domains`.

    Raises
    ------
    ValueError
        Two domains share a name.
    """
    if len({d.name for d in domains}) != len(domains):
        raise ValueError(f"domain names must be unique, got {sorted(d.name for d in domains)}")
    features = [
        {
            "type": "Feature",
            "geometry": mapping(shapely.set_precision(d.area_lonlat, 1e-7)),
            "properties": {
                "name": d.name,
                "glacier_id": d.glacier_id,
                "crs": d.crs,
                "resolution_m": d.resolution_m,
                "bounds": list(d.grid.boundingbox.bbox),
                "fjord_boundary": d.fjord_boundary.wkt if d.fjord_boundary is not None else None,
                "fjord_source": d.fjord_source or None,
                "centerline": d.centerline.wkt if d.centerline is not None else None,
                **({"termini": termini_json(d.termini)} if d.termini else {}),
                **{key: shape.wkt for key, shape in (("ice", d.ice), ("ocean", d.ocean)) if shape is not None},
            },
        }
        for d in domains
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False, indent=1) + "\n"


def read_domains(path: str | Path | BinaryIO, names: Sequence[str] | None = None) -> list[Domain]:
    """Read the domains of a file, or those in `names`, in the order of the file.

    A file of `write_domains`, or any vector file of polygons with a `name`: the polygon's bounding box in the property
    `crs` (else EPSG:3413, EPSG:3031 or UTM by place) at `resolution_m` (else 30 m) becomes the grid.

    Parameters
    ----------
    path
        Any vector file, or an open file of GeoJSON.
    names
        Only the domains of these names; all where not given.

    Returns
    -------
    list
        Domains in the order of the file.

    Raises
    ------
    ValueError
        The file cannot be read, holds no domain, a name twice, or not all of `names`.

    Examples
    --------
    >>> [domain.name for domain in cc.read_domains("real/domains.geojson")]
    ['Harald-Moltke-Brae']
    """
    try:
        table = gpd.read_file(path)
    except Exception as error:
        raise ValueError(
            f"cannot read the domain file {path}: {error}; expected GeoJSON or another vector file"
        ) from error
    domains = [_read_told(row, table.crs, path) for row in table.to_dict("records")]
    found = [d.name for d in domains]
    if not domains or len(set(found)) != len(found):
        raise ValueError(f"{path} must hold at least one domain and each name once, got {found}")
    if unknown := set(names or ()) - set(found):
        raise ValueError(
            f"{path} has no domain {sorted(unknown)}; it has {found[:20]}{' ...' if len(found) > 20 else ''}"
        )
    return [d for d in domains if not names or d.name in names]


def with_fjord_polygons(domains: Sequence[Domain], polygons: gpd.GeoDataFrame) -> list[Domain]:
    """Give each domain the part of the polygons inside it as its fjord boundary; others stay as they are.

    `polygons` say where fronts may lie, in any CRS, such as the front zones of Loebel et al. (2024).

    Raises
    ------
    ValueError
        The polygons have no CRS.
    """
    if polygons.crs is None:
        raise ValueError("the fjord polygons have no CRS: assign one to the file, e.g. EPSG:3413")
    made = []
    for domain in domains:
        boundary = part_inside(domain, polygons)
        made.append(replace(domain, fjord_boundary=boundary, fjord_source="") if boundary is not None else domain)
    return made


def part_inside(domain: Domain, polygons: gpd.GeoDataFrame) -> Any:  # noqa: ANN401 - a polygon, a multi-polygon or None
    """Part of polygons inside a domain, in its CRS; None where they share no area."""
    shapes = polygons.geometry.to_crs(domain.crs)
    inside = shapes[shapes.intersects(domain.polygon)].make_valid().intersection(domain.polygon).union_all()
    areas = [part for part in shapely.get_parts(inside) if part.geom_type == "Polygon"]
    return shapely.union_all(areas) if areas else None


def with_fjord_mask(domain: Domain, fjord_mask: NDArray[np.bool_], source: str) -> Domain:
    """Give a domain the outline of a mask on its grid, (y, x) bool, as its fjord boundary.

    Raises
    ------
    ValueError
        The mask is on another grid, or holds no fjord.
    """
    if fjord_mask.shape != domain.shape or not fjord_mask.any():
        raise ValueError(
            f"domain {domain.name}: a fjord mask must be (y, x) = {domain.shape} with fjord in it, "
            f"got {fjord_mask.shape} with {int(fjord_mask.sum())} px of fjord"
        )
    outlines = shapes(fjord_mask.astype("uint8"), mask=fjord_mask, transform=domain.grid.transform)
    boundary: Any = shapely.union_all([shape(outline) for outline, _ in outlines])
    return replace(domain, fjord_boundary=boundary, fjord_source=source)


def domains_from_termini(
    termini: gpd.GeoDataFrame,
    *,
    id_column: str | None = None,
    resolution_m: float = DEFAULT_RESOLUTION_M,
    margin: float = 0.75,
    min_side_m: float = 6000.0,
    crs: str | None = None,
) -> list[Domain]:
    """Make one square domain around all termini of each glacier id, which it keeps with their dates and sources.

    The side is the longer side of the termini's box plus `margin` times that side on either end, at least `min_side_m`
    (CALFIN's re-crop is 2.5 times the front, `calfin-method` 6.4).

    Parameters
    ----------
    termini
        Lines in any CRS, with an id column (one of glacier_id, GlacierID, Glacier_ID, ... or `id_column`).
    id_column
        Column with the glacier id, where it has another name.
    resolution_m
        Pixel side of the grids.
    margin
        Room on either side of the termini, in lengths of their box.
    min_side_m
        Least side of a domain in metres.
    crs
        CRS of the grids; by place where not given.

    Returns
    -------
    list
        A domain for each glacier id, sorted by id.

    Raises
    ------
    ValueError
        The table has no CRS, no column of ids, or no line.

    Examples
    --------
    >>> termini = gpd.read_parquet("real/reference.parquet")
    >>> (domain,) = cc.domains_from_termini(termini)
    >>> domain.name, len(domain.termini)
    ('glacier-75', 159)
    """
    if termini.crs is None:
        raise ValueError("the termini have no CRS: assign one to the file, e.g. EPSG:3413")
    column = id_column or next((c for c in ID_COLUMNS if c in termini.columns), None)
    if column is None or column not in termini.columns:
        raise ValueError(
            f"no column with glacier ids: got {list(termini.columns)}, expected one of {ID_COLUMNS}; name it"
        )
    termini = termini[termini.geometry.notna() & ~termini.geometry.is_empty]
    if termini.empty:
        raise ValueError("the file holds no termini")
    name_column = next((c for c in NAME_COLUMNS if c in termini.columns), None)
    domains = []
    taken: set[str] = set()
    for glacier_id, lines in termini.groupby(column, sort=True):
        glacier = id_text(glacier_id)
        named = _as_name(lines[name_column].iloc[0]) if name_column else ""
        if named and named in taken:
            named = f"{named}-{_as_name(glacier)}"
        taken.add(named)
        grid = _square_around(lines.geometry, crs or best_crs(lines.geometry), resolution_m, margin, min_side_m)
        known = termini_of(lines, str(grid.crs))
        domains.append(Domain(named or f"glacier-{_as_name(glacier)}", grid, glacier, termini=known))
    return domains


def _as_name(text: Any) -> str:  # noqa: ANN401 - a value of a table
    """Make a name of a domain of whatever a table has in its place; empty where it has none."""
    words = re.sub(r"[^\w\-]+", "-", "" if pd.isna(text) else id_text(text)).strip("-_")
    return words.encode()[:LONGEST_NAME].decode(errors="ignore")


def _square_around(lines: gpd.GeoSeries, crs: str, resolution_m: float, margin: float, min_side_m: float) -> GeoBox:
    left, bottom, right, top = lines.to_crs(crs).total_bounds
    half = max((1 + 2 * margin) * max(right - left, top - bottom), min_side_m, MIN_SIDE_PX * resolution_m) / 2
    x, y = (left + right) / 2, (bottom + top) / 2
    return box_grid((x - half, y - half, x + half, y + half), crs, resolution_m)


def id_text(value: Any) -> str:  # noqa: ANN401 - a value of a table
    """Id as text, empty where there is none; whole numbers lose the `.0` that a column with gaps gives them."""
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _read_told(row: dict[str, Any], file_crs: object, path: object) -> Domain:
    """Read a domain; what libraries raise becomes a `ValueError` that names it."""
    try:
        return _read_domain(row, file_crs)
    except Exception as error:
        if type(error) is ValueError:
            raise
        name = row.get("name") or row.get("Name")
        raise ValueError(
            f"{path}: cannot read the domain {name!r}: {type(error).__name__} {str(error)[:200]}; expected a polygon, "
            "and if given an EPSG code as crs, four numbers as bounds, metres as resolution_m, shapes as WKT"
        ) from error


def _read_domain(row: dict[str, Any], file_crs: object) -> Domain:
    name = row.get("name") or row.get("Name")
    if not name:
        raise ValueError(f"each domain needs a property `name`, got only {sorted(set(row) - {'geometry'})}")
    polygon = gpd.GeoSeries([row["geometry"]], crs=file_crs or 4326)
    crs = row.get("crs") or best_crs(polygon)
    bounds = row.get("bounds")
    if bounds is None:
        bounds = polygon.to_crs(crs).total_bounds
    elif isinstance(bounds, str):  # GDAL hands lists of GeoJSON over as text
        bounds = json.loads(bounds)
    geometries = {
        key: shapely.from_wkt(row[key])
        for key in ("fjord_boundary", "centerline", "ice", "ocean")
        if isinstance(row.get(key), str) and row[key]
    }
    resolution = float(row.get("resolution_m") or DEFAULT_RESOLUTION_M)
    glacier_id, source = id_text(row.get("glacier_id") or ""), str(row.get("fjord_source") or "")
    termini = row.get("termini")
    termini = json.loads(termini) if isinstance(termini, str) else termini
    known = read_termini(termini if isinstance(termini, list) else [])
    grid = box_grid(bounds, crs, resolution)
    return Domain(str(name), grid, glacier_id, **geometries, fjord_source=source, termini=known)
