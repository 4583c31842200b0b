"""Labelled samples go in, trained weights come out, with settings and learning curves; a stopped run resumes."""

from __future__ import annotations

import csv
import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from calfin_cloud.datasets import ICE, UNKNOWN, Sample, Sensor, split_by_glacier
from calfin_cloud.network import (
    TILE_SIZE,
    Tensor,
    build_network,
    load_network,
    network_id,
    prepare_compilation,
    save_weights,
)
from calfin_cloud.preprocess import eight_bit_channels, normalise, to_eight_bit
from calfin_cloud.sample import paint_scene
from calfin_cloud.schema import MASKS

log = logging.getLogger(__name__)

FRAME_SIZE = 256
"""Side in px to which a scene or window is squeezed before tiles are cut; a patch is `TILE_SIZE` px of such a frame."""

FRONT_HALF_WIDTH_PX = 1.5
"""A front is drawn about 3 px wide in the patch, whatever the scale of the patch (Cheng et al. 2021)."""

FRONT_WEIGHT = 25 / 26
"""Weight of the front mask in the original's loss; the ice mask has the rest."""

FAR_PX = 1e4


@dataclass(frozen=True)
class TrainingSettings:
    """What makes a training run again; saved as JSON beside the weights.

    Attributes
    ----------
    architecture, width
        Network, see `network.build_network`, and factor on its filters.
    steps, minutes
        The run ends with whichever is reached first; the learning rate follows the same progress. Only `steps` alone
        make a run that can be repeated.
    learning_rate
        Peak of the one-cycle schedule: linear warm-up, then a cosine to zero.
    front_weight
        Weight of the front mask in the loss; the original has 25/26.
    leave_out
        Glaciers to validate on; None for `datasets.VALIDATION_GLACIERS`, as far as the samples show them.
    painted
        Number of painted scenes that are added to the samples.
    start
        Name or path of weights to start from; None starts from random ones.
    checkpoint_minutes
        Time between checkpoints; each also writes the curves and the weights so far.
    """

    seed: int = 2021
    architecture: str = "calfin"
    width: float = 0.25
    batch: int = 8
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 1.5e-3
    warmup: float = 0.04
    front_weight: float = 0.8
    leave_out: tuple[str, ...] | None = None
    painted: int = 0
    start: str | None = None
    checkpoint_minutes: float = 6.0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("TrainingSettings needs steps or minutes, got neither: say when the run ends")
        numbers = {"steps": self.steps, "minutes": self.minutes, "batch": self.batch, "width": self.width}
        wrong = {name: value for name, value in numbers.items() if value is not None and value <= 0}
        if wrong or not 0 < self.front_weight <= 1:
            raise ValueError(
                f"got {wrong} and front_weight {self.front_weight}, expected above 0 and in (0, 1]: correct them"
            )

    def progress(self, step: int, elapsed_s: float) -> float:
        """Share of the run that is done, 0 to 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = elapsed_s / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def rate(self, progress: float) -> float:
        """Learning rate at a share of the run."""
        if progress < self.warmup:
            return self.learning_rate * max(progress / self.warmup, 0.01)
        return self.learning_rate * 0.5 * (1 + float(np.cos(np.pi * (progress - self.warmup) / (1 - self.warmup))))


class Prepared(NamedTuple):
    """A sample as patches are cut from it: 8-bit grey, px to the front, ice mask, front pixels (y, x)."""

    sample: Sample
    grey: NDArray[np.uint8]
    distance: NDArray[np.float32]
    ice: NDArray[np.uint8]
    front_pixels: NDArray[np.intp]


def fit(samples: Iterable[Sample], out: Path | str, settings: TrainingSettings) -> Path:
    """Train a network on all glaciers but those left out, and write its weights to `out`.

    Beside `<name>.weights.h5` go `<name>.json` (settings), `<name>.csv` (curves) and, until the run is done,
    `<name>.checkpoint.npz`, from which the same call resumes.

    Parameters
    ----------
    samples
        Labelled scenes, see `calfin_cloud.datasets`; painted ones may be among them.
    out
        Path of the weights, ending in `.weights.h5`.
    """
    out = Path(out)
    if not out.name.endswith(".weights.h5"):
        raise ValueError(f"out must end in .weights.h5, got {out.name}")
    training, validation = split_by_glacier(samples, leave_out=settings.leave_out)
    training += painted_samples(settings.painted, seed=settings.seed)
    if not training:
        left_out = sorted({sample.glacier for sample in validation})
        raise ValueError(f"no sample is left to train on: leave_out {left_out} names every glacier; leave out fewer")
    keras.utils.set_random_seed(settings.seed)
    run = _Run(out, settings, [prepare(s) for s in training], [prepare(s) for s in validation])
    run.train()
    return out


def painted_samples(n: int, *, seed: int) -> Iterator[Sample]:
    """Paint `n` scenes of random glaciers, optical and SAR in turn; some have stripes of Landsat 7."""
    for i in range(n):
        rng = np.random.default_rng((seed, i))
        kind: Sensor = "optical" if i % 2 == 0 else "sar"
        rows, columns = (int(n) for n in rng.integers(240, 420, 2))
        slc_off = bool(kind == "optical" and rng.random() < 0.2)
        scene = paint_scene(rng, (rows, columns), kind=kind, slc_off=slc_off, pixel_m=float(rng.uniform(15, 60)))
        front = np.zeros((rows, columns), np.uint8)
        cv2.polylines(front, [np.rint(scene.front).astype(np.int32)[:, None]], isClosed=False, color=1)
        ice = scene.ice.astype(np.uint8)
        yield Sample(f"painted-{seed}-{i}", "painted", kind, scene.signal.astype(np.float32), front > 0, ice)


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy the weights of one network to another of the same width."""
    shapes = [[tuple(w.shape) for w in network.weights] for network in (source, target)]
    if shapes[0] != shapes[1]:
        raise ValueError("the weights to start from belong to a network of another width: give the same width")
    for from_variable, to_variable in zip(source.weights, target.weights, strict=True):
        to_variable.assign(from_variable)


