"""One scene on a grid: where its layers are in, their pixels out as (band, y, x) float32; on the worker."""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

import numpy as np
import pystac
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.dtypes import in_dtype_range
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_gcps

from calfin_cloud.imagery import patience
from calfin_cloud.imagery.access import StatusError, address_of, is_signed_here, look_at, opened, reader_pays, signed
from calfin_cloud.imagery.addresses import check_address
from calfin_cloud.schema import BANDS, SceneError
from calfin_cloud.sensors import CATALOG_FIELD, Band, band_of

# For good, and not around each read: threads read at once, and `catch_warnings` is not made for them. A file without a
# georeference is an error below.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

MOST_BLOCK_BYTES = 2**27
"""A block is decoded whole, whatever part of it is wanted: 128 MiB is four times the largest block of real scenes."""

MOST_PIXELS = 2**28
"""Pixels of a file under the grid: 16,384 a side, a hundred times those of Sentinel-2 under a domain of 20 km."""

COARSER = 1.05
"""An overview is taken if its pixels are at most this much larger than the grid's: map projections differ by 4 %."""


@dataclass(frozen=True)
class Layer:
    """One file of a scene."""

    href: str
    pays: bool


@dataclass(frozen=True)
class Plan:
    """What a worker needs to read one scene, nothing more: its layers in the order of `BANDS`, or why it cannot."""

    scene_id: str
    catalog: str
    band: Band | None
    layers: tuple[Layer | None, ...]
    failure: tuple[str, str] | None


def plan_scene(item: pystac.Item) -> Plan:
    """Find the layers of an item and check their addresses; nothing is opened."""
    catalog = str(item.extra_fields.get(CATALOG_FIELD, ""))
    try:
        band = band_of(item)
        layers = tuple(
            None if key is None else _layer(item, item.assets[key], catalog) for key in (band.asset, band.quality_asset)
        )
    except SceneError as error:
        return Plan(item.id, catalog, None, (), (error.reason, error.message))
    except Exception as error:  # whatever else is wrong with one item of a catalogue stays that item's trouble
        return Plan(item.id, catalog, None, (), ("error", f"{item.id}: {type(error).__name__}: {error}"))
    return Plan(item.id, catalog, band, layers, None)


def _layer(item: pystac.Item, asset: pystac.Asset, catalog: str) -> Layer:
    href = address_of(asset, catalog)
    check_address(href, catalog)
    return Layer(href, reader_pays(item, asset))


def read_scene(plan: Plan, grid: GeoBox) -> NDArray[np.float32]:
    """Read the layers of a scene on a grid: (band, y, x) float32, NaN where there are no data.

    Raises
    ------
    SceneError
        `unreachable` if its server was silent, busy or broke off until the deadline or the last attempt; `unreadable`
        if a file is missing, forbidden, broken or no raster; or what the plan says.
    """
    if plan.failure:
        raise SceneError(*plan.failure)
    signal = plan.layers[0]
    assert signal is not None
    try:
        return patience.within_deadline(partial(_read_layers, plan, grid), signal.href, seconds=patience.DEADLINE_S)
    except SceneError as error:
        raise SceneError(error.reason, f"{plan.scene_id}: {error.message}") from None


def _read_layers(plan: Plan, grid: GeoBox, until: float) -> NDArray[np.float32]:
    assert plan.band is not None
    signal, cloud = (_numbers(plan, name, layer, grid, until) for name, layer in zip(BANDS, plan.layers, strict=True))
    return np.stack([plan.band.signal(signal), plan.band.cloud(cloud)])


def _numbers(plan: Plan, name: str, layer: Layer | None, grid: GeoBox, until: float) -> NDArray[np.float32]:
    """Numbers of one file on the grid, (y, x) float32, NaN where it has none or there is none."""
    if layer is None:
        return np.full(grid.shape, np.nan, dtype=np.float32)

    def attempt() -> NDArray[np.float32]:
        seconds = until - time.monotonic()
        href, is_like_raster = _find(layer.href, plan.catalog, seconds)
        try:
            return _read_warped(plan, name, replace(layer, href=href), grid, seconds)
        except rasterio.RasterioIOError as error:
            if is_like_raster or "not recognized" not in str(error):
                raise
            words = str(error)
        raise ValueError(words)  # two looks, and both saw no raster: it will not become one

    return patience.with_patience(attempt, layer.href, until=until)


