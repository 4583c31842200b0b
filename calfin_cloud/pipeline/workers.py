"""A batch of scenes on a Dask cluster: read, predicted and traced by its workers, each task where it belongs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask import delayed
from dask.delayed import Delayed
from distributed import Client, Future, KilledWorker
from numpy.typing import NDArray

from calfin_cloud.domains import Domain
from calfin_cloud.imagery import Loader, stack_scenes
from calfin_cloud.inference import find_candidates, load_network, predict_masks, predict_overviews
from calfin_cloud.pipeline.batches import Batch
from calfin_cloud.pipeline.scene import Facts, Look, Result, Target, calibration_of, finish_scene, look_at_scene
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.tables import is_slc_off, utc
from calfin_cloud.sensors import Kind, kind_of

log = logging.getLogger(__name__)

SHARE = 0.01  # of a worker that says CPU: the word says where, not how many; a task that reads leaves its thread
MOST_PIXELS = 8_000_000  # of the scenes of one network task: 100 MB of channels and masks


class Places(NamedTuple):
    """Which workers do what: resources that tasks ask for (None: any worker), and how many run the network."""

    network: Mapping[str, int] | None
    others: Mapping[str, float] | None
    n_network: int


class Predicted(NamedTuple):
    """Persisted masks, candidates and overviews: a chunk a network task, but a scene a chunk of masks that must travel.

    To be held as a whole until what is made of it is done: the scheduler may hear that something is no longer needed
    before it has taken in the graph that needs it, and then cancels that.
    """

    masks: xr.DataArray
    candidates: xr.DataArray
    overviews: xr.DataArray


def places_of(client: Client) -> Places:
    """Ask for the workers: those that say GPU predict, those that say CPU do all else; any, if none says it."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    n_gpu, n_cpu = (sum(word in w["resources"] for w in workers) for word in ("GPU", "CPU"))
    return Places({"GPU": 1} if n_gpu else None, {"CPU": SHARE} if n_cpu else None, n_gpu or len(workers))


def check_network(settings: MapSettings, client: Client | None) -> None:
    """Load the network where it will run; `ValueError` for a wrong file, a missing engine, or too little memory."""
    if client is None:
        return load(settings)
    try:
        client.submit(load, settings, resources=places_of(client).network, pure=False).result()
    except KilledWorker as error:
        raise ValueError(
            "workers end while they load the network, most likely for want of memory: give each 1.5 GB or more "
            f"(--worker-memory 2GiB, or the limit of its pod), or see their logs ({error})"
        ) from error


def map_on(
    client: Client, batch: Batch, store: str, settings: MapSettings, *, loader: Loader = "stackstac"
) -> list[Result]:
    """Map the scenes of a batch on a cluster.

    A scene is two tasks: it is read, measured and prepared; it is stored and traced. Between them the network takes
    several scenes a task, of which each is cut out, a third task, where workers of their own run it. Until the last,
    nothing but errors leaves the workers.
    """
    places = places_of(client)
    looks = _look(client, batch, settings, places, loader)
    results: list[Result] = [error or {} for error in _errors(looks)]
    run = partial(_predict_and_trace, client, batch, looks, store=store, settings=settings, places=places)
    use = [i for i, result in enumerate(results) if not isinstance(result, Exception)]
    for i, result in zip(use, run(use), strict=True):
        results[i] = result
    size = scenes_together(len(use), batch.domain, places)
    for group in (use[start : start + size] for start in range(0, len(use), size)):
        if len(group) > 1 and all(isinstance(results[i], Exception) for i in group):
            log.warning("%s: %d scenes failed together, each is tried alone", batch.domain.name, len(group))
            for i in group:
                (results[i],) = run([i])
    return results


def predict_on(
    client: Client, channels: xr.DataArray, domain: Domain, settings: MapSettings, places: Places
) -> Predicted:
    """Persist both passes of the network on a cluster, from lazy channels.

    Several scenes go through the network together, the windows of the second pass across scenes. What each step needs
    is persisted before it, because only then the resource restriction reaches all network tasks and no others
    (dask#7036). Later steps go before earlier ones of other batches, so that a batch is done before the next begins.
    """
    how = settings.inference
    together = channels.chunk(time=scenes_together(channels.sizes["time"], domain, places))
    overviews = predict_overviews(together, network=settings.network, settings=how)
    overviews = client.persist(overviews, resources=places.network, priority=1)
    candidates = find_candidates(overviews, domain, trace=settings.trace)
    candidates = client.persist(candidates, resources=places.others, priority=1)
    masks = predict_masks(together, overviews, candidates, network=settings.network, settings=how, trace=settings.trace)
    masks = masks.chunk(time=1) if places.network else masks
    return Predicted(client.persist(masks, resources=places.network, priority=1), candidates, overviews)


