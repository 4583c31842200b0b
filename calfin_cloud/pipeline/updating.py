"""A store brought up to date: where its recipe differs from the wanted one, the steps run again from there.

Retrying failed scenes, tracing anew and mapping again are one thing: which scenes of a batch start at which step.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import pystac
from distributed import Client

from calfin_cloud.domains import Domain
from calfin_cloud.feature_schema import FEATURE_FAILURES
from calfin_cloud.network import Engine
from calfin_cloud.pipeline.batches import Batch, FindScenes
from calfin_cloud.pipeline.mapping import tables_of_batches
from calfin_cloud.pipeline.runners import check_network, in_order, run_each
from calfin_cloud.pipeline.scene import Group, Result, calibration_of, retrace
from calfin_cloud.pipeline.settings import MapSettings, made_by, recipe_of, saved, settings_from
from calfin_cloud.pipeline.tables import Made, made_of, with_new_features, with_new_rows
from calfin_cloud.schema import front_key
from calfin_cloud.storage import (
    Stored,
    begin_change,
    check_finished,
    check_room,
    due_keys,
    end_change,
    hold_lease,
    is_store,
    item_digest,
    keep_domain,
    note_tries,
    open_store,
    read_batch_features,
    read_items,
    read_places,
    read_store,
    read_store_domains,
    read_tables,
    tidy,
    write_batch,
)

OnBatch = Callable[[gpd.GeoDataFrame], None]
RECOMPUTE, RETRACE = "map --recompute", "retrace"
SCENES_AT_ONCE = 32  # of a batch, which compaction may have made large
SCENES_A_TASK = 8  # that are traced anew


@dataclass(frozen=True)
class Job:
    """A batch to be brought up to date with `recipe`.

    Attributes
    ----------
    mapped
        Keys of the scenes that start at the first step: they are read and predicted again.
    traced
        Keys of the scenes that start at the tracing, from their stored masks.
    items
        New items of scenes whose item is no longer the one that the store has kept.
    """

    stored: Stored
    domain: Domain
    recipe: Mapping[str, str]
    mapped: Sequence[str] = ()
    traced: Sequence[str] = ()
    items: Mapping[str, Any] = field(default_factory=dict)


def retry_failed(
    store: str,
    *,
    engine: Engine | None = None,
    only_due: bool = False,
    client: Client | None = None,
    on_batch: OnBatch | None = None,
) -> Counter[str]:
    """Map the failed scenes of a store once more, as they were mapped; count the states they ended in.

    So are scenes of which a feature could not be measured for want of a file, or for an unexpected error.

    Their items are those that the store has kept. A scene that fails again stays failed, with the new error.

    Parameters
    ----------
    only_due
        For schedules: only scenes whose next try is due. There are three, days to weeks apart; a scene that fails in
        all stays failed and is left alone, until `retry_failed` is called without this.

    Raises
    ------
    ValueError
        Where model, calibration or code are no longer those of the store.

    Examples
    --------
    >>> retry_failed("fronts")                                                                     # doctest: +SKIP
    Counter({'front': 2, 'no_front': 0, 'failed': 1})
    """
    with hold_lease(store, "retry") as check:
        found = read_store(store)
        settings = settings_from(found["settings"])
        open_store(store, crs=found["crs"], made_by=made_by(settings))
        if engine is not None:
            settings = replace(settings, inference=replace(settings.inference, engine=engine))
        jobs = list(_failed(store))
        if only_due:
            failed, now = [key for job in jobs for key in job.mapped], datetime.now(UTC)
            due = set(due_keys(store, failed, now))
            jobs = [replace(job, mapped=keys) for job in jobs if (keys := [key for key in job.mapped if key in due])]
        if jobs:
            check_network(settings, client)  # a wrong one ends the run here, not scene by scene
            check_room(store, [job.stored for job in jobs])
        if only_due:
            note_tries(store, due, failed, now, check)  # before, so that a scene that ends the run is counted too
        return _run(store, jobs, settings, client, on_batch, check)


def retrace_fronts(
    store: str | Path,
    domains: Sequence[Domain] = (),
    *,
    settings: MapSettings | None = None,
    everything: bool = False,
    client: Client | None = None,
    on_batch: OnBatch | None = None,
) -> Counter[str]:
    """Trace the scenes of a store anew from its masks where settings, calibration, code or domains have changed.

    The tables are replaced batch by batch; where nothing has changed, nothing is written. After an interruption the
    store is unfinished and takes no new scenes: call it again, it continues where it stopped.

    Parameters
    ----------
    store
        fsspec URI of a store.
    domains
        Domains with new fjord boundaries or termini; those of the store that are not among them stay as they are.
    settings
        Only what comes after the masks is used: `trace` and `polygons`. Those of the store where not given. Features
        are measured anew from the bands that the store has kept of them.
    everything
        Trace all scenes, also where nothing has changed, as after damage to a file.
    client
        A Dask client; without one, in this process.
    on_batch
        Called with the fronts of each batch once it is written.

    Returns
    -------
    Counter
        Scenes that were traced anew, by state.

    Raises
    ------
    ValueError
        For domains that the store does not have, or has on another grid; nothing is changed then.
    StoreInUseError
        Another run writes to the store.

    Examples
    --------
    >>> dict(cc.retrace_fronts("fronts", cc.read_domains("real/domains.geojson")))  # nothing has changed
    {'front': 0, 'no_front': 0, 'failed': 0}
    """
    store = str(store)
    with hold_lease(store, RETRACE) as check:
        check_finished(store, verb=RETRACE)
        kept = settings_from(read_store(store)["settings"])
        wanted = kept if settings is None else replace(kept, trace=settings.trace, polygons=settings.polygons)
        by_name = _own_domains(store, domains)
        jobs = [
            Job(stored, by_name[stored.domain], recipe, traced=list(stored.items))
            for stored, recipe in _recipes(tidy(store), by_name, wanted)
            if everything or stored.recipe["fronts"] != recipe["fronts"]
        ]
        jobs = [replace(job, recipe={**job.stored.recipe, "fronts": job.recipe["fronts"]}) for job in jobs]
        made = {"settings": saved(wanted), "calibration": made_by(wanted)["calibration"]}
        calibration_of(wanted.network)  # a wrong one ends the run here, before the store is touched
        return _change(store, RETRACE, jobs, domains, wanted, made, client=client, on_batch=on_batch, check=check)


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
    or a domain do, scenes are traced again from their masks, as `retrace_fronts` does. All else stays as it is,
    and so does a store that does not exist yet. After an interruption the store is unfinished: call it again, it
    continues where it stopped.

    Parameters
    ----------
    domains
        Those of the store that are not among them keep their boundaries, and their scenes the items they were made of.
    settings
        Those of the store where not given.

    Raises
    ------
    ValueError
        For a network that cannot be loaded, or domains that the store has on another grid; nothing is changed then.

    Examples
    --------
    >>> recompute_changed("fronts", domains, find)                                                 # doctest: +SKIP
    Counter({'front': 1, 'no_front': 0, 'failed': 0})
    """
    if not is_store(store):
        return Counter(front=0, no_front=0, failed=0)
    with hold_lease(store, RECOMPUTE) as check:
        check_finished(store, verb=RECOMPUTE)
        wanted = settings or settings_from(read_store(store)["settings"])
        own = [d for d in domains if d.name in {kept.name for kept in read_store_domains(store)}]
        by_name = _own_domains(store, own)
        check_network(wanted, client)  # a wrong one ends the run here, before the store is touched
        batches = tidy(store)
        changed = _changed_items(batches, own, find_scenes)
        jobs = [
            job
            for stored, recipe in _recipes(batches, by_name, wanted)
            if (job := _job_of(stored, by_name[stored.domain], recipe, changed)) is not None
        ]
        return _change(
            store, RECOMPUTE, jobs, own, wanted, made_by(wanted), client=client, on_batch=on_batch, check=check
        )