class _Run:
    """State of one training run: the network, the step, the time spent."""

    def __init__(
        self, out: Path, settings: TrainingSettings, training: list[Prepared], validation: list[Prepared]
    ) -> None:
        self.out, self.settings, self.training, self.validation = out, settings, training, validation
        self.name = out.name.removesuffix(".weights.h5")
        self.network = build_network(settings.architecture, width=settings.width)
        if settings.start:
            copy_weights(load_network(settings.start), self.network)
        loss = partial(masks_loss, front_weight=settings.front_weight)
        self.network.compile(optimizer=keras.optimizers.Adam(settings.learning_rate), loss=loss)
        prepare_compilation(self.network)
        self.network.optimizer.build(self.network.trainable_variables)
        self.step, self.elapsed_s = 0, 0.0
        self.losses: list[float] = []
        self._restore()

    def train(self) -> None:
        """Step until the end of the schedule, with a checkpoint now and then."""
        started, saved = time.monotonic() - self.elapsed_s, time.monotonic()
        for patches, masks in prefetched_batches(self.training, self.settings, start=self.step):
            progress = self.settings.progress(self.step, self.elapsed_s)
            if progress >= 1:
                break
            self.network.optimizer.learning_rate.assign(self.settings.rate(progress))
            self.losses.append(float(self.network.train_on_batch(patches, masks)))
            self.step, self.elapsed_s = self.step + 1, time.monotonic() - started
            if time.monotonic() - saved > 60 * self.settings.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
        if self.losses or not self.out.is_file():
            self.save()
        self._checkpoint.unlink(missing_ok=True)

    def save(self) -> None:
        """Write weights, settings, a row of the curves and the checkpoint."""
        loss = float(np.mean(self.losses)) if self.losses else np.nan
        row = {"step": self.step, "minutes": round(self.elapsed_s / 60, 2), "loss": round(loss, 4)}
        row |= {name: round(value, 4) for name, value in validate(self.network, self.validation).items()}
        self.losses = []
        save_weights(self.network, self.out, width=self.settings.width)
        self._write_settings()
        self._append_curve(row)
        variables = [*self.network.variables, *self.network.optimizer.variables]
        arrays: dict[str, Any] = {f"v{i}": np.asarray(v) for i, v in enumerate(variables)}
        arrays |= {"step": self.step, "elapsed_s": self.elapsed_s, "settings": self._settings_json()}
        unfinished = self._checkpoint.with_suffix(".unfinished.npz")
        np.savez(unfinished, **arrays)
        os.replace(unfinished, self._checkpoint)
        log.info("training %s: %s", self.name, row)

    @property
    def _checkpoint(self) -> Path:
        return self.out.with_name(f"{self.name}.checkpoint.npz")

    def _settings_json(self) -> str:
        return json.dumps(asdict(self.settings), sort_keys=True)

    def _restore(self) -> None:
        if not self._checkpoint.is_file():
            self.out.with_name(f"{self.name}.csv").unlink(missing_ok=True)
            return
        with np.load(self._checkpoint, allow_pickle=False) as stored:
            if str(stored["settings"]) != self._settings_json():
                raise ValueError(
                    f"{self._checkpoint} belongs to other settings, {stored['settings']}: remove it, or change out"
                )
            for i, variable in enumerate([*self.network.variables, *self.network.optimizer.variables]):
                variable.assign(stored[f"v{i}"])
            self.step, self.elapsed_s = int(stored["step"]), float(stored["elapsed_s"])
        log.info("training %s resumes at step %d", self.name, self.step)

    def _write_settings(self) -> None:
        about: dict[str, Any] = {
            "name": self.name,
            "settings": asdict(self.settings)
            | {"start": network_id(self.settings.start) if self.settings.start else None},
            "done": {"steps": self.step, "minutes": round(self.elapsed_s / 60, 2)},
            "training": dict(sorted(Counter(p.sample.glacier for p in self.training).items())),
            "validation": dict(sorted(Counter(p.sample.glacier for p in self.validation).items())),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        }
        self.out.with_name(f"{self.name}.json").write_text(json.dumps(about, indent=2) + "\n")

    def _append_curve(self, row: dict[str, float]) -> None:
        path = self.out.with_name(f"{self.name}.csv")
        is_new = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def masks_loss(truth: Tensor, masks: Tensor, *, front_weight: float = FRONT_WEIGHT) -> Tensor:
    """Cross-entropy minus the log of the soft Jaccard index, for front and ice mask (Cheng et al. 2021).

    Parameters
    ----------
    truth
        (n, y, x, 3): front, ice, and 1 where the ice is known; elsewhere the ice terms are left out.
    masks
        (n, y, x, 2): predicted probabilities.
    front_weight
        Weight of the front terms, 25/26 in the original; the ice terms have the rest.
    """
    front = _mask_loss(truth[..., 0], masks[..., 0], ops.ones_like(truth[..., 0]))
    ice = _mask_loss(truth[..., 1], masks[..., 1], truth[..., 2])
    return front_weight * front + (1 - front_weight) * ice


