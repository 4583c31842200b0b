"""Fronts traced anew from the masks of a store, with other settings or fjord boundaries; the network is not asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import geopandas as gpd
import numpy as np
from dask import compute, delayed
from distributed import Client

from calfin_cloud.domains import Domain
from calfin_cloud.pipeline.scene import Result, Target, trace_stored
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.tables import tables_of, write_tables
from calfin_cloud.schema import SceneError
from calfin_cloud.storage import (
    change_store,
    keep_domain,
    read_batches,
    read_places,
    read_scene_masks,
    read_store,
    read_store_domains,
)


def retrace_fronts(
    store: str,
    domains: Sequence[Domain] = (),
    *,
    settings: MapSettings | None = None,
    client: Client | None = None,
    on_batch: Callable[[gpd.GeoDataFrame], None] | None = None,
) -> Counter[str]:
    """Trace all scenes of a store anew from its masks and replace its tables, batch by batch.

    While it runs the store says that it is unfinished and takes no new scenes; after an interruption, call it again.

    Parameters
    ----------
    store
        fsspec URI of a store.
    domains
        Domains with new fjord boundaries; those of the store that are not among them are taken as they were mapped.
    settings
        Only what comes after the masks is used: `trace` and `polygons`.

    Returns
    -------
    Counter
        Scenes by state.
    """
    made_by = read_store(store)
    settings = replace(settings or MapSettings(), network=made_by["settings"]["network"])
    by_name = {d.name: d for d in read_store_domains(store)}
    if domains and not by_name.keys() & {d.name for d in domains}:
        raise ValueError(f"{store} has {sorted(by_name)}, got {sorted(d.name for d in domains)}: give its own domains")
    change_store(store, settings=_settings(made_by, settings), unfinished="retrace")
    for domain in (d for d in domains if d.name in by_name):
        keep_domain(store, domain, replace=True)
        by_name[domain.name] = domain
    counts: Counter[str] = Counter()
    for batch in read_batches(store):
        name = str(batch["domain"].iloc[0])
        fronts = _retrace_batch(batch, by_name[name], store, settings, client)
        counts.update(fronts.drop_duplicates("key")["state"].tolist())
        if on_batch:
            on_batch(fronts)
    change_store(store, unfinished=None)
    return counts


def _settings(made_by: dict[str, Any], settings: MapSettings) -> dict[str, Any]:
    """Return the settings of the store with the new ones of all that comes after the masks."""
    new = asdict(settings)
    return {**made_by["settings"], "trace": new["trace"], "polygons": new["polygons"]}


def _retrace_batch(
    batch: gpd.GeoDataFrame, domain: Domain, store: str, settings: MapSettings, client: Client | None
) -> gpd.GeoDataFrame:
    places = read_places(store, domain.name)
    scenes = [dict(row) for row in batch.drop_duplicates("key").drop(columns="geometry").to_dict("records")]
    tasks = [
        delayed(_retrace)(row, Target(store, domain, places[str(row["scene_id"])], str(row["scene_id"])), settings)
        for row in scenes
    ]
    results = client.gather(client.compute(tasks)) if client else compute(*tasks, scheduler="synchronous")
    return write_tables(store, tables_of(scenes, results, domain), [row["key"] for row in scenes])


def _retrace(row: dict[str, Any], target: Target, settings: MapSettings) -> Result:
    """Trace a scene anew; one without masks was never traced and stays as it is."""
    front = read_scene_masks(target.store, target.domain.name, target.place)[0]
    return SceneError(row["reason"], row["detail"]) if np.isnan(front).all() else trace_stored(target, settings)
