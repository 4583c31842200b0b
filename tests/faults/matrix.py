"""Faults are injected while `calfin` maps painted scenes; a table tells what became of the fronts.

`PYTHONPATH=tests python -m faults.matrix` prints it as Markdown; `--seed` repeats a run, `--only` takes some faults.
"""

import argparse
import logging
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import dask
import pytest
from fsspec.asyn import sync
from s3fs import S3FileSystem
from servers.files import serve_folder
from servers.proxy import FaultProxy, FlippingWire, listening, loopback_certificate
from servers.s3 import S3, serve_s3
from zarr.core.sync import _get_loop as zarr_loop

from calfin_cloud.clusters import KEEP_WORKERS, ended, local
from calfin_cloud.storage import read_fronts
from faults import harms, kills
from faults.harms import CATALOG, http
from faults.stage import Harm, Row, Stage
from faults.world import World, listing, paint_world, tables

Faults = Mapping[str, tuple[Harm, int]]

N_SCENES = 16
MIXED = ("503", "429", "403", "404", "reset", "late", "cut", "empty")

ALONE: Faults = {
    "503 slow down": (http("503", rate=0.35), 1),
    "429 too many requests": (http("429", rate=0.35), 1),
    "403 expired token": (http("403", rate=0.3, rounds=3), 2),
    "404 asset not there": (http("404", rate=0.3, rounds=3), 2),
    "connection reset": (http("reset", rate=0.3), 1),
    "connection reset, work done": (http("late", rate=0.3), 1),
    "body cut": (http("cut", rate=0.3, rounds=3), 2),
    "empty body": (http("empty", rate=0.3, rounds=3), 2),
    "slow server": (http("slow", rate=0.1), 1),
    "hanging server": (http("hang", rate=0.1, most=4), 1),
    "catalogue: any of these": (http(*MIXED, rate=0.05, rounds=6, paths=CATALOG), 2),
    "any of these at once": (http(*MIXED, rate=0.3, rounds=3, paths=""), 1),
    "server restarted": (kills.restarts(10), 2),
    "duplicate items": (harms.duplicate_items, 1),
    "changed items": (harms.changed_items, 2),
    "clock skew": (harms.skewed_clocks, 2),
    "writer paused, and followed": (harms.paused_writers, 2),
    "two writers at once": (harms.two_writers, 1),
    "presigned items": (harms.presigned_items, 1),
    "compaction while reading": (harms.compacted_while_read, 1),
    "verdicts across recompute": (harms.verdicts_across_recompute, 1),
    "file too large": (harms.large_files_refused, 1),
    "disk full": (harms.full_disk, 1),
}
"""Name of a fault, what does it, and in how many stores; all is mapped in one process."""

ON_WORKERS: Faults = {
    "any of these at once, two workers": (http(*MIXED, rate=0.3, rounds=3), 1),
    "worker killed": (kills.killed_workers(8), 2),
    "out of memory": (kills.starved_workers(6), 1),
    "driver killed": (kills.killed_drivers(4), 1),
    "scheduler killed": (kills.killed_schedulers(3), 1),
}
"""The same for scenes that two workers map."""

ON_THE_WIRE: Faults = {"bit flipped on the wire (https)": (harms.flipped_wire(0.03), 2)}

WRITES, STORES = ("PUT", "POST", "DELETE"), r"/store-"
IN_S3: Faults = {
    "S3: 503 slow down": (http("503", rate=0.1, rounds=2, paths=""), 1),
    "S3: connection reset": (http("reset", rate=0.1, rounds=2, paths=""), 1),
    "S3: connection reset, write done": (http("late", rate=0.2, rounds=2, paths=STORES, methods=WRITES), 1),
    "S3: body cut": (http("cut", rate=0.1, rounds=2, paths=STORES), 1),
    "S3: bit flipped in what the store sends": (http("flip", rate=0.05, rounds=2, paths=STORES), 1),
    "S3: 403 expired token": (http("403", rate=0.02, rounds=3, paths=""), 1),
}
"""The same for scenes and stores in a bucket."""

