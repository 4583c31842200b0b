"""Normalised tiles go in, front and ice probabilities come out: CALFIN-NN in Keras 3, weights by name or path."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

TILE_SIZE = 224
"""Side of the network's input in px (Cheng et al. 2021)."""

ENCODER_EPSILON, DECODER_EPSILON = 1e-3, 1e-5
"""Batch-normalisation epsilon before the atrous pyramid, and from it on."""

CHUNK_TILES = 8
"""Tiles that go through the network at once, always so many: four of a picture and four of its transpose.

One number is compiled once (another costs a second of compilation more), and it bounds the memory."""


class Shipped(NamedTuple):
    """Weights that come with the package."""

    file: str
    sha256: str


SHIPPED = {
    "calfin-small": Shipped(
        "calfin-small.weights.h5", "25382d133d0c29998a5d85fcd05668795ecc1cb604261ed2344c8cf3bfed28b4"
    ),
}
"""Weights by name."""

DEFAULT_NETWORK = "calfin-small"
"""Weights used where none are named."""

WEIGHTS_FOLDER = Path(__file__).parent / "weights"

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
        Factor on the filters of every layer, rounded to multiples of 8; 1 is the original with 29,458,201 parameters.
    size
        Side of the square input in px, a multiple of 32; weights fit every size.

    Returns
    -------
    keras.Model
        (n, size, size, 3) in -1..1 -> (n, size, size, 2) in 0..1: the front mask and the ice mask.
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


def load_network(name_or_path: str | Path, *, sha256: str | None = None, size: int = TILE_SIZE) -> keras.Model:
    """Load the network with its weights, once per process.

    Parameters
    ----------
    name_or_path
        Name of weights that come with the package, or path of a `.keras` model, of `.weights.h5` as `save_weights`
        writes them, or of the original's Keras 2 `.h5`, weights at the root or below `/model_weights`.
    sha256
        Expected hash of the file in hexadecimal; checked before the file is opened. Shipped weights are checked always.
    size
        Side of the square input in px; a `.keras` model keeps its own.
    """
    with _loading:  # two threads of a worker that ask at once get one and the same network
        return _load_network(str(name_or_path), sha256, size)


def network_id(name_or_path: str | Path) -> str:
    """Return `name@sha256[:12]` of the weights in use, which goes into the results as `model`."""
    path, _ = _resolve(str(name_or_path))
    return f"{path.name.split('.')[0]}@{_sha256(path)[:12]}"


def predict_tiles(network: keras.Model, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Predict front and ice masks of normalised tiles: (n, y, x, 3) in -1..1 -> (n, y, x, 2) in 0..1."""
    if tiles.ndim != 4 or tiles.shape[1:] != network.input_shape[1:]:
        expected = network.input_shape[1:]
        raise ValueError(
            f"tiles must be (n, y, x, c) with (y, x, c) = {expected}, got {tiles.shape}: cut them to this size"
        )
    padded = np.pad(tiles, [(0, -len(tiles) % CHUNK_TILES), (0, 0), (0, 0), (0, 0)])
    starts = range(0, len(padded), CHUNK_TILES)
    masks = [np.asarray(network.predict_on_batch(padded[i : i + CHUNK_TILES]), dtype=np.float32) for i in starts]
    return np.concatenate(masks)[: len(tiles)] if masks else np.zeros((*tiles.shape[:3], 2), np.float32)


def save_weights(network: keras.Model, path: Path | str, *, width: float) -> None:
    """Write the weights by layer name in the original's layout; kernels as float16, which halves the file."""
    with h5py.File(path, "w") as file:
        file.attrs["width"] = width
        for layer, arrays in _arrays(network).items():
            for name, variable in arrays.items():
                values = np.asarray(variable)
                stored = values.astype(np.float16) if "kernel" in name else values
                file.create_dataset(f"{layer}/{layer}/{name}:0", data=stored)


def read_weights(network: keras.Model, path: Path | str) -> keras.Model:
    """Fill a network from an h5 file by layer name, and return it; nothing in the file is executed.

    By name, not by order: the order of layers in a file differs between versions of Keras.
    """
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        for layer, arrays in _arrays(network).items():
            stored = _stored_arrays(root, layer, path)
            for name, variable in arrays.items():
                if name not in stored or tuple(stored[name].shape) != tuple(variable.shape):
                    got = tuple(stored[name].shape) if name in stored else "nothing"
                    raise ValueError(
                        f"{path}: {name} of layer {layer} must have shape {tuple(variable.shape)}, got {got}: "
                        "these weights belong to another network or width"
                    )
                variable.assign(np.asarray(stored[name], dtype=np.float32))
    return network


_loading = threading.Lock()


@lru_cache(maxsize=2)
def _load_network(name_or_path: str, sha256: str | None, size: int) -> keras.Model:
    path, shipped_sha256 = _resolve(name_or_path)
    for expected in filter(None, (sha256, shipped_sha256)):
        if _sha256(path) != expected.lower():
            raise ValueError(
                f"{path} must have sha256 {expected}, got {_sha256(path)}: do not use this file, fetch it again"
            )
    if path.suffix == ".keras":
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    else:
        network = read_weights(calfin_network(width=_stored_width(path), size=size), path)
    prepare_compilation(network)
    return network


def prepare_compilation(network: keras.Model) -> None:
    """Keep TensorFlow's XLA off: on a CPU it is eight times slower; other backends decide for themselves."""
    if keras.backend.backend() == "tensorflow":
        network.jit_compile = False


def _resolve(name_or_path: str) -> tuple[Path, str | None]:
    """Path of the weights, and their expected hash where the package knows it."""
    if name_or_path in SHIPPED:
        shipped = SHIPPED[name_or_path]
        return WEIGHTS_FOLDER / shipped.file, shipped.sha256
    path = Path(name_or_path)
    if not path.is_file() or path.suffix not in {".keras", ".h5"}:
        known = sorted(SHIPPED)
        raise ValueError(
            f"weights must be one of {known} or a .keras or .h5 file, got {name_or_path!r}: correct the name"
        )
    return path, None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stored_width(path: Path) -> float:
    """Width that `save_weights` noted; a file of the original knows none and has width 1."""
    try:
        with h5py.File(path, "r") as file:
            return float(file.attrs.get("width", 1.0))
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file ({error}): fetch the weights again") from error


def _arrays(network: keras.Model) -> dict[str, dict[str, Any]]:
    """Variables of the network by layer and by the original's array name."""
    return {
        layer.name: {
            "depthwise_kernel" if w.name == "kernel" and isinstance(layer, layers.DepthwiseConv2D) else w.name: w
            for w in layer.weights
        }
        for layer in network.layers
        if layer.weights
    }


def _stored_arrays(root: h5py.Group, layer: str, path: Path | str) -> dict[str, h5py.Dataset]:
    """Datasets of one layer by array name, however deep its group nests them."""
    if layer not in root or not isinstance(root[layer], h5py.Group):
        raise ValueError(
            f"{path} lacks the layer {layer}: these weights belong to another network, or Keras 3 itself wrote them; "
            "then save the whole model as .keras"
        )
    found: dict[str, h5py.Dataset] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name.rsplit("/", 1)[-1].removesuffix(":0")] = item

    root[layer].visititems(collect)
    return found
