"""Verbs that find scenes, and make, change or show a store."""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from calfin_cloud.cli.output import bar, note, records, tell
from calfin_cloud.cli.searching import FEW_SCENES, Find, cluster_for, counted, search_ahead

if TYPE_CHECKING:
    import pandas as pd

    from calfin_cloud.pipeline import MapSettings

MOST_ROWS = 200  # of the table that is printed


def sample(options: argparse.Namespace) -> int:
    """Write a sample to try things on: a synthetic glacier with its true fronts, or with --real a real scene."""
    from calfin_cloud.sample import write_real_sample, write_sample

    if options.real:
        catalog = write_real_sample(options.folder)
        said = f"a Landsat 8 scene of Harald Moltke Brae, Greenland: {catalog}"
    else:
        catalog = write_sample(options.folder, scenes=options.scenes, seed=options.seed)
        said = f"{options.scenes} scenes of a synthetic glacier: {catalog}"
    domains = options.folder / "domains.geojson"
    call = f"calfin map --catalog {catalog} --domains {domains} --period 1984/2024 --store fronts"
    tell(options, {"catalog": catalog, "domains": domains}, said, f"map them: {call}")
    return 0


def search(options: argparse.Namespace) -> int:
    """List the scenes of each domain, one a line, tab-separated; or freeze them into a catalogue of their own."""
    from calfin_cloud.domains import read_domains
    from calfin_cloud.scenes import freeze_scenes

    find_scenes = finder(options)
    domains = read_domains(options.domains, options.domain)
    if options.out:
        total = freeze_scenes((item for domain in domains for item in find_scenes(domain)), options.out)
        tell(options, {"scenes": total, "catalog": options.out}, f"{total} scenes: --catalog {options.out}")
        return 0
    listed = (
        {
            "domain": domain.name,
            "datetime": item.datetime.isoformat() if item.datetime else "",
            "platform": item.properties.get("platform", ""),
            "collection": item.collection_id,
            "id": item.id,
        }
        for domain in domains
        for item in find_scenes(domain)
    )
    total = 0
    if options.json:
        rows = list(listed)
        tell(options, rows)
        total = len(rows)
    else:
        for total, row in enumerate(listed, start=1):  # noqa: B007 (counted)
            print(*row.values(), sep="\t")
    note(f"{total} scenes")
    return 0


def map_(options: argparse.Namespace) -> int:
    """Map calving fronts into a store; print the table of scenes, the counts and the call of the report."""
    from calfin_cloud.domains import read_domains
    from calfin_cloud.evaluation import compare_fronts, skill_of
    from calfin_cloud.pipeline import check_wanted, map_fronts, of_shard, recompute_changed, retry_failed
    from calfin_cloud.products import read_product
    from calfin_cloud.storage import is_store, read_fronts

    domains = read_domains(options.domains, options.domain)
    if options.shard:
        domains, options.store = of_shard(domains, options.store, *options.shard)
        if not domains:
            note(f"shard {options.shard[0]}/{options.shard[1]} has no domain")
            return 0
    reference = read_product(options.reference) if options.reference else None
    settings = settings_of(options)
    check_wanted(domains, settings, None if options.recompute else options.store)
    find, n_scenes = search_ahead(finder(options), domains, enough=FEW_SCENES if options.cluster == "auto" else 1)
    with _workers(options, "scenes mapped", n_scenes) as (client, progress):
        again: Mapping[str, int] = {}
        if options.recompute:
            again = recompute_changed(
                options.store, domains, find, settings=settings, client=client, on_batch=moves(progress)
            )
            note(f"{sum(again.values())} scenes had changed and were mapped or traced again")
            progress.reset()
        if options.retry and is_store(options.store):
            retried = retry_failed(
                options.store, engine=options.engine, only_due=True, client=client, on_batch=moves(progress)
            )
            note(f"{sum(retried.values())} failed scenes were tried again, {retried['failed']} failed")
            progress.reset()
        counts = map_fronts(
            domains,
            counted(find, progress, options.store),
            options.store,
            settings=settings,
            client=client,
            batch_size=options.batch_size,
            on_batch=moves(progress),
        )
        counts["failed"] += again.get("failed", 0)
    if changed := counts.pop("changed", 0):
        note(f"{changed} scenes have changed since: --recompute maps them again")
    compare = None if reference is None else partial(compare_fronts, reference=reference)
    skill = None if reference is None else skill_of(read_fronts(options.store), reference, domains)
    _show_store(options, counts, compare, skill)
    if counts["found"] == 0:
        note("no scene was found: check period, collections and domains with `calfin search`")
    n_new = sum(counts[state] for state in ("front", "no_front", "failed"))
    return 1 if counts["failed"] > options.fail_above * n_new else 0