def _own_domains(store: str, domains: Sequence[Domain]) -> dict[str, Domain]:
    """Domains of the store by name, the given ones in place of the kept ones; `ValueError` for another grid."""
    kept = {d.name: d for d in read_store_domains(store)}
    if domains and not kept.keys() & {d.name for d in domains}:
        raise ValueError(f"{store} has {sorted(kept)}, got {sorted(d.name for d in domains)}: give its own domains")
    new = {d.name: d for d in domains if d.name in kept}
    for name, domain in new.items():
        if domain.grid != kept[name].grid:
            raise ValueError(
                f"domain {name} has another grid in {store}: its masks stay on the old one; "
                "rename the domain, or map into another store"
            )
    return kept | new


def _recipes(
    batches: Iterable[Stored], domains: Mapping[str, Domain], settings: MapSettings
) -> Iterator[tuple[Stored, dict[str, str]]]:
    """Batches, and the recipe that each should have."""
    recipes = {name: recipe_of(domain, settings) for name, domain in domains.items()}
    for stored in batches:
        yield stored, recipes[stored.domain]


def _job_of(stored: Stored, domain: Domain, recipe: Mapping[str, str], changed: Mapping[str, Any]) -> Job | None:
    """Choose where each scene of a batch starts: the first step whose recipe or item differs; None if none does."""
    items = {key: changed[key] for key in stored.items if key in changed}
    if stored.recipe == recipe and not items:
        return None
    lacks_bands = recipe.get("features") not in (None, stored.recipe.get("features"))
    mapped = list(stored.items if stored.recipe.get("masks") != recipe["masks"] or lacks_bands else items)
    again = set(mapped)
    traced = [key for key in stored.items if key not in again] if stored.recipe != recipe else []
    return Job(stored, domain, recipe, mapped, traced, items)


