"""What a run asks of its workers before it starts: who does what, the same network and sensors, files in reach."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pystac
from distributed import Client, KilledWorker, Worker, WorkerPlugin

from calfin_cloud import network as networks  # Keras waits until it is needed, on the workers
from calfin_cloud.domains import Domain
from calfin_cloud.imagery import READ_AT_ONCE
from calfin_cloud.network import PICTURE_SIZE, network_id
from calfin_cloud.opinions import predict_pictures
from calfin_cloud.pipeline.settings import MapSettings, calibration_id, calibration_of
from calfin_cloud.scenes import FindScenes, join_granules
from calfin_cloud.sensors import Sensor, own_sensors, register_sensor
from calfin_cloud.storage.files import on_disk, open_place

MOST_SCENES, MOST_PIXELS = 16, 8_000_000  # of a group: 100 MB of channels and masks
PICTURES_A_TASK = 128  # of the network, where a GPU is: one that is given less waits for the next task

SHARE = 0.01  # of a worker that says CPU: the word says where, not how many; a task that reads leaves its thread

ELSEWHERE = "put it where all reach it, such as s3://bucket/name (on a JupyterHub below $SCRATCH_BUCKET)"


class Placement(NamedTuple):
    """Which workers do what: resources that tasks ask for (None: any worker), threads for all but the network.

    `network` is None where no worker says GPU: those that do all else predict too.
    """

    network: Mapping[str, int] | None
    others: Mapping[str, float] | None
    n_threads: int


def workers_of(client: Client) -> dict[str, Any]:
    """Ask for what the scheduler knows of each worker, by address.

    Raises
    ------
    ConnectionError
        The client is closed, or has no scheduler any more.
    """
    told: dict[str, Any] = {} if client.status == "closed" else client.scheduler_info(n_workers=-1)
    if "workers" not in told:
        raise ConnectionError("the client or its cluster is closed: start one, and make a client of it")
    return dict(told["workers"])


def placement_of(client: Client) -> Placement:
    """Ask for the workers: those that say GPU predict, those that say CPU do all else; any, if none says it."""
    workers = workers_of(client).values()
    has_gpu, has_cpu = (any(word in w["resources"] for w in workers) for word in ("GPU", "CPU"))
    n_threads = sum(w["nthreads"] for w in workers if not has_cpu or "CPU" in w["resources"])
    return Placement({"GPU": 1} if has_gpu else None, {"CPU": SHARE} if has_cpu else None, max(1, n_threads))


def group_length(domain: Domain, n_scenes: int, placement: Placement | None) -> int:
    """Scenes of a group: of `n_scenes` all threads have some, and no group holds more than `MOST_PIXELS`."""
    if placement is None:
        return READ_AT_ONCE
    fair = -(-n_scenes // placement.n_threads)
    return max(1, min(fair, MOST_SCENES, MOST_PIXELS // (domain.shape[0] * domain.shape[1])))


def check_network(settings: MapSettings, client: Client | None) -> None:
    """Load the network where it will run.

    Raises
    ------
    ValueError
        For a wrong file, a missing engine, too little memory, a worker that says GPU and has none, or workers that
        have other files than this process.
    """
    if client is None:
        load(settings)
        return
    if blind := blind_workers(client):
        raise ValueError(
            f"workers that say GPU see none: {blind[:3]}{' and more' if len(blind) > 3 else ''}; the network would run "
            "on their CPUs in silence: check nvidia-smi, CUDA_VISIBLE_DEVICES and the image there, or start them "
            "without --resources GPU=1"
        )
    try:
        there = client.submit(load, settings, resources=placement_of(client).network, pure=False).result()
    except KilledWorker as error:
        raise ValueError(
            "workers end while they load the network, most likely for want of memory: give each 1.5 GB or more "
            f"(--worker-memory 2GiB, or the limit of its pod), or see their logs ({error})"
        ) from error
    if there != (here := _ids(settings)):
        raise ValueError(
            f"workers have other files of {settings.network}: weights and calibration there {there}, here {here}; "
            "put the same files and version there"
        )


def blind_workers(client: Client) -> list[str]:
    """Addresses of the workers that say GPU and see none."""
    workers = workers_of(client)
    saying = [address for address, worker in workers.items() if "GPU" in worker["resources"]]
    seen = client.run(_gpus_of_worker, workers=saying, on_error="return") if saying else {}
    return sorted(address for address, n in seen.items() if n == 0)


async def _gpus_of_worker() -> int:
    """Count GPUs in a thread, since the library takes seconds to start and the worker must answer meanwhile."""
    return await asyncio.to_thread(_count_gpus)


def _count_gpus() -> int:
    return networks.count_gpus()


def load(settings: MapSettings) -> tuple[str, str]:
    """Predict an empty picture, so that the network and its verifier stay in this process; read the calibration.

    Returns digests of both.
    """
    empty = np.zeros((1, PICTURE_SIZE, PICTURE_SIZE, 3), dtype=np.uint8)
    predict_pictures(empty, np.array([True]), np.array([True]), network=settings.network, settings=settings.inference)
    calibration_of(settings.network)  # one of other weights would fail every scene
    return _ids(settings)


def _ids(settings: MapSettings) -> tuple[str, str]:
    return network_id(settings.network), calibration_id(settings.network)


class OwnSensors(WorkerPlugin):  # type: ignore[misc] # Dask has no types
    """Rows of the table of sensors that every worker of a cluster knows, also one that joins later."""

    name = "calfin-sensors"

    def __init__(self, rows: Sequence[Sensor]) -> None:
        self.rows = rows

    def setup(self, worker: Worker) -> None:
        """Add the rows to the table of this process."""
        for row in reversed(self.rows):
            register_sensor(row)


def share_sensors(client: Client | None) -> None:
    """Make the workers of a client know the sensors that were registered here."""
    if client is not None and (rows := own_sensors()):
        client.register_plugin(OwnSensors(rows))


def check_store_in_reach(store: str, client: Client | None) -> None:
    """Raise `ValueError` where a store is a folder of this machine that workers do not see; nothing is changed."""
    fs, root = open_place(store)
    if client is None or not on_disk(fs):
        return
    folder = os.path.abspath(root)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    if not os.access(folder, os.W_OK):
        return  # which the run will tell in its own words
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".calfin-reach-") as probe:
        if host := _blind_host([probe.name], client):
            raise ValueError(
                f"the store {store} is a folder of this machine that workers on {host} do not see: {ELSEWHERE}"
            )


def in_reach(items: Iterable[pystac.Item], client: Client | None) -> Iterator[pystac.Item]:
    """Pass on items; raise `ValueError` before the first where its files are of this machine and workers lack them."""
    waiting = iter(items)
    for item in waiting:
        hrefs = [asset.href.removeprefix("file://") for asset in item.assets.values()]
        local = [href for href in hrefs if not urlsplit(href).scheme and os.path.exists(href)]
        if local and client is not None and (host := _blind_host(local[:1], client)):
            raise ValueError(
                f"scenes such as {local[0]} lie on this machine, where workers on {host} do not see them: {ELSEWHERE}"
            )
        yield from chain([item], waiting)


def scenes_in_reach(find_scenes: FindScenes, client: Client | None, domain: Domain) -> Iterator[pystac.Item]:
    """Find the scenes of a domain, granules of a pass joined; raise `ValueError` for files that workers do not see."""
    return in_reach(join_granules(find_scenes(domain), domain), client)


def _blind_host(paths: Sequence[str], client: Client) -> str | None:
    """Name a host of workers that lack one of these files, None where all have them."""
    workers = workers_of(client)
    one_each = {worker["host"]: address for address, worker in workers.items()}
    seen = client.run(_sees, list(paths), workers=list(one_each.values()), on_error="return")
    return next((host for host, address in one_each.items() if seen.get(address) is False), None)


def _sees(paths: Sequence[str]) -> bool:
    return all(map(os.path.exists, paths))
