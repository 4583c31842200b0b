"""Masks go to Zarr, fronts and the ledger to GeoParquet: below any fsspec URI, idempotent by key.

A store is a folder or object prefix: `store.json` (what made it), `masks/<domain>` (a Zarr group, a scene a chunk),
`fronts/<batch>.parquet` (at least a row a scene: the ledger) and `pictures/<domain>/<scene>.png`.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import dask.array
import fsspec
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import rioxarray  # noqa: F401 - brings the accessor .rio
import xarray as xr
import zarr
from numpy.typing import NDArray

from calfin_cloud.domains import Domain
from calfin_cloud.schema import FRONT_SCHEMA, MASKS, SCENE_DIMS, check_fronts, check_masks, check_name

LEVELS = 250  # a probability is stored as one of 251 steps of 0.004; 255 is missing
MISSING = 255


def open_store(store: str, *, crs: str, made_by: Mapping[str, Any]) -> None:
    """Make the store, or check that it was made with the same CRS, model and settings (`made_by`, JSON values).

    Raises `ValueError` for a store of another CRS or another model: mixing them would falsify the table.
    """
    wanted = json.loads(json.dumps({"crs": crs, **made_by}))
    fs, root = fsspec.url_to_fs(store)
    path = f"{root}/store.json"
    if fs.exists(path):
        found = json.loads(fs.cat_file(path))
        if differing := {k for k in found | wanted if found.get(k) != wanted.get(k)}:
            got = {k: (found.get(k), wanted.get(k)) for k in sorted(differing)}
            raise ValueError(f"{store} was made differently: (store, now) = {got}; choose another store")
        return
    if fs.exists(root) and set(fs.ls(root, detail=False)) - {f"{root}/masks", f"{root}/.store.json.part"}:
        raise ValueError(f"{store} is not empty and not a store of calfin: choose an empty or a new folder")
    zarr.open_group(f"{store.rstrip('/')}/masks", mode="a", use_consolidated=False)
    _write_whole(fs, path, (json.dumps(wanted, indent=1, sort_keys=True) + "\n").encode())


def read_store(store: str) -> dict[str, Any]:
    """Return what the store was made with: CRS, model, code version, settings."""
    fs, root = fsspec.url_to_fs(store)
    if not fs.exists(f"{root}/store.json"):
        raise ValueError(f"{store} is not a store of calfin: it has no store.json; make one with `calfin map`")
    content: dict[str, Any] = json.loads(fs.cat_file(f"{root}/store.json"))
    return content


def add_scenes(store: str, domain: Domain, scenes: Mapping[str, np.datetime64]) -> dict[str, int]:
    """Give every scene (id -> datetime) a place on the time axis of the domain's masks; return id -> place.

    Places never change and new scenes come last, so that a chunk has one writer for ever. Only the driver calls this.
    Safe to repeat after an interruption: `scene_id` is lengthened last, so places without an id are taken again.
    """
    url = masks_url(store, domain.name)
    group = zarr.open_group(url, mode="a", use_consolidated=False)
    if "scene_id" not in group:
        _create_masks(url, domain)
        group = zarr.open_group(url, mode="r+", use_consolidated=False)
    if group["masks"].shape[2:] != domain.shape or list(group.attrs["bounds"]) != list(domain.grid.boundingbox.bbox):
        raise ValueError(f"domain {domain.name} has another grid in {store}: rename the domain or choose another store")
    known = [str(s) for s in group["scene_id"][:]]
    new = [s for s in scenes if s not in set(known)]
    if new:
        n = len(known) + len(new)
        group["masks"].resize((n, *group["masks"].shape[1:]))
        times = np.array([scenes[s] for s in new], dtype="datetime64[us]").astype("int64")
        for name, values in (("time", times), ("scene_id", np.array(new, dtype=object))):
            group[name].resize((n,))
            group[name][len(known) :] = values
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(url)
    return {s: i for i, s in enumerate([*known, *new])}


def write_masks(store: str, domain_name: str, place: int, masks: NDArray[np.floating[Any]]) -> None:
    """Write the masks of one scene, (mask, y, x) probabilities with NaN = missing, into its own chunk."""
    array = zarr.open_group(masks_url(store, domain_name), mode="r+", use_consolidated=False)["masks"]
    if masks.shape != array.shape[1:] or array.chunks != (1, *array.shape[1:]):
        raise ValueError(
            f"masks must have the shape {array.shape[1:]} and be one chunk, got {masks.shape}, {array.chunks}"
        )
    array[place] = np.where(np.isnan(masks), MISSING, np.rint(np.clip(masks, 0, 1) * LEVELS)).astype("uint8")


def read_scene_masks(store: str, domain_name: str, place: int) -> NDArray[np.float32]:
    """Read the masks of one scene, (mask, y, x) float32 probabilities with NaN = missing."""
    stored = zarr.open_group(masks_url(store, domain_name), mode="r", use_consolidated=False)["masks"][place]
    return np.where(stored == MISSING, np.nan, stored.astype("float32") / LEVELS).astype("float32")


def read_masks(store: str, domain_name: str) -> xr.DataArray:
    """Open the masks of a domain lazily, (time, mask, y, x), one scene a chunk."""
    dataset = xr.open_zarr(masks_url(store, domain_name))
    return check_masks(dataset["masks"])


def write_fronts(store: str, fronts: gpd.GeoDataFrame) -> str:
    """Write one batch of scenes whole, under a name made of its keys, and return its path: writing twice is once."""
    check_fronts(fronts)
    fs, root = fsspec.url_to_fs(store)
    keys = fronts["key"].unique()
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
    path = f"{root}/fronts/{check_name(str(fronts['domain'].iloc[0]))}-{digest}.parquet"
    _write_whole(fs, path, _to_parquet(fronts))
    return path


def read_fronts(store: str) -> gpd.GeoDataFrame:
    """Read the fronts table: at least a row a scene, sorted by domain, datetime, scene and number of the front."""
    crs = read_store(store)["crs"]
    fs, root = fsspec.url_to_fs(store)
    files = sorted(fs.glob(f"{root}/fronts/*.parquet"))
    if not files:
        empty = pd.DataFrame({f.name: pd.Series(dtype=f.type.to_pandas_dtype()) for f in FRONT_SCHEMA})
        return gpd.GeoDataFrame(empty, geometry=gpd.GeoSeries([], crs=crs), crs=crs)
    parts = [gpd.read_parquet(path, filesystem=fs, columns=[*FRONT_SCHEMA.names, "geometry"]) for path in files]
    table = pd.concat(parts, ignore_index=True)
    return check_fronts(table.sort_values(["domain", "datetime", "scene_id", "front"], ignore_index=True))


def finished_keys(store: str) -> set[str]:
    """Keys of all scenes that have a state: the ledger."""
    fs, root = fsspec.url_to_fs(store)
    keys: set[str] = set()
    for path in fs.glob(f"{root}/fronts/*.parquet"):
        with fs.open(path, "rb") as file:
            keys.update(pq.read_table(file, columns=["key"])["key"].to_pylist())
    return keys


def write_picture(store: str, domain_name: str, scene_id: str, png: bytes) -> None:
    """Write the picture of one scene."""
    fs, root = fsspec.url_to_fs(store)
    _write_whole(fs, f"{root}/{picture_path(domain_name, scene_id)}", png)


def read_picture(store: str, domain_name: str, scene_id: str) -> bytes | None:
    """Read the picture of one scene, None where there is none."""
    fs, root = fsspec.url_to_fs(store)
    path = f"{root}/{picture_path(domain_name, scene_id)}"
    return bytes(fs.cat_file(path)) if fs.exists(path) else None


def write_document(store: str, name: str, data: bytes) -> str:
    """Write a document for people, such as report.html, into the store and return its path."""
    fs, root = fsspec.url_to_fs(store)
    _write_whole(fs, f"{root}/{check_name(name)}", data)
    return f"{store.rstrip('/')}/{name}"


def picture_path(domain_name: str, scene_id: str) -> str:
    """Path of a scene's picture below the store; the id, which comes from a catalogue, is quoted."""
    return f"pictures/{check_name(domain_name)}/{quote(scene_id, safe='').replace('.', '%2E')}.png"


