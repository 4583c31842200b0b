"""Processes that end or starve while `calfin` maps: servers, workers, schedulers, drivers."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from distributed import Client
from distributed.core import Status
from servers.processes import free_ports, listens

from faults.stage import Harm, Row, Stage, unfinished, wait_for
from faults.world import calfin_process

EARLY = (0.05, 0.4)
"""When what is to be killed is killed, in parts of the time of an undisturbed run: later ones may have ended."""


def restarts(most: int, away_s: tuple[float, float] = (0.5, 2.0)) -> Harm:
    """A server that goes away and comes back: open connections break, new ones are refused."""

    @contextmanager
    def harm(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
        draw = stage.draw

        def restart() -> None:
            row.hit |= unfinished(stage, store)
            stage.proxy.stop()
            time.sleep(draw.uniform(*away_s))
            stage.proxy.start()
            row.injected["restart"] += 1

        with repeatedly(restart, most, lambda: draw.uniform(0.3, 2.0)):
            row.ended[stage.map(store)] += 1
        row.look(stage, store)
        yield stage

    return harm


def killed_workers(most: int) -> Harm:
    """Workers killed at random times; their nannies start others."""
    return harmed_workers("SIGKILL", lambda stage, draw: kill_one(worker_ids(stage), draw), most)


def starved_workers(most: int) -> Harm:
    """Workers whose memory something else fills, until their nannies end them."""
    return harmed_workers("out of memory", fill_memory_of_one, most)


def harmed_workers(what: str, act: Callable[[Stage, random.Random], bool], most: int) -> Harm:
    """Workers that suffer an act at random times, while all scenes are mapped."""

    @contextmanager
    def harm(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
        draw = stage.draw

        def once() -> None:
            row.hit |= unfinished(stage, store)
            row.injected[what] += act(stage, draw)

        with repeatedly(once, most, lambda: draw.uniform(*EARLY) * stage.seconds):
            row.ended[stage.map(store)] += 1
        row.look(stage, store)
        yield stage

    return harm


def killed_drivers(most: int) -> Harm:
    """The process of `calfin map` killed some time after it began to write."""

    @contextmanager
    def harm(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
        draw = stage.draw
        for _ in range(most):
            driver = calfin_process(*stage.world.map_call(store, cluster=stage.cluster))
            wait_for(lambda process=driver: process.poll() is not None or list(Path(store).glob("lease-*.json")))
            time.sleep(draw.uniform(*EARLY) * stage.seconds)
            if driver.poll() is None:
                row.hit |= unfinished(stage, store)
                driver.kill()
                row.injected["SIGKILL"] += 1
            driver.wait()
            row.look(stage, store)
        yield stage

    return harm


def killed_schedulers(most: int, wait_s: tuple[float, float] = (1.0, 8.0)) -> Harm:
    """The scheduler killed in the midst of a run, which has to end and to say so; the next run has another one."""

    @contextmanager
    def harm(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
        draw = stage.draw
        for _ in range(most):
            with own_cluster() as (address, scheduler, *_):
                kill = threading.Timer(draw.uniform(*wait_s), scheduler.kill)
                kill.start()
                row.ended[code := stage.world.map(store, cluster=address)] += 1
                kill.cancel()
            if code:
                row.injected["SIGKILL"] += 1
                row.hit |= unfinished(stage, store)
            row.look(stage, store)
        yield stage

    return harm


@contextmanager
def killed_in_turn(stage: Stage, store: str, row: Row) -> Iterator[Stage]:
    """A worker, then the driver, then the scheduler of the next driver: each killed once while scenes are mapped."""
    with own_cluster() as (address, scheduler, worker, _):
        driver = calfin_process(*stage.world.map_call(store, cluster=address))
        wait_for(lambda: any(Path(store).glob("masks/*/masks/c/*")) or driver.poll() is not None)
        for process in (worker, driver):
            row.hit |= unfinished(stage, store)
            row.injected["SIGKILL"] += process.poll() is None
            process.kill()
        driver.wait()
        row.look(stage, store)
        with killed_when(changed(Path(store, "lease-holder.json")), scheduler):  # the next driver is connected by then
            row.ended[stage.world.map(store, cluster=address)] += 1
        row.injected["SIGKILL"] += 1
        row.look(stage, store)
    yield stage


@contextmanager
def killed_when(is_so: Callable[[], bool], process: Any) -> Iterator[None]:
    """Kill a process as soon as something is so."""

    def kill() -> None:
        wait_for(is_so)
        process.kill()

    killing = threading.Thread(target=kill)
    killing.start()
    yield
    killing.join()


def changed(path: Path) -> Callable[[], bool]:
    """Return what tells whether a file has another content than now."""
    before = path.read_bytes()
    return lambda: path.is_file() and path.read_bytes() != before


@contextmanager
def own_cluster() -> Iterator[tuple[Any, ...]]:
    """A scheduler and two workers, each a process of its own without a nanny: its address, and the three."""
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "distributed.cli."]
    scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = ["dask_worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    started = []
    try:
        for module, *words in (scheduler, worker, worker):
            started.append(subprocess.Popen([*dask[:2], dask[2] + module, *words], **quiet))
            wait_for(lambda: listens(port))
        yield address, *started
    finally:
        for process in started:
            process.kill()
            process.wait()


@contextmanager
def repeatedly(act: Callable[[], None], most: int, pause: Callable[[], float]) -> Iterator[None]:
    """Act again and again in a thread while the block runs, at most so often, after pauses of some seconds."""
    stop, trouble = threading.Event(), list[Exception]()

    def run() -> None:
        try:
            for _ in range(most):
                if stop.wait(pause()):
                    return
                act()
        except Exception as error:
            trouble.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if trouble:
            raise trouble[0]


def worker_ids(stage: Stage) -> list[int]:
    """Process ids of the workers that have started: a nanny whose worker dies before that gives up for good."""
    assert stage.workers is not None, "this harm needs workers"
    nannies = [nanny for nanny in stage.workers.workers.values() if nanny.process]
    running = [nanny for nanny in nannies if nanny.status == nanny.process.status == Status.running]
    return [nanny.pid for nanny in running if nanny.worker_address in stage.workers.scheduler.workers]


def kill_one(processes: list[int], draw: random.Random) -> bool:
    """Kill one of the processes; say whether there was one."""
    with suppress(ProcessLookupError, IndexError):
        os.kill(draw.choice(processes), signal.SIGKILL)
        return True
    return False


def fill_memory_of_one(stage: Stage, draw: random.Random) -> bool:
    """Let a worker take more memory than it may have; say whether its nanny has ended it for that."""
    assert stage.workers is not None, "this harm needs workers"
    nanny = draw.choice(list(stage.workers.workers.values()))
    if not (nanny.pid and psutil.pid_exists(nanny.pid)):
        return False
    process = psutil.Process(nanny.pid)
    with Client(stage.workers, set_as_default=False) as client:
        client.run(fill_memory, workers=[nanny.worker_address], on_error="ignore")  # it does not come back
        return not psutil.wait_procs([process], timeout=20)[1]


_held: list[np.ndarray] = []


def fill_memory() -> None:
    """Hold more memory than a worker of `matrix.WORKER_MEMORY` may have."""
    _held.append(np.ones(2**31, dtype=np.uint8))
