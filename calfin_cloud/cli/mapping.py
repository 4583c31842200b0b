"""Verbs that find scenes, and make, change or show a store."""

from __future__ import annotations

import argparse
import json
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

if TYPE_CHECKING:
    from calfin_cloud.pipeline import MapSettings


def sample(options: argparse.Namespace) -> int:
    """Paint a sample glacier."""
    from calfin_cloud.sample import write_sample

    catalog = write_sample(options.folder, scenes=options.scenes, seed=options.seed)
    print(f"{options.scenes} scenes of a synthetic glacier: {catalog}")
    return 0


def search(options: argparse.Namespace) -> int:
    """List the scenes of each domain, one a line, tab-separated; or freeze them into a catalogue of their own."""
    from calfin_cloud.domains import read_domains
    from calfin_cloud.scenes import freeze_scenes

    total = 0
    find_scenes = finder(options)
    domains = read_domains(options.domains, options.domain)
    if options.out:
        total = freeze_scenes((item for domain in domains for item in find_scenes(domain)), options.out)
        print(f"{total} scenes: --catalog {options.out}", file=sys.stderr)
        return 0
    for domain in domains:
        for item in find_scenes(domain):
            total += 1
            when = item.datetime.isoformat() if item.datetime else ""
            print(domain.name, when, item.properties.get("platform", ""), item.collection_id, item.id, sep="\t")
    print(f"{total} scenes", file=sys.stderr)
    return 0


def map_(options: argparse.Namespace) -> int:
    """Map calving fronts into a store; print the table of scenes, the counts and the call of the report."""
    from calfin_cloud.domains import read_domains
    from calfin_cloud.evaluation import compare_fronts, skill_of
    from calfin_cloud.pipeline import map_fronts, of_shard, recompute_changed, retry_failed
    from calfin_cloud.products import read_product
    from calfin_cloud.storage import is_store, read_fronts

    domains = read_domains(options.domains, options.domain)
    if options.shard:
        domains, options.store = of_shard(domains, options.store, *options.shard)
        if not domains:
            print(f"shard {options.shard[0]}/{options.shard[1]} has no domain", file=sys.stderr)
            return 0
    reference = read_product(options.reference) if options.reference else None
    settings = settings_of(options)
    with _workers(options, "scenes mapped") as (client, on_batch):
        again: Mapping[str, int] = {}
        if options.recompute:
            again = recompute_changed(
                options.store, domains, finder(options), settings=settings, client=client, on_batch=on_batch
            )
            print(f"{sum(again.values())} scenes had changed and were mapped or traced again", file=sys.stderr)
        if options.retry and is_store(options.store):
            retried = retry_failed(
                options.store, engine=options.engine, only_due=True, client=client, on_batch=on_batch
            )
            print(
                f"{sum(retried.values())} failed scenes were tried again, {retried['failed']} failed", file=sys.stderr
            )
        counts = map_fronts(
            domains,
            finder(options),
            options.store,
            settings=settings,
            client=client,
            batch_size=options.batch_size,
            on_batch=on_batch,
        )
        counts["failed"] += again.get("failed", 0)
    if changed := counts.pop("changed", 0):
        print(f"{changed} scenes have changed since: --recompute maps them again", file=sys.stderr)
    _show_store(options.store, counts, None if reference is None else partial(compare_fronts, reference=reference))
    if reference is not None:
        print(skill_of(read_fronts(options.store), reference, domains).round(2).to_string(na_rep=""))
    if counts["found"] == 0:
        print("no scene was found: check period, collections and domains with `calfin search`", file=sys.stderr)
    n_new = sum(counts[state] for state in ("front", "no_front", "failed"))
    return 1 if counts["failed"] > options.fail_above * n_new else 0


def merge(options: argparse.Namespace) -> int:
    """Merge the stores of shards, below STORE/shards, into the store itself."""
    from calfin_cloud.storage import merge_stores, shard_places

    shards = shard_places(options.store)
    names = merge_stores(options.store, shards)
    print(f"{len(names)} new domains of {len(shards)} shards: {options.store}")
    return 0


def retrace(options: argparse.Namespace) -> int:
    """Trace the fronts of a store anew from its masks where settings or domains have changed."""
    from calfin_cloud.domains import read_domains
    from calfin_cloud.pipeline import VARIANTS, retrace_fronts

    with _workers(options, "scenes traced") as (client, on_batch):
        counts = retrace_fronts(
            options.store,
            read_domains(options.domains) if options.domains else (),
            settings=VARIANTS[options.variant] if options.variant else None,
            everything=options.all,
            client=client,
            on_batch=on_batch,
        )
    _show_store(options.store, counts, None)
    return 1 if counts["failed"] else 0