def _find(href: str, catalog: str, seconds: float) -> tuple[str, bool]:
    """Sign an address and look at what is there; a signature that is refused is renewed once."""
    if urlsplit(href).scheme not in ("http", "https"):
        return href, True
    try:
        return look_at(signed(href, catalog), catalog, seconds=seconds)
    except StatusError as error:
        if error.status != 403 or not is_signed_here(href, catalog):
            raise
    return look_at(signed(href, catalog, anew=True), catalog, seconds=seconds)


def _read_warped(plan: Plan, name: str, layer: Layer, grid: GeoBox, seconds: float) -> NDArray[np.float32]:
    assert plan.band is not None
    nodata = plan.band.nodata if name == "signal" else None
    with ExitStack() as files:
        file = files.enter_context(opened(layer.href, pays=layer.pays, seconds=seconds))
        _check(file, grid)
        # How the overviews of a quality band were made no file says, and the mean of two classes is a third one.
        level = _overview(file, grid) if name == "signal" else None
        if level is not None:
            file = files.enter_context(opened(layer.href, pays=layer.pays, seconds=seconds, overview_level=level))
        return _warp(file, grid, nodata, Resampling.bilinear if name == "signal" else Resampling.nearest)


def _warp(
    file: rasterio.DatasetReader, grid: GeoBox, nodata: float | None, resampling: Resampling
) -> NDArray[np.float32]:
    target = np.full(grid.shape, np.nan, dtype=np.float32)
    rasterio.warp.reproject(
        rasterio.band(file, 1),
        target,
        src_nodata=_nodata(file, nodata),
        dst_crs=CRS.from_epsg(grid.crs.epsg),
        dst_transform=grid.transform,
        dst_nodata=np.nan,
        resampling=resampling,
        **_kernel_scale(file, grid.resolution.x),
    )
    return target


def _check(file: rasterio.DatasetReader, grid: GeoBox) -> None:
    """Raise `ValueError` for what is no scene, or would take more memory or time than any scene does."""
    if file.count != 1 or (file.crs is None and not file.gcps[0]):
        raise ValueError(f"expected one band with a georeference, got {file.count} bands and CRS {file.crs}")
    block = int(np.prod(file.block_shapes[0], dtype=float)) * np.dtype(file.dtypes[0]).itemsize
    if block > MOST_BLOCK_BYTES:
        raise ValueError(f"its blocks have {block} bytes, expected at most {MOST_BLOCK_BYTES}: gdal_translate -of COG")
    across, down = _spanned(file, grid)
    pixels = min(across * grid.shape.x, file.width) * min(down * grid.shape.y, file.height)
    if pixels > MOST_PIXELS:
        raise ValueError(f"it has {pixels:.0f} pixels under the domain, expected at most {MOST_PIXELS}")


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
    """Choose the coarsest overview that is still as fine as the grid; None for the full resolution."""
    most = COARSER * min(_spanned(file, grid))
    fitting = [level for level, factor in enumerate(file.overviews(1)) if factor <= most]
    return fitting[-1] if fitting else None


def _nodata(file: rasterio.DatasetReader, default: float | None) -> float | None:
    """Nodata of the file, else of the table; None where the file's type cannot even hold it."""
    nodata = default if file.nodata is None else file.nodata
    return nodata if nodata is not None and in_dtype_range(nodata, file.dtypes[0]) else None


def _kernel_scale(file: rasterio.DatasetReader, pixel_m: float) -> dict[str, float]:
    """Tell GDAL how much it shrinks the image, which widens its kernel against aliasing.

    Its own guess, from the box around a rotated window, varies with the window and moved grey levels by 0.07 px (UTM to
    EPSG:3413); with the true scale it is 0.002 px.
    """
    if file.crs is None or not file.crs.is_projected:
        return {}
    scale = min(1.0, file.res[0] / pixel_m)
    return {"XSCALE": scale, "YSCALE": scale}
