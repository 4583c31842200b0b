"""STAC items in; a lazy stack of scenes (time, band, y, x) on the domain's grid out, read on the worker."""

from __future__ import annotations

import functools
import ipaddress
import queue
import re
import socket
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import numpy as np
import pystac
import rasterio
import rioxarray  # noqa: F401 (registers the accessor `rio`)
import stackstac
import xarray as xr
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.dtypes import in_dtype_range
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.warp import reproject
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt

from calfin_cloud.domains import Domain
from calfin_cloud.schema import BANDS, SCENE_DIMS, SceneError, check_scenes
from calfin_cloud.sensors import CATALOG_FIELD, IMAGE_DRIVERS, Band, band_of

GDAL_SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_MAX_RETRY": 5,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_RETRY_CODES": "429,500,502,503,504",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    # A scene is opened once; what GDAL remembers of an address beyond that is only that it once failed.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/",
}
"""Set around each read, since settings made in the client do not reach workers."""

REQUESTER_PAYS = ("usgs-landsat", "sentinel-s1-l1c", "sentinel-s2-l2a")
DEADLINE_S = 300.0
"""Longest time for one band of one scene: GDAL's own limits add up over retries and blocks to far more."""

SMALLEST_IMAGE_PX = 64

STRIPE_WIDTH_M = 500.0
"""SLC-off gaps are at most 14 pixels of 30 m wide, at the edge of a Landsat 7 scene."""


def stack_scenes(items: Sequence[pystac.Item], domain: Domain) -> xr.DataArray:
    """Stack items on the domain's grid: lazy (time, band, y, x) float32, band = signal, cloud; one scene is one chunk.

    Nothing is opened here. A scene that cannot be read (no such band, refused address, 404, broken file) raises its
    `SceneError` when its own chunk is computed and leaves the others alone; one that does not reach the grid is NaN.

    Parameters
    ----------
    items
        From `search_scenes` or `items_from_images`; the order is kept.

    Returns
    -------
    DataArray
        Signal in reflectance, digital numbers or dB (bilinear); cloud 1, 0 or NaN (nearest). Coordinates on time:
        `scene_id`, `platform`, `collection`, `sensor_kind`, `slc_off_possible`; `x`, `y` at pixel centres in m.
    """
    if not items:
        raise ValueError("there are no items to stack: widen the period, or check that the catalogue covers the domain")
    epsg = domain.grid.crs.epsg
    if epsg is None:
        raise ValueError(f"the CRS of domain {domain.name} has no EPSG code: use EPSG:3413, EPSG:3031 or UTM")
    plans = [_plan(item) for item in items]
    stack = stackstac.stack(
        [_plain_item(plan, epsg, domain.grid.boundingbox.bbox) for plan in plans],
        assets=list(BANDS),
        epsg=epsg,
        bounds=tuple(domain.grid.boundingbox.bbox),
        resolution=domain.resolution_m,
        snap_bounds=False,
        xy_coords="center",
        chunksize=(1, -1, -1, -1),
        dtype=np.dtype(np.float32),
        fill_value=np.float32(np.nan),
        rescale=False,
        sortby_date=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        reader=_SceneReader,
    )
    if stack.shape != (len(items), len(BANDS), *domain.shape):
        raise AssertionError(f"stackstac changed the grid: {stack.shape} for {len(items)} scenes of {domain.shape}")
    return check_scenes(_with_coords(stack.data, plans, domain))


