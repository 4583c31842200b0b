"""Batches of scenes in, results of each scene out: in a plain loop, or on a Dask cluster, each task where it belongs.

The steps and their order are those of `scene`; here is only where and when they run.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
from dask.delayed import delayed
from distributed import Client, Future, KilledWorker
from distributed.threadpoolexecutor import ThreadPoolExecutor  # whose threads do not keep a process from ending
from numpy.typing import NDArray

from calfin_cloud.network import PICTURE_SIZE, InferenceSettings
from calfin_cloud.opinions import VERIFIED, Pictures, predict_pictures
from calfin_cloud.pipeline.batches import Batch
from calfin_cloud.pipeline.ordering import lately, started
from calfin_cloud.pipeline.scene import Group, Result, look, map_look, map_looks, retrace
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.pipeline.workers import PICTURES_A_TASK, Placement, group_length, placement_of, share_sensors
from calfin_cloud.storage import check_answered

log = logging.getLogger(__name__)

SCENES_A_TASK = 8  # that are traced anew
SCENES_FOR_A_GPU = 256  # taken together, since not every scene has a window for the second pass

R = TypeVar("R")


class WorkersDiedError(OSError):
    """Workers have died with the same task several times, and nothing may be made of that."""

    exit_code = 3  # of the command line: the same call may succeed later


def map_batches(
    batches: Sequence[Batch], store: str, settings: MapSettings, client: Client | None
) -> list[list[Result]]:
    """Map the scenes of some batches; masks and pictures are written. The results of each scene, by batch.

    Raises `SilentStoreError` where the store did not answer a step, `OSError` where it took no file.
    """
    share_sensors(client)
    placement = lately(placement_of, client) if client else None
    n_scenes = sum(len(batch.scenes) for batch in batches)
    groups = [_groups_of(batch, store, n_scenes, placement) for batch in batches]
    flat = [group for of_batch in groups for group in of_batch]
    results = iter(_map_on(client, flat, settings, placement) if client and placement else _map_here(flat, settings))
    return [[result for _ in of_batch for result in check_answered(next(results))] for of_batch in groups]


def retrace_batch(
    batch: Batch, store: str, reasons: Sequence[tuple[str, str]], settings: MapSettings, client: Client | None
) -> list[Result]:
    """Trace the scenes of a batch anew from their stored masks; `reasons` are what the store says of each now.

    Raises `SilentStoreError` where the store did not answer a step, `OSError` where it took no file, `WorkersDiedError`
    where workers died with the scenes.
    """
    groups = _cut(batch, store, SCENES_A_TASK)
    of_groups = [reasons[start : start + SCENES_A_TASK] for start in range(0, len(reasons), SCENES_A_TASK)]
    traced = run_each(partial(retrace, settings=settings), groups, of_groups, client=client)
    return [result for of_group in traced for result in check_answered(of_group)]


def run_each(
    step: Callable[..., R], groups: Sequence[Group], *more: Sequence[Any], client: Client | None
) -> Iterator[R]:
    """Run a step that needs no network for each group, some at a time; yield its results in order.

    Raises
    ------
    WorkersDiedError
        Workers died with a group, each time it was tried. The fronts that its scenes have are worth more than to know.
    """
    calls = zip(groups, *more, strict=True)
    if client is None:
        yield from (step(*call) for call in calls)
        return
    placement, running = lately(placement_of, client), deque[Future]()
    for call in calls:
        running.append(client.submit(step, *call, resources=placement.others, pure=False))
        started([running[-1]])
        if len(running) > 4 * placement.n_threads:
            yield _survived(running.popleft())
    while running:
        yield _survived(running.popleft())


def _survived(future: Future) -> Any:  # noqa: ANN401 - what the task makes
    try:
        return future.result()
    except KilledWorker as error:
        raise WorkersDiedError(
            "workers died several times with the same scenes, which stay as they were: give each worker more memory "
            f"(--worker-memory 4GiB, or the limit of its pod), and run the same again, which continues ({error})"
        ) from error


def waves(batches: Iterable[Batch], client: Client | None) -> Iterator[list[Batch]]:
    """Take batches together until a GPU has enough scenes; one by one without a GPU."""
    together: list[Batch] = []
    for batch in batches:
        together.append(batch)
        has_gpu = client is not None and lately(placement_of, client).network is not None
        if not has_gpu or sum(len(b.scenes) for b in together) >= SCENES_FOR_A_GPU:
            yield together
            together = []
    if together:
        yield together


def _groups_of(batch: Batch, store: str, n_scenes: int, placement: Placement | None) -> list[Group]:
    """Cut a batch of the `n_scenes` that are mapped together into groups."""
    return _cut(batch, store, group_length(batch.domain, n_scenes, placement))


def _cut(batch: Batch, store: str, size: int) -> list[Group]:
    cuts = [slice(start, start + size) for start in range(0, len(batch.scenes), size)]
    return [Group(store, batch.domain, batch.scenes[cut], batch.places[cut]) for cut in cuts]


# In this process


def _map_here(groups: Sequence[Group], settings: MapSettings) -> Iterator[list[Result]]:
    """Map groups one after the other; the next one is read meanwhile."""
    pool, ahead = ThreadPoolExecutor(1), deque(groups)
    try:
        reading = pool.submit(look, ahead.popleft(), settings=settings) if ahead else None
        while reading is not None:
            looks = reading.result()
            reading = pool.submit(look, ahead.popleft(), settings=settings) if ahead else None
            yield map_look(looks, settings=settings)
    finally:
        pool.shutdown(wait=False)


# On a cluster


def _map_on(client: Client, groups: Sequence[Group], settings: MapSettings, placement: Placement) -> list[list[Result]]:
    """Map groups on a cluster; where a group of several scenes is lost as a whole, each of them is tried alone."""
    outcomes = _outcomes_on(client, groups, settings, placement)
    for place, (group, outcome) in enumerate(zip(groups, outcomes, strict=True)):
        if isinstance(outcome, Exception) and len(group.items) > 1:
            log.warning("%s: %d scenes failed together, each is tried alone", group.domain.name, len(group.items))
            alone = [Group(group.store, group.domain, [i], [p]) for i, p in zip(group.items, group.places, strict=True)]
            results = [_outcomes_on(client, [scene], settings, placement)[0] for scene in alone]
            outcomes[place] = [of if isinstance(of, Exception) else of[0] for of in results]
    return [[of] if isinstance(of, Exception) else of for of in outcomes]


def _outcomes_on(
    client: Client, groups: Sequence[Group], settings: MapSettings, placement: Placement
) -> list[list[Result] | Exception]:
    """Map groups on a cluster: the results of each, or the error of one that was lost as a whole.

    Where no GPU is, all that follows the reading of a group is one task. Where one is, groups share tasks: then all
    reading is waited for, so that a group that is lost with its worker takes no other one with it.
    """
    tasks = _Tasks(client, placement, settings)
    looks = tasks.each(partial(look, settings=settings), groups)
    if placement.network is None:
        done = tasks.each(partial(map_look, settings=settings), looks)
    else:
        lost = _errors(looks)
        read = [future for future, error in zip(looks, lost, strict=True) if not error]
        mapped = iter(map_looks(read, settings, each=tasks.each, predict=tasks.predict))
        done = [future if error else next(mapped) for future, error in zip(looks, lost, strict=True)]
    outcomes: list[Any] = _errors(done)
    fine = [i for i, error in enumerate(outcomes) if error is None]
    for i, results in zip(fine, _gathered(client, [done[i] for i in fine]), strict=True):
        outcomes[i] = results
    return outcomes


def _gathered(client: Client, futures: Sequence[Future]) -> Sequence[Any]:
    """Fetch what tasks have made; what was lost with its worker, and again when made anew, is an error."""
    try:
        return list(client.gather(futures))
    except KilledWorker:
        return [_outcome(future) for future in futures]


def _outcome(future: Future) -> Any:  # noqa: ANN401 - what the task makes
    try:
        return future.result()
    except KilledWorker as error:
        return error


def _errors(futures: Sequence[Future]) -> list[Exception | None]:
    """Wait for tasks, for the last first, since each wait costs a thread's turn; the exception of each that failed."""
    errors = [None if future.status == "finished" else future.exception() for future in reversed(futures)]
    return errors[::-1]


