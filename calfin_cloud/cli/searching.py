"""Searches before a run: the catalogue is asked before workers start, and what it has says if they are worth it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import length_hint
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calfin_cloud.domains import Domain

FEW_SCENES = 100
"""Below, `--cluster auto` starts no workers."""

Find = Callable[["Domain"], Iterable[Any]]


def finder(options: argparse.Namespace) -> Find:
    """Return what finds the scenes of a domain: a search in the catalogue, or the given images that touch it."""
    from calfin_cloud.scenes import images_of, items_from_images, stream_scenes

    if options.images:
        return partial(images_of, items_from_images(options.images, options.datetime, platform=options.platform))
    if options.period is None:
        raise ValueError("--period is needed with --catalog, e.g. --period 2019-06/2019-09")
    return partial(
        stream_scenes,
        options.catalog,
        period=period_of(options),
        collections=options.collections,
        max_cloud=options.max_scene_cloud,
    )


def period_of(options: argparse.Namespace) -> str:
    """Return the period that the call asks for, with a date where it is a relative one."""
    from calfin_cloud.scenes import absolute_period

    return absolute_period(options.period, partial(_newest_scene, getattr(options, "store", None)))


def _newest_scene(store: str | None) -> datetime | None:
    """Time of the newest scene of a store, None where there is none.

    One dated in the future does not count: a single wrong date would end all later searches without a word.
    """
    from calfin_cloud.storage import is_store, read_states

    if not store or not is_store(store):
        return None
    times = read_states(store)["datetime"]
    past = times[times <= datetime.now(UTC)]
    return None if past.empty else past.max().to_pydatetime()


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
