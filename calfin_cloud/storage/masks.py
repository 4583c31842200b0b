"""Masks of scenes in Zarr: a group a domain, a scene a chunk, a chunk a checksum and one writer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import rioxarray  # noqa: F401 - brings the accessor .rio
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from calfin_cloud.domains import Domain
from calfin_cloud.schema import (
    LEVELS,
    MASKS,
    MISSING,
    MOST_BOXES,
    SCENE_DIMS,
    check_masks,
    check_name,
    from_levels,
    front_key,
    to_levels,
)
from calfin_cloud.storage.files import DamagedFileError, store_address
from calfin_cloud.storage.tables import read_batches

EDGES = ("first_row", "last_row", "first_column", "last_column")
NO_BOXES = np.empty((0, len(EDGES)), dtype=np.int32)
OF_SCENES = ("masks", "candidates", "grey")
CODECS = (ZstdCodec(level=0), Crc32cCodec())
"""The checksum is of the compressed bytes: a flipped bit raises in every reader of Zarr, and never makes a mask."""
FIRST_TIME, LAST_TIME = (np.datetime64(day, "us") for day in ("1678-01-01", "2262-01-01"))  # of ns in 64 bits
LACKING = (KeyError, TypeError, AttributeError)  # of a group without an array, or with odd metadata
DAMAGE = (ValueError, RuntimeError, *LACKING)
RESTORE = "restore it from a copy, or map into a new store"
REMEDY = "delete it and run `calfin retrace --all`, then `calfin retry`, which maps its scene once more"


def add_scenes(store: str, domain: Domain, scenes: Mapping[str, np.datetime64]) -> dict[str, int]:
    """Give every scene (id -> datetime) a place on the time axis of the domain's masks; return id -> place.

    Places never change and new scenes come last, so that a chunk has one writer for ever. Only the driver calls this.
    Safe to repeat after an interruption: `scene_id` is written last, and places without an id are taken again.
    """
    if "" in scenes:  # which marks a place that nobody has
        raise ValueError(f"a scene of {domain.name} has an empty id: leave out its item")
    with _naming(masks_url(store, domain.name), RESTORE, LACKING):
        return _add_scenes(store, domain, scenes)


def _add_scenes(store: str, domain: Domain, scenes: Mapping[str, np.datetime64]) -> dict[str, int]:
    url = masks_url(store, domain.name)
    group = zarr.open_group(url, mode="a", use_consolidated=False)
    if "scene_id" not in group:
        _check_ledger(store, domain.name, [])
        _create_masks(url, domain)
        group = zarr.open_group(url, mode="r+", use_consolidated=False)
    if group["masks"].shape[2:] != domain.shape or list(group.attrs["bounds"]) != list(domain.grid.boundingbox.bbox):
        raise ValueError(f"domain {domain.name} has another grid in {store}: rename the domain or choose another store")
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
        zarr.consolidate_metadata(url)
    return read_places(store, domain.name)


def _check_ledger(store: str, domain_name: str, ids: Sequence[str]) -> None:
    """Refuse to give away places again where scenes have a state and no place: their masks would be overwritten."""
    known = {front_key(domain_name, scene_id) for scene_id in ids}
    mapped = {key for stored in read_batches(store, domain=domain_name) for key in stored.items}
    if lost := sorted(mapped - known):
        raise DamagedFileError(
            f"{masks_url(store, domain_name)}/scene_id",
            f"{len(lost)} mapped scenes have no place in it, such as {lost[0]}",
            RESTORE,
        )


def _write_names(group: zarr.Group, new: Mapping[int, str], scenes: Mapping[str, np.datetime64], n: int) -> None:
    """Write time and id of new scenes (place -> id) onto the axis of length n, ids last."""
    first = min(new)
    for name, value_of in (
        ("time", lambda s: _microseconds(scenes[s])),
        ("scene_id", str),
    ):
        array = group[name]
        array.resize((n,))
        values = array[first:]
        for place, scene_id in new.items():
            values[place - first] = value_of(scene_id)
        array[first:] = values


def _microseconds(time: np.datetime64) -> int:
    """Microseconds since 1970; of a time that xarray cannot read, which would hide all others, the one that is none."""
    moment = time.astype("datetime64[us]")
    return int((moment if FIRST_TIME < moment < LAST_TIME else np.datetime64("NaT", "us")).astype("int64"))


def write_masks(
    store: str,
    domain_name: str,
    place: int,
    masks: NDArray[np.floating[Any]] | NDArray[np.uint8],
    *,
    candidates: NDArray[np.integer[Any]] = NO_BOXES,
    grey: NDArray[np.uint8] | None = None,
) -> None:
    """Write the masks of one scene, (mask, y, x), into its own chunk: probabilities, NaN = missing, or their levels.

    `candidates` are the boxes of the first pass around which its second one looked, (n, 4) first row, last row, first
    column, last column in px of the masks, the last ones outside. `grey` is the scene as the network saw it, (y, x).
    """
    if candidates.shape[1:] != (len(EDGES),) or len(candidates) > MOST_BOXES or (candidates < 0).any():
        raise ValueError(
            f"candidates must be at most {MOST_BOXES} rows of {EDGES}, not negative, got {candidates.tolist()}: "
            "keep the longest ones, and cut them at the border of the scene"
        )
    arrays = _arrays_to_write(store, domain_name, place, masks.shape)
    if grey is not None:
        _write_scene(arrays, "grey", place, grey)
    empty = MOST_BOXES - len(candidates)
    _write_scene(arrays, "candidates", place, np.pad(candidates, ((0, empty), (0, 0)), constant_values=-1))
    levels = masks if masks.dtype == np.uint8 else to_levels(masks.astype(np.float32, copy=False))
    _write_scene(arrays, "masks", place, levels)


def clear_masks(store: str, domain_name: str, place: int) -> None:
    """Make a scene one without masks, candidates and grey picture, as before it was first mapped."""
    _open_arrays.cache_clear()  # a run long ago may have left them
    arrays = _arrays_to_write(store, domain_name, place)
    for name, array in arrays.items():
        empty = np.full(array.shape[1:], array.fill_value, dtype=array.dtype)
        _write_scene(arrays, name, place, empty)  # Zarr keeps no chunk of nothing but its fill value


def _arrays_to_write(
    store: str, domain_name: str, place: int, shape: tuple[int, ...] | None = None
) -> dict[str, zarr.Array[Any]]:
    """Open what a scene of a domain is written to, once a process: opening takes longer than writing.

    Opened again when it has grown since, or when another store with masks of another `shape` lies there now.
    """
    url = masks_url(store, domain_name)
    arrays = _open_arrays(url)
    grown = place >= min(array.shape[0] for array in arrays.values())
    if grown or (shape is not None and arrays["masks"].shape[1:] != shape):
        _open_arrays.cache_clear()
        arrays = _open_arrays(url)
    return arrays


@lru_cache(maxsize=8)
def _open_arrays(url: str) -> dict[str, zarr.Array[Any]]:
    with _naming(url, RESTORE):
        group = zarr.open_group(url, mode="r+", use_consolidated=False)
        return {name: group[name] for name in OF_SCENES}


def _write_scene(arrays: Mapping[str, zarr.Array[Any]], name: str, place: int, values: NDArray[Any]) -> None:
    """Write the part of one scene, which must be exactly one chunk: a chunk never has two writers."""
    array = arrays[name]
    if values.shape != array.shape[1:] or array.chunks != (1, *array.shape[1:]):
        raise ValueError(
            f"{name} must have the shape {array.shape[1:]} and be one chunk, got {values.shape}, {array.chunks}"
        )
    if not 0 <= place < array.shape[0]:
        raise ValueError(f"{name} has {array.shape[0]} places, got {place}: give the scene a place with add_scenes")
    array[place] = values


def read_scene_masks(store: str, domain_name: str, place: int) -> NDArray[np.float32]:
    """Read the masks of one scene, (mask, y, x) float32 probabilities with NaN = missing."""
    stored = _read_scene(store, domain_name, "masks", place)
    if stored is None:
        raise ValueError(f"{masks_url(store, domain_name)} has no masks: make them with `calfin map`")
    return from_levels(stored)


def read_candidates(store: str, domain_name: str, place: int) -> NDArray[np.int32]:
    """Read the candidates of one scene as `write_masks` takes them, (n, 4) int32; none where a store has kept none."""
    stored = _read_scene(store, domain_name, "candidates", place)
    return NO_BOXES if stored is None else np.asarray(stored[stored[:, 0] >= 0], dtype=np.int32)


def read_scene_grey(store: str, domain_name: str, place: int) -> NDArray[np.uint8] | None:
    """Read one scene as the network saw it, (y, x) uint8; None where a store has kept none."""
    grey = _read_scene(store, domain_name, "grey", place)
    return None if grey is None or not grey.any() else grey


def read_places(store: str, domain_name: str) -> dict[str, int]:
    """Read the place of every scene (by id) on the time axis of the domain's masks: all that searches have found."""
    url = masks_url(store, domain_name)
    try:
        with _naming(url, RESTORE):
            group = zarr.open_group(url, mode="r", use_consolidated=False)
    except FileNotFoundError:
        return {}
    if "scene_id" not in group:
        return {}
    with _naming(f"{url}/scene_id/c", RESTORE):
        return {str(scene_id): place for place, scene_id in enumerate(group["scene_id"][:]) if scene_id}


