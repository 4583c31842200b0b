"""Faults are injected while `calfin` maps painted scenes; a table tells what became of the fronts.

`PYTHONPATH=tests python -m faults.matrix` prints it as Markdown; `--seed` repeats a run, `--only` takes some faults.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from servers.files import serve_folder
from servers.proxy import FaultProxy, FlippingWire, listening, loopback_certificate

from calfin_cloud.clusters import local
from faults import harms
from faults.harms import CATALOG, Harm, Row, Stage, http
from faults.world import World, listing, paint_world, tables

N_SCENES = 16
MIXED = ("503", "429", "403", "404", "reset", "late", "cut", "empty")

FAULTS: Mapping[str, tuple[Harm, int]] = {
    "503 slow down": (http("503", rate=0.35), 3),
    "429 too many requests": (http("429", rate=0.35), 3),
    "403 expired token": (http("403", rate=0.3, rounds=3), 2),
    "404 asset not there": (http("404", rate=0.3, rounds=3), 2),
    "connection reset": (http("reset", rate=0.3), 2),
    "connection reset, work done": (http("late", rate=0.3), 2),
    "body cut": (http("cut", rate=0.3, rounds=3), 2),
    "empty body": (http("empty", rate=0.3, rounds=3), 2),
    "slow server": (http("slow", rate=0.1), 1),
    "hanging server": (http("hang", rate=0.1, most=4), 1),
    "catalogue: any of these": (http(*MIXED, rate=0.05, rounds=6, paths=CATALOG), 2),
    "any of these at once": (http(*MIXED, rate=0.3, rounds=3, paths=""), 2),
    "server restarted": (harms.restarts(10), 2),
    "duplicate items": (harms.duplicate_items, 1),
    "changed items": (harms.changed_items, 2),
    "clock skew": (harms.skewed_clocks, 2),
    "file too large": (harms.large_files_refused, 1),
    "disk full": (harms.full_disk, 1),
    "worker killed": (harms.killed_workers(8), 2),
    "out of memory": (harms.starved_workers(10), 1),
    "driver killed": (harms.killed_drivers(4), 1),
    "scheduler killed": (harms.killed_schedulers(3), 1),
}
"""Name of a fault, what does it, and in how many stores."""

ON_THE_WIRE = "bit flipped on the wire (https)"
HEAD = (
    "fault | injected | scenes hit | lost | doubled | changed | tables in the end | second run writes | s | ended with"
)
HEAD += " | states while it lasted"


def endure(stage: Stage, harm: Harm, row: Row) -> Row:
    """Map into a new store while a harm lasts, then without it until all is done, and compare; add it to the row."""
    store, start = str(stage.folder / f"store-{stage.seed}"), time.monotonic()
    with harm(stage, store, row) as after:
        after.map(store)
        after.retry(store)
        row.look(after, store, finished=True)
        row.unlike |= unlike(tables(after.world.undisturbed), tables(store))
        before = listing(store)
        after.map(store)
        row.written |= unlike(before, listing(store))
    row.seconds += time.monotonic() - start
    return row


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
        workers = stack.enter_context(local(n_workers)) if n_workers else None
        stage = Stage(World(painted, proxy.url, str(folder / "undisturbed")), proxy, workers, folder, seed)
        assert stage.map(stage.world.undisturbed) == 0
        yield stage


@contextmanager
def staged_on_wire(folder: Path, seed: int, *, n_scenes: int = N_SCENES) -> Iterator[Stage]:
    """Paint a world and serve it over https through a wire that flips bits."""
    folder.mkdir(parents=True, exist_ok=True)
    painted = paint_world(folder / "painted", n_scenes, seed)
    trusted = {name: str(folder / "trusted.pem") for name in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")}
    before = {name: os.environ.get(name) for name in trusted}
    os.environ.update(trusted)
    tls = loopback_certificate(folder / "trusted.pem")
    try:
        with (
            serve_folder(painted) as server,
            listening(FaultProxy(server.url, tls)) as proxy,
            listening(FlippingWire(proxy.url)) as wire,
        ):
            world = World(painted, wire.url, str(folder / "undisturbed"))
            stage = Stage(world, proxy, None, folder, seed, wire)
            assert stage.map(world.undisturbed) == 0
            yield stage
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def run_all(folder: Path, seed: int, only: Sequence[str] = ()) -> Iterator[tuple[str, Row]]:
    """Run every fault of the table in its stores; yield its row."""
    with staged(folder / "http", seed, n_workers=2) as stage:
        for place, (name, (harm, times)) in enumerate(FAULTS.items()):
            if not only or name in only:
                row = Row()
                for n in range(times):
                    endure(replace(stage, seed=seed * 1000 + place * 10 + n), harm, row)
                yield name, row
    if not only or ON_THE_WIRE in only:
        with staged_on_wire(folder / "https", seed) as stage:
            yield ON_THE_WIRE, endure(stage, harms.flipped_wire(0.1), Row())


def main(words: Sequence[str] | None = None) -> int:
    """Print the table as Markdown; return 1 if anything was lost, doubled, changed, or written twice."""
    parser = argparse.ArgumentParser(prog="faults.matrix", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=(), metavar="FAULT", choices=[*FAULTS, ON_THE_WIRE])
    options = parser.parse_args(words)
    print(f"| {HEAD} |\n|{'---|' * (HEAD.count('|') + 1)}", flush=True)
    sound, total = True, 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        for name, row in run_all(Path(folder), options.seed, options.only):
            sound, total = sound and is_sound(row), total + row.injected.total()
            print(f"| {' | '.join(cells(name, row))} |", flush=True)
            for what in ("lost", "doubled", "changed", "unlike", "written"):
                if found := getattr(row, what):
                    print(f"seed {options.seed}, {name}: {what}: {sorted(found)[:6]}", file=sys.stderr)
    print(f"\n{total} faults, seed {options.seed}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
