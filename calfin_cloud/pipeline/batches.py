"""Scenes of domains in the order of a search, cut into batches that are written together."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pystac

from calfin_cloud.domains import Domain
from calfin_cloud.schema import front_key
from calfin_cloud.sensors import acquired
from calfin_cloud.storage import add_scenes, item_digest, keep_domain

BATCH_PIXELS = 16_000_000  # of a batch, on all workers together: 190 MB of channels and masks
PLACED_AT_ONCE = 2048  # scenes that get their places in the masks together, and are held for it: 12 MB of items


@dataclass(frozen=True)
class Batch:
    """Scenes of one domain that are written together; `places` are theirs on the time axis of the masks.

    `scenes` are items as JSON values: pystac's own may drag their whole catalogue along.
    """

    domain: Domain
    scenes: Sequence[Mapping[str, Any]]
    places: Sequence[int]

    @cached_property
    def items(self) -> dict[str, Mapping[str, Any]]:
        """Items by the key of their scenes."""
        return {front_key(self.domain.name, scene["id"]): scene for scene in self.scenes}


class Waiting(NamedTuple):
    """A scene that waits for its batch: as bytes, since the collector looks through all values that are alive."""

    id: str
    when: np.datetime64
    item: bytes


def cut_batches(
    domain: Domain, items: Iterable[pystac.Item], store: str, batch_size: int, check: Callable[[], None]
) -> Iterator[Batch]:
    """Give scenes their places in the masks of a store and cut them into batches, in their order.

    Nothing but the items and the size of the domain decides where: a resumed run cuts what is left of them alike.
    `check` raises where this run must not write any more.
    """
    size = batch_length(domain, batch_size)
    waiting, is_kept = map(_waiting, items), False
    while group := list(islice(waiting, size * max(1, PLACED_AT_ONCE // size))):
        check()
        if not is_kept:
            keep_domain(store, domain)
            is_kept = True
        places = add_scenes(store, domain, {scene.id: scene.when for scene in group})
        for start in range(0, len(group), size):
            part = group[start : start + size]
            yield Batch(domain, [pickle.loads(scene.item) for scene in part], [places[scene.id] for scene in part])


def _waiting(item: pystac.Item) -> Waiting:
    when = np.datetime64(acquired(item).tz_localize(None))
    return Waiting(item.id, when, pickle.dumps(item.to_dict(transform_hrefs=False), pickle.HIGHEST_PROTOCOL))


def batch_length(domain: Domain, batch_size: int) -> int:
    """Scenes of a batch: as many as asked for, fewer of a large domain."""
    return max(1, min(batch_size, BATCH_PIXELS // (domain.shape[0] * domain.shape[1])))


def unknown_scenes(
    domain: Domain, items: Iterable[pystac.Item], done: Mapping[str, str], counts: Counter[str]
) -> Iterator[pystac.Item]:
    """Pass on the items whose scenes are not `done` (key -> digest of the item); count all as they come.

    Raises
    ------
    ValueError
        For items that are not sorted by time and id, or come twice.
    """
    before = None
    for item in items:
        this = acquired(item), item.id
        if before is not None and this <= before:
            raise ValueError(
                f"the scenes of {domain.name} must be sorted by datetime and id, each id once, got {item.id} "
                f"after {before[1]}: take them from search_scenes, stream_scenes or items_from_images"
            )
        before, key = this, front_key(domain.name, item.id)
        counts["found"] += 1
        if key not in done:
            yield item
            continue
        counts["known"] += 1
        if item_digest(item.to_dict(transform_hrefs=False)) != done[key]:
            counts["changed"] += 1
