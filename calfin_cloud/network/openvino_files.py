"""A network of Keras goes in, files come out that OpenVINO runs without Keras: equal outputs, checked by hash."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.network.backend import keras
from calfin_cloud.network.engines import compile_model, openvino, read_model
from calfin_cloud.network.files import (
    hashes_of,
    openvino_file,
    openvino_note,
    sha256_of,
    weights_path,
)
from calfin_cloud.network.settings import PICTURE_SIZE, TILE_SIZE
from calfin_cloud.network.weights import load_network
from calfin_cloud.whole_files import whole_file, write_json

log = logging.getLogger(__name__)

MOST_DIFFERENCE = 1e-4
"""A probability may differ so much between engines: a fortieth of a step of the stored masks."""

SIZES = (TILE_SIZE, PICTURE_SIZE)
LEAST_HALVED = 64
"""Fewer numbers are not worth a node of the graph that makes them float32 again."""


def save_openvino(name_or_path: str | Path) -> list[Path]:
    """Write weights as OpenVINO's files beside them, an `.xml` and a `.bin` for tiles and for whole pictures.

    Kernels, which `.weights.h5` keeps as float16, are float16 here too, so that nothing is rounded. A note with the
    hashes of all, `<name>.openvino.json`, is written last: without one that fits the weights, files are not used.

    Raises
    ------
    ValueError
        If the library below Keras is not TensorFlow, or the masks of OpenVINO are not those of Keras.

    Examples
    --------
    >>> save_openvino("glacier.weights.h5")  # doctest: +SKIP
    [PosixPath('glacier-224.xml'), PosixPath('glacier-256.xml')]
    """
    path = weights_path(name_or_path)
    files, differences = {}, []
    for size in SIZES:
        network = load_network(name_or_path, size=size)
        file = openvino_file(path, size)
        with whole_file(file) as unfinished:
            openvino.save_model(_halved(convert(network)), str(unfinished), compress_to_fp16=False)
        differences.append(_difference(network, file))
        files[str(size)] = hashes_of(file)
    if not max(differences) <= MOST_DIFFERENCE:
        raise ValueError(f"OpenVINO's masks of {path.name} differ from Keras's by {max(differences):.2g}: use Keras")
    about = {
        "weights": sha256_of(path),
        "files": files,
        "largest_difference": float(f"{max(differences):.2g}"),
        "openvino": openvino.get_version(),
    }
    write_json(openvino_note(path), about)
    return [openvino_file(path, size) for size in SIZES]


def convert(network: keras.Model) -> Any:  # noqa: ANN401 - a model of OpenVINO
    """Convert a network, (n, y, x, c) float32 -> (n, y, x, mask) float32; what is written on the way is deleted."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"networks are converted for OpenVINO by TensorFlow, got the backend {keras.backend.backend()} of Keras: "
            "use the engine keras, or unset KERAS_BACKEND"
        )
    import tensorflow as tf  # noqa: PLC0415 - other backends of Keras do without it
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
        convert_variables_to_constants_v2,
    )

    tiles = tf.TensorSpec((None, *network.input_shape[1:]), tf.float32, name="tiles")
    # `network.export` would fold batch normalisation into the kernels, which then do not fit into float16.
    function = tf.function(lambda x: network(x, training=False)).get_concrete_function(tiles)
    graph = convert_variables_to_constants_v2(function).graph
    with tempfile.TemporaryDirectory(prefix="calfin-openvino-") as folder:
        tf.io.write_graph(graph, folder, "network.pb", as_text=False)
        return read_model(Path(folder) / "network.pb", is_kept=False)


def _halved(model: Any) -> Any:  # noqa: ANN401
    """Store constants as float16 where this changes none of their numbers."""
    for node in model.get_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != openvino.Type.f32:
            continue
        values: NDArray[np.float32] = node.get_data()
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size >= LEAST_HALVED and np.array_equal(half, values):
            ops = openvino.opset13
            whole = ops.convert(ops.constant(half), "f32")
            for use in node.output(0).get_target_inputs():
                use.replace_source_output(whole.output(0))
    return model


def _difference(network: keras.Model, file: Path) -> float:
    """Largest difference between the masks of a network and those of its file, on noise."""
    shape = (1, *network.input_shape[1:])
    tiles = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    model = read_model(file)
    model.reshape(list(shape))
    return float(np.abs(compile_model(model)(tiles)[0] - np.asarray(network.predict_on_batch(tiles))).max())
