"""Rows of the tables of a store, its places on disk and on a real S3 server, and batches of made-up scenes."""

import secrets
from collections.abc import Callable
from pathlib import Path

import fsspec
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import zarr
from painted import copy_sample
from shapely.geometry import LineString, MultiPolygon, box

from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.storage.shards import pack_shard, unpack_shard

DOMAIN = Domain("Store", box_grid((0, 0, 3000, 2400), 3413, 30.0), "9")
LINE = LineString([(0, 0), (300, 400)])
WATER = MultiPolygon([box(0, 0, 30, 60)])
NOON = np.datetime64("2020-07-01T12:00:00", "us")
WAIT_S = 600.0
"""How long tests wait for other processes, on machines that have other work too; it only ends what hangs."""


def write_masks(store, domain, place, masks, **further):
    """Write the masks of one scene at its place."""
    storage.write_scenes(store, domain, {place: storage.encode_scene(masks, **further)})


_LOOSE = pytest.mark.filterwarnings("ignore::ResourceWarning")
PLACES = (
    "disk",
    pytest.param("s3", marks=_LOOSE),
    *(pytest.param(name, marks=(_LOOSE, pytest.mark.slow)) for name in ("azure", "google")),
)


def map_sample(folder: Path, scenes: int) -> Path:
    """Paint so many scenes into `folder/scenes` and map them into `folder/store`; return the folder.

    Each picture is shown to the network once, at a third of the price.
    """
    copy_sample(folder / "scenes", scenes)
    where = ["--domains", str(folder / "scenes" / "domains.geojson"), "--period", "1984/2024", "--variant", "once"]
    catalog = ["--catalog", str(folder / "scenes" / "catalog.json")]
    assert main(["map", *catalog, *where, "--store", str(folder / "store"), "--cluster", "none"]) == 0
    return folder


def new_store(kind: str, request: pytest.FixtureRequest) -> str:
    """URI of a store that does not exist yet, on disk or on a server of the session."""
    if kind == "disk":
        return str(Path(request.getfixturevalue("tmp_path")) / "store")
    if kind in ("azure", "google"):
        return f"{request.getfixturevalue(kind)()}/deep/store"
    request.getfixturevalue("s3")
    bucket = f"calfin-{secrets.token_hex(6)}"
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}/deep/store"


def paths_in(store: str) -> list[str]:
    """Paths of all files below the store."""
    fs, root = fsspec.url_to_fs(store, use_listings_cache=False)
    return sorted(path.removeprefix(root + "/") for path in fs.find(root))


def contents(store: str) -> dict[str, bytes]:
    """All files of a store by path, but for those that were replaced and lie aside for a day."""
    fs, root = fsspec.url_to_fs(store, use_listings_cache=False)
    paths = [path for path in paths_in(store) if not path.startswith("replaced/")]
    return {path: bytes(fs.cat_file(f"{root}/{path}")) for path in paths}


def shards_in(store: str) -> list[tuple[Path, int]]:
    """Shards of the masks of a store on disk, and how many scenes each may have."""
    paths = [path for path in sorted(Path(store).glob("masks/*/masks/c/**/*")) if path.is_file()]
    return [(path, zarr.open_array(path.parents[4], mode="r").shards[0]) for path in paths]


def chunks_in(store: str) -> dict[tuple[str, int], bytes]:
    """Masks of the scenes of a store on disk as they are stored, by domain and place."""
    return {
        (path.parents[5].name, int(path.parents[2].name) * length + number): data
        for path, length in shards_in(store)
        for number, data in unpack_shard(path.read_bytes(), length).items()
    }


def change_chunks(store: str, change: Callable[[dict[int, bytes]], object]) -> None:
    """Change the masks (by place) of the only shard of a store on disk."""
    ((path, length),) = shards_in(store)
    chunks = unpack_shard(path.read_bytes(), length)
    change(chunks)
    path.write_bytes(pack_shard(chunks, length))


def item(scene: str, **properties: object) -> dict[str, object]:
    """STAC item of a made-up scene."""
    return {"id": scene, "properties": {"datetime": "2020-07-01T12:00:00Z", **properties}, "links": []}


def write(store: str, *scenes: str, line: LineString | None = None, mark: str = "", **more: object) -> storage.Stored:
    """Write a batch of scenes with a rejected candidate and polygons each; all its rows carry `mark` as detail."""
    tables = storage.Tables(
        rows(*scenes, line=line).assign(detail=mark),
        rejected_rows(*scenes).assign(detail=mark),
        polygon_rows(*scenes).assign(detail=mark),
    )
    items = {f"Store/{scene}": item(scene, mark=mark) for scene in scenes}
    return storage.write_batch(store, tables, items, **({"recipe": {"masks": "a", "fronts": "b"}} | more))


def rows(*scenes, line=None):
    """Fronts table with one row for each scene id, with or without a line."""
    table = pd.DataFrame(
        {
            "key": [f"Store/{s}" for s in scenes],
            "domain": "Store",
            "scene_id": scenes,
            "front": 0 if line else -1,
            "glacier_id": "9",
            "datetime": pd.Timestamp("2020-07-01T12:00", tz="UTC"),
            "platform": "landsat-8",
            "collection": "landsat-c2-l2",
            "state": "front" if line else "no_front",
            "reason": "" if line else "cloudy",
            "detail": "",
            "quality_flag": 10,
            "length_m": line.length if line else np.nan,
            "confidence": np.nan,
            "least_confidence": np.nan,
            "traced_by": "free" if line else "",
            "guide_distance_m": np.nan,
            "ends": "",
            "sigma_m": np.nan,
            "half95_m": np.nan,
            "vertex_sigma_m": [[0.5, 1.5] if line else []] * len(scenes),
            "score": np.nan,
            "score_reasons": "",
            "isolation": "",
            "cloud_fraction": np.nan,
            "nodata_fraction": 0.0,
            "slc_off_fraction": 0.0,
            "resolution_m": 30.0,
            "model": "a@1",
            "code": "0",
        }
    )
    return gpd.GeoDataFrame(table, geometry=[line] * len(scenes), crs=DOMAIN.crs)


def rejected_rows(*scenes, candidate=0, line=LINE):
    """Table with one rejected candidate for each scene id; with the right columns even for none."""
    table = pd.DataFrame(
        {
            "key": [f"Store/{s}" for s in scenes],
            "domain": "Store",
            "scene_id": scenes,
            "candidate": candidate,
            "datetime": pd.Timestamp("2020-07-01T12:00", tz="UTC"),
            "filter": "edge size",
            "reason": "edge_too_short",
            "value": 12,
            "limit": 32,
            "detail": "12 px of edge, at least 32 is needed",
        }
    )
    return gpd.GeoDataFrame(table, geometry=[line] * len(scenes), crs=DOMAIN.crs)


def polygon_rows(*scenes, kind="ocean", polygon=None):
    """Table with one row for each scene id, with a polygon or the reason why there is none."""
    table = pd.DataFrame(
        {
            "key": [f"Store/{s}" for s in scenes],
            "domain": "Store",
            "scene_id": scenes,
            "glacier_id": "9",
            "datetime": pd.Timestamp("2020-07-01T12:00", tz="UTC"),
            "platform": "landsat-8",
            "kind": kind,
            "fjord": "scene",
            "reason": "" if polygon else "no_ocean",
            "detail": "",
            "area_m2": polygon.area if polygon else np.nan,
        }
    )
    return gpd.GeoDataFrame(table, geometry=[polygon] * len(scenes), crs=DOMAIN.crs)
