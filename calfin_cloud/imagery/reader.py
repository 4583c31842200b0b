"""One file of a scene in, as stackstac hands it over; its numbers on the grid of the stack out, on the worker."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import distributed
import numpy as np
import pystac
import rasterio
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.dtypes import in_dtype_range
from rasterio.enums import MaskFlags, Resampling
from rasterio.transform import GCPTransformer, from_gcps
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from calfin_cloud.imagery import retries
from calfin_cloud.imagery.access import address_of, locate
from calfin_cloud.imagery.addresses import check_address
from calfin_cloud.imagery.files import LOWEST, opened
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import CATALOG_FIELD, granules_of

MOST_BLOCK_BYTES = 2**27
"""A block is decoded whole, whatever part of it is wanted: 128 MiB is four times the largest block of real scenes."""

MOST_PIXELS = 2**28
"""Pixels of a file under the grid: 16,384 a side, a hundred times those of Sentinel-2 under a domain of 20 km."""

UNUSED = float(np.finfo(np.float32).min)
"""Nodata of the grid as GDAL is told: told NaN, it takes twice the time for files without gaps."""

COARSER = 1.05
"""An overview is taken if its pixels are at most this much larger than the grid's: map projections differ by 4 %."""


@dataclass(frozen=True)
class Layer:
    """One file of a scene, in the place of stackstac's bare address.

    Attributes
    ----------
    href
        Unsigned.
    catalog
        Which one named it: it decides what may be opened.
    nodata
        Number that means no data, where the file itself does not say.
    is_quality
        Whether its numbers are classes or bits, of which there is no mean.
    failure
        Reason and message, where there is nothing that may be read.
    further
        The same file of further granules of the pass, read where those before have no data.
    """

    scene_id: str
    href: str
    catalog: str
    nodata: float | None = None
    is_quality: bool = False
    failure: tuple[str, str] | None = None
    further: tuple[Layer, ...] = ()


def layer_of(item: pystac.Item, asset: str, **more: Any) -> Layer:  # noqa: ANN401 - of `Layer`
    """Make the layer of an asset; raise `SceneError("refused_address")` where it may not be opened."""
    catalog = str(item.extra_fields.get(CATALOG_FIELD, ""))
    href = address_of(item.assets[asset], catalog)
    check_address(href, catalog)
    further = tuple(layer_of(granule, asset, **more) for granule in granules_of(item))
    return Layer(item.id, href, catalog, **more, further=further)


class SceneReader:
    """stackstac's `Reader` of one asset: bilinear for a signal, nearest for a quality band, float32, NaN = no data."""

    def __init__(self, *, url: Layer, spec: Any, **unused: Any) -> None:  # noqa: ANN401 - stackstac's protocol
        self.url, self.spec = url, spec

    def read(self, window: Window) -> NDArray[np.float32]:
        """Read a window of the stack; see `read_layer`."""
        where = window_transform(window, self.spec.transform)
        with suppress(ValueError, KeyError):  # no task of a worker, or one that has left its thread already
            distributed.secede()  # reading is mostly waiting; `retries` bounds how many files are read at once
        return read_layer(self.url, GeoBox((window.height, window.width), where, f"EPSG:{self.spec.epsg}"))

    def close(self) -> None:
        """Nothing stays open between reads."""


def read_layer(layer: Layer, grid: GeoBox) -> NDArray[np.float32]:
    """Read one file on a grid, with those of further granules: (y, x) float32, NaN where there is no data.

    Raises
    ------
    SceneError
        With the name of the scene. `unreachable` if the server was silent, busy or broke off until the deadline or
        the last attempt; `unreadable` if the file is missing, forbidden, broken or no raster; or what its item lacks.
    """
    numbers = _read_one(layer, grid)
    for granule in layer.further:
        if (missing := np.isnan(numbers)).any():
            numbers[missing] = _read_one(granule, grid)[missing]
    return numbers


def _read_one(layer: Layer, grid: GeoBox) -> NDArray[np.float32]:
    if layer.failure:
        raise SceneError(*layer.failure)
    try:
        return retries.within_deadline(
            lambda until: retries.with_retries(lambda: _attempt(layer, grid, until), layer.href, until=until),
            layer.href,
            seconds=retries.DEADLINE_S,
        )
    except SceneError as error:
        raise SceneError(error.reason, f"{layer.scene_id}: {error.message}") from None


