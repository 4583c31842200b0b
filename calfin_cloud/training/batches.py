"""Prepared samples go in, batches of patches and masks come out; seed and step decide all of a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.preprocess import normalise
from calfin_cloud.training.calfin_augmentation import Frame, release_patch, squeeze
from calfin_cloud.training.patches import Prepared, random_patch
from calfin_cloud.training.settings import ROUND_COPIES, ROUND_SAMPLES, Label, TrainingSettings

Source = Prepared | Frame
AnySource = TypeVar("AnySource", bound=Source)
Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


def prepare_sources(samples: Sequence[Prepared], settings: TrainingSettings) -> Sequence[Source]:
    """Bring samples into the form from which the augmentation of the settings cuts patches."""
    return [squeeze(prepared) for prepared in samples] if settings.augmentation == "release" else samples


def prefetched_batches(make: Callable[[int], Batch], *, start: int = 0, ahead: int = 6) -> Iterator[Batch]:
    """Yield the batches of step after step for ever, made by two threads while the network learns."""
    with ThreadPoolExecutor(2) as pool:
        waiting = deque(pool.submit(make, step) for step in range(start, start + ahead))
        step = start + ahead
        try:
            while True:
                yield waiting.popleft().result()
                waiting.append(pool.submit(make, step))
                step += 1
        finally:
            for future in waiting:
                future.cancel()


def make_batch(samples: Sequence[Source], settings: TrainingSettings, step: int) -> Batch:
    """Draw the batch of one step: patches (n, y, x, 3) in -1..1, masks (n, y, x, 3); seed and step decide all."""
    if settings.sampling == "rounds":
        slots = round_slots(len(samples), settings, step)
        pairs = [augment(samples[index], rng, label=settings.label) for index, rng in slots]
    else:
        rng = np.random.default_rng((settings.seed, step))
        pairs = [augment(draw_sample(samples, rng), rng, label=settings.label) for _ in range(settings.batch)]
    return normalise(np.stack([patch for patch, _ in pairs])), np.stack([masks for _, masks in pairs])


def augment(source: Source, rng: np.random.Generator, *, label: Label) -> Batch:
    """Cut a patch (y, x, 3) and its masks (y, x, 3) as the form of the sample asks for."""
    if isinstance(source, Frame):
        return release_patch(source, rng, label=label)
    return random_patch(source, rng, label=label)


def draw_sample(samples: Sequence[AnySource], rng: np.random.Generator) -> AnySource:
    """Draw a sensor, then a glacier, then a sample, so that none drowns in the number of another."""
    sensors = sorted({p.sample.sensor for p in samples})
    sensor = sensors[rng.integers(len(sensors))]
    glaciers = sorted({p.sample.glacier for p in samples if p.sample.sensor == sensor})
    glacier = glaciers[rng.integers(len(glaciers))]
    those = [p for p in samples if p.sample.sensor == sensor and p.sample.glacier == glacier]
    return those[rng.integers(len(those))]


def round_slots(n_samples: int, settings: TrainingSettings, step: int) -> Iterator[tuple[int, np.random.Generator]]:
    """Yield the sample and the randomness of each patch of a step, in rounds as the original (calfin-method 5.2).

    A round is 16 samples, four patches each, shuffled. The last batch of a round is dropped, full or not, as there.
    """
    size = ROUND_SAMPLES * ROUND_COPIES
    number, place = divmod(step, (size - 1) // settings.batch)
    order = np.random.default_rng((settings.seed, 1, number)).permutation(size)
    for slot in order[place * settings.batch : (place + 1) * settings.batch]:
        epoch, index = divmod(number * ROUND_SAMPLES + int(slot) // ROUND_COPIES, n_samples)
        shuffled = np.random.default_rng((settings.seed, 2, epoch)).permutation(n_samples)
        yield int(shuffled[index]), np.random.default_rng((settings.seed, 3, number, int(slot)))
