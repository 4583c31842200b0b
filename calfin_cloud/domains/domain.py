"""A domain is one terminus on a map grid, and what is known of the place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize, shapes
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, shape
from shapely.geometry.base import BaseGeometry

from calfin_cloud.domains.grids import cut_at_antimeridian, length_scale, other_unit
from calfin_cloud.schema import check_name
from calfin_cloud.termini import Terminus

MIN_SIDE_PX = 64
MAX_SIDE_PX = 8192
FJORD_SOURCES = ("fjord_boundary", "dates", "ice_mask")


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
        One line along the flow, in the grid's CRS.
    fjord_source
        Where the boundary is from: `fjord_boundary` (drawn by hand), `dates` or `ice_mask` (derived).
    termini
        Lines where the glacier is known to have ended, with date and source, in the grid's CRS.
    ice, ocean
        Glacier ice and sea as maps show them, in the grid's CRS.

    Raises
    ------
    ValueError
        The grid or a shape is not of this kind, or the name cannot be part of a path.

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
        if unit := other_unit(crs.epsg):
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
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Refuse a centreline that is no line, and maps that are no areas: what measures along them would stumble."""
        line = self.centerline
        if line is not None and not (line.geom_type == "LineString" and line.length > 0):
            raise ValueError(
                f"domain {self.name}: its centreline must be one LineString of some length, got {line.wkt[:80]}: "
                "join its parts, or leave it out"
            )
        for what, area in (("ice", self.ice), ("ocean", self.ocean)):
            if area is not None and not (area.geom_type in ("Polygon", "MultiPolygon") and area.area > 0):
                raise ValueError(
                    f"domain {self.name}: its {what} must be a Polygon or MultiPolygon with some area, "
                    f"got {area.wkt[:80]}: leave it out"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "fjord_mask"}  # a MB a task

    @property
    def crs(self) -> str:
        """CRS of grid, fjord boundary, centreline and fronts, an EPSG code where it has one."""
        return str(self.grid.crs)

    @property
    def resolution_m(self) -> float:
        """Pixel side of the grid in metres."""
        return float(self.grid.transform.a)

    @property
    def ground_m(self) -> float:
        """Side of a pixel on the ground in metres, which that of the map is but for its stretch (`length_scale`)."""
        return self.resolution_m / length_scale(self.crs, self.polygon)

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

    @property
    def middle_lonlat(self) -> Point:
        """The rectangle's middle in longitude and latitude (EPSG:4326); that of a cut `area_lonlat` lies elsewhere."""
        return Point(gpd.GeoSeries([self.polygon.centroid], crs=self.crs).to_crs(4326).iloc[0])

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
            f'<path d="{svg_path(shape, left, top)}" fill="{fill}" stroke="{ink}" stroke-width="{width * side:g}"/>'
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
        lon, lat = self.middle_lonlat.coords[0]
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


def svg_path(shape: BaseGeometry, left: float, top: float) -> str:
    """Path of a polygon or line from its upper left corner, y down."""
    lines = [
        r for p in shapely.get_parts(shape) for r in ((p.exterior, *p.interiors) if "Poly" in p.geom_type else (p,))
    ]
    points = [[f"{x - left:.0f} {top - y:.0f}" for x, y in shapely.get_coordinates(line)] for line in lines]
    return "".join(f"M{'L'.join(part)}" for part in points)


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
