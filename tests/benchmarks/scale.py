"""What a run costs beside its real work, at 1,000 to 100,000 scenes: `python tests/benchmarks/scale.py`.

Catalogue (a STAC API over HTTP, in a process of its own), listing, ledger, batches, Dask scheduler, two worker
processes, tables and store are real. Reading, network and tracing are replaced on the workers by functions that return
at once, so that what is left is overhead. Every row is measured in a fresh process.
"""

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
from distributed import Client
from numpy.typing import NDArray

from calfin_cloud import inference, opinions
from calfin_cloud.clusters import connect
from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.imagery import reader, stack
from calfin_cloud.pipeline import MapSettings, map_fronts, scene
from calfin_cloud.pipeline.batches import cut_batches, unknown_scenes
from calfin_cloud.pipeline.workers import load
from calfin_cloud.scenes import stream_scenes

SIZES = (1_000, 10_000, 100_000)
SCENES_A_DOMAIN = 1_000  # Greenland has some 290 glaciers with 1,700 scenes each
SIDE_PX = 64
PAGE_SIZE = 100
STRIDE = 7919  # a prime: pages come in no order of time
FIRST_DAY = datetime(1985, 1, 1, tzinfo=UTC)
MB = 2**20


class Row(NamedTuple):
    """One row of the table; planning is all that comes before the first task, for all scenes."""

    scenes: int
    domains: int
    planning_s: float
    planning_cpu_s: float
    driver_mb: float
    overhead_ms: float
    driver_cpu_ms: float
    workers_cpu_ms: float
    empty_task_ms: float
    worker_mb: float


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("sizes", type=int, nargs="*", default=SIZES, help="scenes of each row")
    options.add_argument("--scenes-a-domain", type=int, default=SCENES_A_DOMAIN)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--only-plan", action="store_true", help="leave the run out, and its columns NaN")
    call = options.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, {call.workers} workers")
    rows = []
    for size in call.sizes:
        rows.append(
            measure(size, call.scenes_a_domain, call.batch_size, n_workers=call.workers, only_plan=call.only_plan)
        )
        print(json.dumps(rows[-1]._asdict()), file=sys.stderr, flush=True)
    print(pd.DataFrame(rows).round(2).to_string(index=False))


def measure(
    n_scenes: int,
    scenes_a_domain: int = SCENES_A_DOMAIN,
    batch_size: int = 32,
    *,
    n_workers: int = 2,
    only_plan: bool = False,
) -> Row:
    """Measure one row in a process of its own."""
    mine, other = multiprocessing.get_context("spawn").Pipe()
    arguments = (n_scenes, scenes_a_domain, batch_size, n_workers, only_plan, other)
    process = multiprocessing.get_context("spawn").Process(target=_measure, args=arguments)
    process.start()
    other.close()
    try:
        return Row(*mine.recv())
    finally:
        process.join()


def _measure(
    n_scenes: int, scenes_a_domain: int, batch_size: int, n_workers: int, only_plan: bool, answer: Connection
) -> None:
    logging.getLogger("distributed").setLevel(logging.ERROR)
    n_domains = max(1, n_scenes // scenes_a_domain)
    domains = make_domains(n_domains)
    with tempfile.TemporaryDirectory() as folder, serve_catalogue(n_scenes // n_domains) as url:
        find = partial(stream_scenes, url, period="1985/..")
        with connect("local", n_workers=n_workers) as client:
            client.run(load, MapSettings())
            client.run(replace_the_real_work)
            with serve_catalogue(64) as small:
                warm_up = partial(stream_scenes, small, period="1985/..")
                map_fronts(domains[:1], warm_up, f"{folder}/warm", client=client)
            with peak_memory() as peak:
                planned = timed(lambda: plan(domains, find, f"{folder}/planned", batch_size))
                ran, empty = np.full(3, np.nan), time_empty_tasks(client)
                if not only_plan:
                    run = partial(map_fronts, domains, find, f"{folder}/store", client=client, batch_size=batch_size)
                    ran = timed(run)
    overhead = (ran - planned) / n_scenes * 1000
    answer.send(Row(n_scenes, n_domains, *planned[:2], peak["driver"] / MB, *overhead, empty, peak["worker"] / MB))


def plan(domains: list[Domain], find: Any, store: str, batch_size: int) -> None:
    """List the scenes of all domains, look them up in an empty ledger, give them places and cut them into batches."""
    for domain in domains:
        items = unknown_scenes(domain, find(domain), {}, Counter())
        for _ in cut_batches(domain, items, store, batch_size, lambda: None):
            pass


def timed(work: Any) -> NDArray[np.float64]:
    """Seconds of the clock, and of the processor in this process and in its children, that some work takes."""
    began = np.array([time.perf_counter(), time.process_time(), _seconds_of_children()])
    work()
    return np.array([time.perf_counter(), time.process_time(), _seconds_of_children()]) - began


def _seconds_of_children() -> float:
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))


def time_empty_tasks(client: Client, n: int = 500) -> float:
    """Milliseconds of an empty task of Dask, many at once: the measure of how busy the machine is."""
    began = time.perf_counter()
    client.gather(client.map(int, range(n), pure=False))
    return (time.perf_counter() - began) / n * 1000


def make_domains(n: int) -> list[Domain]:
    """Domains of 64 px, one beside the other."""
    side = SIDE_PX * 30
    boxes = [(-300_000 + side * k, -2_000_000, -300_000 + side * (k + 1), -2_000_000 + side) for k in range(n)]
    return [Domain(f"domain-{k:03d}", box_grid(bounds, 3413, 30.0)) for k, bounds in enumerate(boxes)]


