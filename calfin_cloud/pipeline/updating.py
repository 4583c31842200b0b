"""A store brought up to date: where its recipe differs from the wanted one, the steps run again from there.

Retrying failed scenes, tracing anew and mapping again are one thing: which scenes of a batch start at which step.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client

from calfin_cloud.domains import Domain
from calfin_cloud.feature_schema import FEATURE_FAILURES
from calfin_cloud.network import Engine
from calfin_cloud.object_stores import store_text
from calfin_cloud.pipeline.jobs import Job, OnBatch, run_jobs
from calfin_cloud.pipeline.settings import MapSettings, calibration_of, made_by, recipe_of, saved, settings_from
from calfin_cloud.pipeline.workers import check_network, check_store_in_reach, scenes_in_reach
from calfin_cloud.scenes import FindScenes
from calfin_cloud.schema import front_key
from calfin_cloud.storage import (
    Stored,
    begin_change,
    check_finished,
    check_places,
    check_room,
    domain_of,
    due_keys,
    end_change,
    failed_keys,
    hold_lease,
    is_store,
    item_digest,
    keep_domain,
    note_tries,
    open_store,
    read_batch_features,
    read_settings,
    read_store,
    read_store_domains,
    read_tables,
    tidy,
)

RECOMPUTE, RETRACE = "map --recompute", "retrace"


def retry_failed(
    store: str,
    *,
    domains: Sequence[Domain] = (),
    find_scenes: FindScenes | None = None,
    engine: Engine | None = None,
    only_due: bool = False,
    client: Client | None = None,
    on_batch: OnBatch | None = None,
) -> Counter[str]:
    """Map the failed scenes of a store once more, as they were mapped; count the states they ended in.

    So are scenes of which a feature could not be measured for want of a file, or for an unexpected error, and those
    that keep rows of before since they could not be mapped or traced again.

    Their items are those that the store has kept. A scene that fails again stays failed, with the new error. One whose
    front was good keeps it where it fails: `kept` counts those.

    Parameters
    ----------
    domains, find_scenes
        Where what finds the scenes of these domains has another item of a failed scene by now, such as one with a new
        address, that one is taken, and its try is due.
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
    read_store(store)  # before the lease, which would make its folder
    check_store_in_reach(store, client)
    with hold_lease(store, "retry") as check:
        found = read_store(store)
        settings = settings_from(read_settings(store))
        open_store(store, crs=found["crs"], made_by=made_by(settings))
        if engine is not None:
            settings = replace(settings, inference=replace(settings.inference, engine=engine))
        jobs, newer = list(_failed(store)), dict[str, Any]()
        if find_scenes is not None:
            own = [domain for domain in domains if domain.name in {job.domain.name for job in jobs}]
            newer = _changed_items([job.stored for job in jobs], own, partial(scenes_in_reach, find_scenes, client))
            jobs = [replace(job, items={key: newer[key] for key in job.mapped if key in newer}) for job in jobs]
        if only_due:
            failed, now = [key for job in jobs for key in job.mapped], datetime.now(UTC)
            due = {*due_keys(store, failed, now), *(key for key in failed if key in newer)}
            jobs = [replace(job, mapped=keys) for job in jobs if (keys := [key for key in job.mapped if key in due])]
        if jobs:
            _check_begin(store, jobs)
            check_network(settings, client)  # a wrong one ends the run here, not scene by scene
        if only_due:
            note_tries(store, due, failed, now, check)  # before, so that a scene that ends the run is counted too
        return run_jobs(store, jobs, settings, client, on_batch, check)


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
        Scenes that were traced anew, by state; `kept` counts those whose masks are damaged, which keep their fronts
        until `retry_failed` or `recompute_changed` maps them again.

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
    domains, store = list(domains), store_text(store)  # a generator would be used up by the first look at it
    read_store(store)  # before the lease, which would make its folder
    check_store_in_reach(store, client)
    with hold_lease(store, RETRACE) as check:
        check_finished(store, verb=RETRACE)
        kept, batches = settings_from(read_settings(store)), tidy(store)
        wanted = kept if settings is None else replace(kept, trace=settings.trace, polygons=settings.polygons)
        by_name = _own_domains(store, domains, batches)
        jobs = list(_traced_anew(batches, by_name, wanted, everything=everything))
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

    A scene that had not failed, and fails when it is mapped again, keeps all that it has, and the next call tries it
    once more: `kept` counts those.

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
    check_store_in_reach(store, client)
    with hold_lease(store, RECOMPUTE) as check:
        check_finished(store, verb=RECOMPUTE)
        wanted = settings or settings_from(read_settings(store))
        own = [d for d in domains if d.name in {kept.name for kept in read_store_domains(store)}]
        check_network(wanted, client)  # a wrong one ends the run here, before the store is touched
        batches = tidy(store)
        by_name = _own_domains(store, own, batches)
        changed = _changed_items(batches, own, partial(scenes_in_reach, find_scenes, client))
        jobs = [
            job
            for stored, recipe in _recipes(batches, by_name, wanted)
            if (job := _job_of(stored, by_name[stored.domain], recipe, changed)) is not None
        ]
        return _change(
            store, RECOMPUTE, jobs, own, wanted, made_by(wanted), client=client, on_batch=on_batch, check=check
        )


