"""Time and memory to open one glacier of a store of many batches, and to compact it, on disk or on a real S3 server.

`PYTHONPATH=tests python tests/benchmarks/many_batches.py --batches 20000 --fronts-a-batch 25 --s3` prints the table.
The batches are synthetic: one is written as `calfin map` would, the others are copies with other scenes. Each figure is
of a fresh process; its peak of memory includes Python and its libraries.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from servers.s3 import serve_s3
from shapely.geometry import LineString, MultiPolygon
from storing import DOMAIN, item, polygon_rows, rejected_rows, rows

from calfin_cloud import storage
from calfin_cloud.domains import Domain
from calfin_cloud.storage.batches import Stored, name_batch
from calfin_cloud.storage.commits import _sealed

FIRST = pd.Timestamp("1985-01-01T12:00", tz="UTC")
N_VERTICES = 150  # of a front
FILLER = b"no Parquet" * 3000
STEPS = ("open one glacier", "compact", "open one glacier, compacted", "open all fronts, compacted")


class Template(NamedTuple):
    """A batch as it is written: its tables, items and header."""

    tables: dict[str, pa.Table]
    items: dict[str, Any]
    stored: Stored


def fill(store: str, n_batches: int, n_fronts: int, n_domains: int, only: str) -> None:
    """Write a store of `n_batches` batches with a front in each of their `n_fronts` scenes.

    With `only`, the batches of all other glaciers are nothing but a fronts file that cannot be read: enough to show
    that whoever opens that glacier reads no other, and quicker.
    """
    domains = [Domain(f"glacier-{n:03}", DOMAIN.grid, str(n)) for n in range(n_domains)]
    storage.open_store(store, crs=DOMAIN.crs, made_by={})
    for domain in domains:
        storage.keep_domain(store, domain)
    fs, root = fsspec.url_to_fs(store)
    write = partial(write_copy, fs, root, template(n_fronts))
    with ThreadPoolExecutor(8) as pool:
        wanted, rest = [], []
        for n in range(n_batches):
            domain = domains[n % n_domains]
            (wanted if only in ("", domain.glacier_id) else rest).append((n, domain.name))
        list(pool.map(write, wanted))
        list(pool.map(lambda which: put(fs, f"{root}/fronts/{which[1]}-{which[0]:016x}.parquet", FILLER), rest))


def template(n_fronts: int) -> Template:
    """Write one batch as `calfin map` would."""
    scenes = [f"LC08_L1TP_031005_20200701_2020{n:04}_02_T1" for n in range(n_fronts)]
    chance = np.random.default_rng(0)
    lines = [LineString(np.cumsum(chance.normal(0, 40, (N_VERTICES, 2)), axis=0)) for _ in scenes]
    fronts = rows(*scenes, line=lines[0])
    fronts = fronts.assign(vertex_sigma_m=[chance.normal(30, 5, N_VERTICES).tolist() for _ in scenes])
    fronts = fronts.set_geometry(lines, crs=DOMAIN.crs)
    items = {key: item(scene, assets={"nir08": {"href": f"s3://b/{scene}.tif"}}) for key, scene in zip(
        fronts["key"], scenes, strict=True)}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        storage.open_store(folder, crs=DOMAIN.crs, made_by={})
        made = storage.Tables(
            fronts, rejected_rows(*scenes), polygon_rows(*scenes, polygon=MultiPolygon([lines[0].buffer(500)]))
        )
        stored = storage.write_batch(folder, made, items, recipe={"masks": "m", "fronts": "f"})
        names = {"fronts": stored.name} | dict(stored.files)
        tables = {kind: pq.read_table(f"{folder}/{kind}/{name}") for kind, name in names.items() if kind != "items"}
    return Template(tables, items, stored)


def write_copy(fs: Any, root: str, made: Template, which: tuple[int, str]) -> None:
    """Write a batch like the template, of other scenes of a domain."""
    tables, items, stored = made
    number, domain = which
    n = len(items)
    scenes = [f"LC08_{number:05}_{i:03}" for i in range(n)]
    keys = [f"{domain}/{scene}" for scene in scenes]
    moments = pa.array([FIRST + pd.Timedelta(hours=number * n + i) for i in range(n)], pa.timestamp("us", "UTC"))
    renamed = dict(zip(items, keys, strict=True))
    bodies = {}
    for kind in ("rejected", "polygons"):
        bodies[kind] = as_parquet(copied(tables[kind], domain, keys, scenes, moments), None), "parquet"
    kept = {renamed[key]: about | {"id": renamed[key].partition("/")[2]} for key, about in items.items()}
    bodies["items"] = gzip.compress(json.dumps(kept).encode(), 1), "json.gz"
    batch = name_batch(keys)
    files = {kind: f"{batch}-{storage.digest(body)}.{ending}" for kind, (body, ending) in bodies.items()}
    about = replace(
        stored,
        name=f"{batch}.parquet",
        files=files,
        items={key: storage.item_digest(kept[key]) for key in keys},
    )
    for kind, (body, _) in bodies.items():
        put(fs, f"{root}/{kind}/{files[kind]}", body)
    fronts = copied(tables["fronts"], domain, keys, scenes, moments)
    put(fs, f"{root}/fronts/{about.name}", as_parquet(fronts, _sealed(about)))


def put(fs: Any, path: str, body: bytes) -> None:
    if "file" in fs.protocol:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    fs.pipe_file(path, body)


def copied(table: pa.Table, domain: str, keys: list[str], scenes: list[str], moments: pa.Array) -> pa.Table:
    """A table with other scenes."""
    new = {"key": pa.array(keys), "domain": pa.array([domain] * len(keys)), "scene_id": pa.array(scenes)}
    new |= {"datetime": moments.cast(table.schema.field("datetime").type)}
    if "glacier_id" in table.schema.names:
        new["glacier_id"] = pa.array([str(int(domain[-3:]))] * len(keys))
    for name, column in new.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), column)
    return table


def as_parquet(table: pa.Table, header: dict[str, bytes] | None) -> bytes:
    out = io.BytesIO()
    with pq.ParquetWriter(out, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table)
        if header:
            writer.add_key_value_metadata(header)
    return out.getvalue()


def step(name: str, store: str) -> dict[str, float]:
    """Run one step in this process."""
    began, cpu = time.perf_counter(), time.process_time()
    if name == "compact":
        n = storage.compact_store(store)[1]
    elif name.startswith("open one"):
        n = len(storage.read_fronts(store, glacier="7"))
    else:
        n = len(storage.read_fronts(store))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"n": n, "s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu, "peak_mb": peak}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--fronts-a-batch", type=int, default=25)
    parser.add_argument("--domains", type=int, default=290)
    parser.add_argument("--only", default="", metavar="GLACIER", help="fill those of all others with nothing")
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--steps", nargs="+", default=STEPS, choices=STEPS)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(*options.step)))
        return
    with contextlib.ExitStack() as stack:
        if options.s3:
            os.environ |= stack.enter_context(serve_s3()).environment
            fsspec.filesystem("s3").mkdir("many")
        store = "s3://many/store" if options.s3 else stack.enter_context(tempfile.TemporaryDirectory()) + "/store"
        began = time.perf_counter()
        fill(store, options.batches, options.fronts_a_batch, options.domains, options.only)
        print(f"filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        n = options.batches * options.fronts_a_batch
        of = f"{n:,} fronts in {options.batches:,} batches of {options.domains} glaciers"
        print(f"| {of} | rows or files | s | core-s | peak MB |")
        print("|---|---|---|---|---|")
        for name in options.steps:
            call = [sys.executable, __file__, "--step", name, store]
            told = json.loads(subprocess.run(call, stdout=subprocess.PIPE, check=True, text=True).stdout)
            print(
                f"| {name} | {told['n']:,} | {told['s']:.1f} | {told['cpu_s']:.1f} | {told['peak_mb']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
