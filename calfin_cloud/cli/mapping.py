"""Verbs that find scenes, and make or change a store."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from calfin_cloud.cli.output import bar, how_many, note, records, tell
from calfin_cloud.cli.reading import note_elsewhere
from calfin_cloud.cli.searching import FEW_SCENES, Find, cluster_for, counted, finder, search_ahead

if TYPE_CHECKING:
    import pandas as pd

    from calfin_cloud.domains import Domain
    from calfin_cloud.pipeline import MapSettings

MOST_ROWS = 200  # of the table that is printed


def sample(options: argparse.Namespace) -> int:
    """Make something to try things on: a synthetic glacier with its true fronts, or with --real a real scene."""
    from calfin_cloud.sample import write_real_sample, write_sample

    if options.real:
        catalog = write_real_sample(options.folder)
        said = f"a Landsat 8 scene of Harald Moltke Brae, Greenland: {catalog}"
    else:
        catalog = write_sample(options.folder, scenes=options.scenes, seed=options.seed, features=options.features)
        said = f"{how_many(options.scenes, 'scene')} of a synthetic glacier: {catalog}"
    domains = options.folder / "domains.geojson"
    given = shlex.join(["--catalog", str(catalog), "--domains", str(domains)])
    call = f"calfin map {given} --period 1984/2024 --store fronts"
    tell(options, {"catalog": catalog, "domains": domains}, said, f"map them: {call}")
    return 0


def search(options: argparse.Namespace) -> int:
    """List the scenes of each domain, one per line, separated by tabs; or freeze them into a catalogue of their own."""
    from calfin_cloud.domains import read_domains
    from calfin_cloud.scenes import freeze_scenes

    find_scenes = finder(options)
    domains = read_domains(options.domains, options.domain)
    if options.out:
        total = freeze_scenes((item for domain in domains for item in find_scenes(domain)), options.out)
        tell(options, {"scenes": total, "catalog": options.out}, f"{how_many(total, 'scene')}: --catalog {options.out}")
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
    note(how_many(total, "scene"))
    return 0


def map_(options: argparse.Namespace) -> int:
    """Map calving fronts into a store; print the table of scenes, the counts, and how to see them as a map."""
    from calfin_cloud.domains import read_domains
    from calfin_cloud.pipeline import check_wanted, map_fronts
    from calfin_cloud.products import read_product
    from calfin_cloud.storage import of_shard, read_fronts

    domains = read_domains(options.domains, options.domain)
    if options.shard:
        domains, options.store = of_shard(domains, options.store, *options.shard)
        if not domains:
            note(f"shard {options.shard[0]}/{options.shard[1]} has no domain")
            return 0
    reference = read_product(options.reference) if options.reference else None
    if reference is not None:
        note_elsewhere(reference, domains, options.reference)
    settings = settings_of(options)
    check_wanted(domains, settings, None if options.recompute else options.store)
    find, n_scenes = search_ahead(finder(options), domains, enough=FEW_SCENES if options.cluster == "auto" else 1)
    with _workers(options, "scenes mapped", n_scenes) as (client, done):
        again = _bring_up_to_date(options, domains, find, settings, client, done)
        counts = map_fronts(
            domains,
            counted(find, done.bar, options.store),
            options.store,
            settings=settings,
            client=client,
            batch_size=options.batch_size,
            on_batch=done,
        )
        counts["failed"] += again["failed"]
        if again["kept"]:
            counts["kept"] = again["kept"]
    if (changed := counts.pop("changed", 0)) and not again["kept"]:  # these are told already
        note(f"{how_many(changed, 'scene')} changed since the last run: --recompute maps them again")
    if reference is None:
        _show_scenes(options, done.fronts(), done.n_scenes, counts)
    else:
        from calfin_cloud.evaluation import (  # half a second that most runs need not wait
            compare_fronts,
            skill_of,
            why_unmatched,
        )

        fronts = read_fronts(options.store)
        skill = skill_of(fronts, reference, domains)
        _show_scenes(
            options, fronts, fronts["key"].nunique(), counts, compare_fronts(fronts, reference=reference), skill
        )
        if len(fronts) and not skill.loc["fronts", "scenes"]:
            note(why_unmatched(fronts, reference), level=logging.WARNING)
    if counts["found"] == 0:
        note("no scene was found: check period, collections and domains with `calfin search`")
    n_mapped = sum(counts[state] for state in ("front", "no_front", "failed"))
    n_mapped += sum(again[state] for state in ("front", "no_front", "kept"))
    return 1 if counts["failed"] + counts["kept"] > options.fail_above * n_mapped else 0


def _bring_up_to_date(
    options: argparse.Namespace,
    domains: Sequence[Domain],
    find: Find,
    settings: MapSettings,
    client: Any,  # noqa: ANN401 - imported lazily
    done: _Done,
) -> Counter[str]:
    """Map again what has changed or failed, where the call asks for it; count what the changed scenes came to."""
    from calfin_cloud.pipeline import recompute_changed, retry_failed
    from calfin_cloud.storage import is_store

    again: Counter[str] = Counter()
    if options.recompute:
        again = recompute_changed(options.store, domains, find, settings=settings, client=client, on_batch=done)
        note(f"{how_many(again.total() - again['kept'], 'scene')} had changed: mapped or traced again")
        _note_kept(again["kept"])
        done.bar.reset()
    if options.retry and is_store(options.store):
        now = {"domains": domains, "find_scenes": find, "engine": options.engine, "only_due": True}
        retried = retry_failed(options.store, **now, client=client, on_batch=done)
        note(f"{how_many(retried.total() - retried['kept'], 'failed scene')} tried again, {retried['failed']} failed")
        _note_kept(retried["kept"])
        done.bar.reset()
    return again


def retrace(options: argparse.Namespace) -> int:
    """Trace the fronts of a store again from its masks, where settings or domains have changed."""
    from calfin_cloud.domains import read_domains
    from calfin_cloud.pipeline import VARIANTS, retrace_fronts, settings_from
    from calfin_cloud.storage import before_change, count_scenes

    settings = VARIANTS[options.variant] if options.variant else None
    domains = read_domains(options.domains) if options.domains else []
    if options.back:
        if settings or domains:
            raise ValueError("--back takes domains and settings as they were: leave out --domains and --variant")
        before, domains = before_change(options.store)
        settings = settings_from(before["settings"])
    n_scenes = count_scenes(options.store)["found"]
    with _workers(options, "scenes traced", n_scenes, total=n_scenes if options.all else None) as (client, done):
        counts = retrace_fronts(
            options.store,
            domains,
            settings=settings,
            everything=options.all,
            client=client,
            on_batch=done,
        )
    _note_kept(counts["kept"], "traced", "`calfin retry` maps them again")
    _show_scenes(options, done.fronts(), done.n_scenes, counts)
    return 1 if counts["failed"] or counts["kept"] else 0


def trace(options: argparse.Namespace) -> int:
    """Trace fronts in plain images; the result is in pixel coordinates."""
    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.pipeline import VARIANTS, trace_image, write_image_fronts

    if missing := [str(path) for path in options.images if not path.is_file()]:
        raise ValueError(f"there is no image {', '.join(missing)}: nothing was traced or written")
    if not options.out.parent.is_dir():
        raise ValueError(f"there is no folder {options.out.parent} for {options.out.name}: make it first")
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
    for properties in (f["properties"] for f in features if f["properties"]["state"] == "no_front"):
        why = ": ".join(filter(None, (properties["reason"], properties["detail"])))
        note(f"calfin trace: {properties['image']}: no front, {why}")
    found = sum(f["geometry"] is not None for f in features)
    result = {"fronts": found, "images": len(options.images), "failed": len(failed), "out": options.out}
    said = (
        f"{how_many(found, 'front')} in {how_many(len(options.images), 'image')}, {len(failed)} failed: {options.out}"
    )
    tell(options, result, said)
    return 1 if failed else 0


def retry(options: argparse.Namespace) -> int:
    """Try the failed scenes of a store once more."""
    from calfin_cloud.pipeline import retry_failed
    from calfin_cloud.storage import count_scenes

    found = count_scenes(options.store)
    failed = found["states"]["failed"] + found["behind"]
    with _workers(options, "scenes mapped", failed, total=failed) as (client, done):
        counts = retry_failed(options.store, engine=options.engine, client=client, on_batch=done)
    _note_kept(counts["kept"])
    _show_scenes(options, done.fronts(), done.n_scenes, counts)
    return 1 if counts["failed"] or counts["kept"] else 0


def _note_kept(n_scenes: int, done: str = "mapped", then: str = "the same call tries again") -> None:
    if n_scenes:
        note(f"{how_many(n_scenes, 'scene')} could not be {done} again: the old fronts stay, {then}")


class _Done:
    """The scenes that a run has written, batch by batch, as many as are shown; they move a bar on."""

    def __init__(self, bar: Any) -> None:  # noqa: ANN401 - a bar of tqdm
        self.bar, self._batches, self.n_scenes = bar, list[Any](), 0

    def __call__(self, fronts: Any) -> None:  # noqa: ANN401 - imported lazily
        """Take the fronts of a batch."""
        n = fronts["key"].nunique()
        self.bar.update(n)
        if self.n_scenes < MOST_ROWS:
            self._batches.append(fronts)
        self.n_scenes += n

    def fronts(self) -> Any:  # noqa: ANN401 - imported lazily
        """Fronts of these scenes; the store is not read again, since it may have hundreds of thousands of scenes."""
        import pandas as pd

        if not self._batches:
            return None
        order = ["domain", "datetime", "scene_id", "front"]
        return pd.concat(self._batches, ignore_index=True).sort_values(order, ignore_index=True)


def _show_scenes(
    options: argparse.Namespace,
    fronts: Any,  # noqa: ANN401 - imported lazily
    n_scenes: int,
    counts: Mapping[str, int],
    distances: Any = None,  # noqa: ANN401
    skill: pd.DataFrame | None = None,
) -> None:
    """Tell the table of scenes, the first of `n_scenes`, the counts, and how to open all of the store as a map."""
    from calfin_cloud.pipeline import summarise_scenes

    result: dict[str, Any] = {"store": options.store, "counts": dict(counts), "scenes": [], "scenes_left_out": 0}
    lines = []
    if fronts is not None:
        scenes = summarise_scenes(fronts, distances).head(MOST_ROWS)
        result["scenes"] = records(scenes)
        lines.append(scenes.to_string(index=False, na_rep=""))
        if left_out := n_scenes - len(scenes):
            result["scenes_left_out"] = left_out
            lines.append(f"and {left_out} more scenes, which are in the store as well")
    nothing_new = "; nothing new" if counts.get("found") and counts["found"] == counts.get("known") else ""
    lines.append(", ".join(f"{n} {state}" for state, n in counts.items()) + nothing_new)
    if counts.get("found") != 0:
        lines.append(f"see them on a map: calfin report {shlex.quote(options.store)} --out report")
    if skill is not None:
        result["skill"] = records(skill.reset_index(names="lines"))
        lines.append(skill.round(2).to_string(na_rep=""))
    tell(options, result, *lines)


@contextmanager
def _workers(
    options: argparse.Namespace, what: str, n_scenes: int, *, total: int | None = None
) -> Iterator[tuple[Any, _Done]]:
    """Connect to the workers that the call asks for, and lend what takes the scenes of batches and moves a bar on."""
    with connected(options, n_scenes) as client, bar(options, what, "scene") as progress:
        progress.total = total
        yield client, _Done(progress)


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
        with clusters.connect(cluster, n_workers=options.workers, **more) as client:
            yield client
    except clusters.ClusterLostError as error:
        note(f"calfin {options.verb}: {error}", level=logging.ERROR)
        raise SystemExit(3) from error


def settings_of(options: argparse.Namespace) -> MapSettings:
    """Return the settings of a run that the call asks for."""
    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.pipeline import VARIANTS, settings_from
    from calfin_cloud.storage import is_store, read_settings

    variant, features = VARIANTS[options.variant], tuple(options.features)
    if getattr(options, "recompute", False) and not features and is_store(options.store):  # their tables stay
        features = settings_from(read_settings(options.store)).features
    return replace(
        variant,
        inference=replace(variant.inference, engine=options.engine),
        network=options.network or DEFAULT_NETWORK,
        max_cloud=options.max_cloud,
        max_nodata=options.max_nodata,
        features=features,
    )
