"""Masks go to Zarr; fronts, rejected candidates and polygons to GeoParquet: below any fsspec URI, idempotent by key.

A store is a folder or object prefix: `store.json` (what made it), `domains/<domain>.geojson`, `masks/<domain>` (a Zarr
group, a scene a chunk), `fronts/<batch>.parquet` (at least a row a scene: the ledger), `rejected/<batch>.parquet`,
`polygons/<batch>.parquet` and `items/<batch>.json.gz` (of the same scenes), and `pictures/<domain>/<scene>.png`.

The fronts of a batch are written last, since they say that its scenes are done: tables of a batch without fronts are
those of a killed run, which no reader here looks at; its scenes are mapped again, perhaps in other batches.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
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

from calfin_cloud.domains import Domain, domains_json, read_domains
from calfin_cloud.schema import (
    FRONT_SCHEMA,
    MASKS,
    MOST_BOXES,
    POLYGON_SCHEMA,
    REJECTED_SCHEMA,
    SCENE_DIMS,
    check_fronts,
    check_masks,
    check_name,
    check_polygons,
    check_rejected,
)

LEVELS = 250  # a probability is stored as one of 251 steps of 0.004; 255 is missing
MISSING = 255
EDGES = ("first_row", "last_row", "first_column", "last_column")
NO_BOXES = np.empty((0, len(EDGES)), dtype=np.int32)


def open_store(store: str, *, crs: str, made_by: Mapping[str, Any]) -> None:
    """Make the store, or check that it was made with the same CRS, model and settings (`made_by`, JSON values).

    Raises `ValueError` for a store of another CRS or another model: mixing them would falsify the table.
    """
    wanted = json.loads(json.dumps({"crs": crs, **made_by}))
    fs, root = fsspec.url_to_fs(store)
    path = f"{root}/store.json"
    if fs.exists(path):
        found = json.loads(fs.cat_file(path))
        if verb := found.get("unfinished"):
            raise ValueError(f"{store}: `calfin {verb}` was stopped before its end: run it again to the end")
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


def change_store(store: str, **changes: object) -> None:
    """Change what the store says it was made with (JSON values); a change to None takes the entry out."""
    changed = read_store(store) | json.loads(json.dumps(changes))
    fs, root = fsspec.url_to_fs(store)
    kept = {k: v for k, v in changed.items() if v is not None}
    _write_whole(fs, f"{root}/store.json", (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())


def keep_domain(store: str, domain: Domain, *, replace: bool = False) -> None:
    """Keep a domain with the store; one that differs from the kept one is refused unless it is to replace it."""
    fs, root = fsspec.url_to_fs(store)
    path, text = f"{root}/domains/{check_name(domain.name)}.geojson", domains_json([domain]).encode()
    if fs.exists(path):
        kept = bytes(fs.cat_file(path))
        if kept == text:
            return
        if not replace:
            raise ValueError(
                f"{store} was made with another boundary, centreline or grid of the domain {domain.name}: "
                "run `calfin retrace` with the new one, or choose another store"
            )
    _write_whole(fs, path, text)


def read_store_domains(store: str) -> list[Domain]:
    """Read the domains that were mapped into a store, sorted by name."""
    fs, root = fsspec.url_to_fs(store)
    paths = sorted(fs.glob(f"{root}/domains/*.geojson"))
    return [domain for path in paths for domain in read_domains(io.BytesIO(fs.cat_file(path)))]


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
    n = len(known) + len(new)
    _create_missing(group, n)
    if new:
        for name in ("masks", "candidates", "grey"):
            group[name].resize((n, *group[name].shape[1:]))
        times = np.array([scenes[s] for s in new], dtype="datetime64[us]").astype("int64")
        for name, values in (("time", times), ("scene_id", np.array(new, dtype=object))):
            group[name].resize((n,))
            group[name][len(known) :] = values
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(url)
    return {s: i for i, s in enumerate([*known, *new])}


def write_masks(
    store: str,
    domain_name: str,
    place: int,
    masks: NDArray[np.floating[Any]],
    *,
    candidates: NDArray[np.integer[Any]] = NO_BOXES,
    grey: NDArray[np.uint8] | None = None,
) -> None:
    """Write the masks of one scene, (mask, y, x) probabilities with NaN = missing, into its own chunk.

    `candidates` are the boxes of the first pass around which its second one looked, (n, 4) first row, last row, first
    column, last column in px of the masks, the last ones outside. `grey` is the scene as the network saw it, (y, x).
    """
    group = zarr.open_group(masks_url(store, domain_name), mode="r+", use_consolidated=False)
    array = group["masks"]
    if masks.shape != array.shape[1:] or array.chunks != (1, *array.shape[1:]):
        raise ValueError(
            f"masks must have the shape {array.shape[1:]} and be one chunk, got {masks.shape}, {array.chunks}"
        )
    if candidates.shape[1:] != (len(EDGES),) or len(candidates) > MOST_BOXES or (candidates < 0).any():
        raise ValueError(
            f"candidates must be at most {MOST_BOXES} rows of {EDGES}, not negative, got {candidates.tolist()}: "
            "keep the longest ones, and cut them at the border of the scene"
        )
    if grey is not None:
        group["grey"][place] = grey
    empty = MOST_BOXES - len(candidates)
    group["candidates"][place] = np.pad(candidates, ((0, empty), (0, 0)), constant_values=-1)
    array[place] = np.where(np.isnan(masks), MISSING, np.rint(np.clip(masks, 0, 1) * LEVELS)).astype("uint8")


def read_scene_masks(store: str, domain_name: str, place: int) -> NDArray[np.float32]:
    """Read the masks of one scene, (mask, y, x) float32 probabilities with NaN = missing."""
    stored = zarr.open_group(masks_url(store, domain_name), mode="r", use_consolidated=False)["masks"][place]
    return np.where(stored == MISSING, np.nan, stored.astype("float32") / LEVELS).astype("float32")


def read_candidates(store: str, domain_name: str, place: int) -> NDArray[np.int32]:
    """Read the candidates of one scene as `write_masks` takes them, (n, 4) int32; none where a store has kept none."""
    group = zarr.open_group(masks_url(store, domain_name), mode="r", use_consolidated=False)
    if "candidates" not in group:
        return NO_BOXES
    stored = np.asarray(group["candidates"][place], dtype=np.int32)
    return stored[stored[:, 0] >= 0]


def read_scene_grey(store: str, domain_name: str, place: int) -> NDArray[np.uint8] | None:
    """Read one scene as the network saw it, (y, x) uint8; None where a store has kept none."""
    group = zarr.open_group(masks_url(store, domain_name), mode="r", use_consolidated=False)
    grey = np.asarray(group["grey"][place]) if "grey" in group else None
    return None if grey is None or not grey.any() else grey


def read_places(store: str, domain_name: str) -> dict[str, int]:
    """Read the place of every scene (by id) on the time axis of the domain's masks."""
    group = zarr.open_group(masks_url(store, domain_name), mode="r", use_consolidated=False)
    return {str(scene_id): place for place, scene_id in enumerate(group["scene_id"][:])}


