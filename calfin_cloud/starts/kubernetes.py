"""Workers in pods, made by the Dask operator of a Kubernetes cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from uuid import uuid4

import dask

from calfin_cloud.starts.pods import GPU, Identity, cluster_resource, worker_group
from calfin_cloud.starts.sizes import START_S, NWorkers, bounds_of, memory_of, sized, with_extra

CLOSE_S = 60.0


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
    service_account: str = "",
    secrets: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    node_selectors: Mapping[str, Mapping[str, str]] | None = None,
    idle_timeout: int = 2 * int(START_S),
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
    service_account
        Identity of all pods for object storage; else that of the namespace's `default`.
    secrets
        Names of Secrets of the namespace whose keys become environment variables of scheduler and workers.
    env
        Environment variables of scheduler and workers. No secrets: they would be readable in the resource.
    node_selectors
        Labels of the nodes of `scheduler`, `default` and `gpu`, e.g. ``{"gpu": {"pool": "a100"}}``.
    idle_timeout
        Seconds without work after which the operator deletes the cluster, in case nobody is left to do so. While a
        node with a GPU boots, nothing works: so it is twice what its start may take.

    Pods are those of the chart (`pods.yaml`), without TLS: dask-kubernetes 2026.3 connects by tcp:// only.

    Raises
    ------
    ValueError
        There is no image, two numbers of workers with GPU workers, an unknown group of nodes, no extra `kubernetes`, no
        cluster of Kubernetes to be found, or one that refuses.
    ConnectionError
        Kubernetes does not answer.
    """
    _check_gpu_workers(n_workers, gpu_workers)
    _check_env(env)
    operator = with_extra("dask_kubernetes.operator", "kubernetes")
    image, nodes = _image_of(image), _node_selectors(node_selectors)
    fewest, _ = bounds_of(n_workers or 1)
    limits = {"memory": str(memory_of(worker_memory)), "cpu": str(worker_cpu)}
    who = Identity(service_account, (secrets,) if isinstance(secrets, str) else tuple(secrets), dict(env or {}))
    group = partial(worker_group, identity=who)
    workers = group(fewest, "CPU=1", image=image, limits=limits, node_selector=nodes.get("default"))
    gpu = None
    if gpu_workers:
        limits |= {"memory": str(2 * memory_of(worker_memory)), GPU: "1"}
        gpu = group(gpu_workers, "GPU=1", image=gpu_image or image, limits=limits, node_selector=nodes.get("gpu"))
    name, on = name or f"calfin-{uuid4().hex[:8]}", nodes.get("scheduler")
    spec = cluster_resource(name, workers, image=image, identity=who, node_selector=on, idle_timeout=idle_timeout)
    cluster = _made(operator.KubeCluster, spec, namespace)
    # It is told to delete the resource first; by itself it then waits for the operator up to an hour.
    cluster.close = partial(cluster.close, timeout=CLOSE_S)
    return _filled(cluster, n_workers or 1, gpu)


def _made(kind: Any, spec: Mapping[str, Any], namespace: str | None) -> Any:  # noqa: ANN401 - imported lazily
    """Make a cluster where Kubernetes answers: of one that was begun in vain, tracebacks come when Python ends."""
    import httpx  # noqa: PLC0415 - of an extra, as the next one
    import kr8s  # noqa: PLC0415

    try:
        kr8s.api().version()
    except (ValueError, TypeError, KeyError, kr8s.ServerError) as error:
        raise ValueError(
            "--cluster kubernetes finds no cluster of Kubernetes, or no credentials for it: check KUBECONFIG and "
            "`kubectl get pods`"
        ) from error
    except (httpx.HTTPError, kr8s.APITimeoutError) as error:
        raise ConnectionError(f"Kubernetes does not answer ({error}): check `kubectl get pods`") from error
    cluster = kind.__new__(kind)
    try:
        # First and alone: dask-kubernetes asks twice at once, and what is refused to one makes kr8s cut off the other.
        kinds = kr8s.objects.new_class("DaskCluster", "kubernetes.dask.org/v1", asyncio=False)
        next(kinds.list(namespace=namespace), None)
        cluster.__init__(custom_cluster_spec=spec, namespace=namespace, quiet=True)
    except with_extra("dask_kubernetes.exceptions", "kubernetes").ValidationError as error:  # of its name
        raise ValueError(error.message) from error
    except (kr8s.NotFoundError, kr8s.ServerError) as error:
        cluster.shutdown_on_close = False  # there is none
        raise ValueError(
            f"Kubernetes made no DaskCluster ({error}): the Dask operator must be installed (deploy/README.md), and "
            "`kubectl auth can-i create daskclusters` and `kubectl auth can-i list daskclusters` must say yes"
        ) from error
    return cluster


def _filled(
    cluster: Any,  # noqa: ANN401 - imported lazily
    n_workers: int | tuple[int, int],
    gpu: Mapping[str, Any] | None,
) -> AbstractContextManager[Any]:
    """Start the workers of a cluster, those with a GPU first; close it if that fails."""
    try:
        if gpu is not None:
            cluster.add_worker_group("gpu", custom_spec=gpu)
        started: AbstractContextManager[Any] = sized(cluster, n_workers)
    except BaseException:
        cluster.close()
        raise
    return started


def _check_gpu_workers(n_workers: NWorkers, gpu_workers: int) -> None:
    if not isinstance(gpu_workers, int) or gpu_workers < 0:
        raise ValueError(f"gpu_workers must be a number from 0, got {gpu_workers!r}: correct it, e.g. gpu_workers=2")
    if gpu_workers and isinstance(n_workers, tuple):
        raise ValueError(
            f"with GPU workers the number of other workers on Kubernetes is fixed, got {n_workers} with {gpu_workers} "
            "GPU workers: scaling down would end those too, for good; give one number (--workers N), or no gpu_workers"
        )


def _check_env(env: Mapping[str, str] | None) -> None:
    if not isinstance(env or {}, Mapping):
        raise ValueError(
            f"""env must be values by name, got {env!r}: correct it, e.g. env='{{"AWS_REGION": "us-west-2"}}'"""
        )


def _image_of(image: str | None) -> str:
    """Image of the pods, from Dask's configuration where none is given."""
    image = image or dask.config.get("kubernetes.image")
    if not image or image.startswith("ghcr.io/dask/dask:"):  # the default of dask-kubernetes, without calfin-cloud
        raise ValueError(
            "--cluster kubernetes needs an image with calfin-cloud, got none: --cluster-option image=REGISTRY/NAME:TAG"
        )
    return image


def _node_selectors(given: Mapping[str, Mapping[str, str]] | None) -> Mapping[str, Mapping[str, str]]:
    """Return node selectors by group if their groups are known."""
    groups = ("scheduler", "default", "gpu")
    if not isinstance(given or {}, Mapping) or set(given or {}) - set(groups):
        raise ValueError(
            f"node_selectors must be labels by group of {groups}, got {given!r}: correct it, e.g. "
            """node_selectors='{"gpu": {"pool": "a100"}}'"""
        )
    return given or {}
