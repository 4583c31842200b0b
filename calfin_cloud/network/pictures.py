"""Pictures of 256 px go in, masks come out: all that a network's task does, whatever runs the network."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from calfin_cloud import network as networks  # engines wait until a network is loaded
from calfin_cloud.network.files import fingerprint, form_of, has_openvino, noted_files, verifier_of, weights_path
from calfin_cloud.network.settings import PICTURE_SIZE, Engine, InferenceSettings, cut_of, tile_size
from calfin_cloud.outcomes import SceneError

OUT_OF_MEMORY = {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}  # Python, TensorFlow, PyTorch

GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Without one of them a machine has no GPU that TensorFlow or JAX could use: NVIDIA's, Windows's below Linux, AMD's."""

DEFAULT = InferenceSettings()


class Predictor(Protocol):
    """A network that is shown pictures in one way, by some engine."""

    @property
    def masks(self) -> int:
        """Masks of a picture."""

    @property
    def at_once(self) -> int:
        """Pictures of a batch."""

    def predict(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Predict the masks of one batch."""


def predict_pictures(
    pictures: NDArray[np.uint8], *, network: str, settings: InferenceSettings = DEFAULT
) -> NDArray[np.uint8]:
    """Predict the masks of pictures: (n, 256, 256, 3) uint8 -> (n, 256, 256, mask) uint8 in steps of 0.004.

    The network is loaded once a process. A batch that does not fit into memory goes through in halves.

    Parameters
    ----------
    pictures
        CALFIN's three channels (see `preprocess`), any number of pictures.
    network
        Name of weights that come with the package, or path of a file of weights.
    settings
        How a picture is cut, and what runs the network.

    Returns
    -------
    ndarray
        Probability of the front, of ice and, where the network has learnt it, of rock, times 250, rounded.

    Raises
    ------
    ValueError
        For pictures of another shape or type, and for weights that are none, see `weights_path`.
    SceneError
        `out_of_memory` if not even one picture fits.

    Examples
    --------
    >>> predict_pictures(np.zeros((1, 256, 256, 3), np.uint8), network="calfin-efficient").shape
    (1, 256, 256, 3)
    """
    expected = (PICTURE_SIZE, PICTURE_SIZE, 3)
    if pictures.ndim != 4 or pictures.shape[1:] != expected or pictures.dtype != np.uint8:
        raise ValueError(
            f"pictures must be (n, y, x, c) uint8 with (y, x, c) = {expected}, got {pictures.shape} {pictures.dtype}: "
            "resize them to this size, and round"
        )
    return predict_with(load_predictor(network, settings), pictures)


def predict_with(loaded: Predictor, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Predict the masks of pictures by a loaded network, batch by batch, as `predict_pictures` does.

    The last batch is filled up, since each number of pictures is compiled.
    """
    masks = np.empty((*pictures.shape[:3], loaded.masks), np.uint8)
    for start in range(0, len(pictures), loaded.at_once):
        batch = pictures[start : start + loaded.at_once]
        filled = np.pad(batch, [(0, loaded.at_once - len(batch)), (0, 0), (0, 0), (0, 0)])
        masks[start : start + len(batch)] = _predict_batch(loaded, filled)[: len(batch)]
    return masks


def load_predictor(network: str | Path, settings: InferenceSettings = DEFAULT) -> Predictor:
    """Load a network by name or path for pictures, once a process, and again when its file has changed.

    Raises
    ------
    ValueError
        For weights that are none, and for those of another kind of network.

    Examples
    --------
    >>> load_predictor("calfin-efficient").masks
    3
    """
    engine = engine_of(network, settings)
    with _loading:  # two threads of a worker that ask at once get one and the same network
        return _load(str(network), settings, engine, fingerprint(network))


def engine_of(network: str | Path, settings: InferenceSettings = DEFAULT) -> Engine:
    """Name the engine that runs a network here: of `auto`, what it stands for.

    Examples
    --------
    >>> engine_of("calfin-efficient", InferenceSettings(engine="keras"))
    'keras'
    """
    if settings.engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {get_args(Engine)}, got {settings.engine!r}: correct the name")
    if settings.engine != "auto":
        return settings.engine
    shows_whole = (settings.optical_whole or settings.turned) and verifier_of(network)
    sizes = {tile_size(settings)} | ({PICTURE_SIZE} if shows_whole else set())
    is_ready = all(has_openvino(network, size) for size in sizes)
    return "openvino" if is_ready and not _has_gpu() else "keras"


def is_eight_bit(network: str | Path, settings: InferenceSettings = DEFAULT) -> bool:
    """Whether a network runs in numbers of 8 bits here: where that is wanted, and OpenVINO has a file for it.

    Raises
    ------
    ValueError
        For a name or path of no weights.

    Examples
    --------
    >>> is_eight_bit("calfin-efficient")
    False
    """
    is_ready = settings.eight_bit and has_openvino(network, tile_size(settings), eight_bit=True)
    return is_ready and engine_of(network, settings) == "openvino"


def eight_bit_id(network: str | Path, settings: InferenceSettings) -> str:
    """Return `sha256[:12]` of the file of 8 bits of weights, or `none`, and `+` that of their verifier.

    Raises
    ------
    ValueError
        For a name or path of no weights.
    """
    form, verifier = form_of(tile_size(settings), eight_bit=True), verifier_of(network)
    mine = noted_files(weights_path(network)).get(form, {}).get("bin", "none")[:12]
    return mine + (f"+{eight_bit_id(verifier, settings)}" if verifier else "")


_loading = threading.Lock()


@lru_cache(maxsize=6)  # two, each in two ways, with their verifiers
def _load(network: str, settings: InferenceSettings, engine: Engine, _: tuple[int, int]) -> Predictor:
    size = tile_size(settings)
    if engine == "openvino" and has_openvino(network, size):
        model = networks.read_openvino(network, size, eight_bit=is_eight_bit(network, settings))
        return networks.OpenVinoPictures(model, cut_of(settings, size))
    by_keras = networks.load_network(network, size=size, in_bfloat16=engine == "keras-bfloat16")
    if by_keras.input_shape[-1] != 3:
        raise ValueError(
            f"{weights_path(network).name} is a network of {by_keras.input_shape[-1]} channels, expected 3: weights "
            "published by Mohajerani et al. (2019) map with `predict_front`"
        )
    cut = cut_of(settings, by_keras.input_shape[1])
    if engine == "openvino":
        return networks.OpenVinoPictures(networks.convert(by_keras), cut)
    return networks.KerasPictures(by_keras, cut)


def _has_gpu() -> bool:
    """Look for a GPU; the slow import of Keras only where there may be one."""
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    return not is_hidden and any(map(os.path.exists, GPU_DEVICES)) and networks.count_gpus() > 0


def _predict_batch(loaded: Predictor, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    try:
        return loaded.predict(pictures)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        if len(pictures) == 1:
            raise SceneError(
                "out_of_memory", f"not even one picture fits into the memory of the network: {error}"
            ) from error
    half = len(pictures) // 2
    return np.concatenate([_predict_batch(loaded, pictures[:half]), _predict_batch(loaded, pictures[half:])])


def _is_out_of_memory(error: Exception) -> bool:
    """Tell by name and text, as TensorFlow, JAX and PyTorch each raise an error of their own."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & OUT_OF_MEMORY) or "RESOURCE_EXHAUSTED" in str(error)
