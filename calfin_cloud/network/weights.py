"""Networks that are built, filled with weights, and written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from calfin_cloud.network.backend import keras, layers
from calfin_cloud.network.calfin import calfin_network
from calfin_cloud.network.efficient import efficient_network
from calfin_cloud.network.files import PUBLISHED_UNET, fingerprint, noted, numbered_layers, weights_path, whole_hdf5
from calfin_cloud.network.settings import TILE_SIZE
from calfin_cloud.network.unet import unet_network

ARCHITECTURES: dict[str, Callable[..., keras.Model]] = {
    "calfin": calfin_network,
    "efficient": efficient_network,
    "unet": unet_network,
    "unet-4": partial(unet_network, levels=4),
}
"""Networks of three channels and two masks by the name that their weights note: each takes `width` and `size`."""


def build_network(
    architecture: str,
    *,
    width: float = 1.0,
    size: int = TILE_SIZE,
    rock: bool = False,
    mixed_precision: bool = False,
) -> keras.Model:
    """Build a network of `ARCHITECTURES` with random weights: (n, size, size, 3) -> (n, size, size, 2), or 3 with rock.

    Only `efficient` has the mask of rock. In mixed precision it computes in bfloat16; weights and masks stay float32,
    since bfloat16 rounds a probability above 0.998 to 1, whose log and gradient are none.

    Raises
    ------
    ValueError
        The architecture is not known.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {sorted(ARCHITECTURES)}, got {architecture!r}: correct the name")
    build = partial(ARCHITECTURES[architecture], width=width, size=size, **({"rock": True} if rock else {}))
    return _in_mixed_precision(build) if mixed_precision else build()


def _in_mixed_precision(build: Callable[[], keras.Model]) -> keras.Model:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build()
    finally:
        keras.config.set_dtype_policy(policy)
    for layer in network.layers:
        if getattr(layer, "activation", None) is keras.activations.sigmoid or layer is network.layers[-1]:
            layer.dtype_policy = keras.DTypePolicy("float32")
    return network


def load_network(
    name_or_path: str | Path, *, sha256: str | None = None, size: int = TILE_SIZE, in_bfloat16: bool = False
) -> keras.Model:
    """Load a network of tiles with its weights into Keras, once per process, and again when the file has changed.

    To map with it, see `predict_pictures`, which needs no Keras where weights come with a file for OpenVINO.

    Parameters
    ----------
    name_or_path
        Name of weights that come with the package, or path of a `.keras` model, of `.weights.h5` as `save_weights`
        writes them, or of a Keras 2 `.h5` of CALFIN or of Mohajerani et al. (2019), weights at the root or below
        `/model_weights`. The latter's network has one channel and one mask, for `predict_front`.
    sha256
        Expected hash of the file in hexadecimal; checked before the file is opened. Shipped weights are checked
        always.
    size
        Side of the square input in px; a `.keras` model keeps its own.
    in_bfloat16
        Compute in bfloat16, which is quicker on a GPU; weights and masks stay float32.

    Returns
    -------
    keras.Model
        (n, size, size, 3) in -1..1 -> (n, size, size, masks) in 0..1; front, ice and with some weights rock.

    Raises
    ------
    ValueError
        For an unknown name, a file of another hash, and one that holds no weights or those of another network.

    Examples
    --------
    >>> load_network("calfin-efficient").output_shape
    (None, 224, 224, 3)
    """
    with _loading:  # two threads of a worker that ask at once get one and the same network
        return _load_network(str(name_or_path), sha256, size, in_bfloat16, fingerprint(name_or_path))


@lru_cache(maxsize=1)
def count_gpus() -> int:
    """Count the GPUs that the library below Keras sees."""
    try:
        return len(keras.distribution.list_devices("gpu"))
    except (AttributeError, RuntimeError, ValueError, NotImplementedError):  # a backend that lists none, as PyTorch
        return 0


