"""The network of CALFIN in Keras 3: a DeepLabV3+ on a modified Xception-65 (Cheng et al. 2021; calfin-method 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.network.backend import keras, layers
from calfin_cloud.network.settings import TILE_SIZE

ENCODER_EPSILON, DECODER_EPSILON = 1e-3, 1e-5
"""Batch-normalisation epsilon before the atrous pyramid, and from it on."""

Tensor = Any  # symbolic tensors of any Keras backend


@keras.saving.register_keras_serializable(package="calfin_cloud")
class AlignCornersResize(layers.Layer):  # type: ignore[misc]  # keras is an untyped border
    """Bilinear resize (batch, y, x, c) whose corner pixels keep their place: two fixed matrix products.

    `keras.ops.image.resize` knows only half-pixel centres; the original resizes with `align_corners=True`.
    """

    def __init__(self, height: int, width: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.height, self.width = height, width

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Prepare the two interpolation matrices for the shape of the input."""
        self._rows = interpolation_matrix(int(input_shape[1] or 0), self.height)
        self._columns = interpolation_matrix(int(input_shape[2] or 0), self.width)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Interpolate along x, then along y."""
        rows = keras.ops.cast(self._rows, inputs.dtype)
        columns = keras.ops.cast(self._columns, inputs.dtype)
        _, height, _, channels = inputs.shape
        wide = keras.ops.matmul(columns, inputs)
        tall = keras.ops.matmul(rows, keras.ops.reshape(wide, (-1, height, self.width * channels)))
        return keras.ops.reshape(tall, (-1, self.height, self.width, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the output: the batch and the channels stay."""
        return (input_shape[0], self.height, self.width, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        """Return what is needed to build the layer again."""
        return {**super().get_config(), "height": self.height, "width": self.width}


def interpolation_matrix(size: int, new_size: int) -> NDArray[np.float32]:
    """Linear interpolation from `size` to `new_size` samples, first and last kept, as a matrix (new_size, size)."""
    places = np.linspace(0, size - 1, new_size)
    return np.asarray(np.maximum(0, 1 - np.abs(places[:, None] - np.arange(size))), dtype=np.float32)


def calfin_network(*, width: float = 1.0, size: int = TILE_SIZE) -> keras.Model:
    """CALFIN-NN: DeepLabV3+ on a modified Xception-65 with ELU and two sigmoid outputs (Cheng et al. 2021).

    Parameters
    ----------
    width
        Factor on the filters of every layer, rounded to multiples of 8; 1 is the original with 29,458,201
        parameters.
    size
        Side of the square input in px, a multiple of 32; weights fit every size.

    Returns
    -------
    keras.Model
        (n, size, size, 3) in -1..1 -> (n, size, size, 2) in 0..1: the front mask and the ice mask.

    Raises
    ------
    ValueError
        `size` is no multiple of 32 from 64 on, or `width` is not in (0, 4].

    Examples
    --------
    >>> cc.calfin_network(width=0.1).output_shape
    (None, 224, 224, 2)
    """
    if size % 32 or size < 64:
        raise ValueError(f"size must be a multiple of 32, at least 64 (the network halves it five times), got {size}")
    if not 0 < width <= 4:
        raise ValueError(f"width must lie in (0, 4], got {width}: 1 is the original network")

    def filters(original: int) -> int:
        return max(8, 8 * round(original * width / 8))

    inputs = keras.Input((size, size, 3), name="input")
    features, skip = _encoder(inputs, filters)
    pyramid = _atrous_pyramid(features, filters(256))
    logits = _decoder(pyramid, skip, filters, size)
    return keras.Model(inputs, layers.Activation("sigmoid", name="masks")(logits), name="calfin")


def _encoder(x: Tensor, filters: Callable[[int], int]) -> tuple[Tensor, Tensor]:
    """Xception-65 at output stride 16; also the features at a quarter of the input size, for the decoder."""
    x, _ = _xception_block(x, [filters(128)] * 3, "entry_flow_block1", stride=2)
    x, _ = _xception_block(x, [filters(256)] * 3, "entry_flow_block2", stride=2)
    x, skip = _xception_block(x, [filters(728)] * 3, "entry_flow_block3", stride=2)
    for unit in range(1, 9):
        x, _ = _xception_block(x, [filters(728)] * 3, f"middle_flow_unit_{unit}", shortcut="sum")
    x, _ = _xception_block(x, [filters(728), filters(1024), filters(1024)], "exit_flow_block1", stride=2)
    for i, (n, rate) in enumerate([(1536, 1), (1536, 2), (2048, 4)], start=1):
        x = _separable(x, filters(n), f"exit_flow_block2_separable_conv{i}", rate=rate, activate_after=True)
    return x, skip


def _atrous_pyramid(x: Tensor, n: int) -> Tensor:
    """Atrous spatial pyramid pooling: features pooled, plain and at five dilations, projected to `n` channels."""
    pooled = layers.MaxPooling2D(2, name="image_pooling_max")(x)
    pooled = _convolution(pooled, n, "image_pooling")
    branches = [
        AlignCornersResize(x.shape[1], x.shape[2], name="image_pooling_resize")(pooled),
        _convolution(x, n, "aspp0"),
    ]
    branches += [
        _separable(x, n, f"aspp{rate}", rate=rate, epsilon=DECODER_EPSILON, activate_after=True) for rate in range(1, 6)
    ]
    x = _convolution(layers.Concatenate(name="concat")(branches), n, "concat_projection")
    return layers.Dropout(0.1, name="concat_dropout")(x)


def _decoder(x: Tensor, skip: Tensor, filters: Callable[[int], int], size: int) -> Tensor:
    """Pyramid refined with the encoder's fine features; two logits at the size of the input."""
    x = AlignCornersResize(size // 4, size // 4, name="decoder_resize")(x)
    x = layers.Concatenate(name="decoder_concat")([x, _convolution(skip, filters(48), "feature_projection1")])
    for i in range(2):
        x = _separable(x, filters(256), f"decoder_conv1_{i}", epsilon=DECODER_EPSILON, activate_after=True)
    x = layers.Conv2D(2, 1, kernel_regularizer=_regulariser(), name="custom_logits_semantic")(x)
    return AlignCornersResize(size, size, name="logits_resize")(x)


def _xception_block(
    x: Tensor, filters: list[int], name: str, *, stride: int = 1, shortcut: str = "convolution"
) -> tuple[Tensor, Tensor]:
    """Three separable convolutions, the last one strided, beside a shortcut; also the result of the second."""
    inner = _separable(x, filters[0], f"{name}_separable_conv1")
    second = _separable(inner, filters[1], f"{name}_separable_conv2")
    third = _separable(second, filters[2], f"{name}_separable_conv3", stride=stride)
    if shortcut == "convolution":
        # Thinned first: the gradient of a strided 1x1 convolution corrupts the heap in TensorFlow 2.21 with oneDNN.
        x = layers.MaxPooling2D(1, strides=stride, name=f"{name}_shortcut_thin")(x)
        x = _pointwise(x, filters[2], f"{name}_shortcut")
        x = layers.BatchNormalization(epsilon=ENCODER_EPSILON, name=f"{name}_shortcut_BN")(x)
    return layers.Add(name=f"{name}_add")([third, x]), second


def _separable(
    x: Tensor,
    n: int,
    name: str,
    *,
    stride: int = 1,
    rate: int = 1,
    epsilon: float = ENCODER_EPSILON,
    activate_after: bool = False,
) -> Tensor:
    """Depthwise 3x3, then pointwise convolution, each batch-normalised; ELU once before them, or after each."""
    if not activate_after:
        x = layers.ELU(name=f"{name}_ELU")(x)
    if stride > 1:  # so that the centres fall on pixels 0, 2, 4, ..., which "same" would not do for even sizes
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    x = layers.DepthwiseConv2D(
        3,
        strides=stride,
        dilation_rate=rate,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        name=f"{name}_depthwise",
    )(x)
    x = layers.BatchNormalization(epsilon=epsilon, name=f"{name}_depthwise_BN")(x)
    if activate_after:
        x = layers.ELU(name=f"{name}_depthwise_ELU")(x)
    x = layers.BatchNormalization(epsilon=epsilon, name=f"{name}_pointwise_BN")(_pointwise(x, n, f"{name}_pointwise"))
    return layers.ELU(name=f"{name}_pointwise_ELU")(x) if activate_after else x


def _convolution(x: Tensor, n: int, name: str) -> Tensor:
    """Pointwise convolution, batch normalisation, ELU."""
    x = layers.BatchNormalization(epsilon=DECODER_EPSILON, name=f"{name}_BN")(_pointwise(x, n, name))
    return layers.ELU(name=f"{name}_ELU")(x)


def _pointwise(x: Tensor, n: int, name: str) -> Tensor:
    return layers.Conv2D(n, 1, use_bias=False, kernel_regularizer=_regulariser(), name=name)(x)


def _regulariser() -> keras.regularizers.Regularizer:
    return keras.regularizers.L1L2(l1=1e-6, l2=1e-6)