def masks_url(store: str, domain_name: str) -> str:
    """URI of the Zarr group with the masks of a domain."""
    return f"{store.rstrip('/')}/masks/{check_name(domain_name)}"


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
    encoding = {
        "masks": {
            "dtype": "uint8",
            "scale_factor": 1 / LEVELS,
            "_FillValue": MISSING,
            "fill_value": MISSING,
            "chunks": (1, len(MASKS), rows, columns),
        },
        "time": {"dtype": "int64", "units": "microseconds since 1970-01-01", "chunks": (4096,)},
    }
    dataset.to_zarr(url, mode="w", encoding=encoding, consolidated=False, zarr_format=3)
    group = zarr.open_group(url, mode="r+", use_consolidated=False)
    # xarray would store an empty array of names as float64.
    group.create_array("scene_id", shape=(0,), chunks=(4096,), dtype=str, dimension_names=["time"])
    group["masks"].attrs.update(coordinates="scene_id spatial_ref", grid_mapping="spatial_ref")


def _to_parquet(fronts: gpd.GeoDataFrame) -> bytes:
    """Bytes of a GeoParquet 1.1 file with the one fixed Arrow schema, the same for the same table."""
    buffer = io.BytesIO()
    typed = fronts.copy()
    typed["datetime"] = pd.to_datetime(typed["datetime"], utc=True).astype("datetime64[us, UTC]")
    for field in FRONT_SCHEMA:
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            typed[field.name] = typed[field.name].astype(field.type.to_pandas_dtype())
    typed.to_parquet(buffer, index=False, compression="zstd", schema_version="1.1.0", write_covering_bbox=True)
    written = pq.read_schema(io.BytesIO(buffer.getvalue()))
    for field in FRONT_SCHEMA:
        assert written.field(field.name).type in (field.type, pa.large_string()), (field, written.field(field.name))
    return buffer.getvalue()


def _write_whole(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Write all of a file or nothing: a temporary name and a rename on disks, one PUT on object stores."""
    if "file" not in (fs.protocol if isinstance(fs.protocol, Sequence) else (fs.protocol,)):
        fs.pipe_file(path, data)
        return
    folder, _, name = path.rpartition("/")
    fs.makedirs(folder, exist_ok=True)
    # The dot keeps a leftover of a killed run out of every reader's listing; the next run replaces it.
    temporary = f"{folder}/.{name}.part"
    fs.pipe_file(temporary, data)
    fs.mv(temporary, path)
