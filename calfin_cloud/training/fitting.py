"""Samples and settings go in; weights, settings and learning curves are written; a stopped run resumes."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.datasets import Sample, Sensor, split_by_glacier, synthetic_sample
from calfin_cloud.network import (
    build_network,
    load_network,
    prepare_compilation,
    read_weights,
    save_openvino,
    save_weights,
    training_glaciers,
    weights_path,
)
from calfin_cloud.network.backend import keras, ops
from calfin_cloud.preprocess import eight_bit_channels, normalise
from calfin_cloud.sample import paint_scene
from calfin_cloud.schema import MASKS
from calfin_cloud.training.batches import Batch, make_batch, prefetched_batches, prepare_sources
from calfin_cloud.training.losses import anchor_weights, masks_loss, soft_jaccard
from calfin_cloud.training.patches import Prepared, cut_patch, prepare, whole_scene
from calfin_cloud.training.records import beside, check_same, checked_path, is_trained, noted_settings, samples_digest
from calfin_cloud.training.settings import TrainingSettings
from calfin_cloud.whole_files import whole_file, write_json

log = logging.getLogger(__name__)

ADAM_EPSILON = 1e-7
"""As in the original (calfin-method 5.4)."""


def fit(
    samples: Iterable[Sample],
    out: Path | str,
    settings: TrainingSettings,
    *,
    make_network: Callable[[TrainingSettings], keras.Model] | None = None,
    batch_of: Callable[[TrainingSettings, int], Batch] | None = None,
    overwrite: bool = False,
) -> Path:
    """Train a network on all glaciers but those left out, and write its weights to `out`.

    Beside `<name>.weights.h5` go `<name>.json` (settings), `<name>.csv` (curves) and, until the run is done,
    `<name>.checkpoint.npz`, from which the same call resumes; after that it trains nothing. In the end it writes files
    for OpenVINO, with which the weights map without Keras on a CPU (`network.save_openvino`); only TensorFlow can write
    them.

    Parameters
    ----------
    samples
        Labelled scenes, see `calfin_cloud.datasets`; synthetic ones may be among them.
    out
        Path of the weights, ending in `.weights.h5`.
    settings
        What makes the run again.
    make_network
        Makes the compiled network of the settings; `trainable_network` where not given.
    batch_of
        Makes the batch of a step; patches of the samples (`batches.make_batch`) where not given.
    overwrite
        Replace weights of another training, which are refused otherwise.

    Returns
    -------
    Path
        The weights.

    Raises
    ------
    ValueError
        `out` has another ending or a further dot, no sample is left to train on, the weights to start from have another
        width, the checkpoint, or the weights in `out`, are of other settings or samples, or the loss is no number.

    Examples
    --------
    >>> from calfin_cloud.datasets import read_samples
    >>> settings = cc.TrainingSettings(minutes=60, architecture="efficient", start="efficientnet-lite0")
    >>> cc.fit(read_samples("mohajerani2019"), "weights/own.weights.h5", settings)  # doctest: +SKIP
    PosixPath('weights/own.weights.h5')
    """
    out, samples = checked_path(out), list(samples)
    digest = samples_digest(samples)
    if not overwrite and is_trained(out, settings, digest):
        log.warning("%s is trained already: remove it, or give another name, to train anew", out)
        return out
    training, validation = _split(samples, settings)
    keras.utils.set_random_seed(settings.seed)
    network = (make_network or trainable_network)(settings)
    run = _Run(out, settings, network, [prepare(s) for s in training], [prepare(s) for s in validation], digest)
    run.train(partial(batch_of or partial(make_batch, prepare_sources(run.training, settings)), settings))
    return out


def _split(samples: Sequence[Sample], settings: TrainingSettings) -> tuple[list[Sample], list[Sample]]:
    """Split samples into those to train on, synthetic ones among them, and those to validate on."""
    training, validation = split_by_glacier(samples, leave_out=settings.leave_out)
    training += synthetic_samples(settings.synthetic, seed=settings.seed)
    if not training:
        left_out = sorted({sample.glacier for sample in validation})
        raise ValueError(f"no sample is left to train on: leave_out {left_out} names every glacier; leave out fewer")
    return training, validation


def synthetic_samples(n: int, *, seed: int) -> Iterator[Sample]:
    """Paint `n` scenes of random glaciers, optical and SAR in turn; half have bare coasts, some stripes."""
    for i in range(n):
        rng = np.random.default_rng((seed, i))
        kind: Sensor = "optical" if i % 2 == 0 else "sar"
        rows, columns = (int(n) for n in rng.integers(240, 420, 2))
        slc_off = bool(kind == "optical" and rng.random() < 0.2)
        pixel_m, bare = float(rng.uniform(15, 60)), i % 4 > 1
        scene = paint_scene(rng, (rows, columns), kind=kind, slc_off=slc_off, bare=bare, pixel_m=pixel_m)
        yield synthetic_sample(f"synthetic-{seed}-{i}", "synthetic", kind, scene)


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy the weights of one network to another of the same width.

    Raises
    ------
    ValueError
        They are of different widths.
    """
    shapes = [[tuple(w.shape) for w in network.weights] for network in (source, target)]
    if shapes[0] != shapes[1]:
        raise ValueError("the weights to start from belong to a network of another width: give the same width")
    _assign(target.weights, _copies(source.weights))