def scenes_together(n_scenes: int, domain: Domain, places: Places) -> int:
    """Scenes of one network task: all workers have work, and no task holds more than `MOST_PIXELS`."""
    return max(1, min(-(-n_scenes // max(places.n_network, 1)), MOST_PIXELS // (domain.shape[0] * domain.shape[1])))


def _look(client: Client, batch: Batch, settings: MapSettings, places: Places, loader: Loader) -> list[Future]:
    """Start to read the scenes and look at them, a task a scene."""
    looks = stack_scenes(batch.items, batch.domain, loader=loader).data.map_blocks(
        look_at_block,
        slc_off=tuple(is_slc_off(item) for item in batch.items),
        kinds=tuple(kind_of(item) for item in batch.items),
        resolution_m=batch.domain.resolution_m,
        settings=settings,
        drop_axis=(1, 2, 3),
        meta=np.empty(0, dtype=object),
    )
    futures: list[Future] = client.compute(list(looks.to_delayed()), resources=places.others)
    return futures


def _predict_and_trace(
    client: Client,
    batch: Batch,
    looks: Sequence[Future],
    use: Sequence[int],
    *,
    store: str,
    settings: MapSettings,
    places: Places,
) -> list[Result]:
    """Predict and trace the scenes in `use` of those that were looked at; the exception of each that failed."""
    if not use:
        return []
    size = scenes_together(len(use), batch.domain, places)
    channels = _channels([looks[i] for i in use], batch.domain, size)
    predicted = predict_on(client, channels, batch.domain, settings, places)
    masks, boxes = _chunk_of_each(predicted.masks), _chunk_of_each(predicted.candidates)
    # What is large and the same for all goes to each worker once.
    trace = delayed(partial(trace_block, store=store, domain=batch.domain, settings=settings), traverse=False)
    traces = [
        trace(
            *of_masks,
            *of_boxes,
            looks[i],
            place=batch.places[i],
            scene_id=batch.items[i].id,
            when=utc(batch.items[i]).date(),
        )
        for i, of_masks, of_boxes in zip(use, masks, boxes, strict=True)
    ]
    futures = client.compute(traces, resources=places.others, priority=2)
    errors = _errors(futures)
    values = iter(client.gather([future for future, error in zip(futures, errors, strict=True) if not error]))
    return [error or next(values) for error in errors]


def _errors(futures: Sequence[Future]) -> list[Exception | None]:
    """Wait for tasks, for the last first, since each wait costs a thread's turn; the exception of each that failed."""
    errors = [None if future.status == "finished" else future.exception() for future in reversed(futures)]
    return errors[::-1]


def _channels(looks: Sequence[Future], domain: Domain, size: int) -> xr.DataArray:
    """Lazy input of the network (time, y, x, channel) uint8, `size` scenes a chunk."""
    groups = [list(looks[start : start + size]) for start in range(0, len(looks), size)]
    blocks = [
        da.from_delayed(delayed(network_input)(group, domain.shape), (len(group), *domain.shape, 4), np.uint8)
        for group in groups
    ]
    return xr.DataArray(da.concatenate(blocks), dims=("time", "y", "x", "channel"))


def _chunk_of_each(array: xr.DataArray) -> list[tuple[Delayed, int]]:
    """Chunk that each scene is in, and its place there."""
    blocks = array.data.to_delayed().ravel()
    return [(block, n) for block, length in zip(blocks, array.chunksizes["time"], strict=True) for n in range(length)]


# Tasks


def load(settings: MapSettings) -> None:
    """Load the network, which stays in this process, and the calibration beside it."""
    load_network(settings.network, settings.inference)
    calibration_of(settings.network)  # one of other weights would fail every scene


def look_at_block(
    block: NDArray[np.float32],
    *,
    slc_off: Sequence[bool],
    kinds: Sequence[Kind],
    resolution_m: float,
    settings: MapSettings,
    block_id: tuple[int, ...] = (0,),
) -> Look:
    """Look at the scene of one chunk (1, band, y, x)."""
    is_striped, kind = slc_off[block_id[0]], kinds[block_id[0]]
    return look_at_scene(block[0], resolution_m=resolution_m, slc_off_possible=is_striped, settings=settings, kind=kind)


def network_input(looks: Sequence[Look], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Channels (n, y, x, 4) of several scenes; zero for those that are left out, which the network skips as empty."""
    empty = np.zeros((*shape, 4), dtype=np.uint8)
    return np.stack([empty if look.channels is None else look.channels for look in looks])


def trace_block(
    masks: NDArray[np.float32],
    place_in_masks: int,
    candidates: NDArray[np.int32],
    place_in_candidates: int,
    look: Look,
    *,
    place: int,
    scene_id: str,
    when: date,
    store: str,
    domain: Domain,
    settings: MapSettings,
) -> Facts:
    """Store and trace one scene of chunks of masks (n, mask, y, x) and candidates (n, candidate, edge)."""
    target = Target(store, domain, place, scene_id, when)
    return finish_scene(masks[place_in_masks], candidates[place_in_candidates], look, target, settings)