def _own_domains(store: str, domains: Sequence[Domain], batches: Iterable[Stored]) -> dict[str, Domain]:
    """Domains of the store by name, the given ones in place of the kept ones.

    Raises `ValueError` for another grid, for domains of which it has none, and where the file of a domain is gone.
    """
    kept = {d.name: d for d in read_store_domains(store)}
    for stored in batches:
        domain_of(kept, stored.domain, store)
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


def _traced_anew(
    batches: Iterable[Stored], domains: Mapping[str, Domain], settings: MapSettings, *, everything: bool
) -> Iterator[Job]:
    """Trace all scenes of a batch where what decides their fronts has changed, or of all."""
    for stored, recipe in _recipes(batches, domains, settings):
        if everything or stored.recipe["fronts"] != recipe["fronts"]:
            fronts = {**stored.recipe, "fronts": recipe["fronts"]}
            yield Job(stored, domains[stored.domain], fronts, traced=list(stored.items))


def _job_of(stored: Stored, domain: Domain, recipe: Mapping[str, str], changed: Mapping[str, Any]) -> Job | None:
    """Choose where each scene of a batch starts: the first step whose recipe or item differs; None if none does."""
    items = {key: changed[key] for key in stored.items if key in changed}
    some = [key for key in stored.items if key in items or key in stored.behind]
    if stored.recipe == recipe and not some:
        return None
    lacks_bands = recipe.get("features") not in (None, stored.recipe.get("features"))
    mapped = list(stored.items if stored.recipe.get("masks") != recipe["masks"] or lacks_bands else some)
    again = set(mapped)
    traced = [key for key in stored.items if key not in again] if stored.recipe != recipe else []
    return Job(stored, domain, recipe, mapped, traced, items)


def _failed(store: str) -> Iterator[Job]:
    domains = {d.name: d for d in read_store_domains(store)}
    for stored in tidy(store):
        again = failed_keys(read_tables(store, stored).fronts)
        for table in read_batch_features(store, stored).values():
            again.update(table.loc[table["reason"].isin(FEATURE_FAILURES), "key"])
        again.update(stored.behind)
        if again:
            domain = domain_of(domains, stored.domain, store)
            yield Job(stored, domain, stored.recipe, mapped=[k for k in stored.items if k in again])


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


def _check_begin(store: str, jobs: Sequence[Job]) -> None:
    """Refuse jobs on scenes that have no masks, found by one reading a domain, or for which there is no room."""
    keys: dict[str, list[str]] = {}
    for job in jobs:
        keys.setdefault(job.domain.name, []).extend([*job.mapped, *job.traced])
    for name, of_domain in keys.items():
        check_places(store, name, of_domain)
    check_room(store, [job.stored for job in jobs])


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
    _check_begin(store, jobs)
    check()
    begin_change(store, verb, **made)
    for domain in new:
        keep_domain(store, domain, replace=True)
    counts = run_jobs(store, jobs, settings, client, on_batch, check)
    check()
    end_change(store)
    return counts
