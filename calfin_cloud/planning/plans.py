"""Before anything runs: the scenes are counted, a few of them mapped, and the rest told from what those took."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distributed import Client

from calfin_cloud.domains import Domain
from calfin_cloud.pipeline.batches import batch_length
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.workers import group_length, placement_of
from calfin_cloud.planning.choosing import list_scenes, spread
from calfin_cloud.planning.estimating import mean, share_to_map, step_seconds, work_seconds
from calfin_cloud.planning.fetching import NetworkStatistics
from calfin_cloud.planning.probing import Probe, Slots, probe_scenes, slots_of
from calfin_cloud.scenes import FindScenes
from calfin_cloud.storage import finished_keys, is_store

LOOKS_A_SCENE = 4
"""Scenes that are read for each one that is mapped: reading is cheap, and tells the share that needs the network."""

TASKS_A_GROUP, TASKS_WITH_GPU = 2, 11
"""Tasks of a group of scenes: reading and all else; where a GPU is, six steps, and what takes pictures to it."""

FILES_A_BATCH = 7  # shards of masks, candidates and grey pictures, and the four files of the tables

REQUESTS_A_BATCH, REQUESTS_A_DOMAIN = 42, 102
"""Requests to a bucket for a batch, and for the layout of a new glacier (counted in `tests/test_planning.py`)."""

NO_PROBE = Probe([], 0.0, 0.0, {}, NetworkStatistics(0, 0), [], 0.0)


@dataclass(frozen=True)
class Prices:
    """What a cloud charges, in any one currency; all of it is nothing where nothing is said.

    Attributes
    ----------
    cpu_hour, gpu_hour
        An hour of one slot (a thread of a worker) without and with a GPU, for as long as the run takes.
    egress_gb
        10^9 bytes of scenes that are read over the network.
    requests_1000
        Thousand requests to read scenes and to write results.
    storage_gb_month
        10^9 bytes of results, for one month.
    """

    cpu_hour: float = 0.0
    gpu_hour: float = 0.0
    egress_gb: float = 0.0
    requests_1000: float = 0.0
    storage_gb_month: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What a run would do and take.

    Attributes
    ----------
    scenes
        A row a domain and platform: `domain, platform, found, known, to_do`; `found`, `known`, `to_do` are the sums.
    probed, outcomes
        Scenes of the probe: how many were `read` and how many `mapped`; of those read how many have no need of the
        network and why, those that have under "".
    step_s
        Mean seconds of a scene in each step: `read` of all scenes, the others of those that need the network.
    slots
        Tasks that run at once: those of the `network`, the others, and `all`.
    bytes_read, requests
        Over the network, for the scenes; nothing for scenes on disk.
    bytes_written, files_written
        Masks, pictures and tables; those bytes of the tables, and the report, come on top.
    store_requests
        To write them into a bucket; with the requests above, those of a scene are these two over `to_do`.
    start_s, search_s, work_s
        Seconds until the workers are ready, to search the catalogue, and from then on.
    range_s
        The whole run: `total_s` within these bounds in nine of ten cases, as far as the probe stands for the scenes.
    cost
        By what is paid for, and `total`; empty without prices.
    """

    scenes: list[dict[str, Any]]
    found: int
    known: int
    to_do: int
    probed: dict[str, int]
    outcomes: dict[str, int]
    step_s: dict[str, float]
    slots: dict[str, int]
    tasks: int
    bytes_read: int
    requests: int
    bytes_written: int
    files_written: int
    start_s: float
    search_s: float
    work_s: float
    total_s: float
    range_s: tuple[float, float]
    store_requests: int = 0
    cost: dict[str, float] = field(default_factory=dict)


