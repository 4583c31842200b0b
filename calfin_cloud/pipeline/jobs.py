"""Batches become tables: new ones whole; of stored ones the scenes that start anew, whose rows are put in place."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import geopandas as gpd
from distributed import Client

from calfin_cloud.domains import Domain
from calfin_cloud.pipeline.batches import Batch
from calfin_cloud.pipeline.ordering import in_order
from calfin_cloud.pipeline.runners import map_batches, retrace_batch
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.tables import (
    Made,
    made_of,
    scene_rows,
    with_new_features,
    with_new_rows,
    without,
)
from calfin_cloud.storage import (
    NOTHING,
    Stored,
    failed_keys,
    read_batch_features,
    read_items,
    read_places,
    read_tables,
    write_batch,
    write_scenes,
)

log = logging.getLogger(__name__)

OnBatch = Callable[[gpd.GeoDataFrame], None]

SCENES_AT_ONCE = 32  # of a batch, which compaction may have made large


def tables_of_batches(
    batches: Sequence[Batch],
    store: str,
    settings: MapSettings,
    client: Client | None,
    check: Callable[[], None],
    *,
    keep: Collection[str] = (),
) -> Iterator[Made]:
    """Map some batches; their masks and pictures are written, their tables are returned.

    Of scenes that fail those of `keep` (keys) hold on to the masks that they have.
    """
    for batch, results in zip(batches, map_batches(batches, store, settings, client), strict=True):
        made = made_of(scene_rows(batch.scenes, batch.domain, settings), results, batch.domain, settings.features)
        kept = failed_keys(made.tables.fronts) & set(keep)
        # Also those without masks: what an earlier model made of a scene must not outlive a mapping that came to none.
        masks = {
            place: NOTHING if isinstance(of, Exception) else of.get("masks", NOTHING)
            for key, place, of in zip(batch.items, batch.places, results, strict=True)
            if key not in kept
        }
        check()  # a thread that has outlived its run would change shards that another run writes
        write_scenes(store, batch.domain.name, masks)
        yield made


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


def run_jobs(
    store: str,
    jobs: Iterable[Job],
    settings: MapSettings,
    client: Client | None,
    on_batch: OnBatch | None,
    check: Callable[[], None],
) -> Counter[str]:
    """Run jobs, several at a time on a cluster; count the states of their scenes, and those that are `kept`."""
    counts: Counter[str] = Counter(front=0, no_front=0, failed=0)
    run = partial(_redo, store=store, settings=settings, client=client, check=check)
    for fronts, n_kept in in_order(run, jobs, client):
        counts.update(fronts.drop_duplicates("key")["state"].tolist())
        if n_kept:
            counts["kept"] += n_kept
        if on_batch and len(fronts):
            on_batch(fronts)
    return counts


def _redo(
    job: Job, *, store: str, settings: MapSettings, client: Client | None, check: Callable[[], None]
) -> tuple[gpd.GeoDataFrame, int]:
    """Put the new rows of a batch in place of the old ones, all at once; return the new fronts of its scenes.

    A scene that fails where it has not failed before keeps all that it has: its number is returned too. It is noted as
    `behind` where the recipe differs or its masks are damaged; else its old item tells the next recompute, or its
    feature a retry.
    """
    stored = job.stored
    keys, new, old = list(stored.items), read_tables(store, stored), read_batch_features(store, stored)
    items, good = read_items(store, stored), set(keys) - failed_keys(new.fronts)
    parts, kept = list[Made](), set[str]()
    for part in _cut(job.mapped, SCENES_AT_ONCE):
        now = {key: job.items.get(key, items[key]) for key in part}
        made, again = _without_failed(_map_again(store, job.domain, now, settings, client, check, keep=good), good, old)
        kept |= again
        parts.append(made)
        items |= {key: item for key, item in now.items() if key not in kept}
    stale = set(kept) if job.recipe != stored.recipe else set()
    traced = new.fronts[new.fronts["key"].isin(job.traced)]
    if len(traced):
        made, damaged = _without_failed(_trace_again(store, job.domain, traced, settings, client), good, old)
        kept, stale = kept | damaged, stale | damaged
        parts.append(made)
    for part in parts:
        new = with_new_rows(new, part.tables, keys)
    features = with_new_features(old, [part.features for part in parts], keys, settings.features)
    fresh = {*job.mapped, *job.traced} - kept
    behind = {*stored.behind, *stale} - (set(job.mapped) - kept)
    check()
    write_batch(store, new, items, recipe=job.recipe, before=stored, features=features, behind=behind)
    return new.fronts[new.fronts["key"].isin(fresh)], len(kept)


def _without_failed(made: Made, good: Collection[str], old: Mapping[str, gpd.GeoDataFrame]) -> tuple[Made, set[str]]:
    """Leave out those scenes of `good` that have failed now, and say why; return their keys too."""
    failed = failed_keys(made.tables.fronts) & set(good)
    if not failed:
        return made, failed
    first = made.tables.fronts[made.tables.fronts["key"].isin(failed)].iloc[0]
    told = "%s: the old fronts of %d scenes stay, which could not be mapped or traced again, such as %s"
    log.warning(told, first["domain"], len(failed), first["detail"])
    return without(made, failed, old), failed


def _map_again(
    store: str,
    domain: Domain,
    items: Mapping[str, Any],
    settings: MapSettings,
    client: Client | None,
    check: Callable[[], None],
    *,
    keep: Collection[str],
) -> Made:
    """Start scenes at the first step; those of `keep` that fail hold on to their masks."""
    places = read_places(store, domain.name)
    batch = Batch(domain, list(items.values()), [places[item["id"]] for item in items.values()])
    (made,) = tables_of_batches([batch], store, settings, client, check, keep=keep)
    return made


def _trace_again(
    store: str, domain: Domain, fronts: gpd.GeoDataFrame, settings: MapSettings, client: Client | None
) -> Made:
    """Start the scenes of a fronts table at the tracing; nothing is written but pictures."""
    places = read_places(store, domain.name)
    rows = fronts.drop_duplicates("key").drop(columns="geometry").assign(glacier_id=domain.glacier_id)
    scenes = [dict(row) for row in rows.to_dict("records")]
    batch = Batch(domain, [_as_item(row) for row in scenes], [places[row["scene_id"]] for row in scenes])
    results = retrace_batch(batch, store, [(row["reason"], row["detail"]) for row in scenes], settings, client)
    return made_of(scenes, results, domain, settings.features)


def _as_item(row: Mapping[str, Any]) -> dict[str, Any]:
    """As much of an item as the tracing asks for: which scene, and when it was taken."""
    return {"id": row["scene_id"], "properties": {"datetime": row["datetime"].isoformat()}, "assets": {}}


def _cut(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
