"""Items in; a lazy stack of scenes (time, band, y, x) on the domain's grid out, by stackstac or odc-stac.

Both build the graph; each of their tasks reads one scene with `reading.read_scene`, so what opens, checks and warps
files is the same.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import distributed
import numpy as np
import pystac
import rioxarray  # noqa: F401 - registers the accessor `rio`
import stackstac
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pystac.extensions.projection import ProjectionExtension
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from calfin_cloud.domains import Domain
from calfin_cloud.imagery.reading import Plan, plan_scene, read_scene
from calfin_cloud.schema import BANDS, SCENE_DIMS, check_scenes

Loader = Literal["stackstac", "odc-stac"]
SCENE = "scene"  # name of the one asset and band that the loaders see


def stack_scenes(items: Sequence[pystac.Item], domain: Domain, *, loader: Loader = "stackstac") -> xr.DataArray:
    """Stack items on the domain's grid: lazy (time, band, y, x) float32, band = signal, cloud; one scene is one chunk.

    Nothing is opened here. A scene that cannot be read (no such band, refused address, 404, broken file) raises its
    `SceneError` when its own chunk is computed and leaves the others alone; one that does not reach the grid is NaN.

    Parameters
    ----------
    items
        From `search_scenes` or `items_from_images`; the order is kept.
    loader
        What builds the graph; the pixels are the same.

    Returns
    -------
    DataArray
        Signal in reflectance, digital numbers or dB (bilinear); cloud 1, 0 or NaN (nearest). Coordinates on time:
        `scene_id`, `platform`, `collection`, `sensor_kind`, `slc_off_possible`; `x`, `y` at pixel centres in m.
    """
    if not items:
        raise ValueError("there are no items to stack: widen the period, or check that the catalogue covers the domain")
    if domain.grid.crs.epsg is None:
        raise ValueError(f"the CRS of domain {domain.name} has no EPSG code: use EPSG:3413, EPSG:3031 or UTM")
    if loader not in LOADERS:
        raise ValueError(f"the loader must be one of {', '.join(LOADERS)}, got {loader!r}")
    plans = [plan_scene(item) for item in items]
    data = LOADERS[loader](plans, domain.grid)
    if data.shape != (len(items), len(BANDS), *domain.shape):
        raise AssertionError(f"{loader} changed the grid: {data.shape} for {len(items)} scenes of {domain.shape}")
    return check_scenes(_with_coords(data, items, plans, domain))


def _with_coords(data: Any, items: Sequence[pystac.Item], plans: Sequence[Plan], domain: Domain) -> xr.DataArray:  # noqa: ANN401 - a Dask array
    grid, bands = domain.grid, [plan.band for plan in plans]
    on_time = {
        "scene_id": [item.id for item in items],
        "platform": [str(item.properties.get("platform") or "unknown") for item in items],
        "collection": [item.collection_id or "" for item in items],
        "sensor_kind": [band.kind if band else "unknown" for band in bands],
        "slc_off_possible": [bool(band and band.slc_off_possible) for band in bands],
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


def _read(plan: Plan, grid: GeoBox) -> NDArray[np.float32]:
    """Read a scene; on a Dask worker, leave the thread to another task meanwhile: reading is mostly waiting.

    `patience` bounds how many scenes a worker reads at once.
    """
    with suppress(ValueError, KeyError):  # no task of a worker, or one that has left its thread already
        distributed.secede()
    return read_scene(plan, grid)


# stackstac: a number a pixel and asset; signal and cloud of a scene travel as the two parts of a complex one, so that
# a scene is one task with one deadline


def _by_stackstac(plans: Sequence[Plan], grid: GeoBox) -> Any:  # noqa: ANN401 - a Dask array
    bounds = grid.boundingbox.bbox
    # stackstac drops an item whose metadata it cannot place, knows no `proj:code`, and trusts a wrong bounding box: the
    # file itself decides where it lies.
    properties = {"datetime": "2000-01-01T00:00:00Z", "proj:epsg": grid.crs.epsg, "proj:bbox": list(bounds)}
    stack = stackstac.stack(
        [{"id": p.scene_id, "properties": properties, "assets": {SCENE: {"href": p}}} for p in plans],
        assets=[SCENE],
        epsg=grid.crs.epsg,
        bounds=tuple(bounds),
        resolution=grid.resolution.x,
        snap_bounds=False,
        xy_coords="center",
        chunksize=(1, -1, -1, -1),
        dtype=np.dtype(np.complex64),
        fill_value=np.complex64(0),
        rescale=False,
        sortby_date=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        reader=_StackstacReader,
    )
    chunks = ((1,) * len(plans), (len(BANDS),), *stack.data.chunks[2:])
    return stack.data.map_blocks(_apart, dtype=np.float32, chunks=chunks, name=f"scenes-{tokenize(stack.data)}")


def _apart(pairs: NDArray[np.complex64]) -> NDArray[np.float32]:
    return np.concatenate([pairs.real, pairs.imag], axis=1)


class _StackstacReader:
    """stackstac's reader of one asset, which is a plan in place of an address."""

    def __init__(self, *, url: Plan, spec: Any, **unused: Any) -> None:  # noqa: ANN401 - stackstac's protocol
        self.plan, self.spec = url, spec

    def read(self, window: Window) -> NDArray[np.complex64]:
        place = window_transform(window, self.spec.transform)
        signal, cloud = _read(self.plan, GeoBox((window.height, window.width), place, f"EPSG:{self.spec.epsg}"))
        pairs = np.empty(signal.shape, dtype=np.complex64)
        pairs.real, pairs.imag = signal, cloud  # a sum would make both NaN where one is
        return pairs

    def close(self) -> None:
        """Nothing stays open between reads."""

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.plan, "spec": self.spec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


