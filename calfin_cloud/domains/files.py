"""Domain files: GeoJSON of rectangles in longitude and latitude, read back exactly; or any vector file of polygons."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.geometry import mapping

from calfin_cloud.columns import id_text
from calfin_cloud.domains.domain import Domain
from calfin_cloud.domains.grids import DEFAULT_RESOLUTION_M, best_crs, box_grid
from calfin_cloud.termini import read_termini, termini_json
from calfin_cloud.vectors import read_vectors
from calfin_cloud.whole_files import write_whole_file

WHOLE = {name[:10]: name for name in ("resolution_m", "fjord_boundary", "fjord_source")}
"""Properties as a Shapefile cuts them."""
NUMBER = re.compile(r"-?\d[\d.]*(?:e[+-]?\d+)?", re.IGNORECASE)


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
        There is no domain, or two share a name.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> cc.write_domains([cc.domain_from_glacier("Store")], "store.geojson").name
    'store.geojson'
    """
    path = Path(path)
    if not domains:
        raise ValueError(f"{path} must hold at least one domain, got none: give the domains that are to be mapped")
    text = domains_json(domains)
    write_whole_file(path, text)
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
            "geometry": mapping(shapely.orient_polygons(shapely.set_precision(d.area_lonlat, 1e-7))),  # RFC 7946
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


def read_domains(path: str | Path | BinaryIO, names: Iterable[str] | None = None) -> list[Domain]:
    """Read the domains of a file, or those in `names`, in the order of the file.

    A file of `write_domains`, or any vector file of polygons with a `name`: the polygon's bounding box in the property
    `crs` (else EPSG:3413, EPSG:3031 or UTM by place) at `resolution_m` (else 30 m) becomes the grid.

    Parameters
    ----------
    path
        Any vector file, an address of one (https, or of an object store), or an open file of GeoJSON.
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
    wanted = {names} if isinstance(names, str) else set(names or ())
    table = read_vectors(path, "domain file")
    domains = [_read_told(row, table.crs, path) for row in table.to_dict("records")]
    found = [d.name for d in domains]
    if not domains or len(set(found)) != len(found):
        raise ValueError(f"{path} must hold at least one domain and each name once, got {found}")
    if unknown := wanted - set(found):
        raise ValueError(
            f"{path} has no domain {sorted(unknown)}; it has {found[:20]}{' ...' if len(found) > 20 else ''}"
        )
    return [d for d in domains if not wanted or d.name in wanted]


def _read_told(row: dict[str, Any], file_crs: object, path: object) -> Domain:
    """Read a domain; whatever is wrong with it becomes a `ValueError` that names it and its file."""
    given = {
        WHOLE.get(key, key): value
        for key, value in row.items()
        if not (pd.api.types.is_scalar(value) and pd.isna(value))
    }
    where = path if isinstance(path, str | Path) else "the domain file"
    name = given.get("name") or given.get("Name")
    try:
        return _read_domain(given, file_crs)
    except Exception as error:
        if str(error).startswith(f"domain {name}: "):
            raise ValueError(f"{where}: {error}") from error
        told = str(error)[:200] if type(error) is ValueError else f"{type(error).__name__} {str(error)[:200]}"
        raise ValueError(
            f"{where}: cannot read the domain {name!r}: {told}; expected a polygon, and if given an EPSG code as crs, "
            "four numbers as bounds, metres as resolution_m, a number or a name as glacier_id, shapes as WKT, and as "
            "termini a list of line, date (as 2019-06-30) and source"
        ) from error


def _read_domain(row: dict[str, Any], file_crs: object) -> Domain:
    name = row.get("name") or row.get("Name")
    if not name:
        raise ValueError(f"each domain needs a property `name`, got only {sorted(set(row) - {'geometry'})}")
    polygon = gpd.GeoSeries([row.get("geometry")], crs=file_crs or 4326)
    crs = row.get("crs") or best_crs(polygon)
    bounds = row.get("bounds")
    if bounds is None:
        bounds = polygon.to_crs(crs).total_bounds
    elif isinstance(bounds, str):  # GDAL hands lists of GeoJSON over as text, as [1, 2] or (2:1,2)
        bounds = [float(n) for n in NUMBER.findall(bounds.rpartition(":")[2])]
    if np.shape(bounds) != (4,) or not np.isfinite(np.asarray(bounds, dtype=float)).all():
        raise ValueError(f"got the bounds {list(bounds)}")
    geometries = {
        key: shapely.from_wkt(row[key])
        for key in ("fjord_boundary", "centerline", "ice", "ocean")
        if isinstance(row.get(key), str) and row[key]
    }
    if (line := geometries.get("centerline")) is not None and line.geom_type == "MultiLineString":
        geometries["centerline"] = shapely.line_merge(line)
    resolution = float(row.get("resolution_m") or DEFAULT_RESOLUTION_M)
    glacier_id, source = id_text(row.get("glacier_id") or ""), str(row.get("fjord_source") or "")
    termini = row.get("termini")
    termini = json.loads(termini) if isinstance(termini, str) else termini
    known = read_termini([] if termini is None else termini)
    grid = box_grid(bounds, crs, resolution)
    return Domain(str(name), grid, glacier_id, **geometries, fjord_source=source, termini=known)
