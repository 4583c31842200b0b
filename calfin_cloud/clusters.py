"""Dask workers on this machine, on its GPUs, on Kubernetes or behind a Dask Gateway; `connect` lends a client of them.

A worker that says GPU runs the network, one that says CPU all the rest; without such words any worker runs anything.
"""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from uuid import uuid4

import dask
import psutil
from dask.utils import parse_bytes
from distributed import Client, LocalCluster, Nanny
from distributed.comm import CommClosedError

NWorkers = int | tuple[int, int] | None
"""A number of workers, or the fewest and the most between which Dask follows the work; None is for the place to say."""

WORKER_MEMORY = 2 * 2**30  # one TensorFlow process with a scene and its masks stays below 1.5 GiB
LEAST_MEMORY = 2**29
START_S = 900.0  # a node of a cloud boots and fetches an image of 3 GB in less
CLOSE_S = 60.0
SHORT_LOGS = {"distributed.admin.low-level-log-length": 30}
"""Dask keeps the last 1,000 messages of each connection, whole graphs among them: 100 MB after 8,000 scenes."""
SAME_EVERYWHERE = ("calfin-cloud", "dask", "distributed", "numpy", "zarr", "keras")


class ClusterLostError(RuntimeError):
    """The scheduler, and with it all that was under way, is gone; what the store has stays."""


def local(n_workers: NWorkers = None, *, worker_memory: str | int | None = None) -> LocalCluster:
    """Start worker processes on this machine, one thread each, as many as cores and memory allow.

    One thread a worker, because tracing is plain Python and the network's library shares its own threads. Without
    `worker_memory` (bytes, or a size such as 2GiB) the first workers share the memory of the machine.
    """
    memory = _memory(worker_memory) if worker_memory else "auto"
    if n_workers is None:
        room = psutil.virtual_memory().total * 0.8 / (WORKER_MEMORY if memory == "auto" else memory)
        n_workers = max(1, min(os.cpu_count() or 1, int(room)))
    # Before Python 3.11.9 Dask's profiler can bring a worker with many threads to a standstill (cpython#106883).
    with dask.config.set({"distributed.worker.daemon": True, "distributed.worker.profile.enabled": False}):
        cluster = LocalCluster(
            n_workers=_bounds(n_workers)[0],
            threads_per_worker=1,
            memory_limit=memory,
            dashboard_address="127.0.0.1:0",  # None takes port 8787, which a second run finds taken
        )
    return _sized(cluster, n_workers)


def cuda(
    n_workers: int | None = None, *, cpu_workers: int | None = None, worker_memory: str | int = 2 * WORKER_MEMORY
) -> LocalCluster:
    """Start a worker a GPU of this machine (dask-cuda), and others that read ahead and trace without one.

    Parameters
    ----------
    n_workers
        GPUs to use; all that are visible where nothing is said.
    cpu_workers
        Workers without a GPU; where nothing is said, one for each core that no GPU worker takes.
    """
    dask_cuda, nvml = _extra("dask_cuda", "gpu"), _extra("pynvml", "gpu")
    memory = _memory(worker_memory)
    try:
        cluster: LocalCluster = dask_cuda.LocalCUDACluster(
            n_workers=n_workers,
            threads_per_worker=1,
            memory_limit=memory,
            resources={"GPU": 1},
            dashboard_address=None,
        )
    except nvml.NVMLError as error:
        raise ValueError(
            f"--cluster cuda needs a machine with an NVIDIA GPU and its driver ({error}): check `nvidia-smi`, "
            "or use --cluster local"
        ) from error
    if cpu_workers is None:
        cpu_workers = max(1, (os.cpu_count() or 1) - len(cluster.worker_spec))
    return _with_cpu_workers(cluster, cpu_workers, memory)


