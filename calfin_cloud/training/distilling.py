"""A network and its second opinion go in; a narrower network that gives their fronts at a fraction of the price out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.datasets import Sample, Sensor, split_by_glacier, synthetic_sample
from calfin_cloud.network import (
    PICTURE_SIZE,
    TILE_SIZE,
    TILES,
    Tensor,
    build_network,
    load_network,
    narrow_decoder,
    network_id,
)
from calfin_cloud.network.backend import keras, ops
from calfin_cloud.opinions import ROCK, SEEN_BY, believed, predict_pictures
from calfin_cloud.preprocess import normalise
from calfin_cloud.sample import ADVERSE_CASES, paint_adverse
from calfin_cloud.training.batches import Batch, draw_sample
from calfin_cloud.training.fitting import fit, synthetic_samples, with_loss
from calfin_cloud.training.losses import ROCK_WEIGHT, masks_loss
from calfin_cloud.training.patches import Prepared, prepare, random_patch
from calfin_cloud.training.records import checked_path, is_trained, samples_digest
from calfin_cloud.training.settings import TrainingSettings
from calfin_cloud.whole_files import read_json, whole_file, write_json

log = logging.getLogger(__name__)

SHOWN = replace(TILES, stride=None)
"""The teacher sees pictures whole, as the student will, and their transposes."""

N_SYNTHETIC, N_ADVERSE = 700, 300
"""Synthetic scenes beside the labelled ones, and such of `sample.ADVERSE_CASES`, of another seed than is scored."""

A_FILE = 125
"""Pictures of a file of lessons."""

TAUGHT = 0.6
"""Share of the loss that asks for the teacher's masks; the rest asks for the truth."""

KNOWN, N_TRUTH = 1e-6, 5
TONES, TONE_SHARE = (0.1, 12.0), 0.3  # contrast and brightness of how many pictures change once more


class Lessons(NamedTuple):
    """Pictures (n, 256, 256, 3) uint8, their truth as bits (n, 256, 256), and the teacher's masks (n, 256, 256, 3)."""

    pictures: NDArray[np.uint8]
    truths: NDArray[np.uint8]
    taught: NDArray[np.uint8]


def distil(
    samples: Iterable[Sample],
    out: Path | str,
    settings: TrainingSettings,
    *,
    lessons: Path | str,
    pictures: int = 8000,
) -> Path:
    """Train a network on what the one that it starts from believes of many pictures, beside their truth.

    The teacher is `settings.start` with its second opinion, whose doubts the student learns: it needs no verifier. Its
    decoder starts from the teacher's heaviest filters. What is written, and how a run resumes, is as in `fit`.

    Parameters
    ----------
    samples
        Labelled scenes; those of the glaciers left out are only validated on.
    out
        Path of the weights, ending in `.weights.h5`.
    settings
        What makes the run again: an `efficient` network with rock and a `start`.
    lessons
        Folder of the pictures with the teacher's masks; what is missing there is made first.
    pictures
        Number of pictures.

    Returns
    -------
    Path
        The weights.

    Raises
    ------
    ValueError
        The settings are of another network or have no teacher, the folder has lessons of another one, or `out` has
        weights of another training.

    Examples
    --------
    >>> from calfin_cloud.datasets import read_samples
    >>> how = {"architecture": "efficient", "rock": True, "width": 0.75, "steps": 6000}
    >>> settings = cc.TrainingSettings(start="calfin-efficient", **how)
    >>> distil(read_samples("caffe256"), "student.weights.h5", settings, lessons="lessons")  # doctest: +SKIP
    PosixPath('student.weights.h5')
    """
    if settings.start is None or settings.architecture != "efficient" or not settings.rock:
        raise ValueError(
            f"a student must be an efficient network with rock and a start, got {settings.architecture}, rock "
            f"{settings.rock}, start {settings.start}: name the teacher as start"
        )
    out, samples = checked_path(out), list(samples)
    if is_trained(out, settings, samples_digest(samples)):
        return out
    training, _ = split_by_glacier(samples, leave_out=settings.leave_out)
    write_lessons(training, lessons, teacher=settings.start, pictures=pictures, seed=settings.seed)
    taught = read_lessons(lessons, pictures)
    return fit(samples, out, settings, make_network=student_network, batch_of=partial(lesson_batch, taught))