def read_masks(store: str | Path, domain_name: str) -> xr.DataArray:
    """Open the masks of a domain lazily, (time, mask, y, x), one scene a chunk.

    Parameters
    ----------
    store
        Folder or object prefix that `calfin map` made.
    domain_name
        As in the domain file.

    Returns
    -------
    DataArray
        float32 probabilities 0 to 1 of `front` (edge) and `ice`, NaN = missing; `time` in the order of mapping,
        with `scene_id`; `x`, `y` at pixel centres in m of the domain's CRS.

    Raises
    ------
    ValueError
        There is no store, or it has no such domain.

    Examples
    --------
    >>> masks = cc.read_masks("fronts", "Harald-Moltke-Brae")
    >>> masks.dims, masks.sizes["time"]
    (('time', 'mask', 'y', 'x'), 1)
    """
    store = str(store)
    url = masks_url(store, domain_name)
    try:
        with _naming(url, RESTORE):
            return check_masks(xr.open_zarr(url)["masks"])
    except FileNotFoundError as error:
        raise ValueError(
            f"{store} has no masks of the domain {domain_name!r}: `open_store` tells the domains of a store"
        ) from error


def masks_url(store: str, domain_name: str) -> str:
    """URI of the Zarr group with the masks of a domain."""
    return f"{store_address(store)}/masks/{check_name(domain_name)}"


