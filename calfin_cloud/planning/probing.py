"""A few scenes are really read, predicted and traced where a run would do it, and timed step by step."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pystac
from distributed import Client

from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.imagery import READ_AT_ONCE
from calfin_cloud.inference import SceneMasks, predict_scene, tracing_mask
from calfin_cloud.pipeline.scene import Group, Item, Look, look, look_at_scene, trace_predicted
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.workers import placement_of, share_sensors, workers_of
from calfin_cloud.planning.fetching import NetworkStatistics, start_counting, stop_counting
from calfin_cloud.schema import SceneError, to_levels
from calfin_cloud.sensors import acquired, item_of
from calfin_cloud.storage import add_scenes, keep_domain, open_store, write_scenes
from calfin_cloud.storage.files import open_place


@dataclass(frozen=True)
class Slots:
    """How many tasks run at once: those of the `network`, the `others`, `all`, those with a `gpu`, and on one host."""

    network: int = 1
    others: int = 1
    all: int = 1
    gpu: int = 0
    on_one_host: int = 1


class TimedLook(NamedTuple):
    """A scene that was read and looked at, and in how many seconds."""

    read_s: float
    look: Look


class TimedMasks(NamedTuple):
    """What the network made of a scene, and in how many seconds."""

    network_s: float
    masks: SceneMasks


class Mapped(NamedTuple):
    """A scene that was mapped: seconds of its steps after reading, bytes of its results, files of its own."""

    network_s: float
    trace_s: float
    bytes: int
    files: int


@dataclass(frozen=True)
class Probe:
    """What the scenes of a probe took.

    Attributes
    ----------
    read_s
        Seconds to read each scene and look at it, mapped or not.
    busy_s
        Mean seconds of a processor for that: while others wait for servers, the network works.
    interval_s
        Seconds between scenes where nothing but reading is done, several at a time as in a run.
    reasons
        How many of them have no need of the network, and why; those that have are counted under "".
    fetched
        Over the network, to read all of them.
    mapped
        The scenes that were mapped.
    start_s
        Seconds until all workers had their libraries and the network.
    """

    read_s: list[float]
    busy_s: float
    interval_s: float
    reasons: dict[str, int]
    fetched: NetworkStatistics
    mapped: list[Mapped]
    start_s: float


def slots_of(client: Client | None) -> Slots:
    """Count the slots of a cluster by the words that its workers say; one without a cluster."""
    if client is None:
        return Slots()
    workers = list(workers_of(client).values())
    on_host: Counter[str] = Counter()
    for worker in workers:
        on_host[worker["host"]] += worker["nthreads"]

    def saying(word: str) -> int:
        return int(sum(min(w["nthreads"], w["resources"].get(word, 0)) for w in workers))

    n, n_gpu = on_host.total(), saying("GPU")
    return Slots(n_gpu or n, saying("CPU") or n, n, n_gpu, max(on_host.values()))


def probe_scenes(
    scenes: Sequence[tuple[Item, Domain]],
    n_mapped: int,
    settings: MapSettings,
    *,
    beside: str | None = None,
    client: Client | None = None,
) -> Probe:
    """Read all the scenes and map up to `n_mapped` of those that need the network, on all workers at once.

    Parameters
    ----------
    beside
        The store of the run: where it is on an object store, the probe writes beside it, and deletes that again.
        Otherwise it writes into temporary folders of the workers.
    """
    share_sensors(client)
    start_s = _warm_up(settings, client)
    placement = placement_of(client) if client else None
    network, others = (placement.network, placement.others) if placement else (None, None)
    _on_each(client, start_counting)
    busy_s, began = -sum(_on_each(client, time.process_time)), time.perf_counter()
    looks = [_submit(client, others, read_scene, item, domain, settings) for item, domain in scenes]
    facts = _results(client, [_submit(client, others, _facts, of) for of in looks])
    seconds = time.perf_counter() - began
    busy_s += sum(_on_each(client, time.process_time))
    fetched = _on_each(client, stop_counting)
    useful = [i for i, (_, reason) in enumerate(facts) if not reason]
    where = beside if beside and "://" in beside else None
    mapped = []
    for i in np.linspace(0, len(useful) - 1, min(n_mapped, len(useful))).round().astype(int):
        of, (item, domain) = looks[useful[i]], scenes[useful[i]]
        predicted = _submit(client, network, predict, of, domain, settings)
        mapped.append(_submit(client, others, trace, of, predicted, item, domain, settings, where))
    return Probe(
        [read_s for read_s, _ in facts],
        busy_s / len(scenes),
        seconds / len(scenes) / (1 if client else READ_AT_ONCE),
        dict(Counter(reason for _, reason in facts)),
        NetworkStatistics(sum(f.requests for f in fetched), sum(f.bytes for f in fetched)),
        _results(client, mapped),
        start_s,
    )


# Tasks, on a worker


def read_scene(item: Item, domain: Domain, settings: MapSettings) -> TimedLook:
    """Read a scene and look at it; one that cannot be read has its reason among the facts."""
    began = time.perf_counter()
    looks = look(Group("", domain, [item], [0]), settings=settings)
    facts = looks.facts[0]
    if isinstance(facts, Exception):
        reason = facts.reason if isinstance(facts, SceneError) else "error"
        facts = {"reason": reason, "detail": str(facts)}
    return TimedLook(time.perf_counter() - began, Look(facts, looks.channels[0]))


def predict(timed: TimedLook, domain: Domain, settings: MapSettings) -> TimedMasks:
    """Take a scene through both passes of the network."""
    assert timed.look.channels is not None
    began = time.perf_counter()
    masks, boxes = predict_scene(
        timed.look.channels,
        network=settings.network,
        fjord_mask=tracing_mask(domain, settings.trace),
        settings=settings.inference,
        trace=settings.trace,
    )
    return TimedMasks(time.perf_counter() - began, SceneMasks(to_levels(masks), boxes))


def trace(
    timed: TimedLook, predicted: TimedMasks, item: Item, domain: Domain, settings: MapSettings, beside: str | None
) -> Mapped:
    """Store the masks of a scene and trace its fronts, in a store of its own that is deleted again."""
    assert timed.look.channels is not None
    with _own_store(beside) as store:
        open_store(store, crs=domain.crs, made_by={})
        keep_domain(store, domain)
        moment = acquired(item_of(item)).tz_localize(None)
        add_scenes(store, domain, {item["id"]: np.datetime64(moment)})
        before = _sizes(store)
        began = time.perf_counter()
        (target,) = Group(store, domain, [item], [0]).targets
        facts = trace_predicted(predicted.masks, timed.look.channels[..., 0], target, settings)
        write_scenes(store, domain.name, {target.place: facts["masks"]})
        seconds = time.perf_counter() - began
        new = {path: size for path, size in _sizes(store).items() if path not in before}
    return Mapped(predicted.network_s, seconds, sum(new.values()), sum("/masks/" not in path for path in new))


def rehearse(settings: MapSettings) -> float:
    """Map a synthetic scene twice; return the seconds of the second time, when all is loaded and compiled."""
    domain = Domain("rehearsal", box_grid((0.0, 0.0, 256 * 30.0, 256 * 30.0), 3413, 30.0))
    scene = np.full((2, *domain.shape), 0.1, dtype="float32")
    scene[0, :, 128:] = 0.8  # ice, so that there is a front to trace
    item = pystac.Item("rehearsal", None, None, datetime(2020, 1, 1, tzinfo=UTC), {}).to_dict()
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        seen = look_at_scene(
            scene, resolution_m=domain.resolution_m, slc_off_possible=False, settings=settings, kind="optical"
        )
        timed = TimedLook(0.0, seen)
        trace(timed, predict(timed, domain, settings), item, domain, settings, None)
        seconds = time.perf_counter() - began
    return seconds


def _facts(timed: TimedLook) -> tuple[float, str]:
    assert not isinstance(timed.look.facts, Exception)
    return timed.read_s, str(timed.look.facts.get("reason", ""))


@contextmanager
def _own_store(beside: str | None) -> Iterator[str]:
    if beside is None:
        with tempfile.TemporaryDirectory(prefix="calfin-probe-") as folder:
            yield folder
        return
    store = f"{beside.rstrip('/')}-probe-{uuid4().hex[:8]}"
    try:
        yield store
    finally:
        fs, root = open_place(store)
        if fs.exists(root):
            fs.rm(root, recursive=True)


def _sizes(store: str) -> dict[str, int]:
    fs, root = open_place(store)
    return {path: int(about["size"]) for path, about in fs.find(root, detail=True).items()}


# Where tasks run: on the workers of a client, or at once in this process


def _submit(client: Client | None, resources: Mapping[str, float] | None, task: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
    return client.submit(task, *args, resources=resources, pure=False) if client else task(*args)


def _results(client: Client | None, tasks: list[Any]) -> list[Any]:
    return list(client.gather(tasks)) if client else tasks


def _on_each(client: Client | None, call: Callable[[], Any]) -> list[Any]:
    return list(client.run(call).values()) if client else [call()]


def _warm_up(settings: MapSettings, client: Client | None) -> float:
    """Seconds until all workers, each on its own, had their libraries and the network."""
    began = time.perf_counter()
    if client is None:
        seconds = [rehearse(settings)]
    else:
        workers = workers_of(client)
        seconds = client.gather([client.submit(rehearse, settings, workers=[w], pure=False) for w in workers])
    return max(0.0, time.perf_counter() - began - 2 * max(seconds))
