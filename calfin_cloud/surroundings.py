"""Domains and what is known around them in; domains that carry it out: known termini, maps of ice and ocean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import geopandas as gpd
import shapely
from shapely.geometry import Polygon

from calfin_cloud.columns import first_column, glacier_ids
from calfin_cloud.domains import ID_COLUMNS, Domain, part_inside
from calfin_cloud.termini import termini_of


def with_termini(domains: Sequence[Domain], fronts: gpd.GeoDataFrame) -> list[Domain]:
    """Add known fronts to the termini of their domains: the table of a store (`read_fronts`), or any with glacier ids.

    Rows belong to a domain by their `domain`, else by a glacier id (`ID_COLUMNS`), and must touch its rectangle.

    Raises
    ------
    ValueError
        The fronts have no CRS, or no column that names their glacier or domain.
    """
    if fronts.crs is None:
        raise ValueError("the fronts have no CRS: assign one to the file, e.g. EPSG:3413")
    column = first_column(("domain", *ID_COLUMNS), fronts)
    if column is None:
        raise ValueError(
            f"no column `domain` or of glacier ids {ID_COLUMNS}: got {list(fronts.columns)}; rename the one that has "
            f"the ids of the domains ({', '.join(d.glacier_id or d.name for d in domains[:3])}), or add it"
        )
    names = glacier_ids(fronts, column)
    made = []
    for domain in domains:
        mine = fronts[names == (domain.name if column.lower() == "domain" else domain.glacier_id)]
        mine = mine[mine.geometry.to_crs(domain.crs).intersects(domain.polygon)]
        known = dict.fromkeys((*domain.termini, *termini_of(mine, domain.crs)))
        made.append(replace(domain, termini=tuple(known)))
    return made


def with_maps(
    domains: Sequence[Domain], *, ice: gpd.GeoDataFrame | None = None, ocean: gpd.GeoDataFrame | None = None
) -> list[Domain]:
    """Give each domain the parts inside it of polygons of glacier ice and of ocean, in any CRS.

    `ocean` may be closed coastlines too: all that lies in none of them is ocean. Holes in `ice` are filled: some maps
    show a band along the margin only, and a nunatak is no coast.

    Raises
    ------
    ValueError
        The polygons have no CRS.
    """
    made = list(domains)
    for name, polygons in (("ice", ice), ("ocean", ocean)):
        if polygons is None:
            continue
        if polygons.crs is None:
            raise ValueError(f"the polygons of {name} have no CRS: assign one to the file, e.g. EPSG:3413")
        shapes = _filled(polygons) if name == "ice" else polygons
        is_coast = len(shapes) > 0 and bool((shapes.geom_type == "LineString").all())
        cut = _outside if is_coast else part_inside
        made = [replace(d, **{name: part}) if (part := cut(d, shapes)) is not None else d for d in made]
    return made


def _filled(polygons: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Polygons and parts of multi-polygons without their holes."""
    parts = polygons.geometry.explode()
    whole = [Polygon(part.exterior) for part in parts if part is not None and part.geom_type == "Polygon"]
    return gpd.GeoDataFrame(geometry=whole, crs=polygons.crs)


def _outside(domain: Domain, rings: gpd.GeoDataFrame) -> Any:  # noqa: ANN401 - a polygon, a multi-polygon or None
    """Part of a domain outside closed lines, in its CRS; None where it has none."""
    box = shapely.segmentize(domain.polygon, max(domain.grid.boundingbox.span_x / 16, 1.0))
    around = gpd.GeoSeries([box], crs=domain.crs).to_crs(rings.crs).iloc[0]
    left, bottom, right, top = around.bounds
    spare = max(right - left, top - bottom) / 50  # the sides of one map are bent on the other
    bounds = (left - spare, bottom - spare, right + spare, top + spare)
    near = rings.geometry[shapely.intersects(shapely.box(*rings.bounds.to_numpy().T), shapely.box(*bounds))]
    closed = [shapely.Polygon(line) for line in near if line.is_closed]
    land = [shapely.make_valid(shapely.clip_by_rect(area, *bounds)) for area in closed]
    on_grid = gpd.GeoSeries(land, crs=rings.crs).to_crs(domain.crs).make_valid()
    sea = domain.polygon.difference(on_grid.union_all())
    areas = [part for part in shapely.get_parts(sea) if part.geom_type == "Polygon"]
    return shapely.union_all(areas) if areas else None
