"""What may go wrong while `calfin` maps: each harm maps into a store as long as it lasts, and tidies up in the end."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from servers.files import serve_folder
from servers.proxy import Plan
from shapely.geometry import mapping

from faults.stage import Harm, Row, Stage, unfinished, wait_for
from faults.world import calfin, calfin_process, listing

SCENES, CATALOG = r"\.tif$", r"\.json$"


def http(*kinds: str, rate: float, rounds: int = 1, paths: str = SCENES, **more: Any) -> Harm:
    """Faults of HTTP by a seeded plan, in some runs after one another."""

    @contextmanager
    def harm(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
        for n in range(rounds):
            stage.proxy.suffer(Plan(kinds, rate, stage.seed * 100 + n, paths=paths, **more))
            row.ended[stage.map(store)] += 1
            row.ended[stage.retry(store)] += 1
            row.injected.update(stage.proxy.injected)
            row.hit.update(path.rpartition("/")[2] for path in stage.proxy.hit)
            stage.proxy.suffer(None)
            row.look(stage, store)
        yield stage

    return harm


def flipped_wire(rate: float) -> Harm:
    """Bits flipped below TLS, in what the server sends."""

    @contextmanager
    def harm(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
        assert stage.wire is not None
        stage.wire.rate, stage.wire.seed, stage.wire.injected = rate, stage.seed, 0
        for _ in range(3):
            row.ended[stage.map(store)] += 1
            row.ended[stage.retry(store)] += 1
            row.look(stage, store)
        row.injected["flip"] += stage.wire.injected
        row.hit |= unfinished(stage, "")
        stage.wire.rate = 0.0
        yield stage

    return harm


@contextmanager
def large_files_refused(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """A disk that takes no file above some size: a limit of this process, which any user may set."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (2_000, 10_000, 20_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            row.ended[stage.world.map(store)] += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        row.injected["limit"] += 1
        row.hit |= unfinished(stage, store)
        row.look(stage, store)
    yield stage


