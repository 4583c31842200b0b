"""Masks of scenes in Zarr: a group a domain, a scene a chunk with its checksum, some scenes a shard: one object.

A scene is encoded where it is mapped; shards are written by the process that holds the store, under its lease.
"""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import rioxarray  # noqa: F401 - brings the accessor .rio
import xarray as xr
import zarr
from numpy.typing import NDArray

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
from calfin_cloud.storage.files import DamagedFileError, delete_files, open_place, read_each, store_address
from calfin_cloud.storage.leases import commit_whole
from calfin_cloud.storage.shards import CODECS, decode_chunk, encode_chunk, pack_shard, unpack_shard
from calfin_cloud.storage.tables import read_batches

EDGES = ("first_row", "last_row", "first_column", "last_column")
NO_BOXES = np.empty((0, len(EDGES)), dtype=np.int32)
OF_SCENES = {"masks": MISSING, "candidates": -1, "grey": 0}
"""Arrays with a chunk a scene, and the value that stands for none."""
SHARD_SCENES, SHARD_PIXELS = 32, 16_000_000  # at most of a shard, as of a batch: 1 to 5 MB as it is stored
FIRST_TIME, LAST_TIME = (np.datetime64(day, "us") for day in ("1678-01-01", "2262-01-01"))  # of ns in 64 bits
LACKING = (KeyError, TypeError, AttributeError)  # of a group without an array, or with odd metadata
_writing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # by URL: batches may share a shard

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
    arrays = _arrays_to_write(store, domain_name, max(scenes))
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


def write_masks(
    store: str,
    domain_name: str,
    place: int,
    masks: NDArray[np.floating[Any]] | NDArray[np.uint8],
    *,
    candidates: NDArray[np.integer[Any]] = NO_BOXES,
    grey: NDArray[np.uint8] | None = None,
) -> None:
    """Write the masks of one scene, see `encode_scene` and `write_scenes`."""
    write_scenes(store, domain_name, {place: encode_scene(masks, candidates=candidates, grey=grey)})


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
    try:
        old = bytes(fs.cat_file(path))
    except FileNotFoundError:
        old = b""
    with _naming(path, REMEDY):
        chunks = unpack_shard(old, length) if old else {}
    chunks |= {place % length: data for place, data in new.items()}
    kept = {number: data for number, data in chunks.items() if data}
    shard_bytes = pack_shard(kept, length) if kept else b""
    if shard_bytes and (shard_bytes != old or any(new.values())):
        commit_whole(fs, root, path, shard_bytes)
    elif old and not shard_bytes:
        delete_files(fs, [path])


def _arrays_to_write(store: str, domain_name: str, place: int) -> dict[str, zarr.Array[Any]]:
    """Open what scenes of a domain are written to, once a process: opening takes longer than writing.

    Opened again when it has grown since, or when another store lies there now.
    """
    url = masks_url(store, domain_name)
    fs, root = open_place(store)
    mark = str(fs.info(f"{root}/masks/{check_name(domain_name)}/masks/zarr.json"))
    return _open_arrays(url, mark)


@lru_cache(maxsize=8)
def _open_arrays(url: str, mark: str) -> dict[str, zarr.Array[Any]]:
    with _naming(url, RESTORE):
        group = zarr.open_group(url, mode="r+", use_consolidated=False)
        return {name: group[name] for name in OF_SCENES}


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


def read_masks(store: str, domain_name: str) -> xr.DataArray:
    """Open the masks of a domain lazily, (time, mask, y, x), one scene a chunk."""
    url = masks_url(store, domain_name)
    with _naming(url, RESTORE):
        return check_masks(xr.open_zarr(url)["masks"])


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
    array = group[name]
    number = place // (array.shards[0] if array.shards else 1)
    with _naming(f"{url}/{name}/c/{number}", REMEDY):
        return np.asarray(array[place])


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
        "shards": (_shard_length(rows, columns), len(MASKS), rows, columns),
    }
    encoding["time"] |= {"dtype": "int64", "units": "microseconds since 1970-01-01", "chunks": (4096,)}
    dataset.to_zarr(url, mode="w", encoding=encoding, consolidated=False, zarr_format=3)
    group = zarr.open_group(url, mode="r+", use_consolidated=False)
    # xarray would store an empty array of names as float64.
    group.create_array("scene_id", shape=(0,), chunks=(4096,), dtype=str, compressors=CODECS, dimension_names=["time"])
    group["masks"].attrs.update(coordinates="scene_id spatial_ref", grid_mapping="spatial_ref")


def _shard_length(rows: int, columns: int) -> int:
    """Scenes of a shard."""
    return max(1, min(SHARD_SCENES, SHARD_PIXELS // (rows * columns)))


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
