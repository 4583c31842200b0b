"""Workers behind a Dask Gateway, as a JupyterHub offers it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from dask.utils import parse_bytes

from calfin_cloud.starts.sizes import NWorkers, sized, with_extra

log = logging.getLogger(__name__)


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
        What the server lets its users choose, e.g. ``image=..., worker_memory=4`` (GiB, or a size such as 4GiB); they
        go before those of Dask's configuration (`DASK_GATEWAY__CLUSTER__OPTIONS__IMAGE`). What it does not offer is
        left out with a warning; see ``dask_gateway.Gateway().cluster_options()``.
    """
    dask_gateway = with_extra("dask_gateway", "gateway")
    try:
        with _closed_once(dask_gateway.Gateway(address, auth=auth)) as server:
            chosen = _offered(server, options)
        cluster = _started(dask_gateway.GatewayCluster, address, auth=auth, cluster_options=chosen)
    except (dask_gateway.GatewayClusterError, dask_gateway.GatewayServerError, TypeError, ValueError) as error:
        raise ValueError(f"the gateway started no cluster: {error}") from error
    started: AbstractContextManager[Any] = sized(cluster, n_workers or 1)
    return started


def _started(kind: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401 - of dask_gateway
    """Make a cluster, or close what was made of it, which dask-gateway leaves to the garbage collector."""
    cluster = kind.__new__(kind)
    try:
        cluster.__init__(*args, **more)
    except BaseException:
        if hasattr(cluster, "gateway"):
            _closed_once(cluster.gateway).close()
        raise
    _closed_once(cluster.gateway)
    return cluster


def _closed_once(gateway: Any) -> Any:  # noqa: ANN401 - of dask_gateway
    """Return a gateway that the garbage collector leaves alone.

    Collected, that of dask-gateway 2026.3 is closed once more: it prints a traceback, since its loop has ended, or
    hangs for ever where the collector comes while Dask starts a loop.
    """
    gateway.__class__ = type("Gateway", (type(gateway),), {"__del__": lambda _: None})
    return gateway


def _offered(server: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a gateway, and its options
    """Fill in what a gateway offers, from Dask's configuration and the call; warn of what it does not offer."""
    offered = server.cluster_options(use_local_defaults=False)
    wanted = {**server._config_cluster_options(), **options}  # with {JUPYTER_IMAGE_SPEC} and the like filled in
    if unknown := sorted(set(wanted) - set(offered)):
        log.warning("the gateway offers %s and not %s, which is left out", sorted(offered), unknown)
    for name in wanted.keys() & set(offered):
        is_size = isinstance(offered[name], int | float) and isinstance(wanted[name], str)
        offered[name] = _in_gib(wanted[name], type(offered[name])) if is_size else wanted[name]
    return offered


def _in_gib(size: str, kind: type) -> float:
    """Size such as 4GiB in the unit of servers, whole where a server wants whole numbers: it refuses 4.0.

    >>> _in_gib("4GiB", int), _in_gib("512MiB", float)
    (4, 0.5)
    """
    amount = parse_bytes(size) / 2**30
    return int(amount) if kind is int and amount.is_integer() else float(amount)
