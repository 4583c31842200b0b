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
from calfin_cloud.pipeline.recipes import calibration_id, recipe_of
from calfin_cloud.pipeline.scene import Result, Target, trace_stored
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.tables import tables_of
from calfin_cloud.schema import UNSEEN, SceneError
from calfin_cloud.storage import (
    Tables,
    begin_change,
    check_finished,
    end_change,
    hold_lease,
    keep_domain,
    read_items,
    read_places,
    read_scene_masks,
    read_store,
    read_store_domains,
    read_tables,
    tidy,
    write_batch,
)

TASKS_ALIVE = 512  # of a batch, which compaction may have made large


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
    with hold_lease(store, "retrace") as check:
        check_finished(store, verb="retrace")
        made = read_store(store)
        settings = replace(settings or MapSettings(), network=made["settings"]["network"])
        by_name = {d.name: d for d in read_store_domains(store)}
        if domains and not by_name.keys() & {d.name for d in domains}:
            raise ValueError(
                f"{store} has {sorted(by_name)}, got {sorted(d.name for d in domains)}: give its own domains"
            )
        calibration = calibration_id(settings.network)
        begin_change(store, "retrace", settings=_settings(made, settings), calibration=calibration)
        for domain in (d for d in domains if d.name in by_name):
            keep_domain(store, domain, replace=True)
            by_name[domain.name] = domain
        counts: Counter[str] = Counter()
        for stored in tidy(store):
            domain, old = by_name[stored.domain], read_tables(store, stored).fronts
            tables = retrace_tables(old, domain, store, settings, client)
            check()
            recipe = {**stored.recipe, "fronts": recipe_of(domain, settings)["fronts"]}
            write_batch(store, tables, read_items(store, stored), recipe=recipe, before=stored)
            counts.update(tables.fronts.drop_duplicates("key")["state"].tolist())
            if on_batch:
                on_batch(tables.fronts)
        end_change(store)
    return counts


def retrace_tables(
    fronts: gpd.GeoDataFrame, domain: Domain, store: str, settings: MapSettings, client: Client | None
) -> Tables:
    """Make the tables of the scenes of a fronts table anew from their masks; nothing is written but pictures."""
    places = read_places(store, domain.name)
    scenes = [dict(row) for row in fronts.drop_duplicates("key").drop(columns="geometry").to_dict("records")]
    tasks = [delayed(_retrace)(row, _target(row, store, domain, places), settings) for row in scenes]
    results: list[Result] = []
    for start in range(0, len(tasks), TASKS_ALIVE):
        part = tasks[start : start + TASKS_ALIVE]
        results += client.gather(client.compute(part)) if client else compute(*part, scheduler="synchronous")
    return tables_of(scenes, results, domain)


def _target(row: dict[str, Any], store: str, domain: Domain, places: dict[str, int]) -> Target:
    scene_id = str(row["scene_id"])
    return Target(store, domain, places[scene_id], scene_id, row["datetime"].date())


def _settings(made: dict[str, Any], settings: MapSettings) -> dict[str, Any]:
    """Return the settings of the store with the new ones of all that comes after the masks."""
    new = asdict(settings)
    return {**made["settings"], "trace": new["trace"], "polygons": new["polygons"]}


def _retrace(row: dict[str, Any], target: Target, settings: MapSettings) -> Result:
    """Trace a scene anew; one that the network has not seen has no masks and stays as it is."""
    try:
        front = read_scene_masks(target.store, target.domain.name, target.place)[0]
        if not np.isnan(front).all():
            return trace_stored(target, settings)
    except SceneError as error:  # a damaged file: the scene fails, and a retry maps it again
        return error
    if row["reason"] in UNSEEN:
        return SceneError(row["reason"], row["detail"])
    return SceneError("unreadable", "its masks are no longer in the store: `calfin retry` maps it again")
