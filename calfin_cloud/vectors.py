"""A vector file in, a table of geometries out; a file that cannot be read is told by name. Also CRS by name."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import geopandas as gpd
import pyproj


def read_vectors(path: str | Path | BinaryIO, what: str = "vector file") -> gpd.GeoDataFrame:
    """Read a vector file: GeoParquet by its ending, else what GDAL reads; geometries in the file's CRS.

    Parameters
    ----------
    what
        What the file is to its user, for messages.

    Raises
    ------
    ValueError
        The file is missing, cannot be read, or has no geometry.

    Examples
    --------
    >>> len(read_vectors("real/reference.parquet"))
    159
    """
    try:
        table = gpd.read_parquet(path) if str(path).endswith("parquet") else gpd.read_file(path)
    except Exception as error:  # of pyogrio, pyarrow and geopandas, which share no class
        said = str(error).partition("; It might help")[0]  # GDAL's advice is for its own options
        raise ValueError(
            f"cannot read the {what} {path}: {said}; expected GeoJSON, Shapefile, GeoPackage or GeoParquet"
        ) from error
    if not isinstance(table, gpd.GeoDataFrame):
        raise ValueError(f"the {what} {path} has no geometry, only columns {list(table)}: expected lines or polygons")
    return table


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