UPDATES: Faults = {"two updaters, one paused": (harms.two_updaters, 1)}
"""Of stores that are complete; last, since a row's place decides its seed."""

TABLES = (ALONE, ON_WORKERS, ON_THE_WIRE, IN_S3, UPDATES)
CLUSTER_LOST_OR_HELD = 3
WORKER_MEMORY = "1600MiB"
HEAD = (
    "fault | injected | scenes hit | lost | doubled | changed | tables in the end | second run writes | s | ended with"
)
HEAD += " | states while it lasted"


def endure(stage: Stage, harm: Harm, row: Row) -> Row:
    """Map into a new store while a harm lasts, then without it until all is done, and compare; add it to the row."""
    store, start = f"{stage.stores}/store-{stage.seed}", time.monotonic()
    with harm(stage, store, row) as after:
        until_it_may(after.map, store)
        after.retry(store)
        row.look(after, store, finished=True)
        row.unlike |= unlike(tables(after.world.undisturbed), tables(store))
        before = listing(store)
        after.map(store)
        row.written |= unlike(before, listing(store))
    row.seconds += time.monotonic() - start
    return row


def until_it_may(run: Callable[[str], int], store: str) -> None:
    """Run again while the store is held: by one that was not let give it back, for 90 s."""
    while run(store) == CLUSTER_LOST_OR_HELD:
        time.sleep(15)


def map_undisturbed(stage: Stage) -> Stage:
    """Map the world before any harm is done; workers do it once more, so that the stage knows how long that takes."""
    code = stage.map(stage.world.undisturbed)
    failed = read_fronts(stage.world.undisturbed).query("state == 'failed'")["detail"].tolist()
    assert code == 0, f"the undisturbed run ended with {code}: {failed[:3]}"
    if not stage.workers:
        return stage
    began = time.monotonic()
    assert stage.map(f"{stage.world.undisturbed}-again") == 0
    return replace(stage, seconds=time.monotonic() - began)


