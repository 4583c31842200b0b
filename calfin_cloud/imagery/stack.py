"""Items in; a lazy stack of scenes (time, band, y, x) on the domain's grid out, stacked by stackstac."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pystac
import xarray as xr
from dask.blockwise import blockwise
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.layers import ArrayBlockwiseDep
from distributed.threadpoolexecutor import ThreadPoolExecutor  # whose threads do not keep a process from ending
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from calfin_cloud.domains import Domain
from calfin_cloud.imagery.reader import Layer, SceneReader, layer_of
from calfin_cloud.schema import BANDS, SCENE_DIMS, SceneError, check_scenes
from calfin_cloud.sensors import Band, acquired, band_of

if TYPE_CHECKING:
    import dask.array as da

READ_AT_ONCE = 4
"""Scenes read at once: of a scene's time on a distant server, most is waiting."""


class Source(NamedTuple):
    """What is read of an item: its band, None where it has none, and a file for each of `BANDS`, None where no file."""

    band: Band | None
    layers: tuple[Layer | None, Layer | None]


def stack_scenes(items: Iterable[pystac.Item], domain: Domain) -> xr.DataArray:
    """Stack items on the domain's grid: lazy (time, band, y, x) float32, band = signal, cloud; one scene is one chunk.

    Nothing is opened here. A scene that cannot be read (no such band, refused address, 404, broken file) raises its
    `SceneError` when its own chunk is computed and leaves the others alone; one that does not reach the grid is NaN.
    On a cluster a scene is one task, together with what `map_blocks` does to it, as long as that keeps the four dims.

    Parameters
    ----------
    items
        From `search_scenes`, `stream_scenes`, `join_granules` or `items_from_images`; the order is kept.
    domain
        Its grid is that of the scenes.

    Returns
    -------
    DataArray
        Signal in reflectance, digital numbers or dB (bilinear); cloud 1, 0 or NaN (nearest). Coordinates on time:
        `scene_id`, `platform`, `collection`, `sensor_kind`, `slc_off_possible`; `x`, `y` at pixel centres in m.

    Raises
    ------
    ValueError
        There are no items, or one has no time.

    Examples
    --------
    >>> (domain,) = cc.read_domains("real/domains.geojson")
    >>> scenes = cc.stack_scenes(cc.search_scenes("real/catalog.json", domain, "2021"), domain)
    >>> scenes.dims, scenes.shape == (1, 2, *domain.shape)
    (('time', 'band', 'y', 'x'), True)
    >>> signal = scenes.isel(time=0).sel(band="signal").compute()
    """
    if not isinstance(domain, Domain):
        raise TypeError(f"scenes are stacked on one Domain, got {type(domain).__name__}: call once a domain")
    items = list(items)
    scenes, sources = _stacked(items, domain)
    return check_scenes(_with_coords(scenes, items, sources, domain))


def stack_pixels(items: Sequence[pystac.Item], domain: Domain) -> da.Array:
    """Stack items as `stack_scenes` does, without its coordinates, which take a quarter of the time of a group."""
    return _stacked(items, domain)[0]


def _stacked(items: Sequence[pystac.Item], domain: Domain) -> tuple[da.Array, Sequence[Source]]:
    import dask.array as da
    import stackstac

    if not items:
        raise ValueError("there are no items to stack: widen the period, or check that the catalogue covers the domain")
    sources = [source_of(item) for item in items]
    stack = stackstac.stack(
        [item_on_grid(item, source, domain.grid) for item, source in zip(items, sources, strict=True)],
        assets=list(BANDS),
        epsg=domain.grid.crs.epsg,
        bounds=tuple(domain.grid.boundingbox.bbox),
        resolution=domain.grid.resolution.x,
        snap_bounds=False,
        xy_coords=False,
        chunksize=(1, -1, -1, -1),
        dtype=np.dtype(np.float32),
        fill_value=np.float32(np.nan),
        rescale=False,
        sortby_date=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        reader=SceneReader,
    )
    assert stack.shape == (len(items), len(BANDS), *domain.shape), f"stackstac changed the grid: {stack.shape}"
    bands = _Given([source.band for source in sources], ndim=4)
    meta = np.empty((0,) * 4, dtype=np.float32)
    return da.map_blocks(calibrate, _in_one_task(stack.data), bands, meta=meta), sources


def read_each(scenes: da.Array, *, at_once: int = READ_AT_ONCE) -> Iterator[NDArray[np.float32] | Exception]:
    """Read the scenes of `stack_pixels` in this process, some at once: (band, y, x) float32 or the error of each.

    The few tasks of a scene are called one after the other: to optimise their graph first would take longer.

    Examples
    --------
    >>> [scene if isinstance(scene, Exception) else scene.shape for scene in read_each(pixels)]    # doctest: +SKIP
    [(2, 400, 400), SceneError('unreadable', ...)]
    """
    graph, keys = dict(scenes.dask), list(flatten(scenes.__dask_keys__()))

    def value_of(key: Any) -> Any:  # noqa: ANN401 - whatever the task makes
        task = graph[key]
        return task({needed: value_of(needed) for needed in task.dependencies})

    def read(key: Any) -> NDArray[np.float32] | Exception:  # noqa: ANN401 - a key of Dask
        try:
            scene: NDArray[np.float32] = value_of(key)[0]
            return scene
        except Exception as error:
            return error

    with ThreadPoolExecutor(min(at_once, len(keys))) as pool:
        yield from pool.map(read, keys)


