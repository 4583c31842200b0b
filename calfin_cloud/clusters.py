"""Each function returns a Dask cluster for `distributed.Client`: on this machine, or one that runs already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import dask
import psutil
from distributed import Client, LocalCluster

WORKER_MEMORY = 2 * 2**30  # one TensorFlow process with a scene and its masks stays below 1.5 GiB


def local(n_workers: int | None = None) -> LocalCluster:
    """Start worker processes on this machine, one thread each, as many as cores and memory allow.

    One thread a worker, because tracing is plain Python and the network's library shares its own threads.
    """
    if n_workers is None:
        n_workers = max(1, min(os.cpu_count() or 1, int(psutil.virtual_memory().total * 0.8 / WORKER_MEMORY)))
    with dask.config.set({"distributed.worker.daemon": True}):
        return LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=None)


@contextmanager
def connect(cluster: str, *, n_workers: int | None = None) -> Iterator[Client | None]:
    """Open a client for the time of a run and close what was started for it.

    `local` starts workers on this machine, `none` gives None (no Dask cluster), an address such as tcp://10.0.0.1:8786
    joins the scheduler there.
    """
    if cluster == "none":
        yield None
    elif cluster == "local":
        with local(n_workers) as workers, Client(workers, set_as_default=False) as client:
            yield client
    elif "://" in cluster:
        with Client(cluster, set_as_default=False, timeout="20s") as client:
            yield client
    else:
        raise ValueError(f"--cluster must be local, none or a scheduler's address (tcp://host:8786), got {cluster!r}")