def _attempt(layer: Layer, grid: GeoBox, until: float) -> NDArray[np.float32]:
    seconds = until - time.monotonic()
    href, is_like_raster = locate(layer.href, layer.catalog, seconds=seconds)
    try:
        with opened(href, seconds=seconds) as file:
            _check(file, grid)
            return _warp(file, layer, grid, seconds)
    except rasterio.RasterioIOError as error:
        words = str(error).rstrip(".")
        if "not recognized" not in words:
            raise
        if is_like_raster:  # it may have been cut on its way
            told = ": it is broken, or its server gives no parts of files (HTTP ranges)"
            raise rasterio.RasterioIOError(words + told * href.startswith("http")) from error
    raise ValueError(words)  # neither request nor GDAL saw a raster: it will not become one


def _check(file: rasterio.DatasetReader, grid: GeoBox) -> None:
    """Raise `ValueError` for what is no scene, or would take more memory or time than any scene does."""
    if file.count != 1 or (file.crs is None and not file.gcps[0]):
        raise ValueError(f"expected one band with a georeference, got {file.count} bands and CRS {file.crs}")
    if file.dtypes[0].startswith("complex"):
        raise ValueError(f"its numbers are {file.dtypes[0]}, expected real ones: take the detected image (GRD, RTC)")
    block = int(np.prod(file.block_shapes[0], dtype=float)) * np.dtype(file.dtypes[0]).itemsize
    if block > MOST_BLOCK_BYTES:
        raise ValueError(f"its blocks have {block} bytes, expected at most {MOST_BLOCK_BYTES}: gdal_translate -of COG")
    across, down = _spanned(file, grid)
    pixels = min(across * grid.shape.x, file.width) * min(down * grid.shape.y, file.height)
    if pixels > MOST_PIXELS:
        raise ValueError(f"it has {pixels:.0f} pixels under the domain, expected at most {MOST_PIXELS}")


def _warp(file: rasterio.DatasetReader, layer: Layer, grid: GeoBox, seconds: float) -> NDArray[np.float32]:
    target = np.full(grid.shape, np.nan, dtype=np.float32)
    nodata = _nodata(file, layer.nodata)
    source: Any = rasterio.band(file, 1)
    where: dict[str, Any] = {}
    scale = 1.0
    # How the overviews of a quality band were made no file says, and the mean of two classes is a third one.
    level = None if layer.is_quality else _overview(file, grid)
    if level is not None:
        source, where, scale = _read_overview(file, level, grid, seconds)
    if source is not None:
        rasterio.warp.reproject(
            source,
            target,
            src_nodata=nodata,
            dst_crs=CRS.from_epsg(grid.crs.epsg),
            dst_transform=grid.transform,
            dst_nodata=UNUSED,
            init_dest_nodata=False,  # it is NaN already
            resampling=Resampling.nearest if layer.is_quality else Resampling.bilinear,
            **where,
            **_kernel_scale(file, scale, grid.resolution.x),
        )
    if file.dtypes[0] == "float64" and np.isinf(target).any():
        raise ValueError("it has numbers beyond float32: scale it with gdal_translate -scale")
    return target