def merge(options: argparse.Namespace) -> int:
    """Merge the stores of shards, below STORE/shards, into the store itself."""
    from calfin_cloud.storage import merge_stores, shard_places

    shards = shard_places(options.store)
    names = merge_stores(options.store, shards)
    said = f"{len(names)} new domains of {len(shards)} shards: {options.store}"
    tell(options, {"domains": names, "shards": len(shards), "store": options.store}, said)
    return 0


def retrace(options: argparse.Namespace) -> int:
    """Trace the fronts of a store anew from its masks where settings or domains have changed."""
    from calfin_cloud.domains import read_domains
    from calfin_cloud.pipeline import VARIANTS, retrace_fronts
    from calfin_cloud.storage import count_scenes

    domains = read_domains(options.domains) if options.domains else ()
    n_scenes = count_scenes(options.store)["found"]
    with _workers(options, "scenes traced", n_scenes, total=n_scenes if options.all else None) as (client, progress):
        counts = retrace_fronts(
            options.store,
            domains,
            settings=VARIANTS[options.variant] if options.variant else None,
            everything=options.all,
            client=client,
            on_batch=moves(progress),
        )
    _show_store(options, counts)
    return 1 if counts["failed"] else 0


def trace(options: argparse.Namespace) -> int:
    """Trace fronts in plain images, in pixel coordinates."""
    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.pipeline import VARIANTS, trace_image, write_image_fronts

    settings = VARIANTS[options.variant]
    inference = replace(settings.inference, engine=options.engine)
    network = options.network or DEFAULT_NETWORK
    traced = [
        trace_image(path, network=network, settings=inference, trace=settings.trace, kind=options.sensor)
        for path in bar(options, "images traced", "image", options.images)
    ]
    features = [feature for of_image in traced for feature in of_image]
    write_image_fronts(features, options.out)
    failed = [f["properties"] for f in features if f["properties"]["state"] == "failed"]
    for properties in failed:
        note(f"calfin trace: {properties['image']}: {properties['detail']}", level=logging.WARNING)
    found = sum(f["geometry"] is not None for f in features)
    result = {"fronts": found, "images": len(options.images), "failed": len(failed), "out": options.out}
    tell(options, result, f"{found} fronts in {len(options.images)} images, {len(failed)} images failed: {options.out}")
    return 1 if failed else 0


def status(options: argparse.Namespace) -> int:
    """Count the scenes of a store by state and reason; the counts must add up to the scenes that searches found."""
    from calfin_cloud.storage import count_scenes, read_fronts

    if options.serve:
        from calfin_cloud.exporter import serve

        serve(options.store, options.serve)
    counts = count_scenes(options.store)
    lines = ["\t".join(str(row[name]) for name in ("scenes", "state", "reason")) for row in counts["reasons"]]
    lines.append(f"{counts['pending']}\tpending\tfound, but not mapped: `calfin map` goes on with them")
    lines.append(f"{counts['found']}\tscenes")
    if counts["unfinished"]:
        lines.append(f"`calfin {counts['unfinished']}` was stopped before its end: run it again to the end")
    if writer := counts["written_by"]:
        lines.append(f"`calfin {writer['verb']}` on {writer['host']} (process {writer['process']}) writes to it now")
    tell(options, counts, *lines)
    if not options.json:
        fronts = read_fronts(options.store)
        for scene in fronts[fronts["state"] == "failed"].drop_duplicates("key").itertuples():
            note(f"{scene.key}: {scene.reason}: {scene.detail}")
    for wrong in counts["wrong"]:
        note(f"the counts do not add up: {wrong}", level=logging.ERROR)
    return 1 if counts["wrong"] else 0


def compact(options: argparse.Namespace) -> int:
    """Merge the many small files of a store's batches into few large ones."""
    from calfin_cloud.storage import compact_store

    before, after = compact_store(options.store, scenes_a_file=options.scenes)
    tell(options, {"before": before, "after": after}, f"{before} files of fronts became {after}")
    return 0