def _read_scene(store: str, domain_name: str, name: str, place: int) -> NDArray[Any] | None:
    """Read the part of one scene; None where the store has no such array."""
    url = masks_url(store, domain_name)
    with _naming(url, RESTORE):
        group = zarr.open_group(url, mode="r", use_consolidated=False)
        if name not in group:
            return None
    with _naming(f"{url}/{name}/c/{place}", REMEDY):
        return np.asarray(group[name][place])


@contextmanager
def _naming(path: str, remedy: str, kinds: tuple[type[Exception], ...] = DAMAGE) -> Iterator[None]:
    """Name the file in the error of a codec that finds it damaged."""
    try:
        yield
    except DamagedFileError:
        raise
    except kinds as error:
        raise DamagedFileError(path, f"{type(error).__name__}: {error}", remedy) from None


def _create_masks(url: str, domain: Domain) -> None:
    """Lay out an empty group that xarray opens: CF names, scale and grid mapping; no scene yet."""
    rows, columns = domain.shape
    transform = domain.grid.transform
    masks = xr.DataArray(
        dask.array.zeros((0, len(MASKS), rows, columns), chunks=(1, -1, -1, -1), dtype="float32"),
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
    }
    encoding["time"] |= {"dtype": "int64", "units": "microseconds since 1970-01-01", "chunks": (4096,)}
    dataset.to_zarr(url, mode="w", encoding=encoding, consolidated=False, zarr_format=3)
    group = zarr.open_group(url, mode="r+", use_consolidated=False)
    # xarray would store an empty array of names as float64.
    group.create_array("scene_id", shape=(0,), chunks=(4096,), dtype=str, compressors=CODECS, dimension_names=["time"])
    group["masks"].attrs.update(coordinates="scene_id spatial_ref", grid_mapping="spatial_ref")


def _create_missing(group: zarr.Group, n_scenes: int) -> None:
    """Lay out what a new group, or one of an older version, lacks beside the masks: a chunk a scene, like them."""
    boxes = (MOST_BOXES, len(EDGES))
    for name, shape, dims, dtype, empty, about in (
        ("candidates", boxes, ["candidate", "edge"], "int32", -1, "boxes of candidate fronts in px, -1 = none"),
        ("grey", group["masks"].shape[2:], ["y", "x"], "uint8", 0, "scene as the network saw it, 0 = missing"),
    ):
        if name not in group:
            array = group.create_array(
                name,
                shape=(n_scenes, *shape),
                chunks=(1, *shape),
                dtype=dtype,
                compressors=CODECS,
                fill_value=empty,
                dimension_names=["time", *dims],
            )
            array.attrs["long_name"] = about
    group["candidates"].attrs["edges"] = list(EDGES)
