"""A vector file in, a table of geometries out; a file that cannot be read is told by name. Also CRS by name."""

from __future__ import annotations

import logging
import math
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.error import URLError
from urllib.parse import urlsplit

import geopandas as gpd
import numpy as np
import pyproj

from calfin_cloud.object_stores import EXTRAS, open_files, telling_lacks

log = logging.getLogger(__name__)

MOST_DEGREES = 360.0
LEAST_LATITUDE = 40.0  # of glaciers that calve
LAYER = "|layername="  # as QGIS writes it

Shapes = Literal["lines", "polygons"]
TYPES: dict[Shapes, tuple[str, ...]] = {
    "lines": ("LineString", "MultiLineString"),
    "polygons": ("Polygon", "MultiPolygon", "GeometryCollection"),  # the last comes of mending polygons
}


def read_vectors(
    path: str | Path | BinaryIO, what: str = "vector file", *, of: Shapes | None = None
) -> gpd.GeoDataFrame:
    """Read a vector file: GeoParquet by its ending, else what GDAL reads; geometries in the file's CRS, without z.

    Parameters
    ----------
    path
        A file of the disk, an open one, or an address: https, or of an object store, where it must be a single file.
        ``FILE|layername=LAYER`` names one layer of several; without it the first is read, with a warning.
    what
        What the file is to its user, for messages.
    of
        The kind of shapes that it must hold, and no other.

    Raises
    ------
    ValueError
        The file is missing, cannot be read, has no geometry, holds shapes of another kind, or degrees in a CRS in
        metres; an object store lacks its package or credentials.
    OSError
        The server of an address does not answer; clients of object stores have errors of their own for that.

    Examples
    --------
    >>> len(read_vectors("real/reference.parquet"))
    159
    """
    address, _, layer = str(path).partition(LAYER)
    plain = address if layer else path
    # fsspec reads object stores with the credentials and endpoint of stores: GDAL has other words for these.
    source = _fetch(address, what) if urlsplit(address).scheme in EXTRAS else plain
    try:
        table = gpd.read_parquet(source) if address.endswith("parquet") else _read_layer(source, layer)
    except Exception as error:  # of pyogrio, pyarrow and geopandas, which share no class
        if isinstance(error, URLError) and getattr(error, "code", 500) >= 500:
            raise ConnectionError(f"cannot read the {what} {path}: {error}") from error
        said = str(error).partition("; It might help")[0]  # GDAL's advice is for its own options
        raise ValueError(
            f"cannot read the {what} {path}: {said}; expected GeoJSON, Shapefile, GeoPackage or GeoParquet"
        ) from error
    if not isinstance(table, gpd.GeoDataFrame):
        raise ValueError(f"the {what} {path} has no geometry, only columns {list(table)}: expected lines or polygons")
    table = table.set_geometry(table.geometry.force_2d())
    _check_degrees(table, f"the {what} {path}")
    return table if of is None else check_shapes(table, of, f"the {what} {path}")


def _check_degrees(table: gpd.GeoDataFrame, what: str) -> None:
    """Refuse longitudes and latitudes that a file calls metres: they would all lie beside the origin of its map."""
    if table.crs is None or not table.crs.is_projected or not len(table):
        return
    bounds = table.total_bounds
    low, high = bounds[:2], bounds[2:]
    are_latitudes = (low >= LEAST_LATITUDE) | (high <= -LEAST_LATITUDE)
    if np.abs(bounds).max() <= MOST_DEGREES and are_latitudes.any():
        raise ValueError(
            f"{what} is in {table.crs.name} by its own account, but its coordinates, {bounds.round(2).tolist()}, look "
            "like degrees: give it its true CRS, with ogr2ogr -a_srs EPSG:4326 or geopandas' set_crs"
        )


def check_shapes(table: gpd.GeoDataFrame, of: Shapes, what: str) -> gpd.GeoDataFrame:
    """Return a table if all its shapes, but for missing ones, are of a kind; raise `ValueError` otherwise."""
    if others := set(table.geom_type.dropna()) - set(TYPES[of]):
        raise ValueError(f"{what} must hold {of} alone, got {', '.join(sorted(others))}: give another file, or layer")
    return table


def _read_layer(source: str | Path | BinaryIO, layer: str) -> gpd.GeoDataFrame:
    """Read one layer by GDAL, the first where none is named; say in our words that there are others."""
    with warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings("always", "More than one layer")
        table = _read_text(source, layer or None)
    for warning in said:
        words, is_other, _ = str(warning.message).partition(". Specify layer")
        if is_other:
            log.warning("%s; name another as FILE%sLAYER", words, LAYER)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return table


def _read_text(source: str | Path | BinaryIO, layer: str | None) -> gpd.GeoDataFrame:
    """Read a layer; a Shapefile that does not name its encoding is UTF-8, or else Latin-1, as GDAL takes it for."""
    path = Path(str(source))
    if path.suffix.lower() == ".shp" and not any(path.with_suffix(ending).exists() for ending in (".cpg", ".CPG")):
        with suppress(UnicodeDecodeError):
            return gpd.read_file(source, layer=layer, encoding="utf-8")
    return gpd.read_file(source, layer=layer)


def _fetch(address: str, what: str) -> BytesIO:
    """Fetch a file; what may pass, such as a store that does not answer, stays the error that it is."""
    try:
        fs, path = open_files(address)
        with telling_lacks(address), fs.open(path) as file:
            return BytesIO(file.read())
    except FileNotFoundError as error:
        raise ValueError(f"cannot read the {what} {address}: there is no such object") from error


def crs_of(text: str) -> pyproj.CRS:
    """Make a CRS of its name.

    Raises
    ------
    ValueError
        No CRS has this name.

    Examples
    --------
    >>> crs_of("EPSG:3413").to_epsg()
    3413
    """
    try:
        return pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(
            f"there is no CRS {text!r}: name one as EPSG:3413 (Greenland) or EPSG:3031 (Antarctica)"
        ) from error


def check_metres(crs: pyproj.CRS | None, what: str) -> None:
    """Refuse a CRS in which lengths are no metres: one in degrees, or in feet.

    Raises
    ------
    ValueError
        The CRS is missing, is not projected, or has another unit.

    Examples
    --------
    >>> check_metres(crs_of("EPSG:3413"), "a comparison")
    """
    if crs is None or not crs.is_projected or not math.isclose(crs.axis_info[0].unit_conversion_factor, 1.0):
        unit = f" in {crs.axis_info[0].unit_name}" if crs is not None and crs.axis_info else ""
        raise ValueError(
            f"{what} needs fronts in a projected CRS in metres, got {crs and crs.name}{unit}: "
            "give --crs EPSG:3413, or to_crs(3413) in Python"
        )
