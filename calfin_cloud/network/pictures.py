"""Pictures in, masks out: all that a network, and the GPU it may run on, has to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calfin_cloud import network as networks
from calfin_cloud.network.files import Engine
from calfin_cloud.preprocess import normalise
from calfin_cloud.schema import to_levels
from calfin_cloud.tiles import blend_tiles, cut_tiles

INPUT_SIZE = 256


@dataclass(frozen=True)
class InferenceSettings:
    """How a picture of 256 px is cut for the network, and what runs that."""

    stride: int | None = 32
    transposed: bool = True
    square_pixels: bool = False
    engine: Engine = field(default="keras", compare=False)


def predict_pictures(
    pictures: NDArray[np.uint8], *, network: str, settings: InferenceSettings | None = None
) -> NDArray[np.uint8]:
    """Predict pictures (n, 256, 256, 3) uint8: masks (n, 256, 256, k) uint8 in steps of 0.004."""
    settings = settings or InferenceSettings()
    size = INPUT_SIZE if settings.stride is None else networks.TILE_SIZE
    loaded = networks.load_network(network, size=size, engine=settings.engine)
    done = [_one(p, loaded, settings) for p in pictures]
    if not done:
        return np.empty((0, INPUT_SIZE, INPUT_SIZE, int(loaded.output_shape[-1])), np.uint8)
    return np.stack(done)


def _one(picture: NDArray[np.uint8], loaded: Any, settings: InferenceSettings) -> NDArray[np.uint8]:  # noqa: ANN401
    size = loaded.input_shape[1]
    view = normalise(picture.astype("float32"))
    views = [view, np.swapaxes(view, 0, 1)] if settings.transposed else [view]
    cuts = [cut_tiles(v, size=size, stride=settings.stride or size) for v in views]
    predicted = networks.predict_tiles(loaded, np.concatenate([t for t, _ in cuts]), at_once=networks.CHUNK_TILES)
    parts = np.split(predicted, np.cumsum([len(t) for t, _ in cuts])[:-1])
    masks = [blend_tiles(p, o, (INPUT_SIZE, INPUT_SIZE)) for p, (_, o) in zip(parts, cuts, strict=True)]
    if settings.transposed:
        masks = [(masks[0] + np.swapaxes(masks[1], 0, 1)) / 2]
    return to_levels(masks[0])
