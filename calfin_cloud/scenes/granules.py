"""Items of a domain in; granules of one pass, none of which covers the domain alone, joined to one item, out.

Providers cut what a satellite sees in one pass into granules: tiles of Sentinel-2, frames of Landsat, slices of
Sentinel-1. A domain on a seam lies whole in none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint
from typing import Any

import pandas as pd
import pystac
from shapely.geometry.base import BaseGeometry

from calfin_cloud.domains import Domain
from calfin_cloud.scenes.footprints import covered_part
from calfin_cloud.scenes.listing import Counted
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import GRANULES_FIELD, Band, acquired, band_of, item_of

LONGEST_GAP = pd.Timedelta(seconds=120)
"""Granules follow each other within half a minute; the next pass of a satellite comes after an hour and a half."""

MOST_AT_ONCE = 1000  # items that are held at once, of a catalogue whose times have no gaps

WHOLE = 0.999
ADDS = 0.01
"""Shares of the domain: what a granule covers that needs no other, and what another has to add."""

SHARED = ("s2:processing_baseline", "processing:version", "sat:relative_orbit", "landsat:wrs_path")
"""What granules of one pass and one processing have in common."""


def join_granules(items: Iterable[pystac.Item], domain: Domain) -> Iterator[pystac.Item]:
    """Join the granules of each pass that together show more of a domain than any one; pass on all other items.

    A joined item has the ids of its granules, with `+` between them, and all else of the first; the further ones are in
    its field `calfin:granules`, and are read where those before have no data. Granules belong together if one
    satellite took them within minutes, in one collection, processing and calibration. An item that covers the domain
    alone, has no footprint, or adds less than a hundredth of the domain stays as it is. `map_fronts` joins what it
    maps by itself.

    Parameters
    ----------
    items
        Sorted by time and id, as from `search_scenes` or `stream_scenes`.
    domain
        For which they were searched.

    Returns
    -------
    Iterator
        Items, sorted by time and id; `operator.length_hint` tells how many are left at most.

    Raises
    ------
    ValueError
        An item has no time.

    Examples
    --------
    >>> (domain,) = cc.read_domains("real/domains.geojson")
    >>> items = cc.search_scenes("real/catalog.json", domain, "2021")
    >>> scenes = cc.stack_scenes(cc.join_granules(items, domain), domain)
    >>> scenes["scene_id"].values.tolist()
    ['harald-moltke-brae_20210927']
    """
    area = domain.area_lonlat
    joined = (item for group in _passes(items) for item in _joined(group, area))
    return Counted(joined, length_hint(items))


def _passes(items: Iterable[pystac.Item]) -> Iterator[list[pystac.Item]]:
    """Part items where the time between them is longer than within a pass."""
    group: list[pystac.Item] = []
    last = pd.Timestamp(0, tz="UTC")
    for item in items:
        now = acquired(item)
        if group and (not last <= now <= last + LONGEST_GAP or len(group) == MOST_AT_ONCE):
            yield group
            group = []
        last = now
        group.append(item)
    if group:
        yield group


def _joined(group: list[pystac.Item], area: BaseGeometry) -> list[pystac.Item]:
    """Join what is of one pass among items that several satellites may have taken in turn."""
    passes = (of_pass for alike in _alike(group) for of_pass in _passes(alike)) if len(group) > 1 else (group,)
    found = [item for of_pass in passes for item in _seen_whole(of_pass, area)]
    return sorted(found, key=lambda item: (acquired(item), item.id))


def _seen_whole(granules: list[pystac.Item], area: BaseGeometry) -> Iterator[pystac.Item]:
    """Join granules of one pass, unless one of them covers the area alone."""
    parts: dict[str, BaseGeometry] = {}
    if len(granules) > 1:
        of_all = {item.id: covered_part(item.id, item.geometry, item.bbox, area) for item in granules}
        parts = {id_: part for id_, part in of_all.items() if part is not None}
    if len(parts) < 2 or max(part.area for part in parts.values()) >= WHOLE * area.area:
        yield from granules
        return
    yield from (item for item in granules if item.id not in parts)
    yield from map(_one, _cover([item for item in granules if item.id in parts], parts, area))


def _alike(group: Sequence[pystac.Item]) -> list[list[pystac.Item]]:
    """Part items by satellite, collection, processing and band; an item that is joined to no other is alone."""
    parts: list[tuple[tuple[Any, ...], Band | None, list[pystac.Item]]] = []
    for item in group:
        key = item.collection_id, *(item.properties.get(name) for name in ("platform", *SHARED))
        band = _band_to_join(item)
        of = next((items for k, b, items in parts if band is not None and (k, b) == (key, band)), None)
        if of is None:
            parts.append((key, band, of := []))
        of.append(item)
    return [items for *_, items in parts]


def _band_to_join(item: pystac.Item) -> Band | None:
    """Band that granules of a pass share; None for what is joined already, and images, whose times may be mere days."""
    if GRANULES_FIELD in item.extra_fields or item.collection_id == "images":
        return None
    try:
        return band_of(item)
    except SceneError:
        return None


def _cover(
    items: Sequence[pystac.Item], parts: dict[str, BaseGeometry], area: BaseGeometry
) -> Iterator[list[pystac.Item]]:
    """Take the largest part, and each further one that adds to those before; then again of what is left."""
    left = sorted(items, key=lambda item: (-parts[item.id].area, item.id))
    while left:
        together, seen = [left[0]], parts[left[0].id]
        for item in left[1:]:
            more = seen.union(parts[item.id])
            if more.area - seen.area >= ADDS * area.area:
                together, seen = [*together, item], more
        left = [item for item in left if item not in together]
        yield sorted(together, key=lambda item: (acquired(item), item.id))


def _one(together: list[pystac.Item]) -> pystac.Item:
    first, *further = together
    if not further:
        return first
    told = {
        "id": "+".join(granule.id for granule in together),
        GRANULES_FIELD: [granule.to_dict(transform_hrefs=False) for granule in further],
    }
    return item_of(first.to_dict(transform_hrefs=False) | told)