def replace_the_real_work() -> None:
    """Replace what a worker spends its time on: reading, preparing, both passes of the network, writing and tracing."""
    facts = {"reason": "no_edge", "detail": "", "isolation": "", "fronts": [], "rejected": [], "polygons": None}
    stack.calibrate = lambda numbers, band: numbers
    reader.read_layer = lambda layer, grid: np.zeros(grid.shape, dtype=np.float32)
    scene.prepare_scene = lambda image, *_: np.full((*image.shape[1:], 4), opinions.OPTICAL, dtype=np.uint8)
    scene.trace_predicted = lambda predicted, grey, target, settings: facts | {"fjord": "scene"}
    opinions.networks.predict_pictures = lambda pictures, **_: np.zeros((*pictures.shape[:3], 2), dtype=np.uint8)
    inference.resize_channels = lambda channels, shape: np.zeros((*shape, 3), dtype=np.float32)
    inference.believed = lambda seen, *_: np.zeros((*seen.shape[:2], 2), dtype=np.float32)
    inference.candidates_of = lambda *_, **__: np.empty((0, 4), dtype=np.int32)


@contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """Largest memory in bytes from here on: of this process beyond what it has now, and of its largest child."""
    me, ended = psutil.Process(), threading.Event()
    start, peak = me.memory_info().rss, {"driver": 0, "worker": 0}

    def watch() -> None:
        children = me.children(recursive=True)  # of which there will be no others
        while not ended.wait(0.3):
            peak["driver"] = max(peak["driver"], me.memory_info().rss - start)
            peak["worker"] = max(peak["worker"], *(child.memory_info().rss for child in children))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


# The catalogue


@contextmanager
def serve_catalogue(n_items: int) -> Iterator[str]:
    """Serve a STAC API in a process of its own that answers every search with the same items, page by page."""
    mine, other = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(n_items, other), daemon=True)
    process.start()
    try:
        yield mine.recv()
    finally:
        process.terminate()
        process.join()


def _serve(n_items: int, answer: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    server.daemon_threads = True
    server.n_items, server.url = n_items, f"http://127.0.0.1:{server.server_port}"
    server.text = json.dumps(landsat_item())
    answer.send(server.url)
    server.serve_forever()


class _Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        url = self.server.url
        parts = ("core", "collections", "item-search")
        search = {"rel": "search", "href": f"{url}/search", "method": "POST", "type": "application/geo+json"}
        root = {"type": "Catalog", "id": "api", "description": "-", "stac_version": "1.0.0"}
        root["conformsTo"] = [f"https://api.stacspec.org/v1.0.0/{part}" for part in parts]
        root["links"] = [{"rel": "self", "href": url}, {"rel": "root", "href": url}, search]
        self._send(json.dumps(root))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        first, n = int(body.get("token", 0)), self.server.n_items
        last = min(first + PAGE_SIZE, n)
        numbers = [k * STRIDE % n for k in range(first, last)]
        features = [self.server.text.replace("@NUMBER@", f"{k:06d}").replace("@MOMENT@", _moment(k)) for k in numbers]
        link = {"rel": "next", "method": "POST", "href": f"{self.server.url}/search", "merge": True}
        links = [link | {"body": {"token": str(last)}}] if last < n else []
        text = f'"features": [{",".join(features)}], "links": {json.dumps(links)}'
        self._send(f'{{"type": "FeatureCollection", {text}}}')

    def _send(self, text: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _moment(k: int) -> str:
    return (FIRST_DAY + timedelta(hours=k)).isoformat()


def landsat_item() -> dict[str, Any]:
    """Item of the size (24 KB, 22 assets) and form of those of Landsat Collection 2 in public catalogues."""
    place = "https://landsateuwest.example.com/landsat-c2/level-2/standard/oli-tirs/2020/010/011"
    name = "LC08_L2SP_010011_@NUMBER@_02_T1"
    bands = ["coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "lwir11", "qa_pixel", "qa_aerosol"]
    others = ["ang", "atran", "cdist", "drad", "emis", "emsd", "mtl.json", "mtl.txt", "mtl.xml", "qa", "trad", "urad"]
    about = {"title": "Surface reflectance band", "description": "Collection 2 Level-2 product of one band. " * 8}
    raster = {"scale": 2.75e-05, "nodata": 0, "offset": -0.2, "data_type": "uint16", "spatial_resolution": 30}
    wave = {"name": "OLI_B5", "common_name": "nir08", "center_wavelength": 0.87, "full_width_half_max": 0.03}
    assets = {
        key: about | {"href": f"{place}/{name}/{name}_{key}.tif", "type": "image/tiff", "roles": ["data"]}
        | {"raster:bands": [raster], "eo:bands": [wave], "file:checksum": "1340" + "0123456789abcdef" * 8}
        for key in bands + others
    }  # fmt: skip
    ring = [[-60.0, 65.0], [-40.0, 65.0], [-40.0, 80.0], [-60.0, 80.0], [-60.0, 65.0]]
    properties = {"datetime": "@MOMENT@", "platform": "landsat-8", "instruments": ["oli", "tirs"], "gsd": 30}
    properties |= {"eo:cloud_cover": 12.3, "proj:epsg": 32622, "proj:shape": [8011, 7951], "view:off_nadir": 0}
    links = [{"rel": rel, "href": f"{place}/{rel}"} for rel in ("collection", "parent", "root", "alternate")]
    return {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": name, "collection": "landsat-c2-l2",
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [-60.0, 65.0, -40.0, 80.0],
        "properties": properties, "links": links, "assets": assets,
    }  # fmt: skip


if __name__ == "__main__":
    main()