def _mask_loss(truth: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    clipped = ops.clip(mask, 1e-7, 1 - 1e-7)
    entropy = -(truth * ops.log(clipped) + (1 - truth) * ops.log(1 - clipped))
    cross_entropy = ops.sum(entropy * known) / ops.maximum(ops.sum(known), 1)
    has_known = ops.cast(ops.max(known, axis=(1, 2)) > 0, mask.dtype)
    jaccard = ops.sum(soft_jaccard(truth * known, mask * known) * has_known) / ops.maximum(ops.sum(has_known), 1)
    # A batch without any known pixel has no Jaccard index, and nothing to learn from it.
    return cross_entropy - ops.where(ops.sum(has_known) > 0, ops.log(ops.maximum(jaccard, 1e-7)), 0.0)


def soft_jaccard(truth: Tensor, mask: Tensor) -> Tensor:
    """Soft Jaccard index of each image, (n, y, x) -> (n,)."""
    both = ops.sum(truth * mask, axis=(1, 2))
    return (both + 1e-12) / (ops.sum(truth, axis=(1, 2)) + ops.sum(mask, axis=(1, 2)) - both + 1e-12)


def validate(network: keras.Model, samples: Sequence[Prepared]) -> dict[str, float]:
    """Mean soft Jaccard index of front and ice mask per glacier, on the middle of each whole scene."""
    scores: dict[str, list[tuple[float, float]]] = {}
    for prepared in samples:
        window = whole_scene(prepared.grey.shape)
        patch, truth = cut_patch(eight_bit_channels(prepared.grey), prepared, window, border=False)
        masks = np.asarray(network.predict_on_batch(normalise(patch)[None]))[0]
        front, ice = (_jaccard(truth[..., i], masks[..., i], known) for i, known in ((0, 1.0), (1, truth[..., 2])))
        scores.setdefault(prepared.sample.glacier, []).append((front, ice))
    means = {glacier: np.mean(pairs, axis=0) for glacier, pairs in sorted(scores.items())}
    return {f"{glacier}_{mask}": float(mean[i]) for glacier, mean in means.items() for i, mask in enumerate(MASKS)}


def _jaccard(truth: NDArray[np.float32], mask: NDArray[np.float32], known: NDArray[np.float32] | float) -> float:
    return float(ops.convert_to_numpy(soft_jaccard((truth * known)[None], (mask * known)[None]))[0])


def prepare(sample: Sample) -> Prepared:
    """Stretch a sample, and measure each pixel's distance to the front, from which it is drawn anew at any scale."""
    line = skeletonize(sample.front)
    distance = distance_transform_edt(~line) if line.any() else np.full(line.shape, FAR_PX)
    return Prepared(sample, to_eight_bit(sample.image), distance.astype(np.float32), sample.ice, np.argwhere(line))


def prefetched_batches(
    samples: Sequence[Prepared], settings: TrainingSettings, *, start: int = 0, ahead: int = 6
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield batch after batch for ever, made by two threads while the network learns."""
    with ThreadPoolExecutor(2) as pool:
        waiting = deque(pool.submit(make_batch, samples, settings, step) for step in range(start, start + ahead))
        step = start + ahead
        try:
            while True:
                yield waiting.popleft().result()
                waiting.append(pool.submit(make_batch, samples, settings, step))
                step += 1
        finally:
            for future in waiting:
                future.cancel()


def make_batch(
    samples: Sequence[Prepared], settings: TrainingSettings, step: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw the batch of one step: patches (n, y, x, 3) in -1..1, masks (n, y, x, 3); seed and step decide all."""
    rng = np.random.default_rng((settings.seed, step))
    pairs = [random_patch(draw_sample(samples, rng), rng) for _ in range(settings.batch)]
    return normalise(np.stack([patch for patch, _ in pairs])), np.stack([masks for _, masks in pairs])


def draw_sample(samples: Sequence[Prepared], rng: np.random.Generator) -> Prepared:
    """Draw a sensor, then a glacier, then a sample, so that none drowns in the number of another."""
    sensors = sorted({p.sample.sensor for p in samples})
    sensor = sensors[rng.integers(len(sensors))]
    glaciers = sorted({p.sample.glacier for p in samples if p.sample.sensor == sensor})
    glacier = glaciers[rng.integers(len(glaciers))]
    those = [p for p in samples if p.sample.sensor == sensor and p.sample.glacier == glacier]
    return those[rng.integers(len(those))]


def random_patch(prepared: Prepared, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cut one augmented patch: channels (y, x, 3) in 0..255 and front, ice, known (y, x, 3).

    The channels are made before the patch is cut, as for a scene that is mapped: there, too, they see the whole domain.
    """
    grey = vary_grey(prepared.grey, prepared.sample.sensor, rng)
    if rng.random() < 0.25:  # as if the scene had more pixels: the shadow correction has a fixed radius
        zoom = rng.uniform(1.5, 2.5)
        large = eight_bit_channels(cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR))
        channels = cv2.resize(large, grey.shape[::-1], interpolation=cv2.INTER_AREA)
    else:
        channels = eight_bit_channels(grey)
    return cut_patch(channels, prepared, random_window(prepared, rng), border=bool(rng.random() < 0.5))


def cut_patch(
    channels: NDArray[np.float32], prepared: Prepared, window: NDArray[np.float64], *, border: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Warp channels and masks by `window`, a (2, 3) affine from patch (x, y) to scene (x, y).

    Outside the scene there is no data if `border`, else its mirror image.
    """
    mode = cv2.BORDER_CONSTANT if border else cv2.BORDER_REFLECT_101

    def warp(values: NDArray[Any], flags: int, outside: float) -> NDArray[Any]:
        inverse = flags | cv2.WARP_INVERSE_MAP
        size = (TILE_SIZE, TILE_SIZE)
        return np.asarray(
            cv2.warpAffine(values, window, size, flags=inverse, borderMode=mode, borderValue=(outside,) * 3)
        )

    patch = warp(channels, cv2.INTER_LINEAR, 0)
    scale = np.sqrt(abs(np.linalg.det(window[:, :2])))  # scene pixels per patch pixel
    front = warp(prepared.distance, cv2.INTER_LINEAR, FAR_PX) <= FRONT_HALF_WIDTH_PX * scale
    ice = warp(prepared.ice, cv2.INTER_NEAREST, UNKNOWN)
    return patch, np.stack([front, ice == ICE, ice != UNKNOWN], axis=-1).astype(np.float32)


def whole_scene(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Window of the middle tile of a whole scene squeezed to a square, as the first pass sees it."""
    return _window((shape[0] / 2, shape[1] / 2), (shape[0], shape[1]), 0.0, flip=False)


def random_window(prepared: Prepared, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a window as the two passes see it: the whole scene, or a part around the front; turned and mirrored."""
    height, width = prepared.grey.shape
    angle = 90 * rng.integers(4) + (rng.uniform(-20, 20) if rng.random() < 0.5 else 0)
    if rng.random() < 0.4:
        sides = np.array([height, width]) * rng.uniform(0.85, 1.15) * np.exp(rng.uniform(-0.1, 0.1, 2))
        centre = np.array([height, width]) / 2 + rng.uniform(-1, 1, 2) * sides / 16
    else:
        sides = min(height, width) * np.exp(rng.uniform(np.log(0.35), np.log(1.1)) + rng.uniform(-0.15, 0.15, 2))
        pixels = prepared.front_pixels
        near_front = len(pixels) > 0 and rng.random() < 0.85
        anchor = pixels[rng.integers(len(pixels))] if near_front else rng.uniform(0.2, 0.8, 2) * (height, width)
        centre = anchor + rng.uniform(-0.35, 0.35, 2) * sides
        inside = np.minimum(0.4 * sides, np.array([height, width]) / 2)
        centre = np.clip(centre, inside, np.array([height, width]) - inside)
    return _window(tuple(centre), tuple(sides), float(angle), flip=bool(rng.random() < 0.5))


def _window(
    centre: tuple[float, ...], sides: tuple[float, ...], angle_deg: float, *, flip: bool
) -> NDArray[np.float64]:
    """Affine from patch (x, y) to scene (x, y) for a frame of `sides` (y, x) px around `centre` (y, x)."""
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
    linear = np.diag([sides[1], sides[0]]) @ turn / FRAME_SIZE  # turned, then squeezed: sides stay those of the scene
    middle = np.full(2, (TILE_SIZE - 1) / 2)
    offset = np.array([centre[1], centre[0]]) - 0.5 - linear @ middle
    return np.column_stack([linear, offset])


def vary_grey(grey: NDArray[np.uint8], sensor: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Vary tone, noise and gaps of 8-bit grey (y, x) as sensors and seasons do; missing pixels (0) stay missing."""
    values: NDArray[np.floating] = grey.astype(np.float32) / 255
    if rng.random() < 0.7:
        values = np.clip(values, 0, 1) ** np.exp(rng.uniform(-0.6, 0.6))
    if rng.random() < 0.7:
        values = (values - 0.5) * rng.uniform(0.6, 1.3) + 0.5 + rng.uniform(-0.15, 0.15)
    if rng.random() < 0.2:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.4, 1.3))
    if rng.random() < 0.25:
        values = shade(np.asarray(values, dtype=np.float32), sensor, rng)
    if sensor == "sar" and rng.random() < 0.4:
        values = values * rng.gamma(1 / 0.05, 0.05, values.shape).astype(np.float32) ** rng.uniform(0.2, 1.0)
    elif rng.random() < 0.3:
        values = values + rng.normal(0, rng.uniform(0.005, 0.04), values.shape).astype(np.float32)
    varied = np.where(grey == 0, 0, np.clip(np.round(values * 255), 1, 255)).astype(np.uint8)
    if sensor == "optical" and rng.random() < 0.2:
        varied[slc_off_gaps(varied.shape, rng)] = 0
    return varied


def shade(values: NDArray[np.float32], sensor: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Lay shadow over grey 0..1 (y, x) as slopes cast it, or, for optical scenes, the veil of a thin cloud."""
    coarse = rng.normal(size=tuple(int(n) for n in rng.integers(3, 8, 2))).astype(np.float32)
    field = cv2.resize(coarse, values.shape[::-1], interpolation=cv2.INTER_CUBIC)
    cover = np.clip(field * rng.uniform(0.3, 1.5) - rng.uniform(0, 0.5), 0, 1)
    if sensor == "optical" and rng.random() < 0.5:
        return np.asarray(values + (rng.uniform(0.6, 1) - values) * cover * rng.uniform(0.3, 0.8), dtype=np.float32)
    return np.asarray(values * (1 - cover * rng.uniform(0.3, 0.8)), dtype=np.float32)


def slc_off_gaps(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the wedge-shaped gaps of Landsat 7 without its scan-line corrector: (y, x) bool."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    across, along = y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)
    period = rng.uniform(12, 35)
    width = 0.45 * period * np.clip(rng.uniform(0.2, 1) + rng.uniform(-1, 1) * along / max(shape), 0, 1)
    return np.asarray((across + rng.uniform(0, period)) % period < width)
