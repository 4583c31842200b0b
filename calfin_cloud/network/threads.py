"""How many threads a network's library may take in this process."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def threads_here() -> int | None:
    """Threads of the Dask worker that this process is, or as many as `OMP_NUM_THREADS` says; None: one a core.

    Dask sets `OMP_NUM_THREADS` to 1 for its workers, whatever their number of threads: the larger one holds.
    """
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    numbers = [int(said)] if said.isdigit() else []
    if distributed := sys.modules.get("distributed"):
        with suppress(ValueError):  # no worker
            numbers.append(distributed.get_worker().state.nthreads)
    return max(numbers, default=None)
