"""Numbers of workers, their memory, and how long a start may take: read and checked, for any kind of cluster."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dask.utils import parse_bytes

NWorkers = int | tuple[int, int] | None
"""A number of workers, or the fewest and the most between which Dask follows the work; None is for the place to say."""

WORKER_MEMORY = 2 * 2**30  # one TensorFlow process with a scene and its masks stays below 1.5 GiB
LEAST_MEMORY = 2**29
START_S = 900.0  # a node of a cloud boots and fetches an image of 3 GB in less


def bounds_of(n_workers: int | tuple[int, int]) -> tuple[int, int]:
    """Fewest and most workers; at least one, whose versions can be checked before the run starts."""
    fewest, most = n_workers if isinstance(n_workers, tuple) else (n_workers, n_workers)
    if not 1 <= fewest <= most:
        raise ValueError(f"workers must be a number from 1 or MIN:MAX with 1 <= MIN <= MAX, got {n_workers}")
    return fewest, most


def sized(cluster: Any, n_workers: int | tuple[int, int]) -> Any:  # noqa: ANN401 - clusters of four packages, alike in this
    """Scale a cluster to a number of workers, or let their number follow the work; close it if that fails."""
    try:
        fewest, most = bounds_of(n_workers)
        if isinstance(n_workers, tuple):
            cluster.adapt(minimum=fewest, maximum=most)
        else:
            cluster.scale(n_workers)
    except BaseException:
        cluster.close()
        raise
    return cluster


def memory_of(size: str | int) -> int:
    """Bytes of a size such as 4GiB, enough for a worker."""
    memory: int = parse_bytes(size)
    if memory < LEAST_MEMORY:
        raise ValueError(
            f"worker memory must be a size of at least {LEAST_MEMORY >> 20} MiB such as 4GiB, got {size!r}"
        )
    return memory


def with_extra(module: str, extra: str) -> Any:  # noqa: ANN401 - a module
    """Import what comes with an extra of this package, or say how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f'this needs the extra {extra!r}: pip install "calfin-cloud[{extra}]" ({error})') from error
