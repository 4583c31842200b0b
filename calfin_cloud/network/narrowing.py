"""A network goes in, one of a narrower decoder comes out that starts from the filters which weigh most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.network.backend import keras
from calfin_cloud.network.efficient import DECODER_FILTERS

HEADS = ("masks", "rock")
"""Layers that make masks of the last features."""


def narrow_decoder(source: keras.Model, target: keras.Model) -> keras.Model:
    """Fill an `efficient_network` from a wider one, and return it: the encoder whole, the decoder's heaviest filters.

    A filter weighs as much as the layer after it makes of it. Training must follow, since what the others gave is lost.

    Raises
    ------
    ValueError
        A layer of the target is not in the source, or is wider than there.
    """
    kept: NDArray[np.intp] = np.arange(0)
    decoder = {f"up{level}_conv{i}" for level in range(len(DECODER_FILTERS)) for i in (1, 2)}
    for layer in target.layers:
        name = layer.name.removesuffix("_conv").removesuffix("_BN")
        if not layer.weights or name in decoder:
            continue
        own = source.get_layer(layer.name)
        if layer.name not in HEADS:
            _assign(layer, [np.asarray(weight) for weight in own.weights])
    for level in range(len(DECODER_FILTERS)):
        deep = source.get_layer(f"up{level}_resize").output.shape[-1]
        skips = np.arange(deep, source.get_layer(f"up{level}_conv1_conv").kernel.shape[2])
        kept = np.r_[kept if level else np.arange(deep), skips]
        for i in (1, 2):
            kept = _narrow(source, target, f"up{level}_conv{i}", kept, _next(level, i))
    for name in HEADS:
        if any(layer.name == name for layer in target.layers):
            own = source.get_layer(name)
            _assign(target.get_layer(name), [np.asarray(own.kernel)[:, :, kept], np.asarray(own.bias)])
    return target


def _narrow(
    source: keras.Model, target: keras.Model, name: str, inputs: NDArray[np.intp], after: str
) -> NDArray[np.intp]:
    """Fill a convolution and its normalisation; return the numbers of the filters that are kept."""
    kernel, scale = np.asarray(source.get_layer(f"{name}_conv").kernel), source.get_layer(f"{name}_BN")
    used = np.asarray(source.get_layer(after).kernel)[:, :, : kernel.shape[3]]
    weight = np.abs(np.asarray(scale.gamma)) * np.sqrt((used**2).sum((0, 1, 3)))
    n = target.get_layer(f"{name}_conv").kernel.shape[3]
    if n > kernel.shape[3]:
        raise ValueError(f"{name} must have at most {kernel.shape[3]} filters, got {n}: give a smaller width")
    kept = np.sort(np.argsort(-weight, kind="stable")[:n])
    _assign(target.get_layer(f"{name}_conv"), [kernel[:, :, inputs][..., kept]])
    _assign(target.get_layer(f"{name}_BN"), [np.asarray(values)[kept] for values in scale.weights])
    return kept


def _next(level: int, i: int) -> str:
    """Name of the layer that sees the features of a convolution."""
    if i == 1:
        return f"up{level}_conv2_conv"
    return f"up{level + 1}_conv1_conv" if level + 1 < len(DECODER_FILTERS) else HEADS[0]


def _assign(layer: keras.layers.Layer, values: list[NDArray[np.float32]]) -> None:
    for variable, value in zip(layer.weights, values, strict=True):
        variable.assign(value)