def _failed(store: str) -> Iterator[Job]:
    domains = {d.name: d for d in read_store_domains(store)}
    for stored in tidy(store):
        fronts = read_tables(store, stored).fronts
        again = set(fronts.loc[fronts["state"] == "failed", "key"])
        for table in read_batch_features(store, stored).values():
            again.update(table.loc[table["reason"].isin(FEATURE_FAILURES), "key"])
        if again:
            yield Job(stored, domains[stored.domain], stored.recipe, mapped=[k for k in stored.items if k in again])


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


def _change(
    store: str,
    verb: str,
    jobs: Sequence[Job],
    domains: Sequence[Domain],
    settings: MapSettings,
    made: Mapping[str, Any],
    *,
    client: Client | None,
    on_batch: OnBatch | None,
    check: Callable[[], None],
) -> Counter[str]:
    """Mark the store as unfinished, run jobs, and mark it as finished; nothing is written where nothing has changed."""
    found, kept = read_store(store), {d.name: d for d in read_store_domains(store)}
    new = [d for d in domains if d.name in kept and d != kept[d.name]]
    if not jobs and not new and found == found | json.loads(json.dumps(made)) and "unfinished" not in found:
        return Counter(front=0, no_front=0, failed=0)
    check_room(store, [job.stored for job in jobs])
    check()
    begin_change(store, verb, **made)
    for domain in new:
        keep_domain(store, domain, replace=True)
    counts = _run(store, jobs, settings, client, on_batch, check)
    check()
    end_change(store)
    return counts


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
    for fronts in in_order(run, jobs, client):
        counts.update(fronts.drop_duplicates("key")["state"].tolist())
        if on_batch:
            on_batch(fronts)
    return counts


def _redo(
    job: Job, *, store: str, settings: MapSettings, client: Client | None, check: Callable[[], None]
) -> gpd.GeoDataFrame:
    """Put the new rows of a batch in place of the old ones, all at once; return the new fronts of its scenes."""
    keys, new, old = list(job.stored.items), read_tables(store, job.stored), read_batch_features(store, job.stored)
    items = {**read_items(store, job.stored), **job.items}
    parts = [
        _map_again(store, job.domain, {key: items[key] for key in part}, settings, client)
        for part in _cut(job.mapped, SCENES_AT_ONCE)
    ]
    traced = new.fronts[new.fronts["key"].isin(job.traced)]
    if len(traced):
        parts.append(_trace_again(store, job.domain, traced, settings, client))
    for part in parts:
        new = with_new_rows(new, part.tables, keys)
    features = with_new_features(old, [part.features for part in parts], keys, settings.features)
    check()
    write_batch(store, new, items, recipe=job.recipe, before=job.stored, features=features)
    return new.fronts[new.fronts["key"].isin({*job.mapped, *job.traced})]


def _map_again(
    store: str, domain: Domain, items: Mapping[str, Any], settings: MapSettings, client: Client | None
) -> Made:
    """Start scenes at the first step."""
    places = read_places(store, domain.name)
    scenes = [pystac.Item.from_dict(item, preserve_dict=True) for item in items.values()]
    batch = Batch(domain, scenes, [places[scene.id] for scene in scenes])
    (made,) = tables_of_batches([batch], store, settings, client)
    return made


def _trace_again(
    store: str, domain: Domain, fronts: gpd.GeoDataFrame, settings: MapSettings, client: Client | None
) -> Made:
    """Start the scenes of a fronts table at the tracing; nothing is written but pictures."""
    places = read_places(store, domain.name)
    scenes = [dict(row) for row in fronts.drop_duplicates("key").drop(columns="geometry").to_dict("records")]
    groups, reasons = [], []
    for part in _cut(scenes, SCENES_A_TASK):
        items = [_as_item(row) for row in part]
        groups.append(Group(store, domain, items, [places[row["scene_id"]] for row in part]))
        reasons.append([(row["reason"], row["detail"]) for row in part])
    traced = run_each(partial(retrace, settings=settings), groups, reasons, client=client)
    results: list[Result] = [result for of_group in traced for result in of_group]
    return made_of(scenes, results, domain, settings.features)


def _as_item(row: Mapping[str, Any]) -> dict[str, Any]:
    """As much of an item as the tracing asks for: which scene, and when it was taken."""
    return {"id": row["scene_id"], "properties": {"datetime": row["datetime"].isoformat()}, "assets": {}}


def _cut(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