def _read_overview(
    file: rasterio.DatasetReader, level: int, grid: GeoBox, seconds: float
) -> tuple[NDArray[Any] | None, dict[str, Any], float]:
    """Read what an overview has around the grid: pixels, or None, and where they lie; how much coarser they are.

    Only overviews inside the file are found, see `files`.
    """
    with ExitStack() as files:
        if file.driver == "GTiff":
            offset = file.get_tag_item("IFD_OFFSET", "TIFF", bidx=1, ovr=level)
            overview = files.enter_context(opened(file.name, seconds=seconds, overview=(level, offset)))
            width, height = overview.width, overview.height
        else:  # JPEG 2000 says how large its reduced images are
            overview, factor = file, file.overviews(1)[level]
            width, height = -(-file.width // factor), -(-file.height // factor)
        across, down = file.width / width, file.height / height
        columns, rows = _edge(file, grid)
        margin = 2 + 2 * max(_spanned(file, grid)) / min(across, down)  # the kernel spans two pixels of the coarser
        first, end = (max(0, int(v)) for v in (columns.min() / across - margin, columns.max() / across + margin + 1))
        top, bottom = (max(0, int(v)) for v in (rows.min() / down - margin, rows.max() / down + margin + 1))
        end, bottom = min(end, width), min(bottom, height)
        if first >= end or top >= bottom:
            return None, {}, 1.0
        n, m = overview.width / width, overview.height / height
        window = Window(first * n, top * m, (end - first) * n, (bottom - top) * m)
        pixels = overview.read(1, window=window, out_shape=(bottom - top, end - first))
    return pixels, _georeference(file, (across, down), (first, top)), across


def _edge(file: rasterio.DatasetReader, grid: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of the file, in pixels, along the edge of the grid."""
    height, width = grid.shape
    along, zero = np.linspace(0, 1, 33), np.zeros(33)
    xs, ys = grid.transform * (
        np.concatenate([along * width, along * width, zero, zero + width]),
        np.concatenate([zero, zero + height, along * height, along * height]),
    )
    points, from_points = file.gcps
    xs, ys = rasterio.warp.transform(CRS.from_epsg(grid.crs.epsg), file.crs or from_points, xs, ys)
    if file.crs:
        columns, rows = ~file.transform * (np.array(xs), np.array(ys))
    else:
        with GCPTransformer(points) as to_pixels:
            rows, columns = to_pixels.rowcol(xs, ys, op=np.asarray)
    return np.asarray(columns), np.asarray(rows)


def _georeference(file: rasterio.DatasetReader, pixel: tuple[float, float], corner: tuple[int, int]) -> dict[str, Any]:
    """Tell where an array lies, of pixels so many times larger than the file's, from the corner (column, row) on."""
    (across, down), (first, top) = pixel, corner
    if file.crs:
        t = file.transform
        larger = Affine(t.a * across, t.b * down, t.c, t.d * across, t.e * down, t.f)
        return {"src_crs": file.crs, "src_transform": larger * Affine.translation(first, top)}
    points, crs = file.gcps
    moved = [
        GroundControlPoint(p.row * (1 / down) - top, p.col * (1 / across) - first, p.x, p.y, p.z, p.id) for p in points
    ]
    return {"src_crs": crs, "gcps": moved}


def _spanned(file: rasterio.DatasetReader, grid: GeoBox) -> tuple[float, float]:
    """Pixels of the file along a step of one pixel east and one south on the grid, at its centre; 1 where it has none.

    `file.res` would be in degrees for some files, and says nothing of those with control points.
    """
    points, from_points = file.gcps
    transform, crs = (file.transform, file.crs) if file.crs else (from_gcps(points), from_points)
    (x, y), step = grid.transform * (grid.shape.x / 2, grid.shape.y / 2), grid.resolution.x
    xs, ys = rasterio.warp.transform(CRS.from_epsg(grid.crs.epsg), crs, [x, x + step, x], [y, y, y - step])
    if not np.isfinite([xs, ys]).all():
        return 1.0, 1.0
    columns, rows = ~transform * (np.array(xs), np.array(ys))
    across, down = np.hypot(columns[1:] - columns[0], rows[1:] - rows[0])
    return float(across), float(down)


def _overview(file: rasterio.DatasetReader, grid: GeoBox) -> int | None:
    """Choose the coarsest overview that is still as fine as the grid; None for the full resolution.

    Where the file has a mask of its own, overviews are not read: only the whole file knows which pixels it hides.
    """
    most = COARSER * min(_spanned(file, grid))
    fitting = [level for level, factor in enumerate(file.overviews(1)) if factor <= most]
    is_masked = MaskFlags.per_dataset in file.mask_flag_enums[0]
    return fitting[-1] if fitting and not is_masked and np.isfinite(_edge(file, grid)).all() else None


def _nodata(file: rasterio.DatasetReader, default: float | None) -> float | None:
    """Nodata of the file, else of the table, else `LOWEST`; None where the file's type cannot even hold it."""
    nodata = next(value for value in (file.nodata, default, LOWEST) if value is not None)
    return nodata if in_dtype_range(nodata, file.dtypes[0]) else None


def _kernel_scale(file: rasterio.DatasetReader, coarser: float, pixel_m: float) -> dict[str, float]:
    """Tell GDAL how much it shrinks the image, which widens its kernel against aliasing.

    Its own guess, from the box around a rotated window, varies with the window and moved grey levels by 0.07 px (UTM to
    EPSG:3413); with the true scale it is 0.002 px.
    """
    if file.crs is None or not file.crs.is_projected:
        return {}
    across, down = (min(1.0, abs(side) * coarser / pixel_m) for side in file.res)
    return {"XSCALE": across, "YSCALE": down}