@dataclass(frozen=True)
class _Tasks:
    """Runs steps as tasks of a cluster: those of the network where it is, all others on the other workers.

    What has been started is held: the scheduler may hear that something is no longer needed before it has taken in
    what needs it, and then cancels that. Later steps go before earlier ones of other batches, so that a batch is done
    before the next begins.
    """

    client: Client
    placement: Placement
    settings: MapSettings
    held: list[Any] = field(default_factory=list)

    def each(self, step: Callable[..., Any], *groups: Sequence[Any]) -> list[Future]:
        """Start a step for each group."""
        priority = len(self.held)
        futures = [
            self.client.submit(step, *call, resources=self.placement.others, priority=priority, pure=False)
            for call in zip(*groups, strict=True)
        ]
        self.held.append(futures)
        started(futures)
        return futures

    def predict(self, pictures: Sequence[Future]) -> list[Any]:
        """Start the network on the pictures of groups, those of several groups a task."""
        counted = self.each(n_pictures, pictures)
        lost = _errors(counted)
        # A group that was lost hands its error on to its further steps, and to no other group.
        found: list[Any] = [future if error else _no_masks() for future, error in zip(counted, lost, strict=True)]
        lengths = [0 if error else future.result() for future, error in zip(counted, lost, strict=True)]
        tasks = _together(lengths, PICTURES_A_TASK)
        if not tasks:
            return found
        masks = self._masks([self.each(join, [[pictures[i] for i in of]])[0] for of in tasks])
        for of, block in zip(tasks, masks, strict=True):
            ends = list(accumulate(lengths[i] for i in of))
            parts = [slice(end - lengths[i], end) for i, end in zip(of, ends, strict=True)]
            for i, part in zip(of, self.each(part_of, [block] * len(of), parts), strict=True):
                found[i] = part
        return found

    def _masks(self, pictures: Sequence[Future]) -> list[Future]:
        """Persist the masks of pictures, a block of `map_blocks` a task.

        The resource restriction reaches all network tasks and no others only because what they need is a future, and
        they alone are persisted (dask#7036). How many pictures there are, only the workers know.
        """
        import dask.array as da

        side = (PICTURE_SIZE, PICTURE_SIZE)
        blocks = [da.from_delayed(delayed(future), (np.nan, *side, 3), np.uint8) for future in pictures]
        masks = da.map_blocks(
            partial(predict_block, network=self.settings.network, settings=self.settings.inference),
            da.concatenate(blocks, allow_unknown_chunksizes=True),
            token="predict_pictures",
            chunks=((np.nan,) * len(blocks), *((n,) for n in side), (VERIFIED + 1,)),
            meta=np.empty((0, 0, 0, 0), dtype=np.uint8),
        )
        masks = self.client.persist(masks, resources=self.placement.network, priority=len(self.held))
        by_key = {future.key: future for future in self.client.futures_of(masks)}
        started(by_key.values())
        self.held.append(masks)
        return [by_key[(masks.name, i, 0, 0, 0)] for i in range(len(blocks))]