def kubernetes(
    n_workers: NWorkers = None,
    *,
    image: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    gpu_workers: int = 0,
    gpu_image: str | None = None,
    worker_memory: str = "4GiB",
    worker_cpu: float = 1,
    env: Mapping[str, str] | None = None,
    idle_timeout: int = 600,
) -> AbstractContextManager[Any]:
    """Create a `DaskCluster` that the Dask operator of a Kubernetes cluster turns into pods, and delete it when closed.

    Parameters
    ----------
    n_workers
        Workers of the group `default`, which read, trace and write: 1 where nothing is said. A fixed number where there
        are GPU workers: the operator's autoscaler asks Dask which workers may go, and Dask may name one with a GPU.
    image
        Container image with calfin-cloud, for scheduler and workers; else `kubernetes.image` of Dask's configuration.
    namespace
        Where it is created; else that of Dask's configuration, else that of the current context or pod.
    gpu_workers
        Workers of the group `gpu`, each with one NVIDIA GPU; without them the workers of `default` run the network too.
    gpu_image
        Their image where it differs.
    worker_memory, worker_cpu
        Request and limit of each worker of `default`; a GPU worker gets twice the memory.
    env
        Environment variables of scheduler and workers. No secrets: they would be readable in the resource.
    idle_timeout
        Seconds without work after which the operator deletes the cluster, in case nobody is left to do so.
    """
    if gpu_workers and isinstance(n_workers, tuple):
        raise ValueError(
            f"with GPU workers the number of other workers on Kubernetes is fixed, got {n_workers} with {gpu_workers} "
            "GPU workers: scaling down would end those too, for good; give one number (--workers N), or no gpu_workers"
        )
    operator = _extra("dask_kubernetes.operator", "kubernetes")
    image = image or dask.config.get("kubernetes.image")
    if not image or image.startswith("ghcr.io/dask/dask:"):  # the default of dask-kubernetes, without calfin-cloud
        raise ValueError(
            "--cluster kubernetes needs an image with calfin-cloud, got none: --cluster-option image=REGISTRY/NAME:TAG"
        )
    fewest, _ = _bounds(n_workers or 1)
    limits = {"memory": str(_memory(worker_memory)), "cpu": str(worker_cpu)}
    name = name or f"calfin-{uuid4().hex[:8]}"
    spec = cluster_resource(name, worker_group(image, fewest, limits, {"CPU": 1}, env), idle_timeout=idle_timeout)
    cluster = operator.KubeCluster(custom_cluster_spec=spec, namespace=namespace, quiet=True)
    # It is told to delete the resource first; by itself it then waits for the operator up to an hour.
    cluster.close = partial(cluster.close, timeout=CLOSE_S)
    try:
        if gpu_workers:
            limits = limits | {"memory": str(2 * _memory(worker_memory)), "nvidia.com/gpu": "1"}
            group = worker_group(gpu_image or image, gpu_workers, limits, {"GPU": 1}, env)
            cluster.add_worker_group("gpu", custom_spec=group)
        sized: AbstractContextManager[Any] = _sized(cluster, n_workers or 1)
    except BaseException:
        cluster.close()
        raise
    return sized