def source_of(item: pystac.Item) -> Source:
    """Find what is read of an item and check its addresses; nothing is opened, and what is wrong is told on reading."""
    try:
        band = band_of(item)
        signal = layer_of(item, band.asset, nodata=band.nodata)
        cloud = None
        if band.quality and band.quality_asset:
            cloud = layer_of(item, band.quality_asset, nodata=band.quality.nodata, is_quality=True)
    except SceneError as error:
        failure = (error.reason, error.message)
    except Exception as error:  # whatever else is wrong with one item of a catalogue fails that item alone
        failure = ("error", f"{item.id}: {type(error).__name__}: {error}")
    else:
        return Source(band, (signal, cloud))
    return Source(None, (Layer(item.id, "", "", failure=failure), None))


def item_on_grid(item: pystac.Item, source: Source, grid: GeoBox) -> dict[str, Any]:
    """Copy an item as stackstac can take it: its two files, called as the bands are, said to cover the grid.

    stackstac knows no `proj:code` and no control points, drops an item without any box, and reads nothing where a box
    does not reach, which in catalogues is often wrong. Where a file lies is for the file to say, when it is read.
    Its date stays out as well: stackstac takes none outside of 1678 to 2262.
    """
    where = {"proj:epsg": grid.crs.epsg, "proj:bbox": list(grid.boundingbox.bbox)}
    assets = {name: {"href": layer} for name, layer in zip(BANDS, source.layers, strict=True)}
    return {"id": item.id, "properties": {"datetime": None, **where}, "assets": assets}


def calibrate(numbers: NDArray[np.float32], band: Band | None) -> NDArray[np.float32]:
    """Turn the numbers of one scene (1, band, y, x) into its signal and its clouds."""
    assert band is not None  # else its signal could not be read
    return np.stack([band.signal(numbers[0, 0]), band.cloud(numbers[0, 1])])[np.newaxis]


# Dask makes a task of its own of each piece of an array that is at hand: with 100,000 scenes these were most tasks


class _Given(ArrayBlockwiseDep):  # type: ignore[misc]  # Dask has no types
    """Values along the first of `ndim` dims, each of which is given to the task that needs it."""

    def __init__(self, values: Sequence[object], *, ndim: int) -> None:
        super().__init__(((1,) * len(values), *((1,),) * (ndim - 1)))
        self.values = values

    def __getitem__(self, chunk: tuple[int, ...]) -> object:
        return self.values[chunk[0]]

    def __dask_tokenize__(self) -> bytes:
        return pickle.dumps(self.values)  # Dask would look into each, which takes half of the time of a stack


def _in_one_task(stack: da.Array) -> da.Array:
    """Make stackstac's graph one task a scene: its table of assets within them, and no annotation that keeps it apart.

    With the annotation the chunks of a scene would share an open file; here a scene is one chunk.
    """
    import dask.array as da

    layers = dict(stack.dask.layers)
    for layer in layers.values():
        layer.annotations = None
    (table,) = (name for name, needed in stack.dask.dependencies.items() if not needed)
    parts = [layers[table][table, n, 0] for n in range(stack.numblocks[0])]
    given = _Given([getattr(part, "value", part) for part in parts], ndim=2)
    layers[table] = blockwise(_same, table, "tb", given, "tb", numblocks={})
    return da.Array(HighLevelGraph(layers, stack.dask.dependencies), stack.name, stack.chunks, dtype=stack.dtype)


def _same(part: object) -> object:
    return part


def _with_coords(
    data: da.Array, items: Sequence[pystac.Item], sources: Sequence[Source], domain: Domain
) -> xr.DataArray:
    bands = [source.band for source in sources]
    on_time = {
        "scene_id": [item.id for item in items],
        "platform": [str(item.properties.get("platform") or "unknown") for item in items],
        "collection": [item.collection_id or "" for item in items],
        "sensor_kind": [band.kind if band else "unknown" for band in bands],
        "slc_off_possible": [bool(band and band.slc_off_possible) for band in bands],
    }
    coords: dict[str, Any] = {
        "time": [np.datetime64(acquired(item).tz_localize(None)) for item in items],
        "band": list(BANDS),
        **{name: ("time", np.array(values)) for name, values in on_time.items()},
    }
    scenes = xr.DataArray(data, dims=SCENE_DIMS, coords=coords | _on_map(domain.grid), name="scenes")
    scenes.encoding["grid_mapping"] = "spatial_ref"
    return scenes


@lru_cache(maxsize=16)
def _on_map(grid: GeoBox) -> dict[str, xr.DataArray]:
    """Coordinates `y`, `x` and `spatial_ref` of a grid, as rioxarray writes them in some 6 ms."""
    import rioxarray  # noqa: F401 - registers the accessor `rio`

    plain = xr.DataArray(
        np.empty(grid.shape, dtype=bool),
        dims=("y", "x"),
        coords={name: grid.coordinates[name].values for name in ("y", "x")},
    )
    return dict(plain.rio.write_crs(str(grid.crs)).rio.write_transform(grid.transform).coords)