def _together(lengths: Sequence[int], fewest: int) -> list[list[int]]:
    """Places of groups that share a task, so that each task has `fewest` pictures or more; those without are left out.

    Examples
    --------
    >>> _together([3, 0, 4, 2, 5, 1], 6)
    [[0, 2], [3, 4, 5]]
    """
    tasks: list[list[int]] = []
    size = fewest
    for place, length in enumerate(lengths):
        if not length:
            continue
        if size >= fewest:
            tasks.append([])
            size = 0
        tasks[-1].append(place)
        size += length
    if len(tasks) > 1 and size < fewest:
        tasks[-2:] = [tasks[-2] + tasks[-1]]
    return tasks


# Tasks beside the steps


def n_pictures(pictures: Pictures) -> int:
    """How many pictures there are: all that the driver hears of them."""
    return len(pictures.pictures)


def join(groups: Sequence[Pictures]) -> Pictures:
    """Pictures of several groups, for one task of the network."""
    return Pictures(*(np.concatenate(parts) for parts in zip(*groups, strict=True)))


def predict_block(pictures: Pictures, *, network: str, settings: InferenceSettings) -> NDArray[np.uint8]:
    """Masks (n, 256, 256, 4) of a block of `map_blocks`, which has the flags of its pictures with it."""
    return predict_pictures(*pictures, network=network, settings=settings)


def part_of(masks: NDArray[np.uint8], which: slice) -> NDArray[np.uint8]:
    """Masks of one of the groups that shared a task."""
    return masks[which]


def _no_masks() -> NDArray[np.uint8]:
    return np.empty((0, PICTURE_SIZE, PICTURE_SIZE, VERIFIED + 1), dtype=np.uint8)
