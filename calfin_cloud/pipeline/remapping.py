"""Scenes of a store mapped once more: those that failed, and those whose item, model or settings have changed since."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import geopandas as gpd
import pystac
from distributed import Client

from calfin_cloud.domains import Domain
from calfin_cloud.network import Engine
from calfin_cloud.pipeline.batches import Batch, FindScenes, windowed
from calfin_cloud.pipeline.mapping import map_batch
from calfin_cloud.pipeline.recipes import made_by, recipe_of
from calfin_cloud.pipeline.retracing import retrace_tables
from calfin_cloud.pipeline.settings import MapSettings, settings_from
from calfin_cloud.pipeline.tables import with_new_rows
from calfin_cloud.pipeline.workers import check_network
from calfin_cloud.schema import UNSEEN, front_key
from calfin_cloud.storage import (
    Stored,
    Tables,
    begin_change,
    check_finished,
    clear_masks,
    end_change,
    hold_lease,
    is_store,
    item_digest,
    keep_domain,
    open_store,
    read_items,
    read_places,
    read_store,
    read_store_domains,
    read_tables,
    tidy,
    write_batch,
)

OnBatch = Callable[[gpd.GeoDataFrame], None]
RECOMPUTE = "map --recompute"
SCENES_AT_ONCE = 32  # of a batch, which compaction may have made large


@dataclass(frozen=True)
class Job:
    """A batch of which some scenes, by key, are mapped again, and perhaps all others traced again.

    `changed` has the new items of those whose item is no longer the one that the store has kept.
    """

    stored: Stored
    domain: Domain
    keys: Sequence[str]
    recipe: Mapping[str, str]
    changed: Mapping[str, Any] = field(default_factory=dict)
    retrace: bool = False


def retry_failed(
    store: str, *, engine: Engine = "auto", client: Client | None = None, on_batch: OnBatch | None = None
) -> Counter[str]:
    """Map the failed scenes of a store once more, as they were mapped; count the states they ended in.

    Their items are those that the store has kept. A scene that fails again stays failed, with the new error. Raises
    `ValueError` where model, calibration or code are no longer those of the store.
    """
    with hold_lease(store, "retry") as check:
        found = read_store(store)
        settings = settings_from(found["settings"])
        open_store(store, crs=found["crs"], made_by=made_by(settings))
        settings = replace(settings, inference=replace(settings.inference, engine=engine))
        return _run(store, _failed_jobs(store), settings, client, on_batch, check)


def recompute_changed(
    store: str,
    domains: Sequence[Domain],
    find_scenes: FindScenes,
    *,
    settings: MapSettings | None = None,
    client: Client | None = None,
    on_batch: OnBatch | None = None,
) -> Counter[str]:
    """Bring a store up to date with the catalogue, the domains and the settings; count the scenes by state.

    Mapped again are the scenes whose item in the catalogue differs from the one they were mapped from, and all scenes
    where model, code, or settings before the tracing differ; where only settings of the tracing, the calibration
    or a fjord boundary do, scenes are traced again from their masks, as `retrace_fronts` does. All else stays as it is,
    and so does a store that does not exist yet. After an interruption the store is unfinished: call it again, it goes
    on where it stopped.

    Parameters
    ----------
    domains
        Those of the store that are not among them keep their boundaries, and their scenes the items they were made of.
    settings
        Those of the store where not given.
    """
    if not is_store(store):
        return Counter(front=0, no_front=0, failed=0)
    with hold_lease(store, RECOMPUTE) as check:
        check_finished(store, verb=RECOMPUTE)
        settings = settings or settings_from(read_store(store)["settings"])
        check_network(settings, client)  # a wrong one ends the run here, before the store is touched
        kept = {d.name: d for d in read_store_domains(store)}
        own = [d for d in domains if d.name in kept]
        batches = tidy(store)
        jobs = _changed_jobs(
            batches, kept | {d.name: d for d in own}, _changed_items(batches, own, find_scenes), settings
        )
        if not jobs and _is_made_by(store, settings) and own == [kept[d.name] for d in own]:
            return Counter(front=0, no_front=0, failed=0)
        check()
        begin_change(store, RECOMPUTE, **made_by(settings))
        for domain in own:
            keep_domain(store, domain, replace=True)
        counts = _run(store, jobs, settings, client, on_batch, check)
        check()
        end_change(store)
    return counts


def _is_made_by(store: str, settings: MapSettings) -> bool:
    found = read_store(store)
    return found == found | json.loads(json.dumps(made_by(settings))) and "unfinished" not in found


def _failed_jobs(store: str) -> Iterator[Job]:
    domains = {d.name: d for d in read_store_domains(store)}
    for stored in tidy(store):
        fronts = read_tables(store, stored).fronts
        if failed := fronts.loc[fronts["state"] == "failed", "key"].tolist():
            yield Job(stored, domains[stored.domain], failed, stored.recipe)


def _changed_items(batches: Sequence[Stored], domains: Sequence[Domain], find_scenes: FindScenes) -> dict[str, Any]:
    """Items (JSON values) by key that differ from those which scenes of the store were made of."""
    known = {key: item for stored in batches for key, item in stored.items.items()}
    changed = {}
    for domain in domains:
        for item in find_scenes(domain):
            key = front_key(domain.name, item.id)
            if key in known and item_digest(now := item.to_dict(transform_hrefs=False)) != known[key]:
                changed[key] = now
    return changed


def _changed_jobs(
    batches: Sequence[Stored], domains: Mapping[str, Domain], changed: Mapping[str, Any], settings: MapSettings
) -> list[Job]:
    recipes = {name: recipe_of(domain, settings) for name, domain in domains.items()}
    jobs = []
    for stored in batches:
        recipe, items = recipes[stored.domain], {key: changed[key] for key in stored.items if key in changed}
        keys = list(stored.items if stored.recipe.get("masks") != recipe["masks"] else items)
        if keys or stored.recipe != recipe:
            jobs.append(Job(stored, domains[stored.domain], keys, recipe, items, retrace=stored.recipe != recipe))
    return jobs


def _run(
    store: str,
    jobs: Iterable[Job],
    settings: MapSettings,
    client: Client | None,
    on_batch: OnBatch | None,
    check: Callable[[], None],
) -> Counter[str]:
    """Run jobs, several at a time on a cluster; count the states of their scenes."""
    counts: Counter[str] = Counter(front=0, no_front=0, failed=0)
    run = partial(_redo, store=store, settings=settings, client=client, check=check)
    for fronts in windowed(run, jobs, client) if client else map(run, jobs):
        counts.update(fronts.drop_duplicates("key")["state"].tolist())
        if on_batch:
            on_batch(fronts)
    return counts


def _redo(
    job: Job, *, store: str, settings: MapSettings, client: Client | None, check: Callable[[], None]
) -> gpd.GeoDataFrame:
    """Put the new rows of a batch in place of the old ones, all at once; return its new fronts."""
    keys, old = list(job.stored.items), read_tables(store, job.stored)
    items = {**read_items(store, job.stored), **job.changed}
    parts = [
        _map_items(store, job.domain, {k: items[k] for k in job.keys[start : start + SCENES_AT_ONCE]}, settings, client)
        for start in range(0, len(job.keys), SCENES_AT_ONCE)
    ]
    others = old.fronts[~old.fronts["key"].isin(job.keys)]
    if job.retrace and len(others):
        parts.append(retrace_tables(others, job.domain, store, settings, client))
    new = old
    for part in parts:
        new = with_new_rows(new, part, keys)
    check()
    write_batch(store, new, items, recipe=job.recipe, before=job.stored)
    touched = {key for part in parts for key in part.fronts["key"]}
    return new.fronts[new.fronts["key"].isin(touched)]


def _map_items(
    store: str, domain: Domain, items: Mapping[str, Any], settings: MapSettings, client: Client | None
) -> Tables:
    places = read_places(store, domain.name)
    scenes = [pystac.Item.from_dict(item, preserve_dict=True) for item in items.values()]
    tables = map_batch(Batch(domain, scenes, [places[item.id] for item in scenes]), store, settings, client)
    # Masks of an earlier model must not outlive a mapping that came to none, or a retrace would trace them.
    for row in tables.fronts[tables.fronts["reason"].isin(UNSEEN)].itertuples():
        clear_masks(store, domain.name, places[row.scene_id])
    return tables
