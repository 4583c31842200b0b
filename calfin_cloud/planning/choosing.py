"""Scenes of domains are counted, and some of them chosen that stand for the others."""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple

import pystac

from calfin_cloud.domains import Domain
from calfin_cloud.scenes import FindScenes, join_granules
from calfin_cloud.schema import front_key


class Drawn(NamedTuple):
    """A scene drawn for the probe, and how many scenes of its domain it stands for."""

    item: pystac.Item
    domain: Domain
    stands_for: float


def list_scenes(
    domains: Sequence[Domain], find_scenes: FindScenes, known: Set[str], n: int, seed: int
) -> tuple[list[dict[str, Any]], list[Drawn]]:
    """Count the scenes of each domain and platform, and draw up to `n` new ones of each domain.

    Only the drawn ones are kept: there may be hundreds of thousands.
    """
    counts: Counter[tuple[str, str, bool]] = Counter()
    pool: list[Drawn] = []
    chance = random.Random(seed)
    for domain in domains:

        def new_scenes(domain: Domain = domain) -> Iterator[tuple[float, str, pystac.Item]]:
            for item in join_granules(find_scenes(domain), domain):
                is_known = front_key(domain.name, item.id) in known
                counts[domain.name, _platform(item), is_known] += 1
                if not is_known:
                    yield chance.random(), item.id, item

        drawn = heapq.nsmallest(n, new_scenes())
        n_new = sum(c for (name, _, is_known), c in counts.items() if name == domain.name and not is_known)
        pool += [Drawn(item, domain, n_new / len(drawn)) for _, _, item in drawn]
    rows = []
    for name, platform in dict.fromkeys((name, platform) for name, platform, _ in counts):
        n_known, n_new = counts[name, platform, True], counts[name, platform, False]
        row = {"domain": name, "platform": platform}
        rows.append(row | {"found": n_known + n_new, "known": n_known, "to_do": n_new})
    return rows, pool


def spread(pool: Sequence[Drawn], n: int, seed: int) -> list[tuple[pystac.Item, Domain]]:
    """Choose `n` of the drawn scenes, every domain and platform by the number of scenes it stands for."""
    ordered = sorted(pool, key=lambda drawn: (drawn.domain.name, _platform(drawn.item)))
    reach = list(itertools.accumulate(drawn.stands_for for drawn in ordered))
    if len(ordered) <= n:
        return [(drawn.item, drawn.domain) for drawn in ordered]
    step, first = reach[-1] / n, random.Random(seed).random()
    places = dict.fromkeys(min(bisect.bisect(reach, (i + first) * step), len(ordered) - 1) for i in range(n))
    return [(ordered[place].item, ordered[place].domain) for place in places]


def _platform(item: pystac.Item) -> str:
    return str(item.properties.get("platform") or "unknown")