def read_masks(store: str, domain_name: str) -> xr.DataArray:
    """Open the masks of a domain lazily, (time, mask, y, x), one scene a chunk."""
    dataset = xr.open_zarr(masks_url(store, domain_name))
    return check_masks(dataset["masks"])


def write_fronts(store: str, fronts: gpd.GeoDataFrame) -> str:
    """Write one batch of scenes whole, under a name made of its keys, and return its path: writing twice is once.

    Call it last: from here on the scenes of the batch count as done.
    """
    check_fronts(fronts)
    return _write_table(store, "fronts", fronts, FRONT_SCHEMA, keys=list(fronts["key"].unique()))


def write_rejected(store: str, rejected: gpd.GeoDataFrame, *, keys: Sequence[str]) -> str:
    """Write the rejected candidates of one batch, of which there may be none, before its fronts; return the path.

    `keys` are those of all scenes of the batch, in the order of its fronts table: they make the name.
    """
    check_rejected(rejected)
    return _write_table(store, "rejected", rejected, REJECTED_SCHEMA, keys=keys)


def write_polygons(store: str, polygons: gpd.GeoDataFrame, *, keys: Sequence[str]) -> str:
    """Write the polygons of one batch before its fronts, `keys` as in `write_rejected`; return the path."""
    check_polygons(polygons)
    return _write_table(store, "polygons", polygons, POLYGON_SCHEMA, keys=keys)


def write_items(store: str, items: Sequence[Mapping[str, Any]], *, keys: Sequence[str]) -> str:
    """Write the STAC items (JSON values, addresses unsigned) of one batch, before its fronts; return the path."""
    fs, _ = fsspec.url_to_fs(store)
    path = f"{_batch_path(store, 'items', keys)}.json.gz"
    text = json.dumps(dict(zip(keys, items, strict=True)), sort_keys=True)
    _write_whole(fs, path, gzip.compress(text.encode(), mtime=0))
    return path


def read_items(store: str, keys: Sequence[str]) -> dict[str, Any]:
    """Read the STAC items of one batch by key; empty where a store has kept none."""
    fs, _ = fsspec.url_to_fs(store)
    path = f"{_batch_path(store, 'items', keys)}.json.gz"
    items: dict[str, Any] = json.loads(gzip.decompress(fs.cat_file(path))) if fs.exists(path) else {}
    return items