def retry(options: argparse.Namespace) -> int:
    """Map the failed scenes of a store once more."""
    from calfin_cloud.pipeline import retry_failed
    from calfin_cloud.storage import count_scenes

    failed = sum(row["scenes"] for row in count_scenes(options.store)["reasons"] if row["state"] == "failed")
    with _workers(options, "scenes mapped", failed, total=failed) as (client, progress):
        counts = retry_failed(options.store, engine=options.engine, client=client, on_batch=moves(progress))
    _show_store(options, counts)
    return 1 if counts["failed"] else 0


def _show_store(
    options: argparse.Namespace,
    counts: Mapping[str, int],
    compare: Callable[[Any], Any] | None = None,
    skill: pd.DataFrame | None = None,
) -> None:
    """Tell the table of a store's scenes, the counts, and how to open them as a map."""
    from calfin_cloud.pipeline import summarise_scenes
    from calfin_cloud.storage import read_fronts

    fronts = read_fronts(options.store)
    scenes = summarise_scenes(fronts, compare(fronts) if compare else None)
    result = {"store": options.store, "counts": dict(counts), "scenes": records(scenes)}
    lines = [
        scenes.head(MOST_ROWS).to_string(index=False, na_rep=""),
        ", ".join(f"{n} {state}" for state, n in counts.items()),
        f"map of them: calfin report {shlex.quote(options.store)} --out report",
    ]
    if skill is not None:
        result["skill"] = records(skill.reset_index(names="lines"))
        lines.append(skill.round(2).to_string(na_rep=""))
    tell(options, result, *lines)


def moves(progress: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - a bar of tqdm
    """Return what moves a bar on by the scenes of a batch."""
    return lambda fronts: progress.update(fronts["key"].nunique())


@contextmanager
def _workers(
    options: argparse.Namespace, what: str, n_scenes: int, *, total: int | None = None
) -> Iterator[tuple[Any, Any]]:
    """Connect to the workers that the call asks for, and lend a bar for the scenes that they have done."""
    with connected(options, n_scenes) as client, bar(options, what, "scene") as progress:
        progress.total = total
        yield client, progress


@contextmanager
def connected(options: argparse.Namespace, n_scenes: int = FEW_SCENES) -> Iterator[Any]:
    """Connect to the workers that the call asks for, or that so many scenes need; exit with 3 when they are lost."""
    from calfin_cloud import clusters  # brings loggers of its own, at the level INFO

    for name in ("distributed", "distributed.client"):  # what ends the run says so itself
        logging.getLogger(name).setLevel(logging.INFO if options.verbose else logging.CRITICAL)
    cluster = cluster_for(options, n_scenes)
    more = dict(options.cluster_option)
    if options.worker_memory is not None:
        more["worker_memory"] = options.worker_memory
    try:
        with _ended_by_sigterm(), clusters.connect(cluster, n_workers=options.workers, **more) as client:
            yield client
    except clusters.ClusterLostError as error:
        note(f"calfin {options.verb}: {error}", level=logging.ERROR)
        raise SystemExit(3) from error


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM, which Kubernetes sends before it kills, into an exception, so that what was started is closed."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def settings_of(options: argparse.Namespace) -> MapSettings:
    """Return the settings of a run that the call asks for."""
    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.pipeline import VARIANTS

    variant = VARIANTS[options.variant]
    return replace(
        variant,
        inference=replace(variant.inference, engine=options.engine),
        network=options.network or DEFAULT_NETWORK,
        max_cloud=options.max_cloud,
        max_nodata=options.max_nodata,
    )


def finder(options: argparse.Namespace) -> Find:
    """Return what finds the scenes of a domain: a search in the catalogue, or the given images that touch it."""
    from calfin_cloud.scenes import absolute_period, images_of, items_from_images, stream_scenes

    if options.images:
        return partial(images_of, items_from_images(options.images, options.datetime, platform=options.platform))
    if options.period is None:
        raise ValueError("--period is needed with --catalog, e.g. --period 2019-06/2019-09")
    return partial(
        stream_scenes,
        options.catalog,
        period=absolute_period(options.period, partial(_newest_scene, getattr(options, "store", None))),
        collections=options.collections,
        max_cloud=options.max_scene_cloud,
    )


def _newest_scene(store: str | None) -> datetime | None:
    """Time of the newest scene of a store, None where there is none."""
    from calfin_cloud.storage import is_store, read_fronts

    fronts = read_fronts(store) if store and is_store(store) else ()
    return fronts["datetime"].max().to_pydatetime() if len(fronts) else None
