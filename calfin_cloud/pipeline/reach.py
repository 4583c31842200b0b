"""Whether workers see the files of this machine: on a cluster elsewhere a path is another disk, or none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from urllib.parse import urlsplit

import pystac
from distributed import Client

from calfin_cloud.storage.files import on_disk, open_place

ELSEWHERE = "put it where all reach it, such as s3://bucket/name (on a JupyterHub below $SCRATCH_BUCKET)"


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


def _blind_host(paths: Sequence[str], client: Client) -> str | None:
    """Name a host of workers that lack one of these files, None where all have them."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    one_each = {worker["host"]: address for address, worker in workers.items()}
    seen = client.run(_sees, list(paths), workers=list(one_each.values()), on_error="return")
    return next((host for host, address in one_each.items() if seen.get(address) is False), None)


def _sees(paths: Sequence[str]) -> bool:
    return all(map(os.path.exists, paths))
