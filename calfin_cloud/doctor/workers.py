"""Checks of a cluster: what its workers have, and whether they too reach scenes and store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Client

from calfin_cloud import network as networks  # Keras waits until it is needed, on the workers
from calfin_cloud.doctor.findings import Finding, Status, problem
from calfin_cloud.doctor.here import GPU_REMEDY
from calfin_cloud.doctor.remote import Scene, check_scene, check_store, skew

LEAST_MEMORY, ENOUGH_MEMORY = 1.0 * 2**30, 1.5 * 2**30
"""Bytes for each thread: a process with the network and a scene stays below 1.5 GiB."""

MOST_HOSTS = 3  # workers on other hosts that read a scene and write to the store


def check_workers(client: Client, scenes: Sequence[Scene], store: str | None) -> list[Finding]:
    """Check the workers of a cluster: number, memory, GPUs, clocks, and what some of them reach."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    n_threads = sum(w["nthreads"] for w in workers.values())
    findings = [
        Finding("cluster", "ok", f"{len(workers)} workers of the same versions, {n_threads} threads"),
        check_memory(workers),
        check_worker_clocks(client),
    ]
    if findings[1].status == "problem":
        return findings  # what comes now would kill the workers
    findings.append(check_gpus(client, workers))
    for address in _one_a_host(workers):
        where = f"on worker {address}"
        tasks: list[tuple[Any, ...]] = [
            (check_scene, item.to_dict(transform_hrefs=False), domain, where) for item, domain in scenes
        ]
        tasks += [(check_store, store, where)] if store else []
        findings += [_on_worker(client, address, *task) for task in tasks]
    return findings


def check_memory(workers: Mapping[str, Mapping[str, Any]]) -> Finding:
    """Whether the workers have the memory that the network needs."""
    least = min((w["memory_limit"] or float("inf")) / max(w["nthreads"], 1) for w in workers.values())
    if least >= ENOUGH_MEMORY:
        return Finding("memory of workers", "ok", f"{least / 2**30:.1f} GiB a thread or more")
    status: Status = "problem" if least < LEAST_MEMORY else "warning"
    said = f"a worker has {least / 2**30:.1f} GiB a thread"
    return Finding("memory of workers", status, said, "give each thread 2 GiB (--worker-memory 2GiB), or start fewer")


def gpus_here() -> int:
    """Count the GPUs that the network's library sees on this worker."""
    return networks.count_gpus()


def check_gpus(client: Client, workers: Mapping[str, Mapping[str, Any]]) -> Finding:
    """Whether the workers that say GPU see one."""
    saying = [address for address, w in workers.items() if "GPU" in w["resources"]]
    if not saying:
        return Finding("gpu of workers", "ok", "no worker says GPU: the network runs on CPUs")
    tasks = [client.submit(gpus_here, workers=[a], resources={"GPU": 1}, pure=False) for a in saying]
    blind = [a for a, n in zip(saying, client.gather(tasks), strict=True) if n == 0]
    if blind:
        return Finding(
            "gpu of workers", "problem", f"{len(blind)} workers say GPU and see none: {blind[:3]}", GPU_REMEDY
        )
    return Finding("gpu of workers", "ok", f"{len(saying)} workers say GPU and see one")


def check_worker_clocks(client: Client) -> Finding:
    """Whether the clocks of the workers agree with that of this machine."""
    began = time.time()
    theirs = client.run(time.time)
    middle = (began + time.time()) / 2
    worst = max((middle - t for t in theirs.values()), key=abs)
    return skew("clocks of workers", worst, "of a worker")


def _on_worker(client: Client, address: str, check: Any, *args: Any) -> Finding:  # noqa: ANN401
    try:
        finding: Finding = client.submit(check, *args, workers=[address], pure=False).result()
    except Exception as error:  # whatever the worker lacks
        return problem(f"task on worker {address}", error, "see the log of the worker")
    return finding


def _one_a_host(workers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Address of one worker of each of the first hosts."""
    by_host: dict[str, str] = {}
    for address, worker in workers.items():
        by_host.setdefault(worker["host"], address)
    return list(by_host.values())[:MOST_HOSTS]
