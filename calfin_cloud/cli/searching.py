"""Searches before a run: the catalogue is asked before workers start, and what it has says if they are worth it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import length_hint
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calfin_cloud.domains import Domain

FEW_SCENES = 100
"""Below, `--cluster auto` starts no workers."""

Find = Callable[["Domain"], Iterable[Any]]


def search_ahead(find: Find, domains: Sequence[Domain], *, enough: int = 1) -> tuple[Find, int]:
    """Search domain by domain until `enough` scenes are found; return what finds them, and how many there are so far.

    What was found is handed out when it is first asked for, so that no search is made twice.
    """
    found: dict[str, Iterable[Any]] = {}
    n_scenes = 0
    for domain in domains:
        items = find(domain)
        found[domain.name] = items
        n_scenes += length_hint(items)
        if n_scenes >= enough:
            break

    def of(domain: Domain) -> Iterable[Any]:
        return found.pop(domain.name) if domain.name in found else find(domain)

    return of, n_scenes


def counted(find: Find, bar: Any, store: str) -> Find:  # noqa: ANN401 - a bar of tqdm
    """Find scenes, and give the bar their number as its total, without those that the store has already."""
    if bar.disable:
        return find
    from calfin_cloud.scenes import join_granules
    from calfin_cloud.schema import front_key
    from calfin_cloud.storage import finished_keys, is_store

    done = finished_keys(store) if is_store(store) else set()

    def of(domain: Domain) -> Iterator[Any]:
        items = join_granules(find(domain), domain)
        bar.total = (bar.total or 0) + length_hint(items)
        for item in items:
            if front_key(domain.name, item.id) in done:
                bar.total -= 1
            yield item
        bar.total -= length_hint(items)  # granules that were joined to others

    return of


def cluster_for(options: argparse.Namespace, n_scenes: int) -> str:
    """Name the cluster of a run: as the call says, and where it leaves that open none for few scenes, else local."""
    if options.cluster != "auto":
        return str(options.cluster)
    asks = options.workers is not None or options.worker_memory is not None or options.cluster_option
    return "local" if asks or n_scenes >= FEW_SCENES else "none"