def read_image(path: str | Path) -> NDArray[np.float32]:
    """Read a plain image of 8 or 16 bit, grey or RGB(A), as grey (y, x) float32: the mean of its colours.

    NaN where the alpha channel is 0 or the file says nodata. `SceneError("unreadable")` for what is no PNG, GeoTIFF or
    JPEG 2000, for complex numbers and for sides under 64 px.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # it is traced in pixels
            with rasterio.Env(), rasterio.DatasetReader(str(path), driver=IMAGE_DRIVERS) as file:
                colours = [i for i, c in zip(file.indexes, file.colorinterp, strict=True) if c != ColorInterp.alpha]
                pixels = file.read(colours)
                missing = file.dataset_mask() == 0
    except rasterio.RasterioIOError as error:
        raise SceneError("unreadable", f"cannot read {path}: {error}; expected a PNG or a GeoTIFF") from None
    if min(pixels.shape[1:]) < SMALLEST_IMAGE_PX or np.iscomplexobj(pixels):
        got = f"{pixels.shape[2]} x {pixels.shape[1]} pixels of {pixels.dtype}"
        raise SceneError(
            "unreadable", f"{path} has {got}, expected real numbers and {SMALLEST_IMAGE_PX} px a side or more"
        )
    grey = pixels.mean(axis=0, dtype=np.float64)
    return np.where(missing | ~np.isfinite(grey), np.nan, grey).astype(np.float32)


def scene_fractions(
    scene: xr.DataArray | NDArray[np.float32],
    *,
    resolution_m: float | None = None,
    slc_off_possible: bool | None = None,
) -> dict[str, float]:
    """Measure one scene (band, y, x) over the domain: its cloud, nodata and SLC-off fractions, 0 to 1.

    Cloud counts among the pixels whose quality is known, NaN where there is no quality band. Nodata counts all missing
    pixels, the stripes too. SLC-off counts missing pixels in gaps narrower than `STRIPE_WIDTH_M`, in Landsat 7 scenes
    after 2003-05-31 only.

    Parameters
    ----------
    resolution_m, slc_off_possible
        By default those of the scene's coordinates; for a plain array 30 m, and gaps count.
    """
    if isinstance(scene, xr.DataArray):
        resolution_m = resolution_m or abs(float(scene["x"][1] - scene["x"][0]))
        slc_off_possible = bool(scene["slc_off_possible"]) if slc_off_possible is None else slc_off_possible
    signal, cloud = np.asarray(scene)
    nodata, known = np.isnan(signal), np.isfinite(cloud)
    slc_off = 0.0
    if slc_off_possible is not False and nodata.any():
        slc_off = float((nodata & ~wide_parts(nodata, STRIPE_WIDTH_M / 2 / (resolution_m or 30.0))).mean())
    return {
        "cloud_fraction": float(cloud[known].mean()) if known.any() else float("nan"),
        "nodata_fraction": float(nodata.mean()),
        "slc_off_fraction": slc_off,
    }


def check_address(href: str, catalog: str) -> None:
    """Raise `SceneError("refused_address")` unless an item of `catalog` may make us open `href`.

    Allowed are https, http, s3, gs and az; a local file only where the catalogue is one. A loopback or private host is
    opened only for a catalogue that is local or on such a host itself, a link-local one (where clouds keep their
    credentials) only for a catalogue on that very host; GDAL's own prefixes and files that refer to others never.
    """
    parts = _split(href)
    if "<" in href or parts.path.lower().endswith((".vrt", ".xml")):
        _refuse(href, "a file that refers to other files")
    if parts.scheme in ("s3", "gs", "az"):
        return
    if parts.scheme in ("http", "https"):
        _check_host(href, parts.netloc, catalog)
    elif parts.scheme in ("", "file"):
        if not parts.path.startswith("/") or parts.netloc or re.match(r"/+vsi", parts.path):
            _refuse(href, "not an absolute path of a plain file")
        if not _is_local(catalog):
            _refuse(href, f"a local file, named by the catalogue {catalog or 'of unknown origin'}, which is not local")
    else:
        _refuse(href, "not https, http, s3, gs or az")


def _split(href: str) -> SplitResult:
    try:
        return urlsplit(href)
    except ValueError as error:
        raise SceneError("refused_address", f"refused to open {_shown(href)}: {error}") from None


def _check_host(href: str, netloc: str, catalog: str) -> None:
    host = _split(href).hostname or ""
    # What else may stand here (user names, escapes, other alphabets) is read differently by Python and by curl.
    if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", netloc) or not host or "\\" in href:
        _refuse(href, "not the plain name of a host")
    address = _ip_address(host)
    if address is None or address.is_global or host == urlsplit(catalog).hostname:
        return
    if not _is_near(catalog) or address.is_link_local or address.is_unspecified:
        _refuse(href, "a loopback, private or link-local host, which the catalogue is not")


def _is_local(catalog: str) -> bool:
    return catalog.startswith("/") and not catalog.startswith("//")


def _is_near(catalog: str) -> bool:
    """Say whether the catalogue is a local file, or on a loopback or private host."""
    address = _ip_address(urlsplit(catalog).hostname or "")
    return _is_local(catalog) or (address is not None and not address.is_global)


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Address that `host` spells, in the short and decimal forms too that curl reads; None for another name."""
    if host.rstrip(".").lower().endswith("localhost"):
        return ipaddress.IPv4Address("127.0.0.1")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return getattr(address, "ipv4_mapped", None) or address


def _refuse(href: str, why: str) -> None:
    raise SceneError("refused_address", f"refused to open {_shown(href)}: {why}")


