"""Masks, candidates and grey pictures of scenes: encoded where a scene is mapped, written shard by shard, and read.

Shards are written by the process that holds the store, under its lease.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from calfin_cloud.object_stores import store_text
from calfin_cloud.schema import MISSING, MOST_BOXES, NO_BOXES, check_masks, check_name, from_levels, to_levels
from calfin_cloud.storage.files import DamagedFileError, looking_twice, open_place, read_each, read_steady
from calfin_cloud.storage.leases import commit_whole
from calfin_cloud.storage.places import EDGES, OF_SCENES, masks_url, naming
from calfin_cloud.storage.shards import decode_chunk, encode_chunk, is_whole, pack_shard, unpack_shard
from calfin_cloud.storage.stores import RESTORE
from calfin_cloud.storage.zarr_places import zarr_place

REMEDY = "delete it and run `calfin retrace --all`, then `calfin retry`, which maps its scenes once more"

_writing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # by URL: batches may share a shard


class EncodedScene(NamedTuple):
    """What is stored of one scene, as chunks of Zarr; `b""` is none, and a grey picture of None stays as it is."""

    shape: tuple[int, ...] | None  # of its masks
    masks: bytes
    candidates: bytes
    grey: bytes | None


NOTHING = EncodedScene(None, b"", b"", b"")
"""A scene without masks, candidates and grey picture, as before it was first mapped."""


def encode_scene(
    masks: NDArray[np.floating[Any]] | NDArray[np.uint8],
    *,
    candidates: NDArray[np.integer[Any]] = NO_BOXES,
    grey: NDArray[np.uint8] | None = None,
) -> EncodedScene:
    """Encode the masks of one scene, (mask, y, x): probabilities, NaN = missing, or their levels.

    `candidates` are the boxes of the first pass around which its second one looked, (n, 4) first row, last row, first
    column, last column in px of the masks, the last ones outside. `grey` is the scene as the network saw it, (y, x).

    Raises
    ------
    ValueError
        There are too many candidates or they are no boxes, or `grey` has another shape.
    """
    if candidates.shape[1:] != (len(EDGES),) or len(candidates) > MOST_BOXES or (candidates < 0).any():
        raise ValueError(
            f"candidates must be at most {MOST_BOXES} rows of {EDGES}, not negative, got {candidates.tolist()}: "
            "keep the longest ones, and cut them at the border of the scene"
        )
    if grey is not None and grey.shape != masks.shape[1:]:
        raise ValueError(f"grey must have the shape {masks.shape[1:]} of the masks, got {grey.shape}")
    levels = masks if masks.dtype == np.uint8 else to_levels(masks.astype(np.float32, copy=False))
    boxes = np.pad(candidates, ((0, MOST_BOXES - len(candidates)), (0, 0)), constant_values=-1).astype(np.int32)
    return EncodedScene(
        masks.shape,
        encode_chunk(levels, MISSING),
        encode_chunk(boxes, OF_SCENES["candidates"]),
        None if grey is None else encode_chunk(grey, OF_SCENES["grey"]),
    )


def write_scenes(store: str, domain_name: str, scenes: Mapping[int, EncodedScene]) -> None:
    """Write encoded scenes of a domain by their places; each shard that they touch is replaced whole, in one moment.

    For one process at a time, which holds the store: of the other scenes of a shard it keeps what was there.

    Raises `LeaseLostError` where this process held the store and another has followed it.
    """
    if not scenes:
        return
    arrays = _arrays_to_write(store, domain_name)
    for place, scene in scenes.items():
        _check_scene(arrays["masks"], place, scene)
    parts = []
    for name, array in arrays.items():
        chunks = {place: data for place, of in scenes.items() if (data := getattr(of, name)) is not None}
        length = array.shards[0] if array.shards else 1
        for shard in sorted({place // length for place in chunks}):
            part = {place: data for place, data in chunks.items() if place // length == shard}
            parts.append((name, array, shard, part))
    with _writing[masks_url(store, domain_name)]:
        read_each(lambda part: _write_part(store, domain_name, *part), parts)


def _check_scene(masks: zarr.Array[Any], place: int, scene: EncodedScene) -> None:
    if scene.shape is not None and scene.shape != masks.shape[1:]:
        raise ValueError(f"masks must have the shape {masks.shape[1:]} of their domain, got {scene.shape}")
    if not 0 <= place < masks.shape[0]:
        raise ValueError(f"masks has {masks.shape[0]} places, got {place}: give the scene a place with add_scenes")


def _write_part(store: str, domain_name: str, name: str, array: zarr.Array[Any], shard: int, new: Any) -> None:  # noqa: ANN401
    """Write the chunks (place -> bytes) of one array that belong into one shard, beside those that are there."""
    fs, root = open_place(store)
    path = f"{root}/masks/{check_name(domain_name)}/{name}/c/{shard}" + "/0" * (array.ndim - 1)
    if array.shards is None:  # of a version before shards: a scene an object, maybe with other codecs
        (data,) = new.values()
        array[shard] = decode_chunk(data, array.shape[1:], array.dtype, OF_SCENES[name])
        return
    length = array.shards[0]
    old = _read_shard(fs, path, length)
    with naming(path, REMEDY):
        chunks = unpack_shard(old, length) if old else {}
    chunks |= {place % length: data for place, data in new.items()}
    packed = pack_shard({number: data for number, data in chunks.items() if data}, length)
    # An emptied shard stays, with no chunk in it: deleting it could take that of a run which has followed this one.
    if any(new.values()) or (old and packed != old):
        commit_whole(fs, root, path, packed)


def _read_shard(fs: fsspec.AbstractFileSystem, path: str, length: int) -> bytes:
    """Read a shard as it is stored, b"" where there is none: its other scenes are written back."""
    try:
        return read_steady(fs, path, partial(is_whole, length=length))
    except FileNotFoundError:
        return b""


@looking_twice
def _arrays_to_write(store: str, domain_name: str) -> dict[str, zarr.Array[Any]]:
    """Open what scenes of a domain are written to, once a process: opening takes longer than writing.

    Opened again when it has grown since, or when another store lies there now.
    """
    url = masks_url(store, domain_name)
    fs, root = open_place(store)
    layouts = [f"{root}/masks/{check_name(domain_name)}/{name}/zarr.json" for name in OF_SCENES]
    try:
        marks = read_each(fs.info, layouts)
    except FileNotFoundError as error:
        raise DamagedFileError(url, f"it lacks an array: {error}", RESTORE) from None
    return _open_arrays(url, str(marks))


@lru_cache(maxsize=8)
def _open_arrays(url: str, mark: str) -> dict[str, zarr.Array[Any]]:
    with naming(url, RESTORE):
        groups = [zarr.open_group(zarr_place(url), mode="r+", use_consolidated=False) for _ in range(2)]
        arrays, again = ({name: group[name] for name in OF_SCENES} for group in groups)
    if any(arrays[name].metadata != again[name].metadata for name in OF_SCENES):  # which have no checksum
        raise DamagedFileError(url, "each reading gives another layout", "look after the network, and try again")
    return arrays


def read_scene_masks(store: str, domain_name: str, place: int) -> NDArray[np.float32]:
    """Read the masks of one scene, (mask, y, x) float32 probabilities with NaN = missing.

    Raises
    ------
    ValueError
        The domain has no masks.
    DamagedFileError
        They cannot be decoded.
    """
    stored = _read_scene(store, domain_name, "masks", place)
    if stored is None:
        raise ValueError(f"{masks_url(store, domain_name)} has no masks: make them with `calfin map`")
    return from_levels(stored)


def read_candidates(store: str, domain_name: str, place: int) -> NDArray[np.int32]:
    """Read the candidates of one scene as `encode_scene` takes them, (n, 4) int32; none where a store has kept none."""
    stored = _read_scene(store, domain_name, "candidates", place)
    return NO_BOXES if stored is None else np.asarray(stored[stored[:, 0] >= 0], dtype=np.int32)


def read_scene_grey(store: str, domain_name: str, place: int) -> NDArray[np.uint8] | None:
    """Read one scene as the network saw it, (y, x) uint8; None where a store has kept none.

    Raises `DamagedFileError` where its shard, or the layout of the masks, cannot be read.
    """
    return picture_reader(store, domain_name)(place)


def picture_reader(store: str, domain_name: str) -> Callable[[int], NDArray[np.uint8] | None]:
    """Return a function that reads scenes of a domain by place, as `read_scene_grey` does.

    The layout is read once for all scenes, since that takes longest. Raises `DamagedFileError` where it cannot be read.
    """
    array = _array_of_scenes(store, domain_name, "grey")

    def read(place: int) -> NDArray[np.uint8] | None:
        try:
            grey = _read_place(store, domain_name, "grey", array, place)
        except DamagedFileError:  # it, or the layout, may have been read with a flipped bit
            grey = _read_scene(store, domain_name, "grey", place)
        return None if grey is None or not grey.any() else grey

    return read


@looking_twice
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
    import rioxarray  # noqa: F401 - brings the accessor .rio

    store = store_text(store)
    url = masks_url(store, domain_name)
    try:
        with naming(url, RESTORE):
            return check_masks(xr.open_zarr(zarr_place(url))["masks"])
    except FileNotFoundError as error:
        raise ValueError(
            f"{store} has no masks of the domain {domain_name!r}: `open_store` tells the domains of a store"
        ) from error


@looking_twice
def _read_scene(store: str, domain_name: str, name: str, place: int) -> NDArray[Any] | None:
    """Read the part of one scene; None where the store has no such array."""
    return _read_place(store, domain_name, name, _array_of_scenes(store, domain_name, name), place)


@looking_twice
def _array_of_scenes(store: str, domain_name: str, name: str) -> zarr.Array[Any] | None:
    url = masks_url(store, domain_name)
    with naming(url, RESTORE):
        group = zarr.open_group(zarr_place(url), mode="r", use_consolidated=False)
        return group.get(name)


def _read_place(
    store: str, domain_name: str, name: str, array: zarr.Array[Any] | None, place: int
) -> NDArray[Any] | None:
    if array is None:
        return None
    number = place // (array.shards[0] if array.shards else 1)
    with naming(f"{masks_url(store, domain_name)}/{name}/c/{number}", REMEDY):
        return np.asarray(array[place])