# odc-stac: a driver of ours reads both layers as one band with a dimension of its own


_odc_alone = threading.Lock()


def _by_odc(plans: Sequence[Plan], grid: GeoBox) -> Any:  # noqa: ANN401 - a Dask array
    import odc.stac  # noqa: PLC0415 - not needed for the default
    from odc.loader.types import RasterBandMetadata, RasterGroupMetadata  # noqa: PLC0415

    band = RasterBandMetadata("float32", np.nan, dims=("band", "y", "x"))
    meta = RasterGroupMetadata({(SCENE, 1): band}, extra_dims={"band": len(BANDS)})
    # One at a time: `catch_warnings`, here against odc-geo's use of shapely.ops, is not made for threads.
    with _odc_alone, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        scenes = odc.stac.load(
            [_odc_item(plan, place, grid) for place, plan in enumerate(plans)],
            bands=[SCENE],
            geobox=grid,
            groupby="id",
            chunks={"y": grid.shape.y, "x": grid.shape.x},
            fail_on_error=True,
            driver=_OdcDriver(meta),
        )
    return scenes[SCENE].data


def _odc_item(plan: Plan, place: int, grid: GeoBox) -> pystac.Item:
    """Item that says to cover the grid, as for stackstac; its asset's name is that of the plan beside it."""
    moment = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=place)
    item = pystac.Item(plan.scene_id, None, None, moment, {}, extra_fields={SCENE: plan})
    ProjectionExtension.add_to(item)
    asset = pystac.Asset(f"scene:{tokenize(plan)}", extra_fields={
        "proj:code": f"EPSG:{grid.crs.epsg}", "proj:shape": list(grid.shape), "proj:transform": list(grid.transform)[:6]
    })  # fmt: skip
    item.add_asset(SCENE, asset)
    return item


class _OdcDriver:
    """odc-loader's driver, metadata parser and reader in one: all that a source has is its plan."""

    dask_reader = aux_reader = None

    def __init__(self, meta: Any) -> None:  # noqa: ANN401 - odc's own type
        self.meta = meta

    @property
    def md_parser(self) -> _OdcDriver:
        return self

    def extract(self, md: object) -> Any:  # noqa: ANN401
        return self.meta

    def driver_data(self, md: pystac.Item, band_key: object) -> Plan:
        plan: Plan = md.extra_fields[SCENE]
        return plan

    def new_load(self, geobox: GeoBox, *, chunks: Mapping[str, int] | None = None) -> None:
        return None

    def finalise_load(self, load_state: None) -> None:
        return None

    def capture_env(self) -> dict[str, Any]:
        return {}

    @contextmanager
    def restore_env(self, env: Mapping[str, Any], load_state: None) -> Iterator[None]:
        yield None

    def open(self, src: Any, ctx: None) -> _OdcReader:  # noqa: ANN401
        return _OdcReader(src.driver_data)


class _OdcReader:
    """odc-loader's reader of one source."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def read(self, cfg: object, dst_geobox: GeoBox, **unused: Any) -> tuple[tuple[slice, slice], NDArray[np.float32]]:  # noqa: ANN401
        return (slice(None), slice(None)), _read(self.plan, dst_geobox)


LOADERS: dict[str, Callable[[Sequence[Plan], GeoBox], Any]] = {"stackstac": _by_stackstac, "odc-stac": _by_odc}