def save_weights(network: keras.Model, path: Path | str, *, width: float, verifier: str | None = None) -> None:
    """Write the weights by layer name in the original's layout, with architecture and width; kernels as float16.

    Half precision halves the file. The architecture is the name of the network. A `verifier`, by the name of shipped
    weights, is noted too (`verifier_of`).

    Raises
    ------
    ValueError
        The network is not named like an architecture.
    """
    if network.name not in ARCHITECTURES:
        raise ValueError(
            f"a network must have a name of {sorted(ARCHITECTURES)}, got {network.name!r}: make it with build_network, "
            "or save it as .keras"
        )
    with whole_hdf5(path) as file:
        file.attrs["architecture"] = network.name
        file.attrs["width"] = width
        if verifier:
            file.attrs["verifier"] = verifier
        for layer, arrays in _arrays(network).items():
            for name, variable in arrays.items():
                values = np.asarray(variable)
                stored = values.astype(np.float16) if "kernel" in name else values
                file.create_dataset(f"{layer}/{layer}/{name}:0", data=stored)


def read_weights(network: keras.Model, path: Path | str, *, is_part: bool = False) -> keras.Model:
    """Fill a network from an h5 file by layer name, and return it; nothing in the file is executed.

    By name, not by order: the order of layers in a file differs between versions of Keras. The U-Nets of Mohajerani et
    al. (2019) number their layers, and by other numbers in each file: there the numbers give the order.
    Where `is_part`, the file may hold some layers of the network and no other; the rest stays as it is.

    Raises
    ------
    ValueError
        The weights belong to another network, or are no numbers.
    """
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        variables = _arrays(network)
        numbered = numbered_layers(root)
        if is_part and (others := sorted(set(root) - set(variables))):
            raise ValueError(f"{path} holds {others[0]}, no layer of {network.name}: these belong to another network")
        names = dict(zip(variables, numbered, strict=False)) if len(numbered) == len(variables) else {}
        for layer, arrays in variables.items():
            if is_part and layer not in root:
                continue
            stored = _stored_arrays(root, names.get(layer, layer), path)
            for name, variable in arrays.items():
                if name not in stored or tuple(stored[name].shape) != tuple(variable.shape):
                    got = tuple(stored[name].shape) if name in stored else "nothing"
                    raise ValueError(
                        f"{path}: {name} of layer {layer} must have shape {tuple(variable.shape)}, got {got}: "
                        "these weights belong to another network or width"
                    )
                values = np.asarray(stored[name], dtype=np.float32)
                if not np.isfinite(values).all():
                    raise ValueError(f"{path}: {name} of layer {layer} holds values that are no numbers: train anew")
                variable.assign(values)
    return network


_loading = threading.Lock()


@lru_cache(maxsize=6)  # two, each in two ways, with their verifiers
def _load_network(
    name_or_path: str, sha256: str | None, size: int, in_bfloat16: bool, _: tuple[int, int]
) -> keras.Model:
    path = weights_path(name_or_path, sha256=sha256)
    if path.suffix == ".keras":
        if in_bfloat16:
            raise ValueError(f"{path.name} keeps its own precision: take the engine keras, or weights in .h5")
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    else:
        network = read_weights(_empty_network(path, size, mixed_precision=in_bfloat16), path)
    prepare_compilation(network)
    return network


def prepare_compilation(network: keras.Model) -> None:
    """Keep TensorFlow's XLA off: on a CPU it is eight times slower; other backends decide for themselves."""
    if keras.backend.backend() == "tensorflow":
        network.jit_compile = False


def _empty_network(path: Path, size: int, *, mixed_precision: bool) -> keras.Model:
    note = noted(path)
    if note.architecture == PUBLISHED_UNET:
        return unet_network(size=None, channels=1, masks=1)
    return build_network(
        note.architecture, width=note.width, size=size, rock=note.rock, mixed_precision=mixed_precision
    )


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
