"""What makes a training run again: its settings, and the recipes that have a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from calfin_cloud.network import SHIPPED

FRONT_WEIGHT = 25 / 26
"""Weight of the front mask in the original's loss; the ice mask has the rest."""

ROUND_SAMPLES, ROUND_COPIES = 16, 4
"""The original loads 16 images at a time, and makes four patches of each (calfin-method 5.2)."""

Augmentation = Literal["varied", "release"]
Sampling = Literal["balanced", "rounds"]
Label = Literal["after", "before"]
Schedule = Literal["one-cycle", "constant"]

_CHOICES = {"augmentation": Augmentation, "sampling": Sampling, "label": Label, "schedule": Schedule}
_POSITIVE = ("width", "batch", "accumulate", "steps", "minutes", "learning_rate")
_NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(_POSITIVE, (lambda value: 0 < value < math.inf, "above 0")),
    **dict.fromkeys(("synthetic", "anchor"), (lambda value: 0 <= value < math.inf, "0 or above")),
    **dict.fromkeys(("front_weight", "share"), (lambda value: 0 < value <= 1, "in (0, 1]")),
    "seed": (lambda value: 0 <= value < 2**32, f"0 to {2**32 - 1}"),
    "warmup": (lambda value: 0 <= value < 1, "in [0, 1)"),
    "ema": (lambda value: 0 < value < 1, "in (0, 1)"),
}
"""What the value of a field must be, where it has one."""


@dataclass(frozen=True)
class TrainingSettings:
    """What makes a training run again; saved as JSON beside the weights.

    Attributes
    ----------
    seed
        Of weights and patches.
    architecture, width
        Network, see `network.build_network`, and factor on its filters.
    batch, accumulate
        Patches of a step, and steps whose mean gradient moves the weights once; batch statistics move every step.
    steps, minutes
        The run ends with whichever is reached first; the learning rate follows the same progress. Only `steps`
        alone make a run that can be repeated.
    learning_rate, warmup, schedule
        Peak of the one-cycle schedule: linear warm-up over that share of the run, then a cosine to zero. Or
        constant.
    ema
        Share of the running average of the weights that a step keeps, such as 0.999; the average is what is
        validated and saved. None saves the weights as they are.
    mixed_precision
        Compute in bfloat16 and keep the weights in float32. It has the range of float32, so no loss is scaled.
    front_weight
        Weight of the front mask in the loss; the original has 25/26.
    augmentation
        `"varied"`: scale, turn, tone, speckle, shade and gaps, see `patches.random_patch`. `"release"`: that of the
        original, see `calfin_augmentation.release_patch`.
    label
        Whether the front is drawn 3 px wide into the augmented patch, `"after"`, or into the scene squeezed to 256
        px and then warped with it, `"before"`, as the release does; the authors' slides advise the former.
    sampling
        `"balanced"`: sensor, glacier and sample are drawn in turn. `"rounds"`: 16 images of a shuffled set, four
        patches each, shuffled, as in the original.
    leave_out
        Glaciers to validate on; None for `datasets.VALIDATION_GLACIERS`, as far as the samples show them.
    rock
        Learn a third mask, land that does not calve, where a sample knows it: it tells a front from a fjord wall.
        Only the training has it; what is mapped are front and ice.
    synthetic
        Number of synthetic scenes that are added to the samples.
    start
        Name or path of weights to start from; None starts from random ones.
    verifier
        Name of shipped weights that must see a front in optical scenes too, noted in the file that is written.
    anchor
        Added to the loss for each weight that learns, times the square of how far it has moved from where it began.
    share
        Share of what the weights have moved from `start` that is validated and saved, above 0 to 1 (Wortsman et al.
        2022, arXiv:2109.01903): what few scenes do not show is not forgotten.
    checkpoint_minutes
        Time between checkpoints; each also writes the curves and the weights so far.

    Raises
    ------
    ValueError
        Neither steps nor minutes are given, or a value is out of its range.

    Examples
    --------
    >>> cc.TrainingSettings(steps=2000, architecture="unet").batch
    8
    """

    seed: int = 2021
    architecture: str = "calfin"
    width: float = 0.25
    batch: int = 8
    accumulate: int = 1
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 1.5e-3
    warmup: float = 0.04
    schedule: Schedule = "one-cycle"
    ema: float | None = None
    mixed_precision: bool = False
    front_weight: float = 0.8
    augmentation: Augmentation = "varied"
    label: Label = "after"
    sampling: Sampling = "balanced"
    leave_out: tuple[str, ...] | None = None
    rock: bool = False
    synthetic: int = 0
    start: str | None = None
    verifier: str | None = None
    anchor: float = 0.0
    share: float = 1.0
    checkpoint_minutes: float = 6.0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("TrainingSettings needs steps or minutes, got neither: say when the run ends")
        if wrong := list(self._wrong()):
            raise ValueError(f"got {', '.join(wrong)}: correct them")

    def progress(self, step: int, elapsed_s: float) -> float:
        """Share of the run that is done, 0 to 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = elapsed_s / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def rate(self, progress: float) -> float:
        """Learning rate at a share of the run."""
        if self.schedule == "constant":
            return self.learning_rate
        if progress < self.warmup:
            return self.learning_rate * max(progress / self.warmup, 0.01)
        return self.learning_rate * 0.5 * (1 + float(np.cos(np.pi * (progress - self.warmup) / (1 - self.warmup))))

    def _wrong(self) -> Iterator[str]:
        for name, (is_good, expected) in _NUMBERS.items():
            value = getattr(self, name)
            if value is not None and not is_good(value):
                yield f"{name} {value}, expected {expected}"
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                yield f"{name} {getattr(self, name)!r}, expected one of {get_args(choices)}"
        if self.verifier is not None and self.verifier not in SHIPPED:  # else its weights could not be used
            yield f"verifier {self.verifier!r}, expected one of {sorted(SHIPPED)}"
        if self.share < 1 and not self.start:
            yield f"share {self.share} of weights that start from random ones, expected start"
        if self.rock and (self.augmentation == "release" or self.architecture != "efficient"):
            yield f"rock with {self.augmentation} and {self.architecture}, expected varied and efficient"
        if self.sampling == "rounds" and self.batch >= ROUND_SAMPLES * ROUND_COPIES:
            yield f"batch {self.batch} with rounds, expected below {ROUND_SAMPLES * ROUND_COPIES}"


CALFIN = TrainingSettings(
    width=1.0,
    batch=8,
    accumulate=2,
    steps=80 * 4000,
    learning_rate=1e-4,
    schedule="constant",
    front_weight=FRONT_WEIGHT,
    augmentation="release",
    label="before",
    sampling="rounds",
)
"""The recipe of the original: 80 epochs of 4000 steps (Cheng et al. 2021; calfin-method 5)."""

RECIPES = MappingProxyType({"default": TrainingSettings(minutes=60.0), "calfin": CALFIN})
"""Recipes by name; `dataclasses.replace` changes what a run needs otherwise."""
