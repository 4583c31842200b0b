"""Pictures go in, masks come out, by Keras: cutting, blending and rounding are layers, so that a GPU does them too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.network.backend import keras, ops
from calfin_cloud.network.calfin import Tensor
from calfin_cloud.network.settings import LEVELS, PICTURE_SIZE, Cut
from calfin_cloud.network.weights import count_gpus, prepare_compilation

MOST_PICTURES = 32
"""Pictures that go through the network at once on a GPU, 256 tiles of ours; fewer are filled up.

Each number is compiled once, which took half a minute on an H200, where all of them take 21 ms. On a CPU it is one
picture, to bound the memory.
"""


class KerasPictures:
    """A network that Keras runs on pictures, on whatever its backend finds."""

    def __init__(self, network: keras.Model, cut: Cut) -> None:
        self.model = pictures_network(network, cut)
        self.masks = int(self.model.output_shape[-1])
        prepare_compilation(self.model)
        self._run = _compiled(self.model)

    @property
    def at_once(self) -> int:
        """Pictures of a batch."""
        return MOST_PICTURES if count_gpus() else 1

    def predict(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Predict masks (n, 256, 256, mask) in `LEVELS` of pictures (n, 256, 256, 3), both uint8."""
        return np.asarray(self._run(pictures), dtype=np.uint8)


def _compiled(model: keras.Model) -> Callable[[NDArray[np.uint8]], Any]:
    """Return what runs a model on a batch, from several threads at once.

    Under JAX, Keras's own call uses up the model's variables and puts them back, one thread at a time. So a function
    is compiled that holds copies of them.
    """
    if keras.backend.backend() != "jax":
        run_by_keras: Callable[[NDArray[np.uint8]], Any] = model.predict_on_batch
        return run_by_keras
    values = [[ops.copy(each) for each in of] for of in (model.trainable_variables, model.non_trainable_variables)]

    def run(trained: list[Any], others: list[Any], pictures: NDArray[np.uint8]) -> Any:  # noqa: ANN401 - an array of JAX
        return model.stateless_call(trained, others, pictures, training=False)[0]

    return partial(import_module("jax").jit(run), *values)


def pictures_network(network: keras.Model, cut: Cut) -> keras.Model:
    """Put a network of tiles into one of pictures: (n, 256, 256, 3) uint8 -> (n, 256, 256, mask) uint8 in `LEVELS`.

    A picture becomes -1..1 and is cut, itself and its transpose; what tiles overlap is averaged with equal weights.
    """
    pictures = keras.Input((PICTURE_SIZE, PICTURE_SIZE, 3), dtype="uint8", name="pictures")
    shown = ops.cast(pictures, "float32") / 127.5 - 1
    views = [shown, ops.transpose(shown, (0, 2, 1, 3))] if cut.transposed else [shown]
    size = cut.size
    tiles = [view[:, r : r + size, c : c + size] for view in views for r, c in cut.offsets]
    # A picture's tiles lie together, so that the same ones share a batch whatever is beside the picture.
    flat = ops.reshape(ops.stack(tiles, axis=1), (-1, size, size, 3))
    masks = ops.reshape(network(flat), (-1, len(tiles), size, size, network.output_shape[-1]))
    n = len(cut.offsets)
    blended = _blend([masks[:, i] for i in range(n)], cut)
    if cut.transposed:
        of_transpose = _blend([masks[:, i] for i in range(n, 2 * n)], cut)
        blended = (blended + ops.transpose(of_transpose, (0, 2, 1, 3))) / 2
    return keras.Model(pictures, ops.cast(ops.round(blended * LEVELS), "uint8"), name=f"{network.name}_of_pictures")


def _blend(tiles: list[Tensor], cut: Cut) -> Tensor:
    """Average overlapping tiles (n, size, size, mask) to pictures (n, 256, 256, mask)."""
    margin = PICTURE_SIZE - cut.size
    counts = np.zeros((1, PICTURE_SIZE, PICTURE_SIZE, 1), np.float32)
    total = 0
    for tile, (r, c) in zip(tiles, cut.offsets, strict=True):
        counts[:, r : r + cut.size, c : c + cut.size] += 1
        total = total + ops.pad(tile, ((0, 0), (r, margin - r), (c, margin - c), (0, 0)))
    return total * (1 / counts)