@contextmanager
def full_disk(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """A disk that runs full, three times, each time with some more room; needs root."""
    Path(store).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", store], check=True)
    try:
        for size in ("100k", "300k", "600k"):
            subprocess.run(["mount", "-o", f"remount,size={size}", store], check=True)
            row.ended[stage.map(store)] += 1
            row.injected["full"] += 1
            row.hit |= unfinished(stage, store)
            row.look(stage, store)
        subprocess.run(["mount", "-o", "remount,size=100m", store], check=True)
        yield stage
    finally:
        subprocess.run(["umount", "--lazy", store], check=True)


@contextmanager
def duplicate_items(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """A catalogue that lists every item three times."""

    def repeat(folder: Path) -> None:
        for path in folder.glob("*/collection.json"):
            collection = json.loads(path.read_text())
            items = [link for link in collection["links"] if link["rel"] == "item"]
            collection["links"] += items + items
            path.write_text(json.dumps(collection))
            row.injected["duplicate"] += 2 * len(items)

    with other_catalogue(stage, repeat):
        row.ended[stage.map(store)] += 1
        row.hit |= unfinished(stage, "")
        row.look(stage, store)
        yield stage


@contextmanager
def changed_items(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """Items whose pixels are others from the second run on, half of the scenes having failed in the first."""
    draw = stage.draw

    def change(folder: Path) -> None:
        items = sorted(folder.glob("*/*/*.json"))
        for path in draw.sample(items, max(1, len(items) // 3)):
            item = json.loads(path.read_text())
            darken(path.parent)
            for asset in item["assets"].values():  # what says of a file that it is another one
                if (file := path.parent / asset["href"]).suffix == ".tif":
                    asset["file:checksum"] = "1220" + hashlib.sha256(file.read_bytes()).hexdigest()
            path.write_text(json.dumps(item))
            row.injected["changed"] += 1
            row.hit.add(path.parent.name)

    stage.proxy.suffer(Plan(("404",), 0.3, stage.seed, paths=SCENES))
    row.ended[stage.map(store)] += 1
    row.look(stage, store)
    stage.proxy.suffer(None)
    with other_catalogue(stage, change) as after:
        row.ended[stage.map(store, "--recompute")] += 1
        yield after


@contextmanager
def skewed_clocks(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """Scenes taken in the future, and a store half of whose files date from years ahead or back."""
    draw = stage.draw

    def date_ahead(folder: Path) -> None:
        for path in sorted(folder.glob("*/*/*.json"))[::3]:
            item = json.loads(path.read_text())
            moment = item["properties"]["datetime"]
            item["properties"] |= {"datetime": f"{int(moment[:4]) + 60}{moment[4:]}", "created": "2099-01-01T00:00:00Z"}
            path.write_text(json.dumps(item))
            row.injected["ahead"] += 1
            row.hit.add(path.parent.name)

    with other_catalogue(stage, date_ahead) as after:
        stage.proxy.suffer(Plan(("404",), 0.3, stage.seed, paths=SCENES))
        row.ended[stage.map(store)] += 1
        stage.proxy.suffer(None)
        row.look(after, store)
        for path in sorted(Path(store).rglob("*")):
            os.utime(path, times=(time.time() + draw.uniform(-1, 1) * 3e8,) * 2)
            row.injected["dated"] += 1
        yield after


@contextmanager
def paused_writers(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """A driver stopped for longer than its lease and woken after another run has done its work, twice."""
    for _ in range(2):
        pause_and_follow(stage, store, row, *stage.world.map_call(store, cluster=stage.cluster))
        row.look(stage, store)
    yield stage


@contextmanager
def two_updaters(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """Two drivers that trace all fronts anew: started at once, and one paused while the other does its work, twice."""
    row.ended[stage.map(store)] += 1
    row.hit |= unfinished(stage, "")
    call = ("retrace", store, "--all", "--cluster", stage.cluster)
    for _ in range(2):
        both = [calfin_process(*call) for _ in range(2)]
        row.injected["second updater"] += 1
        row.ended.update(process.wait() for process in both)
        row.look(stage, store, finished=True)
        pause_and_follow(stage, store, row, *call)
        row.look(stage, store, finished=True)
    yield stage


def pause_and_follow(stage: Stage, store: str, row: Row, *call: str) -> None:
    """Stop a driver once it holds the store, for longer than its lease, and wake it when another has done its work."""
    sleeper = calfin_process(*call)
    wait_for(lambda: sleeper.poll() is not None or list(Path(store).glob("lease-*.json")))
    time.sleep(stage.draw.uniform(0.0, 0.5))
    if sleeper.poll() is None:
        row.hit |= unfinished(stage, store)
        sleeper.send_signal(signal.SIGSTOP)
        for path in Path(store).glob("lease-*"):
            os.utime(path, times=(time.time() - 1000,) * 2)
        row.ended[calfin(*call)] += 1
        sleeper.send_signal(signal.SIGCONT)
        row.injected["pause"] += 1
    row.ended[sleeper.wait()] += 1


@contextmanager
def two_writers(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """Two drivers started at once, twice: one maps, the other is told so."""
    for _ in range(2):
        both = [calfin_process(*stage.world.map_call(store, cluster=stage.cluster)) for _ in range(2)]
        row.hit |= unfinished(stage, store)
        row.injected["second writer"] += 1
        row.ended.update(process.wait() for process in both)
        row.look(stage, store)
    yield stage


@contextmanager
def presigned_items(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """A catalogue that signs its addresses anew for every search: nothing has changed, and nothing is mapped again."""
    draw = stage.draw

    def sign(folder: Path) -> None:
        for path in sorted(folder.glob("*/*/*.json")):
            item = json.loads(path.read_text())
            for asset in item["assets"].values():
                address = asset["href"].partition("?")[0]
                asset["href"] = f"{address}?X-Amz-Date=20260101T000000Z&X-Amz-Signature={draw.randbytes(8).hex()}"
                row.injected["signature"] += 1
            path.write_text(json.dumps(item))
            row.hit.add(path.parent.name)

    with other_catalogue(stage, sign) as after:
        row.ended[stage.map(store)] += 1
        for _ in range(2):
            before = listing(store)
            sign(after.world.folder.with_name(f"copy-{stage.seed}-sign"))
            row.ended[stage.map(store, "--recompute")] += 1
            row.written |= {name for name, about in listing(store).items() if before.get(name) != about}
        row.look(after, store)
        yield after


@contextmanager
def compacted_while_read(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """Copies of the store that are compacted in a process of their own while they are read again and again."""
    row.ended[stage.map(store)] += 1
    for n in range(3):
        copy = shutil.copytree(store, f"{store}-copy-{n}")
        compacting = calfin_process("compact", copy, "--scenes", str(2 ** (n + 2)))
        while compacting.poll() is None:
            row.look(stage, copy, finished=True)
            row.injected["read"] += 1
        row.ended[compacting.wait()] += 1
        row.look(stage, copy, finished=True)
        row.hit |= unfinished(stage, "")
        shutil.rmtree(copy)
    yield stage


@contextmanager
def verdicts_across_recompute(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """Fronts drawn anew by a person, before half of the scenes change their pixels: each drawn line must stay."""
    from calfin_cloud.results import apply_verdicts, reviewed_fronts  # noqa: PLC0415

    draw = stage.draw

    def change(folder: Path) -> None:
        for path in sorted(folder.glob("*/*/*.json"))[::2]:
            item = json.loads(path.read_text())
            darken(path.parent)
            for asset in item["assets"].values():
                asset["file:checksum"] = "1220" + draw.randbytes(32).hex()
            path.write_text(json.dumps(item))
            row.hit.add(path.parent.name)

    row.ended[stage.map(store)] += 1
    found = reviewed_fronts(store).query("state == 'front'")
    verdict = {"verdict": "redraw", "author": "a", "time": "2026-01-01T00:00:00Z"}
    drawn = {(r.key, r.front): r.geometry.simplify(50.0) for r in found.itertuples()}
    apply_verdicts(
        store, [verdict | {"key": k, "front": n, "geometry": mapping(line)} for (k, n), line in drawn.items()]
    )
    row.injected["verdict"] += len(drawn)
    with other_catalogue(stage, change) as after:
        row.ended[stage.map(store, "--recompute")] += 1
        kept = reviewed_fronts(store).query("verdict == 'redraw'")
        lines = {(r.key, r.geometry.wkt) for r in kept.itertuples()}
        row.lost |= {key for (key, _), line in drawn.items() if (key, line.wkt) not in lines}
        yield after


@contextmanager
def other_catalogue(stage: Stage, change: Callable[[Path], None]) -> Iterator[Stage]:
    """Serve a changed copy of the world in its place; lends a stage whose undisturbed run is of the copy."""
    folder = stage.world.folder.with_name(f"copy-{stage.seed}-{change.__name__}")
    shutil.copytree(stage.world.folder, folder)
    change(folder)
    before = stage.proxy.upstream
    with serve_folder(folder) as server:
        stage.proxy.upstream = urlsplit(server.url)
        try:
            world = replace(stage.world, undisturbed=f"{folder}-undisturbed")
            if change.__name__ == "repeat":
                world = stage.world
            elif (code := world.map(world.undisturbed)) != 0:
                raise AssertionError(f"the undisturbed run of the copy ended with {code}")
            yield replace(stage, world=world)
        finally:
            stage.proxy.upstream = before


def darken(folder: Path) -> None:
    """Change the pixels of a scene's files."""
    import rasterio  # noqa: PLC0415

    for path in folder.glob("*.tif"):
        with rasterio.open(path) as file:
            values, profile = file.read(), file.profile
        if values.dtype != "uint8":
            with rasterio.open(path, "w", **profile) as file:
                file.write((values[:, :, ::-1]).astype(values.dtype))