def unlike(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    """Names of what differs."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def is_sound(row: Row) -> bool:
    """Whether nothing was lost, doubled or changed, the tables are the same bytes, and a second run wrote nothing."""
    return not (row.lost or row.doubled or row.changed or row.unlike or row.written)


def cells(name: str, row: Row) -> list[str]:
    """Words of a row of the table."""
    counts = [row.injected.total(), *(len(keys) for keys in (row.hit, row.lost, row.doubled, row.changed))]
    same = "same bytes" if not row.unlike else f"{len(row.unlike)} differ"
    seen = ", ".join(f"{n} {state}" for state, n in row.states.most_common()) or "none yet"
    ended = ", ".join(f"{n} x {code}" for code, n in sorted(row.ended.items()))
    return [name, *map(str, counts), same, f"{len(row.written)} files", f"{row.seconds:.0f}", ended, seen]


@contextmanager
def staged(folder: Path, seed: int, *, n_scenes: int = N_SCENES, n_workers: int = 0) -> Iterator[Stage]:
    """Paint a world, serve it through a proxy, start workers, and map it once undisturbed."""
    folder.mkdir(parents=True, exist_ok=True)
    painted = paint_world(folder / "painted", n_scenes, seed)
    with serve_folder(painted) as server, listening(FaultProxy(server.url)) as proxy, ExitStack() as stack:
        stack.enter_context(dask.config.set(KEEP_WORKERS))  # as `connect` does
        workers = stack.enter_context(ended(local(n_workers, worker_memory=WORKER_MEMORY))) if n_workers else None
        stage = Stage(World(painted, proxy.url, f"{folder}/undisturbed"), proxy, str(folder), seed, workers)
        yield map_undisturbed(stage)


@contextmanager
def staged_on_wire(folder: Path, seed: int, *, n_scenes: int = N_SCENES) -> Iterator[Stage]:
    """Paint a world and serve it over https through a wire that flips bits."""
    folder.mkdir(parents=True, exist_ok=True)
    painted = paint_world(folder / "painted", n_scenes, seed)
    names = ("GDAL_CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")  # rasterio sets the first to its own list unless it is set
    tls = loopback_certificate(folder / "trusted.pem")
    with (
        pytest.MonkeyPatch.context() as patch,
        serve_folder(painted) as server,
        listening(FaultProxy(server.url, tls)) as proxy,
        listening(FlippingWire(proxy.url)) as wire,
    ):
        for name in names:
            patch.setenv(name, str(folder / "trusted.pem"))
        stage = Stage(World(painted, wire.url, f"{folder}/undisturbed"), proxy, str(folder), seed, wire=wire)
        yield map_undisturbed(stage)


@contextmanager
def staged_in_s3(folder: Path, seed: int, s3: S3, *, n_scenes: int = N_SCENES) -> Iterator[Stage]:
    """Paint a world into a bucket, where the stores go too; all of it is reached through the proxy."""
    painted = paint_world(folder / "painted", n_scenes, seed)
    bucket = f"faults-{uuid.uuid4().hex[:8]}"
    with pytest.MonkeyPatch.context() as patch, listening(FaultProxy(s3.endpoint)) as proxy:
        for name, value in replace(s3, endpoint=proxy.url).environment.items():
            patch.setenv(name, value)
        forget_connections()
        files = S3FileSystem()
        files.mkdir(bucket)
        files.put(f"{painted}/", f"{bucket}/scenes/", recursive=True)
        world = World(painted, f"s3://{bucket}/scenes", f"s3://{bucket}/undisturbed")
        stage = Stage(world, proxy, f"s3://{bucket}", seed)
        yield map_undisturbed(stage)
    forget_connections()


def forget_connections() -> None:
    """Close all connections to S3: they go on to the server that the environment named when they were made."""
    for files in list(S3FileSystem._cache.values()):
        if files._s3 is not None:  # zarr's own copies live in its own loop
            sync(zarr_loop() if files.asynchronous else files.loop, files._s3.__aexit__, None, None, None, timeout=30)
    S3FileSystem.clear_instance_cache()


def run_all(folder: Path, seed: int, only: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """Run every fault of the tables in its stores; yield its row."""
    first = {name: seed * 1000 + 10 * place for place, name in enumerate(name for table in TABLES for name in table)}
    for number, (faults, staging) in enumerate(zip(TABLES, STAGINGS, strict=True)):
        if wanted := [name for name in faults if not only or name in only]:
            with staging(folder / str(number), seed) as stage:
                for name in wanted:
                    harm, times = faults[name]
                    row = Row()
                    for n in range(times):
                        endure(replace(stage, seed=first[name] + n), harm, row)
                    yield name, row


@contextmanager
def staged_in_own_s3(folder: Path, seed: int) -> Iterator[Stage]:
    """Stage a world in an S3 server that is started for it."""
    with serve_s3() as s3, staged_in_s3(folder, seed, s3) as stage:
        yield stage


STAGINGS = (staged, partial(staged, n_workers=2), staged_on_wire, staged_in_own_s3, staged)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if anything was lost, doubled, changed or written twice, or a fault never came."""
    parser = argparse.ArgumentParser(prog="faults.matrix", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="FAULT", choices=[name for table in TABLES for name in table]
    )
    parser.add_argument("--verbose", action="store_true", help="log how runs ended that could not begin or go on")
    options = parser.parse_args(words)
    logging.basicConfig()
    logging.getLogger("faults").setLevel(logging.INFO if options.verbose else logging.WARNING)
    print(f"| {HEAD} |\n|{'---|' * (HEAD.count('|') + 1)}", flush=True)
    sound, total = True, 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        for name, row in run_all(Path(folder), options.seed, options.only):
            sound, total = sound and is_sound(row) and bool(row.injected), total + row.injected.total()
            print(f"| {' | '.join(cells(name, row))} |", flush=True)
            if not row.injected:
                print(f"seed {options.seed}, {name}: nothing was injected, so this row says nothing", file=sys.stderr)
            for what in ("lost", "doubled", "changed", "unlike", "written"):
                if found := getattr(row, what):
                    print(f"seed {options.seed}, {name}: {what}: {sorted(found)[:6]}", file=sys.stderr)
    print(f"\n{total} faults, seed {options.seed}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