def cluster_resource(name: str, workers: dict[str, Any], *, idle_timeout: int = 0) -> dict[str, Any]:
    """Make a `DaskCluster` of a worker group; its scheduler has the image and the environment of the workers."""
    (container,) = workers["spec"]["containers"]
    spec: dict[str, Any] = _extra("dask_kubernetes.operator", "kubernetes").make_cluster_spec(
        name, image=container["image"], env=container["env"], idle_timeout=idle_timeout
    )
    # dask-kubernetes 2026.3 still calls the scripts dask-scheduler and dask-worker, which Dask has no more.
    spec["spec"]["scheduler"]["spec"]["containers"][0]["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]
    spec["spec"]["worker"] = workers
    return spec


def worker_group(
    image: str, n_workers: int, limits: Mapping[str, str], says: Mapping[str, int], env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Make the `worker` part of a `DaskCluster` or `DaskWorkerGroup`: pods of one thread that say what they are for."""
    words = " ".join(f"{word}={count}" for word, count in says.items())
    command = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--nthreads", "1", "--resources", words]
    container = {
        "name": "worker",
        "image": image,
        "args": [*command, "--memory-limit", limits["memory"], "--dashboard-address", "8788"],
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "resources": {"limits": dict(limits), "requests": dict(limits)},
        "ports": [{"name": "http-dashboard", "containerPort": 8788, "protocol": "TCP"}],
    }
    pod: dict[str, Any] = {"containers": [container]}
    if "nvidia.com/gpu" in limits:
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"replicas": n_workers, "spec": pod}


def gateway(
    n_workers: NWorkers = None,
    *,
    address: str | None = None,
    auth: Any = None,  # noqa: ANN401 - what dask_gateway takes
    **options: Any,  # noqa: ANN401 - what the server takes
) -> AbstractContextManager[Any]:
    """Start a cluster behind a Dask Gateway, as a JupyterHub offers it; it is shut down when closed.

    Parameters
    ----------
    n_workers
        1 where nothing is said.
    address, auth
        Of the server; else `gateway.address` and `gateway.auth` of Dask's configuration (`DASK_GATEWAY__ADDRESS`, ...),
        which a JupyterHub sets for its users.
    options
        Whatever the server lets its users choose, e.g. ``image=..., worker_memory=4``; see
        ``dask_gateway.Gateway().cluster_options()``.
    """
    dask_gateway = _extra("dask_gateway", "gateway")
    try:
        cluster = dask_gateway.GatewayCluster(address, auth=auth, **options)
    except (dask_gateway.GatewayClusterError, dask_gateway.GatewayServerError, TypeError, ValueError) as error:
        raise ValueError(f"the gateway started no cluster: {error}") from error
    sized: AbstractContextManager[Any] = _sized(cluster, n_workers or 1)
    return sized


STARTS: dict[str, Callable[..., AbstractContextManager[Any]]] = {
    "local": local,
    "cuda": cuda,
    "kubernetes": kubernetes,
    "gateway": gateway,
}


@contextmanager
def connect(cluster: str, *, n_workers: NWorkers = None, **options: Any) -> Iterator[Client | None]:  # noqa: ANN401
    """Open a client for the time of a run, and close what was started for it, however the run ends.

    Parameters
    ----------
    cluster
        `local`, `cuda`, `kubernetes`, `gateway`: start workers there with `n_workers` and `options`, see the functions
        of these names. An address such as tcp://10.0.0.1:8786: join the scheduler there. `none`: no Dask, the client
        is None.
    n_workers
        A number, or the fewest and the most.

    Raises
    ------
    ClusterLostError
        When the scheduler disappears during the run.
    """
    if cluster not in STARTS and (n_workers is not None or options):
        raise ValueError(
            f"workers and options are for clusters that are started here, not for {cluster!r}: leave them out"
        )
    if cluster == "none":
        yield None
        return
    with ExitStack() as closing:
        closing.enter_context(dask.config.set(SHORT_LOGS))
        if cluster in STARTS:
            workers = closing.enter_context(STARTS[cluster](n_workers, **options))
            client = Client(workers, set_as_default=False, timeout="60s")
        elif "://" in cluster:
            client = Client(cluster, set_as_default=False, timeout="20s")
        else:
            raise ValueError(
                f"--cluster must be one of {', '.join(STARTS)}, none, or a scheduler's address (tcp://host:8786), "
                f"got {cluster!r}"
            )
        closing.enter_context(client)
        try:
            await_workers(client, {"GPU"} if cluster == "cuda" or options.get("gpu_workers") else set())
            check_versions(client)
            yield client
        except Exception as error:
            # Without a scheduler Dask answers some questions with nothing, and what asked stumbles over that.
            if client.status == "running" and not isinstance(error, CancelledError | CommClosedError):
                raise
            raise ClusterLostError(
                "the scheduler is lost; finished batches are stored: run the same call again to resume "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            ) from error


def await_workers(client: Client, says: set[str], *, timeout_s: float = START_S) -> None:
    """Wait for the first worker, and for one of each word in `says`: what follows is placed by what workers say."""
    deadline = time.monotonic() + timeout_s
    while True:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        missing = says - {word for worker in workers for word in worker["resources"]}
        if workers and not missing:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"no worker{''.join(f' with a {word}' for word in sorted(missing))} came within {timeout_s:.0f} s: see "
                "what the cluster says of pods or jobs that are pending"
            )
        time.sleep(0.2)


def check_versions(client: Client) -> None:
    """Refuse a cluster whose parts differ in the versions of what decides results, with a table of who has what."""
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for who, versions in _versions(client).items():
        holders[tuple(versions)].append(who)
    if len(holders) == 1:
        return
    names = ["python", *SAME_EVERYWHERE]
    rows = [["", *names]] + [[_several(who), *versions] for versions, who in holders.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    raise ValueError(
        f"client, scheduler and workers must have the same versions, got\n{table}\nuse one environment or image for all"
    )


def _versions(client: Client) -> dict[str, list[str]]:
    """Versions by holder, asked with functions of Python itself: calfin_cloud may be what is missing there."""
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    found: dict[str, list[str]] = {who: [] for who in ("client", "scheduler", *workers)}
    questions: list[Callable[[], Any]] = [
        platform.python_version_tuple,
        *(partial(version, n) for n in SAME_EVERYWHERE),
    ]
    for ask in questions:
        try:
            there = client.run_on_scheduler(ask)
        except PackageNotFoundError as error:
            there = error
        answers = {"client": ask(), "scheduler": there} | client.run(ask, workers=workers, on_error="return")
        for who, answer in answers.items():
            said = ".".join(answer[:2]) if isinstance(answer, tuple) else answer
            found[who].append("none" if isinstance(said, PackageNotFoundError) else str(said))
    return found


def _several(holders: list[str]) -> str:
    """Name up to two holders, and count the others."""
    more = f" and {len(holders) - 2} more" if len(holders) > 2 else ""
    return ", ".join(holders[:2]) + more


def _bounds(n_workers: int | tuple[int, int]) -> tuple[int, int]:
    """Fewest and most workers; at least one, whose versions can be checked before the run starts."""
    fewest, most = n_workers if isinstance(n_workers, tuple) else (n_workers, n_workers)
    if not 1 <= fewest <= most:
        raise ValueError(f"workers must be a number from 1 or MIN:MAX with 1 <= MIN <= MAX, got {n_workers}")
    return fewest, most


def _sized(cluster: Any, n_workers: int | tuple[int, int]) -> Any:  # noqa: ANN401 - clusters of four packages, alike in this
    """Scale a cluster to a number of workers, or let their number follow the work; close it if that fails."""
    try:
        fewest, most = _bounds(n_workers)
        if isinstance(n_workers, tuple):
            cluster.adapt(minimum=fewest, maximum=most)
        else:
            cluster.scale(n_workers)
    except BaseException:
        cluster.close()
        raise
    return cluster


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
    return _sized(cluster, len(cluster.worker_spec))


def _memory(size: str | int) -> int:
    memory: int = parse_bytes(size)
    if memory < LEAST_MEMORY:
        raise ValueError(
            f"worker memory must be a size of at least {LEAST_MEMORY >> 20} MiB such as 4GiB, got {size!r}"
        )
    return memory


def _extra(module: str, extra: str) -> Any:  # noqa: ANN401 - a module
    """Import what comes with an extra of this package, or say how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f'this needs the extra {extra!r}: pip install "calfin-cloud[{extra}]" ({error})') from error
