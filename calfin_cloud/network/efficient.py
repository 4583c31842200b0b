"""A U-Net on EfficientNet-Lite0, whose encoder can start from weights that have seen a million photographs."""

from __future__ import annotations

from typing import NamedTuple

from calfin_cloud.network.backend import keras, layers
from calfin_cloud.network.calfin import Tensor
from calfin_cloud.network.settings import TILE_SIZE

EPSILON = 1e-3
"""Batch-normalisation epsilon, as in EfficientNet."""

STEM_FILTERS = 32

DECODER_FILTERS = (128, 96, 64, 32, 16)
"""Filters at 1/16, 1/8, 1/4, 1/2 and all of the input's size."""

FILTERS_STEP = 8
"""Filters that a processor computes at once: others cost as much as the next multiple."""

DROPOUT = 0.2
"""Share of the deepest features that are dropped in training."""


class Stage(NamedTuple):
    """Inverted bottlenecks one after another; only the first is strided."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946), ReLU6, no squeeze and excitation."""


def efficient_network(*, width: float = 1.0, size: int = TILE_SIZE, rock: bool = False) -> keras.Model:
    """U-Net on EfficientNet-Lite0 with two sigmoid outputs at the size of the input.

    Parameters
    ----------
    width
        Factor on the decoder's filters, which stay multiples of `FILTERS_STEP`; the encoder keeps the width that its
        weights have.
    size
        Side of the square input in px, a multiple of 32; weights fit every size.
    rock
        Give a third mask: land that does not calve.

    Returns
    -------
    keras.Model
        (n, size, size, 3) in -1..1 -> (n, size, size, 2) in 0..1: the front mask and the ice mask; 3 with rock.

    Raises
    ------
    ValueError
        `size` is no multiple of 32 from 64 on, or `width` is not positive.
    """
    if size % 32 or size < 64:
        raise ValueError(f"size must be a multiple of 32, at least 64 (the network halves it five times), got {size}")
    if not width > 0:
        raise ValueError(f"width must be positive, got {width}: 1 is the network that is shipped")
    filters = [max(round(n * width / FILTERS_STEP + 1e-6), 1) * FILTERS_STEP for n in DECODER_FILTERS]
    inputs = keras.Input((size, size, 3), name="input")
    x, skips = _encoder(inputs)
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    for level, n in enumerate(filters):
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"up{level}_resize")(x)
        x = layers.Concatenate(name=f"up{level}_concat")([x, skips.pop()])
        for i in (1, 2):
            x = _convolution(x, n, f"up{level}_conv{i}")
    outputs = layers.Conv2D(2, 1, activation="sigmoid", name="masks")(x)
    if rock:
        of_rock = layers.Conv2D(1, 1, activation="sigmoid", name="rock")(x)
        outputs = layers.Concatenate(name="masks_and_rock")([outputs, of_rock])
    return keras.Model(inputs, outputs, name="efficient")


def _encoder(inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """EfficientNet-Lite0 without its head: features at 1/32, and those at the size of the input to 1/16."""
    skips = [inputs]
    x = layers.Conv2D(STEM_FILTERS, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(inputs)
    x = _normalised(x, "stem")
    block = 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            if stride > 1:
                skips.append(x)
            x = _inverted_bottleneck(x, stage, stride, f"block{block}")
            block += 1
    return x, skips


def _inverted_bottleneck(x: Tensor, stage: Stage, stride: int, name: str) -> Tensor:
    """Widen, filter each channel, narrow; beside a shortcut where the shape stays."""
    wide = x
    if stage.expansion > 1:
        wide = layers.Conv2D(stage.expansion * x.shape[-1], 1, use_bias=False, name=f"{name}_expand_conv")(x)
        wide = _normalised(wide, f"{name}_expand")
    wide = layers.DepthwiseConv2D(
        stage.kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(wide)
    wide = _normalised(wide, f"{name}_depthwise")
    narrow = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}_project_conv")(wide)
    narrow = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_project_BN")(narrow)
    if stride == 1 and x.shape[-1] == stage.filters:
        return layers.Add(name=f"{name}_add")([narrow, x])
    return narrow


def _convolution(x: Tensor, n: int, name: str) -> Tensor:
    return _normalised(layers.Conv2D(n, 3, padding="same", use_bias=False, name=f"{name}_conv")(x), name)


def _normalised(x: Tensor, name: str) -> Tensor:
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_BN")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)
