"""Where the masks of a domain lie: a Zarr group, a scene a chunk, some scenes a shard, and the place of each scene."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import fsspec
import numpy as np
import xarray as xr
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from calfin_cloud.domains import Domain
from calfin_cloud.schema import LEVELS, MASKS, MISSING, MOST_BOXES, SCENE_DIMS, check_name, front_key
from calfin_cloud.storage.batches import read_batches
from calfin_cloud.storage.files import (
    DamagedFileError,
    looking_twice,
    open_place,
    read_each,
    read_steady,
    store_address,
)
from calfin_cloud.storage.leases import commit_whole
from calfin_cloud.storage.shards import CODECS
from calfin_cloud.storage.stores import RESTORE
from calfin_cloud.storage.zarr_places import zarr_place

EDGES = ("first_row", "last_row", "first_column", "last_column")
OF_SCENES = {"masks": MISSING, "candidates": -1, "grey": 0}
"""Arrays with a chunk a scene, and the value that stands for none."""
SHARD_SCENES, SHARD_PIXELS = 32, 16_000_000  # at most of a shard, as of a batch: 1 to 5 MB as it is stored
FIRST_TIME, LAST_TIME = (np.datetime64(day, "us") for day in ("1678-01-01", "2262-01-01"))  # of ns in 64 bits
LACKING = (KeyError, TypeError, AttributeError)  # of a group without an array, or with odd metadata
DAMAGE = (ValueError, RuntimeError, *LACKING)


def add_scenes(store: str, domain: Domain, scenes: Mapping[str, np.datetime64]) -> dict[str, int]:
    """Give every scene (id -> datetime) a place on the time axis of the domain's masks; return id -> place.

    Places never change and new scenes come last, so that a chunk has one writer for ever. Only the driver calls this.
    Safe to repeat after an interruption: `scene_id` is written last, and places without an id are taken again.

    Raises
    ------
    ValueError
        A scene has an empty id.
    DamagedFileError
        The file of the places cannot be read.
    """
    if "" in scenes:  # which marks a place that nobody has
        raise ValueError(f"a scene of {domain.name} has an empty id: leave out its item")
    with naming(masks_url(store, domain.name), RESTORE, LACKING):
        return _add_scenes(store, domain, scenes)


def _add_scenes(store: str, domain: Domain, scenes: Mapping[str, np.datetime64]) -> dict[str, int]:
    fs, root = open_place(store)
    folder = f"{root}/masks/{check_name(domain.name)}"
    before = _read_layout(fs, folder)
    objects = {name: default_buffer_prototype().buffer.from_bytes(data) for name, data in before.items()}
    layout = MemoryStore(objects)
    group = zarr.open_group(layout, mode="a", use_consolidated=False)
    if "scene_id" not in group or "zarr.json" not in before:  # a run that was stopped leaves it out, the last object
        _check_ledger(store, domain.name, [])
        _create_masks(layout, domain)
        group = zarr.open_group(layout, mode="r+", use_consolidated=False)
    _check_grid(group, store, domain)
    ids = [str(s) for s in group["scene_id"][:]]
    known = set(ids)
    new = [s for s in scenes if s not in known]
    free = [place for place, scene_id in enumerate(ids) if not scene_id]
    if free:
        _check_ledger(store, domain.name, ids)
    places = [*free, *range(len(ids), len(ids) + len(new))][: len(new)]
    n = max(len(ids), *(place + 1 for place in places)) if places else len(ids)
    _create_missing(group, n)
    if new:
        for name in OF_SCENES:
            group[name].resize((n, *group[name].shape[1:]))
        _write_names(group, dict(zip(places, new, strict=True)), scenes, n)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(layout)
    for name in sorted(objects, key=_late):
        if (data := objects[name].to_bytes()) != before.get(name):
            commit_whole(fs, root, f"{folder}/{name}", data)
    return _places_in(group)


def _read_layout(fs: fsspec.AbstractFileSystem, folder: str) -> dict[str, bytes]:
    """Read the objects of a group of masks by their names in it, all but the chunks of scenes.

    They are changed in memory and committed one by one: Zarr itself would write, and clear the folder for a new group,
    also for a run that was paused and followed, and whose masks are another's by then.
    """
    names = [path.removeprefix(f"{folder}/") for path in fs.find(folder)]
    names = [name for name in names if not name.startswith(tuple(f"{of_scenes}/c" for of_scenes in OF_SCENES))]
    return dict(zip(names, read_each(partial(read_steady, fs), [f"{folder}/{name}" for name in names]), strict=True))


def _late(name: str) -> tuple[bool, bool, str]:
    """Sort objects of a group by when they are written: the ids, and then what tells of the group, come last."""
    return name == "zarr.json", name.startswith("scene_id/"), name


@looking_twice
def check_grid(store: str, domain: Domain) -> None:
    """Refuse a domain that has another grid than its masks in a store, where there are some.

    Raises
    ------
    ValueError
        It has.
    """
    url = masks_url(store, domain.name)
    with naming(url, RESTORE), suppress(FileNotFoundError):
        group = zarr.open_group(zarr_place(url), mode="r", use_consolidated=False)
        if "masks" in group:
            _check_grid(group, store, domain)


def _check_grid(group: zarr.Group, store: str, domain: Domain) -> None:
    if group["masks"].shape[2:] != domain.shape or list(group.attrs["bounds"]) != list(domain.grid.boundingbox.bbox):
        raise ValueError(f"domain {domain.name} has another grid in {store}: rename the domain or choose another store")


def _check_ledger(store: str, domain_name: str, ids: Sequence[str]) -> None:
    """Refuse to give away places again where scenes have a state and no place: their masks would be overwritten."""
    mapped = {key for stored in read_batches(store, domain=domain_name) for key in stored.items}
    _refuse_lost(store, domain_name, mapped, ids)


def check_places(store: str, domain_name: str, keys: Iterable[str]) -> dict[str, int]:
    """Read the places of a domain as `read_places` does, and refuse scenes (by key) whose place is lost.

    Raises
    ------
    DamagedFileError
        One has no place.
    """
    places = read_places(store, domain_name)
    _refuse_lost(store, domain_name, keys, places)
    return places


def _refuse_lost(store: str, domain_name: str, keys: Iterable[str], ids: Iterable[str]) -> None:
    if lost := sorted(set(keys) - {front_key(domain_name, scene_id) for scene_id in ids}):
        raise DamagedFileError(
            f"{masks_url(store, domain_name)}/scene_id",
            f"{len(lost)} mapped scenes have no place in it, such as {lost[0]}",
            RESTORE,
        )


def _write_names(group: zarr.Group, new: Mapping[int, str], scenes: Mapping[str, np.datetime64], n: int) -> None:
    """Write time and id of new scenes (place -> id) onto the axis of length n, ids last."""
    first = min(new)
    ids = list(new.values())
    for name, values in (("time", [_microseconds(scenes[scene_id]) for scene_id in ids]), ("scene_id", ids)):
        array = group[name]
        array.resize((n,))
        rest = array[first:]
        rest[[place - first for place in new]] = values
        array[first:] = rest


def _microseconds(time: np.datetime64) -> int:
    """Microseconds since 1970; of a time that xarray cannot read, which would hide all others, the one that is none."""
    moment = time.astype("datetime64[us]")
    return int((moment if FIRST_TIME < moment < LAST_TIME else np.datetime64("NaT", "us")).astype("int64"))


@looking_twice
def read_places(store: str, domain_name: str) -> dict[str, int]:
    """Read the place of every scene (by id) on the time axis of the domain's masks: all that searches have found."""
    url = masks_url(store, domain_name)
    fs, root = open_place(store)
    try:
        with naming(url, RESTORE):
            group = zarr.open_group(zarr_place(url), mode="r", use_consolidated=False)
            if "scene_id" not in group and not fs.exists(f"{root}/masks/{domain_name}/scene_id/zarr.json"):
                return {}
    except FileNotFoundError:
        return {}
    with naming(f"{url}/scene_id/c", RESTORE):
        return _places_in(group)