def plan_run(
    domains: Sequence[Domain],
    find_scenes: FindScenes,
    *,
    store: str | None = None,
    settings: MapSettings | None = None,
    client: Client | None = None,
    batch_size: int = 32,
    sample: int = 6,
    seed: int = 0,
    started_s: float = 0.0,
    prices: Prices = Prices(),
) -> Plan:
    """Tell what `map_fronts` would do and take with the same arguments, from a probe of `sample` scenes.

    Nothing is written into the store. Without `store` all scenes are new.

    Parameters
    ----------
    sample
        Scenes that are mapped; four times as many are read, spread over domains and platforms. On workers that
        share a host at least as many are mapped as run there at once: one scene alone would be too fast.
    seed
        Another seed probes other scenes.
    started_s
        Seconds that a run, too, needs before it begins: to start Python and the workers.

    Raises
    ------
    ValueError
        The sample has fewer than two scenes.
    """
    if sample < 2:
        raise ValueError(f"the probe needs two scenes or more to tell a range, got sample={sample}")
    settings = replace(settings or MapSettings(), features=())  # not in the plan, see docs/features.md
    slots = slots_of(client)
    n_mapped = max(sample, slots.on_one_host)
    n_read = LOOKS_A_SCENE * n_mapped
    began = time.perf_counter()
    known = finished_keys(store) if store and is_store(store) else set()
    rows, pool = list_scenes(domains, find_scenes, known, n_read, seed)
    search_s = time.perf_counter() - began
    chosen = [(item.to_dict(transform_hrefs=False), domain) for item, domain in spread(pool, n_read, seed)]
    probe = probe_scenes(chosen, n_mapped, settings, beside=store, client=client) if chosen else NO_PROBE
    n_tasks = _count_tasks(rows, domains, batch_size, client)
    n_batches = _count_batches(rows, domains, batch_size)
    plan = _plan_from(
        rows, probe, slots, n_tasks=n_tasks, n_batches=n_batches, start_s=started_s + probe.start_s, search_s=search_s
    )
    return replace(plan, cost=_cost(plan, prices))


def _plan_from(
    rows: list[dict[str, Any]],
    probe: Probe,
    slots: Slots,
    *,
    n_tasks: int,
    n_batches: int,
    start_s: float,
    search_s: float,
) -> Plan:
    """Take what the scenes of the probe took for all scenes to do."""
    found, known, to_do = (sum(row[name] for row in rows) for name in ("found", "known", "to_do"))
    work_s, off_s = work_seconds(probe, slots, to_do)
    n_read, to_map = max(len(probe.read_s), 1), to_do * share_to_map(probe)
    n_pictures = mean([m.files for m in probe.mapped]) * to_map
    n_new = len({row["domain"] for row in rows if row["to_do"]} - {row["domain"] for row in rows if row["known"]})
    return Plan(
        scenes=rows,
        found=found,
        known=known,
        to_do=to_do,
        probed={"read": len(probe.read_s), "mapped": len(probe.mapped)},
        outcomes=probe.reasons,
        step_s=step_seconds(probe),
        slots=asdict(slots),
        tasks=n_tasks,
        bytes_read=round(probe.fetched.bytes / n_read * to_do),
        requests=round(probe.fetched.requests / n_read * to_do),
        bytes_written=round(mean([m.bytes for m in probe.mapped]) * to_map),
        files_written=round(n_pictures) + FILES_A_BATCH * n_batches,
        store_requests=round(n_pictures) + REQUESTS_A_BATCH * n_batches + REQUESTS_A_DOMAIN * n_new,
        start_s=start_s,
        search_s=search_s,
        work_s=work_s,
        total_s=start_s + search_s + work_s,
        range_s=(start_s + search_s + max(0.0, work_s - off_s), start_s + search_s + work_s + off_s),
    )


def _count_batches(rows: Sequence[dict[str, Any]], domains: Sequence[Domain], batch_size: int) -> int:
    """Count the batches that the scenes to do become."""
    to_do = Counter[str]()
    for row in rows:
        to_do[row["domain"]] += row["to_do"]
    return sum(-(-to_do[domain.name] // batch_length(domain, batch_size)) for domain in domains)


def _count_tasks(
    rows: Sequence[dict[str, Any]], domains: Sequence[Domain], batch_size: int, client: Client | None
) -> int:
    """Count the tasks that the scenes to do become; none without a cluster."""
    if client is None:
        return 0
    placement, n_tasks = placement_of(client), 0
    of_group = TASKS_WITH_GPU if placement.network else TASKS_A_GROUP
    for domain in domains:
        n = sum(row["to_do"] for row in rows if row["domain"] == domain.name)
        size = batch_length(domain, batch_size)
        for length, n_batches in ((size, n // size), (n % size, 1)):
            n_groups = -(-length // group_length(domain, length, placement))
            n_tasks += n_batches * of_group * n_groups
    return n_tasks


def _cost(plan: Plan, prices: Prices) -> dict[str, float]:
    """Money by what it is paid for, and in total; nothing where there are no prices."""
    hours, slots = plan.total_s / 3600, plan.slots
    parts = {
        "cpu": prices.cpu_hour * hours * (slots["all"] - slots["gpu"]),
        "gpu": prices.gpu_hour * hours * slots["gpu"],
        "egress": prices.egress_gb * plan.bytes_read / 1e9,
        "requests": prices.requests_1000 * (plan.requests + plan.store_requests) / 1000,
        "storage": prices.storage_gb_month * plan.bytes_written / 1e9,
    }
    paid = {name: round(cost, 4) for name, cost in parts.items() if cost}
    return paid | {"total": round(sum(paid.values()), 4)} if paid else {}
