"""A few scenes are really read, predicted and traced where a run would do it, and timed step by step."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import uuid4

import fsspec
import numpy as np
import pystac
from distributed import Client
from numpy.typing import NDArray

from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.imagery import stack_scenes
from calfin_cloud.inference import predict_scene, tracing_mask
from calfin_cloud.pipeline.mapping import SCENES_AHEAD
from calfin_cloud.pipeline.scene import Look, Target, finish_scene, look_at_scene
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.tables import is_slc_off, utc
from calfin_cloud.pipeline.traffic import Traffic, start_counting, stop_counting
from calfin_cloud.pipeline.workers import places_of
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import kind_of
from calfin_cloud.storage import add_scenes, keep_domain, open_store

Item = dict[str, Any]
"""A STAC item as JSON values: pystac's own may drag its whole catalogue to the worker."""


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


class Predicted(NamedTuple):
    """What the network made of a scene, and in how many seconds."""

    network_s: float
    masks: NDArray[np.float32]
    candidates: NDArray[np.int32]


class Mapped(NamedTuple):
    """A scene that was mapped: seconds of its steps after reading, bytes and files of its results."""

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
    traffic
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
    traffic: Traffic
    mapped: list[Mapped]
    start_s: float


def slots_of(client: Client | None) -> Slots:
    """Count the slots of a cluster by the words that its workers say; one without a cluster."""
    if client is None:
        return Slots()
    workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
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
    start_s = _warm_up(settings, client)
    places = places_of(client) if client else None
    network, others = (places.network, places.others) if places else (None, None)
    _on_each(client, start_counting)
    busy_s, began = -sum(_on_each(client, time.process_time)), time.perf_counter()
    looks = [_submit(client, others, read_scene, item, domain, settings) for item, domain in scenes]
    facts = _results(client, [_submit(client, others, _facts, look) for look in looks])
    seconds = time.perf_counter() - began
    busy_s += sum(_on_each(client, time.process_time))
    traffic = _on_each(client, stop_counting)
    useful = [i for i, (_, reason) in enumerate(facts) if not reason]
    where = beside if beside and "://" in beside else None
    mapped = []
    for i in np.linspace(0, len(useful) - 1, min(n_mapped, len(useful))).round().astype(int):
        look, (item, domain) = looks[useful[i]], scenes[useful[i]]
        predicted = _submit(client, network, predict, look, domain, settings)
        mapped.append(_submit(client, others, trace, look, predicted, item, domain, settings, where))
    return Probe(
        [read_s for read_s, _ in facts],
        busy_s / len(scenes),
        seconds / len(scenes) / (1 if client else SCENES_AHEAD),
        dict(Counter(reason for _, reason in facts)),
        Traffic(sum(t.requests for t in traffic), sum(t.bytes for t in traffic)),
        _results(client, mapped),
        start_s,
    )


# Tasks, on a worker


def read_scene(item: Item, domain: Domain, settings: MapSettings) -> TimedLook:
    """Read a scene and look at it; one that cannot be read has its reason among the facts."""
    began = time.perf_counter()
    scene_item = pystac.Item.from_dict(item, preserve_dict=True)
    try:
        scene = stack_scenes([scene_item], domain).data[0].compute(scheduler="synchronous")
        look = look_at_scene(
            scene,
            resolution_m=domain.resolution_m,
            slc_off_possible=is_slc_off(scene_item),
            settings=settings,
            kind=kind_of(scene_item),
        )
    except SceneError as error:
        look = Look({"reason": error.reason, "detail": error.message}, None)
    return TimedLook(time.perf_counter() - began, look)


def predict(timed: TimedLook, domain: Domain, settings: MapSettings) -> Predicted:
    """Take a scene through both passes of the network."""
    assert timed.look.channels is not None
    began = time.perf_counter()
    masks, candidates = predict_scene(
        timed.look.channels,
        network=settings.network,
        fjord_mask=tracing_mask(domain, settings.trace),
        settings=settings.inference,
        trace=settings.trace,
    )
    return Predicted(time.perf_counter() - began, masks, candidates)


def trace(
    timed: TimedLook, predicted: Predicted, item: Item, domain: Domain, settings: MapSettings, beside: str | None
) -> Mapped:
    """Store the masks of a scene and trace its fronts, in a store of its own that is deleted again."""
    with _own_store(beside) as place:
        open_store(place, crs=domain.crs, made_by={})
        keep_domain(place, domain)
        moment = utc(pystac.Item.from_dict(item, preserve_dict=True)).tz_localize(None)
        add_scenes(place, domain, {item["id"]: np.datetime64(moment)})
        before = _sizes(place)
        began = time.perf_counter()
        target = Target(place, domain, 0, item["id"])
        finish_scene(predicted.masks, predicted.candidates, timed.look, target, settings)
        seconds = time.perf_counter() - began
        new = [size for path, size in _sizes(place).items() if path not in before]
    return Mapped(predicted.network_s, seconds, sum(new), len(new))


def rehearse(settings: MapSettings) -> float:
    """Map a made-up scene twice; return the seconds of the second time, when all is loaded and compiled."""
    domain = Domain("rehearsal", box_grid((0.0, 0.0, 256 * 30.0, 256 * 30.0), 3413, 30.0))
    scene = np.full((2, *domain.shape), 0.1, dtype="float32")
    scene[0, :, 128:] = 0.8  # ice, so that there is a front to trace
    item: Item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "rehearsal",
        "geometry": None,
        "links": [],
        "assets": {},
    }
    item |= {"properties": {"datetime": "2020-01-01T00:00:00Z"}}
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        look = look_at_scene(
            scene, resolution_m=domain.resolution_m, slc_off_possible=False, settings=settings, kind="optical"
        )
        timed = TimedLook(0.0, look)
        trace(timed, predict(timed, domain, settings), item, domain, settings, None)
        seconds = time.perf_counter() - began
    return seconds


def _facts(timed: TimedLook) -> tuple[float, str]:
    return timed.read_s, str(timed.look.facts.get("reason", ""))


@contextmanager
def _own_store(beside: str | None) -> Iterator[str]:
    if beside is None:
        with tempfile.TemporaryDirectory(prefix="calfin-probe-") as folder:
            yield folder
        return
    place = f"{beside.rstrip('/')}-probe-{uuid4().hex[:8]}"
    try:
        yield place
    finally:
        fs, root = fsspec.url_to_fs(place, use_listings_cache=False)
        if fs.exists(root):
            fs.rm(root, recursive=True)


def _sizes(place: str) -> dict[str, int]:
    fs, root = fsspec.url_to_fs(place, use_listings_cache=False)
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
        workers = client.scheduler_info(n_workers=-1)["workers"]
        seconds = client.gather([client.submit(rehearse, settings, workers=[w], pure=False) for w in workers])
    return max(0.0, time.perf_counter() - began - 2 * max(seconds))
