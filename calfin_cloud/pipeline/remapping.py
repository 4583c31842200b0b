"""Scenes of a store mapped once more: those that failed, and those whose item has changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import geopandas as gpd
import pystac
from distributed import Client

from calfin_cloud.domains import Domain
from calfin_cloud.pipeline.mapping import Batch, FindScenes, map_batch
from calfin_cloud.pipeline.settings import MapSettings, settings_from
from calfin_cloud.pipeline.tables import Tables, with_new_rows, write_tables
from calfin_cloud.schema import front_key
from calfin_cloud.storage import (
    read_batch,
    read_batches,
    read_items,
    read_places,
    read_store,
    read_store_domains,
    write_items,
)

OnBatch = Callable[[gpd.GeoDataFrame], None]


def retry_failed(store: str, *, client: Client | None = None, on_batch: OnBatch | None = None) -> Counter[str]:
    """Map the failed scenes of a store once more, as they were mapped; count the states they ended in.

    Their items are those that the store has kept. A scene that fails again stays failed, with the new error.
    """

    def failed(fronts: gpd.GeoDataFrame, items: Mapping[str, Any]) -> dict[str, Any]:
        keys = fronts.loc[fronts["state"] == "failed", "key"]
        return {key: items[key] for key in keys if key in items}

    return _remap(store, failed, client, on_batch)


def recompute_changed(
    store: str,
    domains: Sequence[Domain],
    find_scenes: FindScenes,
    *,
    client: Client | None = None,
    on_batch: OnBatch | None = None,
) -> Counter[str]:
    """Map the scenes once more whose item in the catalogue differs from the one they were mapped from."""
    now = {front_key(d.name, item.id): item.to_dict(transform_hrefs=False) for d in domains for item in find_scenes(d)}

    def changed(fronts: gpd.GeoDataFrame, items: Mapping[str, Any]) -> dict[str, Any]:
        return {key: now[key] for key in fronts["key"].unique() if key in now and now[key] != items.get(key)}

    return _remap(store, changed, client, on_batch)


def _remap(
    store: str,
    choose: Callable[[gpd.GeoDataFrame, Mapping[str, Any]], dict[str, Any]],
    client: Client | None,
    on_batch: OnBatch | None,
) -> Counter[str]:
    """Map the chosen scenes of every batch anew (key -> item) and put their rows in place of the old ones."""
    settings = settings_from(read_store(store)["settings"])
    domains = {d.name: d for d in read_store_domains(store)}
    counts: Counter[str] = Counter(front=0, no_front=0, failed=0)
    for fronts in read_batches(store):
        keys = list(fronts["key"].unique())
        items = read_items(store, keys)
        if not (chosen := choose(fronts, items)):
            continue
        domain = domains[str(fronts["domain"].iloc[0])]
        new = _map_items(store, domain, chosen, settings, client)
        write_items(store, [(items | chosen)[key] for key in keys], keys=keys)
        write_tables(store, with_new_rows(Tables(fronts, *read_batch(store, keys)), new, keys), keys)
        counts.update(new.fronts.drop_duplicates("key")["state"].tolist())
        if on_batch:
            on_batch(new.fronts)
    return counts


def _map_items(
    store: str, domain: Domain, items: Mapping[str, Any], settings: MapSettings, client: Client | None
) -> Tables:
    places = read_places(store, domain.name)
    scenes = [pystac.Item.from_dict(item, preserve_dict=True) for item in items.values()]
    return map_batch(Batch(domain, scenes, [places[item.id] for item in scenes]), store, settings, client)