def trace(options: argparse.Namespace) -> int:
    """Trace fronts in plain images, in pixel coordinates."""
    from tqdm import tqdm

    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.pipeline import VARIANTS, trace_image, write_image_fronts

    settings = VARIANTS[options.variant]
    inference = replace(settings.inference, engine=options.engine)
    network = options.network or DEFAULT_NETWORK
    traced = [
        trace_image(path, network=network, settings=inference, trace=settings.trace, kind=options.sensor)
        for path in tqdm(options.images, desc="images traced", unit="image", disable=None)
    ]
    features = [feature for of_image in traced for feature in of_image]
    write_image_fronts(features, options.out)
    failed = [f["properties"] for f in features if f["properties"]["state"] == "failed"]
    for properties in failed:
        print(f"calfin trace: {properties['image']}: {properties['detail']}", file=sys.stderr)
    found = sum(f["geometry"] is not None for f in features)
    print(f"{found} fronts in {len(options.images)} images, {len(failed)} images failed: {options.out}")
    return 1 if failed else 0


def status(options: argparse.Namespace) -> int:
    """Count the scenes of a store by state and reason; the counts must add up to the scenes that searches found."""
    from calfin_cloud.storage import count_scenes, read_fronts

    if options.serve:
        from calfin_cloud.exporter import serve

        serve(options.store, options.serve)
    counts = count_scenes(options.store)
    if options.json:
        print(json.dumps(counts, indent=1))
    else:
        for row in counts["reasons"]:
            print(row["scenes"], row["state"], row["reason"], sep="\t")
        print(counts["pending"], "pending", "found, but not mapped: `calfin map` goes on with them", sep="\t")
        print(counts["found"], "scenes", sep="\t")
        if counts["unfinished"]:
            print(f"`calfin {counts['unfinished']}` was stopped before its end: run it again to the end")
        if writer := counts["written_by"]:
            print(f"`calfin {writer['verb']}` on {writer['host']} (process {writer['process']}) writes to it now")
        fronts = read_fronts(options.store)
        for scene in fronts[fronts["state"] == "failed"].drop_duplicates("key").itertuples():
            print(f"{scene.key}: {scene.reason}: {scene.detail}", file=sys.stderr)
    for wrong in counts["wrong"]:
        print(f"the counts do not add up: {wrong}", file=sys.stderr)
    return 1 if counts["wrong"] else 0


def compact(options: argparse.Namespace) -> int:
    """Merge the many small files of a store's batches into few large ones."""
    from calfin_cloud.storage import compact_store

    before, after = compact_store(options.store, scenes_a_file=options.scenes)
    print(f"{before} files of fronts became {after}")
    return 0


def retry(options: argparse.Namespace) -> int:
    """Map the failed scenes of a store once more."""
    from calfin_cloud.pipeline import retry_failed

    with _workers(options, "scenes mapped") as (client, on_batch):
        counts = retry_failed(options.store, engine=options.engine, client=client, on_batch=on_batch)
    _show_store(options.store, counts, None)
    return 1 if counts["failed"] else 0


def _show_store(store: str, counts: Mapping[str, int], compare: Callable[[Any], Any] | None) -> None:
    """Print the table of a store's scenes, the counts, and how to open them as a map."""
    from calfin_cloud.pipeline import summarise_scenes
    from calfin_cloud.storage import read_fronts

    fronts = read_fronts(store)
    scenes = summarise_scenes(fronts, compare(fronts) if compare else None)
    print(scenes.head(200).to_string(index=False, na_rep=""))
    print(", ".join(f"{n} {state}" for state, n in counts.items()))
    print(f"map of them: calfin report {shlex.quote(store)} --out report")


@contextmanager
def _workers(options: argparse.Namespace, what: str) -> Iterator[tuple[Any, Callable[[Any], Any]]]:
    """Connect to the workers that the call asks for, and lend what moves a bar on by the scenes of a batch."""
    from tqdm import tqdm

    with connected(options) as client, tqdm(desc=what, unit="scene", disable=None) as bar:
        yield client, lambda fronts: bar.update(fronts["key"].nunique())


@contextmanager
def connected(options: argparse.Namespace) -> Iterator[Any]:
    """Connect to the workers that the call asks for; exit with 3 when they are lost."""
    from calfin_cloud import clusters  # brings loggers of its own, at the level INFO

    for name in ("distributed", "distributed.client"):  # what ends the run says so itself
        logging.getLogger(name).setLevel(logging.INFO if options.verbose else logging.CRITICAL)
    more = dict(options.cluster_option)
    if options.worker_memory is not None:
        more["worker_memory"] = options.worker_memory
    try:
        with _ended_by_sigterm(), clusters.connect(options.cluster, n_workers=options.workers, **more) as client:
            yield client
    except clusters.ClusterLostError as error:
        print(f"calfin {options.verb}: {error}", file=sys.stderr)
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


def finder(options: argparse.Namespace) -> Callable[..., Any]:
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

    if not store or not is_store(store) or (fronts := read_fronts(store)).empty:
        return None
    newest: datetime = fronts["datetime"].max().to_pydatetime()
    return newest