def write_lessons(samples: Sequence[Sample], folder: Path | str, *, teacher: str, pictures: int, seed: int) -> None:
    """Make pictures as scenes and windows are seen, with their truth and the teacher's believed masks.

    Files that an earlier call wrote are kept, so that it can be stopped at any time.

    Raises
    ------
    ValueError
        The folder has lessons of another teacher, seed or number of samples.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _check_note(folder / "lessons.json", {"teacher": network_id(teacher), "seed": seed, "samples": len(samples)})
    missing = [n for n in range(-(-pictures // A_FILE)) if not _file(folder, n).is_file()]
    if not missing:
        return
    sources = [prepare(sample) for sample in (*samples, *synthetic_samples(N_SYNTHETIC, seed=seed), *_adverse(seed))]
    for n in missing:
        made = [_lesson(sources, teacher, seed, i) for i in range(n * A_FILE, (n + 1) * A_FILE)]
        pics, truths, teach = (np.stack(parts) for parts in zip(*made, strict=True))
        with whole_file(_file(folder, n)) as unfinished:
            np.savez(unfinished, pics=pics, truths=truths, teach=teach)
        log.info("lessons %d of %d", (n + 1) * A_FILE, pictures)


def read_lessons(folder: Path | str, pictures: int) -> Lessons:
    """Read the first so many pictures of a folder into memory: 459 kB each."""
    parts = []
    for n in range(-(-pictures // A_FILE)):
        with np.load(_file(Path(folder), n), allow_pickle=False) as stored:
            parts.append([stored[name] for name in ("pics", "truths", "teach")])
    return Lessons(*(np.concatenate(of)[:pictures] for of in zip(*parts, strict=True)))


def lesson_batch(lessons: Lessons, settings: TrainingSettings, step: int) -> Batch:
    """Draw the batch of one step: patches (n, y, x, 3) in -1..1, truth and teacher's masks (n, y, x, 8)."""
    rng = np.random.default_rng((settings.seed, 5, step))
    patches, goals = [], []
    for i in rng.integers(len(lessons.pictures), size=settings.batch):
        row, column = rng.integers(PICTURE_SIZE - TILE_SIZE + 1, size=2)
        turn, flip = int(rng.integers(4)), bool(rng.integers(2))
        picture, truth, taught = (
            _turned(of[i, row : row + TILE_SIZE, column : column + TILE_SIZE], turn, flip=flip) for of in lessons
        )
        patches.append(_toned(picture, rng))
        bits = np.unpackbits(truth[..., None], axis=-1)[..., :N_TRUTH]
        goals.append(np.concatenate([bits.astype(np.float32), taught.astype(np.float32) / 255], axis=-1))
    return normalise(np.stack(patches)), np.stack(goals)


def student_network(settings: TrainingSettings) -> keras.Model:
    """Build the network of the settings from its teacher, with loss and optimiser."""
    network = build_network(
        settings.architecture, width=settings.width, rock=settings.rock, mixed_precision=settings.mixed_precision
    )
    return with_loss(narrow_decoder(load_network(settings.start or ""), network), settings, distilled_loss)


def distilled_loss(goal: Tensor, masks: Tensor, *, front_weight: float) -> Tensor:
    """Loss of masks (n, y, x, 3) beside truth and teacher's masks (n, y, x, 8); the latter as probabilities.

    The teacher's share is the divergence from its masks, minus the log of the fuzzy Jaccard index: the sum of the
    lesser of both masks by that of the greater. That both count follows Hinton et al. (2015, arXiv:1503.02531).
    """
    taught = goal[..., N_TRUTH:]
    weights = (front_weight, 1 - front_weight, ROCK_WEIGHT)
    soft = sum(weight * _divergence(taught[..., n], masks[..., n]) for n, weight in enumerate(weights))
    return (1 - TAUGHT) * masks_loss(goal[..., :N_TRUTH], masks, front_weight=front_weight) + TAUGHT * soft


def _divergence(taught: Tensor, mask: Tensor) -> Tensor:
    sure, given = (ops.clip(values, KNOWN, 1 - KNOWN) for values in (taught, mask))
    apart = sure * ops.log(sure / given) + (1 - sure) * ops.log((1 - sure) / (1 - given))
    less, more = (ops.sum(of(taught, mask), axis=(1, 2)) for of in (ops.minimum, ops.maximum))
    return ops.mean(apart) - ops.log(ops.mean((less + 1.0) / (more + 1.0)))


def _adverse(seed: int) -> Iterator[Sample]:
    for i in range(N_ADVERSE):
        case = ADVERSE_CASES[i % len(ADVERSE_CASES)]
        sensor: Sensor = "sar" if case.endswith("sar") else "optical"
        yield synthetic_sample(f"adverse-{case}-{i}", "adverse", sensor, paint_adverse(case, i, seed=seed))


def _lesson(sources: Sequence[Prepared], teacher: str, seed: int, number: int) -> tuple[NDArray[np.uint8], ...]:
    """Picture, truth as bits and believed masks of one number."""
    rng = np.random.default_rng((seed, 7, number))
    source = draw_sample(sources, rng)
    channels, truth = random_patch(source, rng, size=PICTURE_SIZE)
    picture = np.clip(np.rint(channels), 0, 255).astype(np.uint8)
    kind = source.sample.sensor
    (seen,) = predict_pictures(picture[None], *2 * [np.array([kind == "optical"])], network=teacher, settings=SHOWN)
    shown = np.dstack([picture, np.full(picture.shape[:2], SEEN_BY[kind], np.uint8)])
    masks = np.rint(believed(seen, shown) * 255).astype(np.uint8)
    return picture, np.packbits(truth.astype(bool), axis=-1)[..., 0], np.dstack([masks, seen[..., ROCK]])


def _turned(values: NDArray[np.uint8], turn: int, *, flip: bool) -> NDArray[np.uint8]:
    turned = np.rot90(values, turn)
    return turned[:, ::-1] if flip else turned


def _toned(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    values = picture.astype(np.float32)
    if rng.random() >= TONE_SHARE:
        return values
    contrast, brightness = (rng.uniform(-most, most) for most in TONES)
    toned = np.clip(values * (1 + contrast) + brightness, 1, 255).astype(np.float32)
    return np.where(values.any(axis=-1, keepdims=True), toned, np.float32(0))


def _check_note(path: Path, about: dict[str, object]) -> None:
    """Refuse a folder whose lessons are others; note what these are where nothing is noted yet."""
    if not path.is_file():
        write_json(path, about)
    elif (noted := read_json(path)) != about:
        raise ValueError(f"{path} must say {about}, got {noted}: give another folder for these lessons")


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:03d}.npz"
