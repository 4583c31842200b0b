"""Before anything runs: the scenes are counted, a few of them mapped, and the rest told from what those took."""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from statistics import variance as variance_of
from typing import Any, NamedTuple

import pystac
from distributed import Client
from scipy.special import stdtrit  # Student's t; scipy.stats takes half a second to import

from calfin_cloud.domains import Domain
from calfin_cloud.pipeline.batches import batch_length
from calfin_cloud.pipeline.probing import NetworkStatistics, Probe, Slots, probe_scenes, slots_of
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.workers import group_length, placement_of
from calfin_cloud.scenes import FindScenes, join_granules
from calfin_cloud.schema import front_key
from calfin_cloud.storage import finished_keys, is_store

LOOKS_A_SCENE = 4
"""Scenes that are read for each one that is mapped: reading is cheap, and tells the share that needs the network."""

TASKS_A_GROUP, TASKS_WITH_GPU = 2, 11
"""Tasks of a group of scenes: reading and all else; where a GPU is, six steps, and what takes pictures to it."""

FILES_A_BATCH = 7  # shards of masks, candidates and grey pictures, and the four files of the tables

REQUESTS_A_BATCH, REQUESTS_A_DOMAIN = 42, 102
"""Requests to a bucket for a batch, and for the layout of a new glacier (counted in `tests/test_planning.py`)."""

SURE = 0.9
"""Probability that the range holds, as far as the scenes of the probe stand for the others."""

NO_PROBE = Probe([], 0.0, 0.0, {}, NetworkStatistics(0, 0), [], 0.0)


class Drawn(NamedTuple):
    """A scene drawn for the probe, and how many scenes of its domain it stands for."""

    item: pystac.Item
    domain: Domain
    stands_for: float


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
    rows, pool = _list_scenes(domains, find_scenes, known, n_read, seed)
    search_s = time.perf_counter() - began
    chosen = [(item.to_dict(transform_hrefs=False), domain) for item, domain in _spread(pool, n_read, seed)]
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
    work_s, off_s = _work_seconds(probe, slots, to_do)
    n_read, to_map = max(len(probe.read_s), 1), to_do * _share(probe)
    n_pictures = _mean([m.files for m in probe.mapped]) * to_map
    n_new = len({row["domain"] for row in rows if row["to_do"]} - {row["domain"] for row in rows if row["known"]})
    return Plan(
        scenes=rows,
        found=found,
        known=known,
        to_do=to_do,
        probed={"read": len(probe.read_s), "mapped": len(probe.mapped)},
        outcomes=probe.reasons,
        step_s=_step_seconds(probe),
        slots=asdict(slots),
        tasks=n_tasks,
        bytes_read=round(probe.fetched.bytes / n_read * to_do),
        requests=round(probe.fetched.requests / n_read * to_do),
        bytes_written=round(_mean([m.bytes for m in probe.mapped]) * to_map),
        files_written=round(n_pictures) + FILES_A_BATCH * n_batches,
        store_requests=round(n_pictures) + REQUESTS_A_BATCH * n_batches + REQUESTS_A_DOMAIN * n_new,
        start_s=start_s,
        search_s=search_s,
        work_s=work_s,
        total_s=start_s + search_s + work_s,
        range_s=(start_s + search_s + max(0.0, work_s - off_s), start_s + search_s + work_s + off_s),
    )


