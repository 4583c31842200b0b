"""A Dask cluster of plain processes on loopback, which a test may kill one by one."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Farm:
    """A scheduler and workers without nannies: who kills one has lost it, as on a spot node."""

    def __init__(self, n_workers: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        self.workers = [self.start_worker() for _ in range(n_workers)]

    def start_worker(self, *more: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        words = [self.address, "--no-nanny", "--no-dashboard", "--nthreads", "1", *more]
        return self._start("worker", *words, **environment)

    def close(self) -> None:
        """Kill what still runs."""
        for process in [*self.workers, self.scheduler]:
            kill(process)

    def _start(self, what: str, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # what a nanny would set
        # Not `dask worker`: that imports dask-kubernetes first, for a verb that it adds.
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *words]
        return subprocess.Popen(command, env=os.environ | threads | environment, **quiet)


@contextmanager
def farm(n_workers: int) -> Iterator[Farm]:
    """Run a scheduler and workers until the block ends."""
    running = Farm(n_workers)
    try:
        yield running
    finally:
        running.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process as a spot node ends, and wait until it is gone."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait(300)


def wait_until(true: Callable[[], Any], *, timeout_s: float = 600) -> None:
    """Wait for something that comes true while other processes work."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
