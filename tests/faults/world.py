"""A painted world to disturb: its scenes behind a server, the runs of `calfin` on it, and how two stores differ."""

import contextlib
import hashlib
import io
import logging
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import geopandas as gpd
import zarr
from painted import copy_sample

from calfin_cloud.cli import main
from calfin_cloud.domains import box_grid, read_domains, write_domains
from calfin_cloud.storage import read_fronts

log = logging.getLogger(__name__)

PIXEL_M = 60.0
"""Coarse, so that a scene takes a third of a second: 200 px a side."""

VARIANT = "once"
"""Each picture is shown to the network once, at a third of the price: what goes wrong around it is the same."""

CLUSTER_LOST = 3
"""Exit code of a run whose scheduler is gone."""

FOLDERS = ("fronts", "rejected", "polygons")


@dataclass(frozen=True)
class World:
    """Painted scenes in a folder, the address under which they are served, and the store of an undisturbed run."""

    folder: Path
    url: str
    undisturbed: str
    batch_size: int = 4

    def map(self, store: str, *more: str, cluster: str = "none") -> int:
        """`calfin map` of all scenes in this process; return its exit code."""
        return calfin(*self.map_call(store, *more, cluster=cluster))

    def map_call(self, store: str, *more: str, cluster: str = "none") -> list[str]:
        """Words of the call."""
        call = ["map", "--catalog", f"{self.url}/catalog.json", "--domains", str(self.folder / "domains.geojson")]
        call += ["--period", "1984/..", "--store", store, "--batch-size", str(self.batch_size), "--cluster", cluster]
        return [*call, "--variant", VARIANT, *more]


def paint_world(folder: Path, n_scenes: int, seed: int) -> Path:
    """Paint scenes, and a domain of them on a coarse grid."""
    copy_sample(folder, n_scenes, seed)
    (domain,) = read_domains(folder / "domains.geojson")
    coarse = replace(domain, grid=box_grid(domain.grid.boundingbox.bbox, 3413, PIXEL_M))
    write_domains([coarse], folder / "domains.geojson")
    return folder


def calfin(*words: str) -> int:
    """Run a verb in this process; return its exit code, and log what it says of a failure."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            code = main(words)
        except SystemExit as end:
            if end.code != CLUSTER_LOST:
                raise
            code = CLUSTER_LOST
    if code > 1:
        log.info("%s ended with %d: %s", words[0], code, said.getvalue()[-500:])
    return code


def calfin_process(*words: str, **more: Any) -> subprocess.Popen[bytes]:
    """Start a verb in a process of its own."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
    return subprocess.Popen([sys.executable, "-m", "calfin_cloud.cli", *words], **quiet)


class Difference(NamedTuple):
    """Keys of scenes whose fronts are missing, there twice, or others than those of the undisturbed run."""

    lost: list[str]
    doubled: list[str]
    changed: list[str]


def difference(undisturbed: str, store: str, *, finished: bool) -> Difference:
    """Compare the fronts tables of two stores; before a store is `finished`, scenes may be missing or have failed."""
    if not states(store):
        return Difference([], [], [])
    whole, found = read_fronts(undisturbed), read_fronts(store)
    doubled = found.duplicated(["key", "front"]) | (found.groupby("key")["state"].transform("nunique") > 1)
    rows = found if finished else found[found["state"] != "failed"]
    there = set(rows["key"])
    lost = sorted(set(whole["key"]) - there) if finished else []
    changed = [key for key in sorted(there) if not _same(key, whole, rows)]
    return Difference(lost, sorted(set(found.loc[doubled, "key"])), changed)


def states(store: str) -> Counter[str]:
    """Count scenes by state, and failures by reason; empty where there is no store yet."""
    fs, root = fsspec.url_to_fs(store)
    if not fs.exists(f"{root}/store.json"):
        return Counter()
    scenes = read_fronts(store).drop_duplicates("key")
    return Counter(scenes["reason"].where(scenes["state"] == "failed", scenes["state"]))


def tables(store: str) -> dict[str, str]:
    """Digest of every file of the tables, and of the masks, candidates and grey of every scene by value."""
    fs, root = fsspec.url_to_fs(store)
    paths = [path for folder in FOLDERS for path in sorted(fs.ls(f"{root}/{folder}", detail=False))]
    digests = {path.removeprefix(root): _digest(fs.cat_file(path)) for path in paths}
    for domain in (path.rpartition("/")[2] for path in fs.ls(f"{root}/masks", detail=False) if fs.isdir(path)):
        group = zarr.open_group(f"{store}/masks/{domain}", mode="r", use_consolidated=False)
        for place, scene_id in enumerate(group["scene_id"][:]):
            for name in ("masks", "candidates", "grey"):
                digests[f"{name} {domain} {scene_id}"] = _digest(group[name][place].tobytes())
    return digests


def listing(store: str) -> dict[str, Any]:
    """Size and time or ETag of every object of a store, whatever it is for."""
    fs, root = fsspec.url_to_fs(store, use_listings_cache=False)
    facts = ("size", "mtime", "ETag", "LastModified")
    return {path: [str(about.get(f)) for f in facts] for path, about in fs.find(root, detail=True).items()}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _same(key: str, expected: gpd.GeoDataFrame, rows: gpd.GeoDataFrame) -> bool:
    left, right = (t[t["key"] == key].reset_index(drop=True) for t in (expected, rows))
    return bool(left.equals(right))
