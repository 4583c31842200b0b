"""The U-Net of Mohajerani et al. (2019): the architecture, and the preprocessing that its published weights expect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from calfin_cloud.network.backend import keras, layers
from calfin_cloud.network.calfin import Tensor
from calfin_cloud.network.settings import TILE_SIZE

FIRST_FILTERS, DROPOUT = 32, 0.2
"""Filters of the first level, doubled at each further one; share of features dropped between two convolutions."""

FEATURES_PER_MASK = 3
"""Features from which the last convolution makes a mask."""

MARGIN_PX = 16
"""Mirrored beyond the border of a scene: the published network sees 11 px around a pixel."""


def unet_network(
    *, width: float = 1.0, size: int | None = TILE_SIZE, levels: int = 2, channels: int = 3, masks: int = 2
) -> keras.Model:
    """U-Net of Mohajerani et al. (2019): double 3x3 convolutions with dropout, skips, sigmoid masks.

    The published files say "4 layers" and "5 layers" in their names, yet in all six only the first two levels are
    joined to the output, 102,791 parameters: the upsampling takes the second level, not the one below it. So two
    levels are what was published; four (1.9 million parameters) are what the paper draws.

    Parameters
    ----------
    width
        Factor on the filters of every level, rounded to multiples of 8.
    size
        Side of the square input in px, a multiple of 2 to the power of `levels` - 1; None takes any such size.
    channels, masks
        Of the input and the output; the published weights have one each.

    Returns
    -------
    keras.Model
        (n, size, size, channels) -> (n, size, size, masks) in 0..1, inputs and outputs as those of `calfin_network`.

    Raises
    ------
    ValueError
        `levels`, `size` or `width` is out of its range.
    """
    if levels < 2 or (size is not None and size % 2 ** (levels - 1)):
        raise ValueError(
            f"got {levels} levels and size {size}, expected at least 2 levels and a multiple of 2 ** (levels - 1): "
            "each level after the first halves the size"
        )
    if not 0 < width <= 4:
        raise ValueError(f"width must lie in (0, 4], got {width}: 1 is the original network")
    filters = [max(8, 8 * round(FIRST_FILTERS * width * 2**level / 8)) for level in range(levels)]
    inputs = keras.Input((size, size, channels), name="input")
    x, skips = inputs, []
    for level, n in enumerate(filters):
        x = layers.MaxPooling2D(2, name=f"pool{level}")(x) if level else x
        x = _two_convolutions(x, n, f"down{level}")
        skips.append(x)
    for level in reversed(range(levels - 1)):
        x = layers.UpSampling2D(2, name=f"up{level}_resize")(x)
        x = layers.Concatenate(name=f"up{level}_concat")([x, skips[level]])
        x = _two_convolutions(x, filters[level], f"up{level}")
    x = _convolution(x, FEATURES_PER_MASK * masks, "features")
    outputs = layers.Conv2D(masks, 1, activation="sigmoid", name="masks")(x)
    return keras.Model(inputs, outputs, name="unet" if levels == 2 else f"unet-{levels}")


def preprocess_grey(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Prepare 8-bit grey (y, x) as Mohajerani et al. (2019) did: -> (y, x) float32 in 0..1.

    Histogram equalised, contrast stretched, smoothed, edges enhanced, all by Pillow.
    """
    image = ImageOps.autocontrast(ImageOps.equalize(Image.fromarray(grey)))
    image = image.filter(ImageFilter.SMOOTH).filter(ImageFilter.EDGE_ENHANCE)
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def predict_front(network: keras.Model, grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Predict the front probability of a scene with published weights: 8-bit grey (y, x) -> (y, x) float32 in 0..1.

    The published output is 0 on the front and 1 elsewhere, and is turned round here.

    Raises
    ------
    ValueError
        The picture is not grey (y, x) uint8, or the network has several channels.
    """
    if grey.ndim != 2 or grey.dtype != np.uint8 or network.input_shape[-1] != 1:
        raise ValueError(
            f"expected grey (y, x) uint8 and a network of one channel, got {grey.shape} {grey.dtype} and an input of "
            f"{network.input_shape}: use weights published by Mohajerani et al., and predict_pictures for others"
        )
    rows, columns = grey.shape
    # Mirrored up to even sides, so that the pooled level fits.
    margins = [(MARGIN_PX, MARGIN_PX + rows % 2), (MARGIN_PX, MARGIN_PX + columns % 2)]
    padded = np.pad(preprocess_grey(grey), margins, mode="symmetric")
    output = np.asarray(network.predict_on_batch(padded[None, ..., None]), dtype=np.float32)[0, ..., 0]
    return 1 - output[MARGIN_PX:, MARGIN_PX:][:rows, :columns]


def _two_convolutions(x: Tensor, n: int, name: str) -> Tensor:
    x = _convolution(x, n, f"{name}_conv1")
    return _convolution(layers.Dropout(DROPOUT, name=f"{name}_dropout")(x), n, f"{name}_conv2")


def _convolution(x: Tensor, n: int, name: str) -> Tensor:
    return layers.Conv2D(n, 3, padding="same", activation="relu", name=name)(x)
