"""Verbs that tell beforehand: what a run will take, and what stands in its way."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from calfin_cloud.cli.output import note, tell
from calfin_cloud.cli.searching import FEW_SCENES, finder, period_of, search_ahead

if TYPE_CHECKING:
    from calfin_cloud.doctor import Finding
    from calfin_cloud.domains import Domain
    from calfin_cloud.planning import Plan

PRICES = {
    "cpu-hour": "an hour of a worker's thread",
    "gpu-hour": "an hour of a worker's GPU",
    "egress-gb": "10^9 bytes of scenes read over the network",
    "1000-requests": "1000 requests to read scenes or write results",
    "storage-gb-month": "10^9 bytes of results for a month",
}
"""Prices by the name of their flag, in any one currency."""


def plan(options: argparse.Namespace) -> int:
    """Predict scenes, bytes, tasks, minutes and cost of a run from a few scenes that are tried."""
    import psutil

    from calfin_cloud.cli.mapping import connected, settings_of
    from calfin_cloud.domains import read_domains
    from calfin_cloud.pipeline import check_wanted
    from calfin_cloud.planning import Prices, plan_run

    domains = read_domains(options.domains, options.domain)
    prices = {name: getattr(options, f"price_{name.replace('-', '_')}") for name in PRICES}
    settings = settings_of(options)
    check_wanted(domains, settings, options.store)
    find, n_scenes = search_ahead(finder(options), domains, enough=FEW_SCENES if options.cluster == "auto" else 1)
    with connected(options, n_scenes) as client:
        told = plan_run(
            domains,
            find,
            store=options.store,
            settings=settings,
            client=client,
            batch_size=options.batch_size,
            sample=options.sample,
            seed=options.seed,
            started_s=time.time() - psutil.Process().create_time(),
            prices=Prices(*prices.values()),
        )
    tell(options, told, *_lines_of(told))
    if told.found == 0:
        note("no scene was found: check period, collections and domains with `calfin search`")
    return 0


def _lines_of(told: Plan) -> list[str]:
    """Say a plan in words, one thing a line."""
    outcomes = [f"{n} {reason or 'to map'}" for reason, n in told.outcomes.items()]
    steps = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in told.step_s.items())
    low, high = (seconds / 60 for seconds in told.range_s)
    lines = _table(told.scenes)
    lines += [
        f"scenes: {told.found} found, {told.known} known, {told.to_do} to do",
        f"probe: {told.probed['read']} read ({', '.join(outcomes)}), {told.probed['mapped']} mapped; a scene: {steps}"
        if told.probed["read"]
        else "probe: none",
        f"to read over the network: {told.bytes_read / 1e9:.3f} GB in {told.requests} requests",
        f"to write: {told.bytes_written / 1e9:.3f} GB in {told.files_written} files; "
        f"in a bucket {told.store_requests} requests, {_a_scene(told):.1f} a scene with those to read it",
        f"tasks: {told.tasks}, {told.slots['all']} at once ({told.slots['gpu']} with a GPU)"
        if told.tasks
        else "tasks: none, scenes are mapped one after the other in this process",
        f"minutes: {told.total_s / 60:.1f}, from {low:.1f} to {high:.1f}; "
        f"of these {told.start_s / 60:.1f} to start and {told.search_s / 60:.1f} to search",
    ]
    if told.cost:
        lines.append("cost: " + ", ".join(f"{what} {much:.3g}" for what, much in told.cost.items()))
    return lines


def _a_scene(told: Plan) -> float:
    return (told.requests + told.store_requests) / max(told.to_do, 1)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ("domain", "platform", "found", "known", "to_do")
    return ["\t".join(names), *("\t".join(str(row[name]) for name in names) for row in rows)]


def doctor(options: argparse.Namespace) -> int:
    """Look for what would make a run fail, and say what to do; exit code 1 if something would."""
    if not options.verbose:  # the finding tells what the tries in between do
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    found = []
    for finding in _findings(options):
        found.append(finding)
        if not options.json:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            print(f"{finding.status:8} {finding.check}: {finding.detail}{remedy}", flush=True)
    if options.json:
        tell(options, found)
    return 1 if any(finding.status == "problem" for finding in found) else 0


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    """Check this machine, then what is elsewhere, then the workers: each as far as the call names it."""
    from calfin_cloud import doctor
    from calfin_cloud.cli.mapping import connected, settings_of
    from calfin_cloud.domains import read_domains
    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.pipeline import made_by

    yield doctor.check_libraries()
    network = doctor.check_network(options.network or DEFAULT_NETWORK, options.engine)
    yield network
    yield doctor.check_gpu_here()
    yield doctor.check_keys()
    yield doctor.check_certificates()
    yield doctor.check_dask_certificate()
    yield from doctor.check_disk(options.store)
    domains = read_domains(options.domains, options.domain) if options.domains else []
    if domains:
        yield doctor.check_domains(domains)
    scenes = yield from _check_scenes(options, domains)
    if options.store:
        yield doctor.check_store(options.store, "here")
        if domains and network.status == "ok":
            yield doctor.check_made_by(options.store, domains[0].crs, made_by(settings_of(options)), domains)
    if options.cluster == "none":
        return
    try:
        with connected(options) as client:
            yield from doctor.check_workers(client, scenes, options.store)
    except (ValueError, OSError) as error:
        yield doctor.problem("cluster", error, "correct what it says; `calfin doctor --cluster none` checks all else")


def _check_scenes(options: argparse.Namespace, domains: Sequence[Domain]) -> Generator[Finding, None, list[Any]]:
    """Check catalogue and clock, and read a scene of each collection and host; return these scenes."""
    from calfin_cloud import doctor
    from calfin_cloud.scenes import CATALOGS, describe_catalog, period_bounds

    if not options.catalog:
        return []
    if options.period is not None:
        period_bounds(period_of(options))  # a wrong one is a mistake of the call
    catalog = CATALOGS[options.catalog].url if options.catalog in CATALOGS else options.catalog
    yield (answers := doctor.check_catalog(partial(describe_catalog, options.catalog)))
    if answers.status != "ok":
        return []
    if catalog.startswith(("http://", "https://")):
        yield doctor.check_clock(catalog)
    if not domains:
        return []
    findings, scenes = doctor.find_examples(finder(options), domains)
    yield from findings
    for item, domain in scenes:
        yield doctor.check_scene(item.to_dict(transform_hrefs=False), domain, "here")
    return scenes