def start_from(network: keras.Model, start: str) -> None:
    """Fill a network from weights by name or path: of the same network, or of a part of it, such as its encoder."""
    path = weights_path(start)
    if path.suffix == ".keras":
        copy_weights(load_network(start), network)
    else:
        read_weights(network, path, is_part=True)


def trainable_network(settings: TrainingSettings) -> keras.Model:
    """Build the network of the settings, from random weights or from theirs, with loss and optimiser."""
    network = build_network(
        settings.architecture, width=settings.width, rock=settings.rock, mixed_precision=settings.mixed_precision
    )
    if settings.start:
        start_from(network, settings.start)
    if settings.anchor:
        anchor_weights(network, settings.anchor)
    return with_loss(network, settings, masks_loss)


def with_loss(network: keras.Model, settings: TrainingSettings, loss: Callable[..., Any]) -> keras.Model:
    """Give a network its loss, a function of truth, masks and `front_weight`, and the optimiser of the settings."""
    network.compile(optimizer=make_optimizer(settings), loss=partial(loss, front_weight=settings.front_weight))
    prepare_compilation(network)
    network.optimizer.build(network.trainable_variables)
    return network


def make_optimizer(settings: TrainingSettings) -> keras.optimizers.Optimizer:
    """Adam with the accumulation of the original: the mean gradient of `accumulate` steps counts as one."""
    return keras.optimizers.Adam(
        settings.learning_rate,
        epsilon=ADAM_EPSILON,
        gradient_accumulation_steps=settings.accumulate if settings.accumulate > 1 else None,
        use_ema=settings.ema is not None,
        ema_momentum=settings.ema or 0.0,
    )


@contextmanager
def averaged_weights(network: keras.Model, *, start: Sequence[NDArray[Any]] = (), share: float = 1.0) -> Iterator[None]:
    """Lend the network the weights that are saved: their running average, where its optimiser keeps one.

    Where a `share` below 1 is given, of what they have moved from `start` only that share.
    """
    own = _copies(network.weights)
    network.optimizer.finalize_variable_values(network.trainable_variables)
    average = _copies(network.weights)
    if share < 1:
        average = [(1 - share) * before + share * after for before, after in zip(start, average, strict=True)]
    _assign(network.weights, average)
    try:
        yield
    finally:
        _assign(network.weights, own)


