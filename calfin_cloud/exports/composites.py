"""A cube of all glaciers of an ice sheet on one grid, in Zarr, tile by tile: what has no glacier takes no room."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry
from zarr.storage import LocalStore

from calfin_cloud.exports.cubes import SOURCE, TIME, coords_of, with_crs

TILE = 128  # cells on a side
BLOCK = 16 * TILE  # of the base mask
UNKNOWN, NO_AGE, NO_GLACIER = 255, 65535, -1
ARRAYS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ice": (
        "uint8",
        UNKNOWN,
        {
            "long_name": "ice of the day",
            "flag_values": [0, 1, UNKNOWN],
            "flag_meanings": "ocean ice outside_of_all_boxes",
            "comment": "Outside of all boxes base says what is ice, where it was given.",
        },
    ),
    "origin": ("uint8", 0, {"long_name": "where the front of the day is from"}),
    # Not days, which many versions of xarray make time deltas of; some of them fail.
    # xarray does not mask Zarr's own fill value: without `_FillValue` 65535 days would count in a mean.
    "age": (
        "uint16",
        NO_AGE,
        {"long_name": "time to the nearest front of the glacier", "units": "day", "_FillValue": NO_AGE},
    ),
}
TITLE = "Ice of all glaciers on the first of each month"


def create_composite(
    path: Path, grid: GeoBox, days: pd.DatetimeIndex, glaciers: Sequence[str], origins: Sequence[str]
) -> zarr.Group:
    """Create an empty cube: `ice`, `origin` and `age` (time, y, x), `glacier` (y, x), and coordinates as CF has them.

    A chunk is all days of a tile of 128 x 128 cells; chunks that nobody writes do not exist, and read as unknown.
    """
    number = {"long_name": "id of a glacier by its number"}
    coords = {
        "time": ("time", days.tz_localize(None).to_numpy(), TIME),
        **coords_of(grid),
        "glacier_id": ("glacier_number", np.array(glaciers, dtype=object), number),
    }
    attrs = {"Conventions": "CF-1.11", "title": TITLE, "source": SOURCE, "history": "calfin composite"}
    store = LocalStore(path)  # of a path alone Zarr takes a `?` or `#` for a query
    with_crs(xr.Dataset(coords=coords, attrs=attrs), str(grid.crs)).to_zarr(store, mode="w", consolidated=False)
    group = zarr.open_group(store, mode="r+")
    for name, (dtype, fill, about) in ARRAYS.items():
        flags = {"flag_values": list(range(len(origins))), "flag_meanings": " ".join(origins)}
        _create(group, name, (len(days), *grid.shape), dtype, fill, about | (flags if name == "origin" else {}))
    _create(group, "glacier", tuple(grid.shape), "int16", NO_GLACIER, {"long_name": "number of the glacier"})
    return group


def tiles_of(grid: GeoBox, boxes: Sequence[BaseGeometry]) -> Iterator[tuple[tuple[slice, slice], list[int]]]:
    """Find the tiles in which boxes lie: rows and columns of each, and the numbers of the boxes."""
    found: dict[tuple[int, int], list[int]] = {}
    for number, box in enumerate(boxes):
        left, bottom, right, top = box.bounds
        (c0, r0), (c1, r1) = ~grid.transform * (left, top), ~grid.transform * (right, bottom)
        rows, columns = (range(max(int(a // TILE), 0), int(b // TILE) + 1) for a, b in ((r0, r1), (c0, c1)))
        for place in itertools.product(rows, columns):
            found.setdefault(place, []).append(number)
    for (row, column), numbers in sorted(found.items()):
        window = tuple(slice(k * TILE, min((k + 1) * TILE, n)) for k, n in zip((row, column), grid.shape, strict=True))
        if window[0].start < window[0].stop and window[1].start < window[1].stop:
            yield (window[0], window[1]), numbers


def cells_of(grid: GeoBox, window: tuple[slice, slice]) -> NDArray[np.float64]:
    """Middles (n, 2) of the cells of a tile, row by row, on the map."""
    rows, columns = np.meshgrid(*(np.arange(part.start, part.stop) + 0.5 for part in window), indexing="ij")
    x, y = grid.transform * (columns.ravel(), rows.ravel())
    return np.column_stack([x, y])


def write_tile(group: zarr.Group, window: tuple[slice, slice], values: Mapping[str, NDArray[Any]]) -> None:
    """Write the values of a tile: (time, n) or (n,), cells row by row."""
    shape = tuple(part.stop - part.start for part in window)
    for name, array in values.items():
        whole = (slice(None),) * (array.ndim - 1)
        _array(group, name)[(*whole, *window)] = array.reshape(*array.shape[:-1], *shape)


def write_base(group: zarr.Group, grid: GeoBox, ice: gpd.GeoSeries) -> None:
    """Write a mask of ice (y, x) that stays: 1 in the polygons, in the CRS of the grid, else 0."""
    about = {"long_name": "ice outside of all boxes", "flag_values": [0, 1], "flag_meanings": "no_ice ice"}
    base = _create(group, "base", tuple(grid.shape), "uint8", 0, about, tile=4 * TILE)
    height, width = grid.shape
    for row, column in itertools.product(range(0, height, BLOCK), range(0, width, BLOCK)):
        part = grid[row : row + BLOCK, column : column + BLOCK]
        near = ice.iloc[ice.sindex.query(part.extent.geom, "intersects")].clip(part.boundingbox.bbox)
        shapes = [shape for shape in near if not shape.is_empty and shape.area > 0]
        if shapes:
            burnt = rasterize(shapes, out_shape=tuple(part.shape), transform=part.transform, dtype="uint8")
            base[row : row + BLOCK, column : column + BLOCK] = burnt


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    fill: int,
    about: Mapping[str, Any],
    *,
    tile: int = TILE,
) -> zarr.Array[Any]:
    dims = ("time", "y", "x")[-len(shape) :]
    return group.create_array(
        name,
        shape=shape,
        chunks=tuple(n if dim == "time" else min(tile, n) for dim, n in zip(dims, shape, strict=True)),
        dtype=dtype,
        fill_value=fill,
        dimension_names=dims,
        attributes={**about, "grid_mapping": "spatial_ref"},
    )


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found