def read_batch(store: str, keys: Sequence[str]) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Read the rejected candidates and the polygons of one batch, rows in the order in which they were written."""
    crs = read_store(store)["crs"]
    rejected, polygons = (
        _read_parts(store, [f"{_batch_path(store, folder, keys)}.parquet"], schema, crs)
        for folder, schema in (("rejected", REJECTED_SCHEMA), ("polygons", POLYGON_SCHEMA))
    )
    return check_rejected(rejected), check_polygons(polygons)


def read_fronts(store: str) -> gpd.GeoDataFrame:
    """Read the fronts table: at least a row a scene, sorted by domain, datetime, scene and number of the front."""
    return check_fronts(_read_tables(store, "fronts", FRONT_SCHEMA, last_order="front"))


def read_rejected(store: str) -> gpd.GeoDataFrame:
    """Read the rejected candidates of all finished scenes, sorted by domain, datetime, scene and number."""
    return check_rejected(_read_tables(store, "rejected", REJECTED_SCHEMA, last_order="candidate"))


def read_polygons(store: str) -> gpd.GeoDataFrame:
    """Read the polygons of all finished scenes, sorted by domain, datetime, scene and kind."""
    return check_polygons(_read_tables(store, "polygons", POLYGON_SCHEMA, last_order="kind"))


def read_batches(store: str) -> Iterator[gpd.GeoDataFrame]:
    """Read the fronts of one batch after the other, rows in the order in which they were written."""
    fs, root = fsspec.url_to_fs(store)
    for path in sorted(fs.glob(f"{root}/fronts/*.parquet")):
        yield check_fronts(gpd.read_parquet(path, filesystem=fs, columns=[*FRONT_SCHEMA.names, "geometry"]))


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
                fill_value=empty,
                dimension_names=["time", *dims],
            )
            array.attrs["long_name"] = about
    group["candidates"].attrs["edges"] = list(EDGES)


def _write_table(store: str, folder: str, table: gpd.GeoDataFrame, schema: pa.Schema, *, keys: Sequence[str]) -> str:
    """Write the table of one batch whole; the name comes from the keys of its scenes, so all its tables share it."""
    if foreign := sorted(set(table["key"]) - set(keys))[:5]:
        raise ValueError(f"a batch must name all its scenes, got rows of others {foreign}: pass the keys of its fronts")
    fs, _ = fsspec.url_to_fs(store)
    path = f"{_batch_path(store, folder, keys)}.parquet"
    _write_whole(fs, path, _to_parquet(table, schema))
    return path


def _batch_path(store: str, folder: str, keys: Sequence[str]) -> str:
    """Path of a batch's file without its ending: the name comes from the keys of its scenes."""
    domains = {key.partition("/")[0] for key in keys}
    if len(domains) != 1:
        raise ValueError(f"a batch must be of one domain, got {sorted(domains)}: cut batches domain by domain")
    _, root = fsspec.url_to_fs(store)
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
    return f"{root}/{folder}/{check_name(domains.pop())}-{digest}"


def _read_tables(store: str, folder: str, schema: pa.Schema, *, last_order: str) -> gpd.GeoDataFrame:
    """Read the tables of all batches that have their fronts as one, empty where the store has none."""
    crs = read_store(store)["crs"]
    fs, root = fsspec.url_to_fs(store)
    done = {path.rpartition("/")[2] for path in fs.glob(f"{root}/fronts/*.parquet")}
    files = sorted(path for path in fs.glob(f"{root}/{folder}/*.parquet") if path.rpartition("/")[2] in done)
    table = _read_parts(store, files, schema, crs)
    return table.sort_values(["domain", "datetime", "scene_id", last_order], ignore_index=True)


def _read_parts(store: str, paths: Sequence[str], schema: pa.Schema, crs: str) -> gpd.GeoDataFrame:
    """Read tables as one, row after row; files that are not there have none."""
    fs, _ = fsspec.url_to_fs(store)
    columns = [*schema.names, "geometry"]
    parts = [gpd.read_parquet(path, filesystem=fs, columns=columns) for path in paths if fs.exists(path)]
    if not parts:
        empty = pd.DataFrame({f.name: pd.Series(dtype=f.type.to_pandas_dtype()) for f in schema})
        return gpd.GeoDataFrame(empty, geometry=gpd.GeoSeries([], crs=crs), crs=crs)
    return pd.concat(parts, ignore_index=True)


def _to_parquet(table: gpd.GeoDataFrame, schema: pa.Schema) -> bytes:
    """Bytes of a GeoParquet 1.1 file with the one fixed Arrow schema, the same for the same table."""
    guessed, cast = io.BytesIO(), io.BytesIO()
    # geopandas writes the geometry, but guesses the types of the columns, and of an empty one it knows nothing.
    table.to_parquet(guessed, index=False, schema_version="1.1.0", write_covering_bbox=True)
    arrow = pq.read_table(guessed)
    further = [arrow.schema.field(name) for name in arrow.column_names if name not in schema.names]
    pq.write_table(arrow.cast(pa.schema([*schema, *further], arrow.schema.metadata)), cast, compression="zstd")
    return cast.getvalue()


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