def _copies(variables: Sequence[Any]) -> list[NDArray[Any]]:
    """Values that no other variable holds: JAX shares what is assigned, and a step or a prediction uses it up."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class _Run:
    """State of one training run: the network, the step, the time spent."""

    def __init__(
        self,
        out: Path,
        settings: TrainingSettings,
        network: keras.Model,
        training: list[Prepared],
        validation: list[Prepared],
        samples: str,
    ) -> None:
        self.out, self.settings, self.training, self.validation = out, settings, training, validation
        self.samples = samples
        self.name = out.name.removesuffix(".weights.h5")
        self.network = network
        self.step, self.elapsed_s = 0, 0.0
        self.losses: list[float] = []
        self.start = _copies(network.weights)
        self._restore()

    def train(self, batch_of: Callable[[int], Batch]) -> None:
        """Step until the end of the schedule, with a checkpoint now and then."""
        started, saved = time.monotonic() - self.elapsed_s, time.monotonic()
        for patches, masks in prefetched_batches(batch_of, start=self.step):
            progress = self.settings.progress(self.step, self.elapsed_s)
            if progress >= 1:
                break
            self.network.optimizer.learning_rate.assign(self.settings.rate(progress))
            self.losses.append(float(self.network.train_on_batch(patches, masks)))
            if not np.isfinite(self.losses[-1]):  # the weights are no numbers from here on
                raise ValueError(f"the loss of step {self.step + 1} is {self.losses[-1]}: take a lower learning rate")
            self.step, self.elapsed_s = self.step + 1, time.monotonic() - started
            if time.monotonic() - saved > 60 * self.settings.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
        if self.losses or not self.out.is_file():
            self.save()
        if keras.backend.backend() == "tensorflow":
            save_openvino(self.out)
        self._write_note(finished=True)
        self._checkpoint.unlink(missing_ok=True)

    def save(self) -> None:
        """Write weights, settings, a row of the curves and the checkpoint."""
        loss = float(np.mean(self.losses)) if self.losses else np.nan
        rate = float(ops.convert_to_numpy(self.network.optimizer.learning_rate))
        row = {"step": self.step, "minutes": round(self.elapsed_s / 60, 2), "learning_rate": float(f"{rate:.4g}")}
        self._write_note(finished=False)  # first: weights that nothing tells of are refused
        with averaged_weights(self.network, start=self.start, share=self.settings.share):
            scores = validate(self.network, self.validation)
            save_weights(self.network, self.out, width=self.settings.width, verifier=self.settings.verifier)
        row |= {name: round(value, 4) for name, value in {"loss": loss, **scores}.items()}
        self.losses = []
        self._append_curve(row)
        arrays: dict[str, Any] = {f"v{i}": ops.convert_to_numpy(v) for i, v in enumerate(self._variables)}
        arrays |= {"step": self.step, "elapsed_s": self.elapsed_s}
        arrays |= {"settings": json.dumps(noted_settings(self.settings)), "samples": self.samples}
        with whole_file(self._checkpoint) as unfinished:
            np.savez(unfinished, **arrays)
        log.info("training %s: %s", self.name, row)

    @property
    def _variables(self) -> list[Any]:
        """All that the next step depends on: weights, batch statistics, dropout seeds, momenta, averages, gradients."""
        return [*self.network.variables, *self.network.optimizer.variables]

    @property
    def _checkpoint(self) -> Path:
        return beside(self.out, ".checkpoint.npz")

    def _restore(self) -> None:
        if not self._checkpoint.is_file():
            beside(self.out, ".csv").unlink(missing_ok=True)
            return
        with np.load(self._checkpoint, allow_pickle=False) as stored:
            of_settings = json.loads(str(stored["settings"]))
            check_same(self._checkpoint, of_settings, str(stored.get("samples")), self.settings, self.samples)
            for i, variable in enumerate(self._variables):
                variable.assign(stored[f"v{i}"])
            self.step, self.elapsed_s = int(stored["step"]), float(stored["elapsed_s"])
        log.info("training %s resumes at step %d", self.name, self.step)

    def _write_note(self, *, finished: bool) -> None:
        about: dict[str, Any] = {
            "name": self.name,
            "settings": noted_settings(self.settings),
            "samples": self.samples,
            "finished": finished,
            "done": {"steps": self.step, "minutes": round(self.elapsed_s / 60, 2)},
            "training": dict(sorted(Counter(p.sample.glacier for p in self.training).items())),
            "started_from": {"training": sorted(self._seen_before())},
            "validation": dict(sorted(Counter(p.sample.glacier for p in self.validation).items())),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        }
        write_json(beside(self.out, ".json"), about)

    def _seen_before(self) -> frozenset[str]:
        """Glaciers that the weights to start from have seen, as far as anybody has noted them."""
        return training_glaciers(self.settings.start) or frozenset() if self.settings.start else frozenset()

    def _append_curve(self, row: dict[str, float]) -> None:
        path = beside(self.out, ".csv")
        is_new = not path.is_file()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def validate(network: keras.Model, samples: Sequence[Prepared]) -> dict[str, float]:
    """Mean soft Jaccard index of front and ice mask per glacier, on the middle of each whole scene."""
    scores: dict[str, list[tuple[float, float]]] = {}
    for prepared in samples:
        window = whole_scene(prepared.grey.shape)
        patch, truth = cut_patch(eight_bit_channels(prepared.grey).astype(np.float32), prepared, window, border=False)
        masks = np.asarray(network.predict_on_batch(normalise(patch)[None]))[0]
        front, ice = (_jaccard(truth[..., i], masks[..., i], known) for i, known in ((0, 1.0), (1, truth[..., 2])))
        scores.setdefault(prepared.sample.glacier, []).append((front, ice))
    means = {glacier: np.mean(pairs, axis=0) for glacier, pairs in sorted(scores.items())}
    return {f"{glacier}_{mask}": float(mean[i]) for glacier, mean in means.items() for i, mask in enumerate(MASKS)}


def _jaccard(truth: NDArray[np.float32], mask: NDArray[np.float32], known: NDArray[np.float32] | float) -> float:
    return float(ops.convert_to_numpy(soft_jaccard((truth * known)[None], (mask * known)[None]))[0])
