"""Dask workers on this machine, on its GPUs, on Kubernetes or behind a Dask Gateway; `connect` lends a client of them.

A worker that says GPU runs the network, one that says CPU all the rest; without such words any worker runs anything.
"""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from inspect import Parameter, signature
from typing import Any

import dask
from distributed import Client
from distributed.comm import CommClosedError

from calfin_cloud.starts import START_S, NWorkers, cuda, gateway, kubernetes, local

log = logging.getLogger(__name__)

SHORT_LOGS = {"distributed.admin.low-level-log-length": 30}
"""Dask keeps the last 1,000 messages of each connection, whole graphs among them: 100 MB after 8,000 scenes."""
KEEP_WORKERS = {"distributed.deploy.lost-worker-timeout": "24h"}
"""15 s after a worker is killed Dask's local cluster gives it up for good, if its next life was just killed too."""
FEW_TICKS = {"distributed.admin.tick.interval": "200ms"}
"""Every process of Dask looks at its own pulse, by default 50 times a second: 3 % of a core for two workers at rest."""
CALLED_S = 20.0  # a scheduler that does not answer is given up after so long
LOOK_S = 5.0  # between two looks at whether there is a worker
SAME_EVERYWHERE = ("calfin-cloud", "dask", "distributed", "numpy", "zarr", "keras")
NONE = "none"
MAY_LACK = ("keras",)  # where OpenVINO runs the networks, as in the CPU image

NO_WORKER_S = {"local": 120.0, "cuda": 120.0}
"""So long a run waits when all its workers are gone: here their nannies start others at once; elsewhere pods may be
pending, so it is as long as for the first ones.
"""


class ClusterLostError(RuntimeError):
    """The scheduler or all workers, and with them all that was under way, are gone; what the store has stays."""


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
        When the scheduler disappears during the run, or all workers do and no other one comes.
    """
    if cluster not in STARTS and (n_workers is not None or options):
        raise ValueError(
            f"workers and options are for clusters that are started here, not for {cluster!r}: leave them out"
        )
    if cluster == "none":
        yield None
        return
    _check_options(cluster, options)
    with ExitStack() as closing:
        closing.enter_context(dask.config.set(SHORT_LOGS | KEEP_WORKERS | FEW_TICKS))
        if cluster in STARTS:
            workers = closing.enter_context(ended(STARTS[cluster](n_workers, **options)))
            client = Client(workers, set_as_default=False, timeout="60s")
        elif "://" in cluster:
            client = Client(cluster, set_as_default=False, timeout=CALLED_S)
        else:
            raise ValueError(
                f"--cluster must be one of {', '.join(STARTS)}, none, or a scheduler's address (tcp://host:8786), "
                f"got {cluster!r}"
            )
        closing.enter_context(client)
        given_up = closing.enter_context(watched(client, NO_WORKER_S.get(cluster, START_S)))
        try:
            await_workers(client, {"GPU"} if cluster == "cuda" or options.get("gpu_workers") else set())
            check_versions(client)
            yield client
        except Exception as error:
            # Without a scheduler Dask answers some questions with nothing, and what asked stumbles over that.
            if client.status == "running" and not isinstance(error, CancelledError | CommClosedError):
                raise
            what = given_up() or "the scheduler is lost"
            raise ClusterLostError(
                f"{what}; finished batches are stored: run the same call again to resume "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            ) from error


def _check_options(cluster: str, options: Iterable[str]) -> None:
    """Raise `ValueError` for options that the start of a cluster does not take; those of a gateway its server knows."""
    takes = signature(STARTS[cluster]).parameters if cluster in STARTS else {}
    if any(taken.kind is Parameter.VAR_KEYWORD for taken in takes.values()):
        return
    if unknown := sorted(set(options) - set(takes)):
        known = ", ".join(name for name in takes if name != "n_workers")
        raise ValueError(f"--cluster {cluster} has no option {', '.join(unknown)}: it takes {known}")


@contextmanager
def watched(client: Client, patience_s: float) -> Iterator[Callable[[], str]]:
    """Close a client whose tasks have had no worker for some time, since Dask would wait for ever.

    Lends a function that says why the client was closed, or nothing.
    """
    over, reasons = threading.Event(), list[str]()

    def watch() -> None:
        seen = time.monotonic()
        while not over.wait(min(LOOK_S, patience_s / 4)):
            if not (lack := _lack_of_workers(client)):
                seen = time.monotonic()
            elif time.monotonic() - seen > patience_s:
                reasons.append(f"{lack}, and none came within {patience_s:.0f} s")
                client.close()
                return

    watching = threading.Thread(target=watch, name="workers", daemon=True)
    watching.start()
    try:
        yield lambda: reasons[0] if reasons else ""
    finally:
        over.set()
        watching.join(LOOK_S)


def _lack_of_workers(client: Client) -> str:
    """Say which workers tasks wait for in vain, or nothing; without tasks a cluster may shrink to none."""
    if client.status != "running" or all(future.status != "pending" for future in list(client.futures.values())):
        return ""
    try:
        if not client.nthreads():
            return "all workers are gone"
        # By value, so that a scheduler needs no package of ours.
        is_stuck = client.run_on_scheduler(lambda dask_scheduler: bool(dask_scheduler.unrunnable))
    except Exception as error:  # no answer says nothing, nor does a scheduler that runs no functions
        log.debug("the scheduler was not asked for tasks without a worker: %s", error)
        return ""
    return "the workers that could run what waits are gone, those that say GPU or CPU" if is_stuck else ""


@contextmanager
def ended(started: AbstractContextManager[Any]) -> Iterator[Any]:
    """Lend workers and end them; that one ends later than Dask waits for it is no error of the run.

    Dask kills such a worker and waits a second for its end, which on a busy machine is too short.
    """
    with ExitStack() as closing:
        workers = started.__enter__()

        def end(*error: Any) -> bool | None:  # noqa: ANN401 - what `__exit__` takes
            try:
                return started.__exit__(*error)
            except TimeoutError:
                log.warning("a worker was killed because it did not end in time; what is stored is whole")
                return None

        closing.push(end)
        yield workers


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
    names, found = ["python", *SAME_EVERYWHERE], _versions(client)
    there = {name: set(versions) for name, versions in zip(names, zip(*found.values(), strict=True), strict=True)}
    if all(len(versions - {NONE} if name in MAY_LACK else versions) <= 1 for name, versions in there.items()):
        return
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for who, versions in found.items():
        holders[tuple(versions)].append(who)
    rows = [["", *names]] + [[_several(who), *versions] for versions, who in holders.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    raise ValueError(
        f"client, scheduler and workers must have the same versions, got\n{table}\nuse one environment or image for all"
    )


def _versions(client: Client) -> dict[str, list[str]]:
    """Versions by holder."""
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    found: dict[str, list[str]] = {who: [] for who in ("client", "scheduler", *workers)}
    for ask in (platform.python_version_tuple, *map(_asking, SAME_EVERYWHERE)):
        answers = {"client": ask(), "scheduler": client.run_on_scheduler(ask)}
        for who, answer in (answers | client.run(ask, workers=workers, on_error="return")).items():
            found[who].append(".".join(answer[:2]) if isinstance(answer, tuple) else str(answer))
    return found


def _asking(package: str) -> Callable[[], str]:
    """Make a function that returns a package's version; nested, it travels by value: a worker may lack calfin_cloud."""

    def ask() -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return NONE

    return ask


def _several(holders: list[str]) -> str:
    """Name up to two holders, and count the others."""
    more = f" and {len(holders) - 2} more" if len(holders) > 2 else ""
    return ", ".join(holders[:2]) + more