# Planning: what a worker needs to read a scene, nothing more


@dataclass(frozen=True)
class _Plan:
    """One scene: where its two layers are and how to read them, or why it cannot be."""

    item: pystac.Item
    band: Band | None
    error: SceneError | None


@dataclass(frozen=True)
class _Source:
    """One layer of one scene; takes the place of an address in stackstac's table and so reaches the worker."""

    scene_id: str
    layer: str
    href: str | None
    catalog: str
    band: Band | None
    failure: tuple[str, str] | None


def _plan(item: pystac.Item) -> _Plan:
    try:
        band = band_of(item)
        catalog = str(item.extra_fields.get(CATALOG_FIELD, ""))
        for key in (band.asset, band.quality_asset):
            if key is not None:
                check_address(_asset_href(item.assets[key]), catalog)
    except SceneError as error:
        return _Plan(item, None, error)
    except Exception as error:  # whatever else is wrong with one item of a catalogue stays that item's trouble
        return _Plan(item, None, SceneError("error", f"{item.id}: {type(error).__name__}: {error}"))
    return _Plan(item, band, None)


def _plain_item(plan: _Plan, epsg: int, bounds: Sequence[float]) -> dict[str, Any]:
    """Item as stackstac wants it, two assets whatever the sensor, said to cover the domain.

    stackstac drops an item whose metadata it cannot place, knows no `proj:code`, and trusts a wrong bounding box: the
    file itself decides where it lies.
    """
    properties = {"datetime": "2000-01-01T00:00:00Z", "proj:epsg": epsg, "proj:bbox": list(bounds)}
    assets = {layer: {"href": _source(plan, layer)} for layer in BANDS}
    return {"id": plan.item.id, "properties": properties, "assets": assets}


def _source(plan: _Plan, layer: str) -> _Source:
    item, band = plan.item, plan.band
    key = None if band is None else band.asset if layer == "signal" else band.quality_asset
    href = None if key is None else _asset_href(item.assets[key])
    failure = (plan.error.reason, plan.error.message) if plan.error else None
    return _Source(item.id, layer, href, str(item.extra_fields.get(CATALOG_FIELD, "")), band, failure)


def _asset_href(asset: pystac.Asset) -> str:
    """Address of an asset; USGS answers http with a login page, so there it is the object in its bucket."""
    bucket = asset.extra_fields.get("alternate", {}).get("s3", {}).get("href")
    return str(bucket if bucket and urlsplit(asset.href).hostname == "landsatlook.usgs.gov" else asset.href)


def _with_coords(data: Any, plans: list[_Plan], domain: Domain) -> xr.DataArray:  # noqa: ANN401 (a Dask array)
    grid, items = domain.grid, [plan.item for plan in plans]
    on_time = {
        "scene_id": [item.id for item in items],
        "platform": [str(item.properties.get("platform") or "unknown") for item in items],
        "collection": [item.collection_id or "" for item in items],
        "sensor_kind": [plan.band.kind if plan.band else "unknown" for plan in plans],
        "slc_off_possible": [bool(plan.band and plan.band.slc_off_possible) for plan in plans],
    }
    coords = {
        "time": [_naive_utc(item) for item in items],
        "band": list(BANDS),
        "y": grid.coordinates["y"].values,
        "x": grid.coordinates["x"].values,
        **{name: ("time", np.array(values)) for name, values in on_time.items()},
    }
    scenes = xr.DataArray(data, dims=SCENE_DIMS, coords=coords, name="scenes")
    placed: xr.DataArray = scenes.rio.write_crs(domain.crs).rio.write_transform(grid.transform)
    return placed


def _naive_utc(item: pystac.Item) -> np.datetime64:
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise ValueError(f"the item {item.id} has no datetime: take items from search_scenes or items_from_images")
    moment = moment.astimezone(UTC) if moment.tzinfo else moment
    return np.datetime64(moment.replace(tzinfo=None), "ns")


# Reading, on the worker