def _places_in(group: zarr.Group) -> dict[str, int]:
    return {str(scene_id): place for place, scene_id in enumerate(group["scene_id"][:]) if scene_id}


def masks_url(store: str, domain_name: str) -> str:
    """URI of the Zarr group with the masks of a domain."""
    return f"{store_address(store)}/masks/{check_name(domain_name)}"


@contextmanager
def naming(path: str, remedy: str, kinds: tuple[type[Exception], ...] = DAMAGE) -> Iterator[None]:
    """Name the file in the error of a codec that finds it damaged."""
    try:
        yield
    except (DamagedFileError, FileNotFoundError):  # Zarr's error of a group that is not there is a ValueError too
        raise
    except kinds as error:
        raise DamagedFileError(path, f"{type(error).__name__}: {error}", remedy) from None


def _create_masks(layout: MemoryStore, domain: Domain) -> None:
    """Lay out an empty group that xarray opens: CF names, scale and grid mapping; no scene yet."""
    import rioxarray  # noqa: F401 - brings the accessor .rio

    rows, columns = domain.shape
    transform = domain.grid.transform
    masks = xr.DataArray(
        np.zeros((0, len(MASKS), rows, columns), dtype="float32"),
        dims=(SCENE_DIMS[0], "mask", "y", "x"),
        attrs={"long_name": "probability of the front edge, of ice or land"},
    )
    dataset = xr.Dataset(
        {"masks": masks},
        coords={
            "time": ("time", np.array([], dtype="datetime64[us]")),
            "mask": ("mask", np.array(MASKS, dtype=object)),
            "y": ("y", transform.f + (np.arange(rows) + 0.5) * transform.e, {"units": "m", "axis": "Y"}),
            "x": ("x", transform.c + (np.arange(columns) + 0.5) * transform.a, {"units": "m", "axis": "X"}),
        },
        attrs={"Conventions": "CF-1.11", "bounds": list(domain.grid.boundingbox.bbox)},
    )
    dataset = dataset.rio.write_crs(domain.crs)
    encoding: dict[str, dict[str, Any]] = {
        name: {"compressors": CODECS} for name in ("masks", "time", "mask", "y", "x")
    }
    encoding["masks"] |= {
        "dtype": "uint8",
        "scale_factor": 1 / LEVELS,
        "_FillValue": MISSING,
        "fill_value": MISSING,
        "chunks": (1, len(MASKS), rows, columns),
        "shards": (max(1, min(SHARD_SCENES, SHARD_PIXELS // (rows * columns))), len(MASKS), rows, columns),
    }
    encoding["time"] |= {"dtype": "int64", "units": "microseconds since 1970-01-01", "chunks": (4096,)}
    dataset.to_zarr(layout, mode="w", encoding=encoding, consolidated=False, zarr_format=3)
    group = zarr.open_group(layout, mode="r+", use_consolidated=False)
    # xarray would store an empty array of names as float64.
    group.create_array("scene_id", shape=(0,), chunks=(4096,), dtype=str, compressors=CODECS, dimension_names=["time"])
    group["masks"].attrs.update(coordinates="scene_id spatial_ref", grid_mapping="spatial_ref")


def _create_missing(group: zarr.Group, n_scenes: int) -> None:
    """Lay out what a new group, or one of an older version, lacks beside the masks: a chunk a scene, like them."""
    boxes, of_masks = (MOST_BOXES, len(EDGES)), group["masks"].shards
    for name, shape, dims, dtype, about in (
        ("candidates", boxes, ["candidate", "edge"], "int32", "boxes of candidate fronts in px, -1 = none"),
        ("grey", group["masks"].shape[2:], ["y", "x"], "uint8", "scene as the network saw it, 0 = missing"),
    ):
        if name not in group:
            array = group.create_array(
                name,
                shape=(n_scenes, *shape),
                chunks=(1, *shape),
                shards=(of_masks[0], *shape) if of_masks else None,
                dtype=dtype,
                compressors=CODECS,
                fill_value=OF_SCENES[name],
                dimension_names=["time", *dims],
            )
            array.attrs["long_name"] = about
    group["candidates"].attrs["edges"] = list(EDGES)