def _list_scenes(
    domains: Sequence[Domain], find_scenes: FindScenes, known: Set[str], n: int, seed: int
) -> tuple[list[dict[str, Any]], list[Drawn]]:
    """Count the scenes of each domain and platform, and draw up to `n` new ones of each domain.

    Only the drawn ones are kept: there may be hundreds of thousands.
    """
    counts: Counter[tuple[str, str, bool]] = Counter()
    pool: list[Drawn] = []
    chance = random.Random(seed)
    for domain in domains:

        def new_scenes(domain: Domain = domain) -> Iterator[tuple[float, str, pystac.Item]]:
            for item in join_granules(find_scenes(domain), domain):
                is_known = front_key(domain.name, item.id) in known
                counts[domain.name, _platform(item), is_known] += 1
                if not is_known:
                    yield chance.random(), item.id, item

        drawn = heapq.nsmallest(n, new_scenes())
        n_new = sum(c for (name, _, is_known), c in counts.items() if name == domain.name and not is_known)
        pool += [Drawn(item, domain, n_new / len(drawn)) for _, _, item in drawn]
    rows = []
    for name, platform in dict.fromkeys((name, platform) for name, platform, _ in counts):
        n_known, n_new = counts[name, platform, True], counts[name, platform, False]
        row = {"domain": name, "platform": platform}
        rows.append(row | {"found": n_known + n_new, "known": n_known, "to_do": n_new})
    return rows, pool


def _spread(pool: Sequence[Drawn], n: int, seed: int) -> list[tuple[pystac.Item, Domain]]:
    """Choose `n` of the drawn scenes, every domain and platform by the number of scenes it stands for."""
    ordered = sorted(pool, key=lambda drawn: (drawn.domain.name, _platform(drawn.item)))
    reach = list(itertools.accumulate(drawn.stands_for for drawn in ordered))
    if len(ordered) <= n:
        return [(drawn.item, drawn.domain) for drawn in ordered]
    step, first = reach[-1] / n, random.Random(seed).random()
    places = dict.fromkeys(min(bisect.bisect(reach, (i + first) * step), len(ordered) - 1) for i in range(n))
    return [(ordered[place].item, ordered[place].domain) for place in places]


def _platform(item: pystac.Item) -> str:
    return str(item.properties.get("platform") or "unknown")


def _work_seconds(probe: Probe, slots: Slots, n_scenes: int) -> tuple[float, float]:
    """Seconds of `n_scenes` on all slots, and how far off that may be."""
    if not probe.read_s:
        return 0.0, 0.0
    share, step = _share(probe), _step_seconds(probe)
    network_s = share * step["network"]
    # Scenes are read ahead: they cost what a processor does for them, unless they come too slowly.
    rest_s = probe.busy_s + share * step["trace"]
    scene_s = max(network_s / slots.network, rest_s / slots.others, (network_s + rest_s) / slots.all, probe.interval_s)
    # A few scenes on many slots take as long as one scene.
    work_s = max(scene_s * n_scenes, step["read"] + network_s + share * step["trace"])
    return work_s, work_s * _relative_error(probe, n_scenes)


def _relative_error(probe: Probe, n_scenes: int) -> float:
    """Half the range of the mean seconds of a scene, as part of it, from the spread over the probe.

    Three things vary: the time to read, the share of scenes that need the network, and what those take.
    """
    n_read, n_mapped = len(probe.read_s), len(probe.mapped)
    left_out = 1 - n_mapped / n_scenes
    if n_mapped < 2 or left_out <= 0:
        return float(left_out > 0)
    rest = [m.network_s + m.trace_s for m in probe.mapped]
    share = _share(probe)
    # One scene of either kind more than there were: none among a few does not mean that there are none.
    careful = (n_read * share + 1) / (n_read + 2)
    variance = variance_of(probe.read_s) * (probe.busy_s / fmean(probe.read_s)) ** 2 / n_read
    variance += fmean(rest) ** 2 * careful * (1 - careful) / n_read + share**2 * variance_of(rest) / n_mapped
    half = float(stdtrit(n_mapped - 1, 0.5 + SURE / 2)) * math.sqrt(variance * left_out)
    return half / (probe.busy_s + share * fmean(rest))


def _share(probe: Probe) -> float:
    """Part of the scenes that need the network."""
    return probe.reasons.get("", 0) / max(len(probe.read_s), 1)


def _step_seconds(probe: Probe) -> dict[str, float]:
    return {
        "read": _mean(probe.read_s),
        "network": _mean([m.network_s for m in probe.mapped]),
        "trace": _mean([m.trace_s for m in probe.mapped]),
    }


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0


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