class _SceneReader:
    """stackstac's reader of one layer: opens, warps and closes it in one go, and lets no error become missing data."""

    def __init__(self, *, url: _Source, spec: Any, **unused: Any) -> None:  # noqa: ANN401 (stackstac's protocol)
        self.source, self.spec = url, spec

    def read(self, window: Window) -> NDArray[np.float32]:
        source = self.source
        if source.failure:
            raise SceneError(*source.failure)
        if source.href is None or source.band is None:
            return np.full((window.height, window.width), np.nan, dtype=np.float32)
        try:
            values = _within_deadline(functools.partial(_read_warped, source, self.spec, window), DEADLINE_S)
        except SceneError:
            raise
        except Exception as error:
            trouble = (
                f"{source.scene_id}: cannot read {_shown(source.href)}: {_without_query(str(error) or repr(error))}"
            )
        else:
            return source.band.signal(values) if source.layer == "signal" else source.band.cloud(values)
        # Raised here and not in the handler: GDAL's errors cannot be sent between processes and may hold a signature.
        raise SceneError("unreadable", trouble)

    def close(self) -> None:
        """Nothing stays open between reads."""

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.source, "spec": self.spec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _read_warped(source: _Source, spec: Any, window: Window) -> NDArray[np.float32]:  # noqa: ANN401
    """Numbers of a file on the window of the grid, (y, x) float32, NaN where the file has none."""
    assert source.href is not None
    assert source.band is not None
    _check_resolved(source.href, source.catalog)
    target = np.full((window.height, window.width), np.nan, dtype=np.float32)
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),  # it is an error below
        rasterio.Env(**GDAL_SETTINGS, **_requester_pays(source.href)),
        rasterio.DatasetReader(_signed(source.href, source.catalog), driver=IMAGE_DRIVERS, sharing=False) as file,
    ):
        if file.count != 1 or (file.crs is None and not file.gcps[0]):
            raise ValueError(f"expected one band with a georeference, got {file.count} bands and CRS {file.crs}")
        is_signal = source.layer == "signal"
        reproject(
            rasterio.band(file, 1),
            target,
            src_nodata=_nodata(file, source.band.nodata if is_signal else None),
            dst_crs=CRS.from_epsg(spec.epsg),
            dst_transform=rasterio.windows.transform(window, spec.transform),
            dst_nodata=np.nan,
            resampling=Resampling.bilinear if is_signal else Resampling.nearest,
            **_kernel_scale(file, spec.resolutions_xy[0]),
        )
    return target


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


def _signed(href: str, catalog: str) -> str:
    """Sign at the last moment, since tokens of the Planetary Computer live for less than an hour."""
    is_planetary = urlsplit(catalog).hostname == "planetarycomputer.microsoft.com"
    is_blob = (urlsplit(href).hostname or "").endswith(".blob.core.windows.net")
    if not (is_planetary and is_blob):
        return href
    with warnings.catch_warnings():  # it declares its own settings in a way that pydantic deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        import planetary_computer  # noqa: PLC0415 (a second of import that most workers never need)
    return str(planetary_computer.sign_url(href))


def _requester_pays(href: str) -> dict[str, str]:
    parts = urlsplit(href)
    return {"AWS_REQUEST_PAYER": "requester"} if parts.scheme == "s3" and parts.netloc in REQUESTER_PAYS else {}


def _check_resolved(href: str, catalog: str) -> None:
    """Refuse a public name that leads to the worker's own host or to the credentials of its cloud."""
    host = urlsplit(href).hostname
    if urlsplit(href).scheme not in ("http", "https") or not host or _ip_address(host):
        return
    try:
        found = {str(entry[4][0]).split("%")[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return  # the read itself says it better, and a proxy may know the name
    for address in map(ipaddress.ip_address, found):
        is_own = address.is_loopback and not _is_near(catalog)
        if (is_own or address.is_link_local) and host != urlsplit(catalog).hostname:
            _refuse(href, f"its name leads to {address}")


def _within_deadline(read: Callable[[], NDArray[np.float32]], seconds: float) -> NDArray[np.float32]:
    """Read, or raise `TimeoutError`: the thread is then left to GDAL's own timeouts, and the worker goes on."""
    outcome: queue.SimpleQueue[tuple[NDArray[np.float32] | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((read(), None))
        except BaseException as error:  # handed over to the waiting thread
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        values, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None or values is None:
        raise error or RuntimeError("the reading thread gave nothing")
    return values


def _shown(href: str) -> str:
    """Address for messages: without the query, where signatures are."""
    return _without_query(href)[:300]


def _without_query(text: str) -> str:
    return re.sub(r"\?\S*", "", text)


def wide_parts(mask: NDArray[np.bool_], radius_px: float) -> NDArray[np.bool_]:
    """Open `mask` by a disk of that radius; what touches the border counts as going on beyond it."""
    pad = int(np.ceil(radius_px)) + 1
    core = distance_transform_edt(np.pad(mask, pad, mode="edge")) > radius_px
    wide = distance_transform_edt(~core) <= radius_px if core.any() else core
    return np.asarray(wide[pad:-pad, pad:-pad])
