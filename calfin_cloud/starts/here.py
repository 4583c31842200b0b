"""Worker processes on this machine: for its cores, and one for each of its GPUs."""

from __future__ import annotations

from typing import Any

import dask
from dask.system import CPU_COUNT  # as cgroup and affinity allow: what a job of Slurm or a pod has of its node
from distributed import LocalCluster, Nanny
from distributed.system import MEMORY_LIMIT  # likewise

from calfin_cloud.starts.sizes import WORKER_MEMORY, NWorkers, bounds_of, memory_of, sized, with_extra


def local(n_workers: NWorkers = None, *, worker_memory: str | int | None = None) -> LocalCluster:
    """Start worker processes on this machine, one thread each, as many as cores and memory allow.

    One thread a worker, because tracing is plain Python and the network's library shares its own threads. Without
    `worker_memory` (bytes, or a size such as 2GiB) the first workers share the memory of the machine.
    """
    memory = memory_of(worker_memory) if worker_memory else "auto"
    if n_workers is None:
        room = MEMORY_LIMIT * 0.8 / (WORKER_MEMORY if memory == "auto" else memory)
        n_workers = max(1, min(CPU_COUNT, int(room)))
    # Before Python 3.11.9 Dask's profiler can bring a worker with many threads to a standstill (cpython#106883).
    with dask.config.set({"distributed.worker.daemon": True, "distributed.worker.profile.enabled": False}):
        cluster = LocalCluster(
            n_workers=bounds_of(n_workers)[0],
            threads_per_worker=1,
            memory_limit=memory,
            dashboard_address="127.0.0.1:0",  # None takes port 8787, which a second run finds taken
        )
    return sized(cluster, n_workers)


def cuda(
    n_workers: NWorkers = None, *, cpu_workers: int | None = None, worker_memory: str | int = 2 * WORKER_MEMORY
) -> LocalCluster:
    """Start a worker a GPU of this machine (dask-cuda), and others that read ahead and trace without one.

    Each worker sees its own GPU alone: the network's library would take some memory of every one that it sees.

    Parameters
    ----------
    n_workers
        GPUs to use; all that are visible where nothing is said. One number: GPUs do not come and go.
    cpu_workers
        Workers without a GPU; where nothing is said, one for each core that no GPU worker takes, within the memory.
    """
    if isinstance(n_workers, tuple):
        raise ValueError(
            f"--cluster cuda starts one worker a GPU, so their number is fixed, got {n_workers}: give one number "
            "(--workers N), or none for all GPUs"
        )
    dask_cuda, nvml = with_extra("dask_cuda", "gpu"), with_extra("pynvml", "gpu")
    memory = memory_of(worker_memory)
    try:
        cluster: LocalCluster = _seeing_one_gpu(dask_cuda.LocalCUDACluster)(
            n_workers=n_workers,
            threads_per_worker=1,
            memory_limit=memory,
            resources={"GPU": 1},
            dashboard_address="127.0.0.1:0",
        )
    except nvml.NVMLError as error:
        raise ValueError(
            f"--cluster cuda needs a machine with an NVIDIA GPU and its driver ({error}): check `nvidia-smi`, "
            "or use --cluster local"
        ) from error
    if cpu_workers is None:
        n_gpus = len(cluster.worker_spec)
        cpu_workers = max(1, min(CPU_COUNT, int(MEMORY_LIMIT * 0.8 / memory)) - n_gpus)
    return _with_cpu_workers(cluster, cpu_workers, memory)


def _seeing_one_gpu(kind: Any) -> Any:  # noqa: ANN401 - a class of dask-cuda
    """Class of clusters like `kind`, whose workers see the first GPU of those that dask-cuda shows them, their own."""

    def new_worker_spec(self: Any) -> dict[Any, Any]:  # noqa: ANN401
        specs: dict[Any, Any] = kind.new_worker_spec(self)
        for spec in specs.values():
            own, _, _ = spec["options"]["env"]["CUDA_VISIBLE_DEVICES"].partition(",")
            spec["options"]["env"]["CUDA_VISIBLE_DEVICES"] = own
        return specs

    return type(kind.__name__, (kind,), {"new_worker_spec": new_worker_spec})


def _with_cpu_workers(cluster: LocalCluster, n_workers: int, memory: int) -> LocalCluster:
    """Add workers that say CPU and see no GPU to a cluster of this machine."""
    options = {
        "nthreads": 1,
        "memory_limit": memory,
        "host": "127.0.0.1",
        "dashboard": False,
        "resources": {"CPU": 1},
        "env": {"CUDA_VISIBLE_DEVICES": "-1"},
    }
    cluster.worker_spec |= {f"cpu-{n}": {"cls": Nanny, "options": options} for n in range(n_workers)}
    return sized(cluster, len(cluster.worker_spec))
