"""A network of Keras goes in, the same network comes out in another engine: quicker on a CPU, equal up to rounding."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


class OpenVinoNetwork:
    """A network that OpenVINO runs; `predict_tiles` takes it as it takes one of Keras, in several threads at once."""

    def __init__(self, compiled: Any, input_shape: tuple[int | None, ...]) -> None:  # noqa: ANN401 - a compiled model
        self.compiled, self.input_shape = compiled, input_shape
        self._of_thread = threading.local()

    def predict_on_batch(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict masks (n, y, x, mask) of tiles (n, y, x, c), both float32."""
        return np.stack([self._predict(tile) for tile in tiles])

    def _predict(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        if not hasattr(self._of_thread, "request"):  # buffers that are used again
            self._of_thread.request = self.compiled.create_infer_request()
        request = self._of_thread.request
        request.get_output_tensor(0).data[:] = np.nan
        request.infer([tile[None]], share_inputs=True)
        masks: NDArray[np.float32] = request.get_output_tensor(0).data[0].copy()
        if np.isnan(masks).all():  # with one thread OpenVINO 2026.4 returns in silence when memory is short
            raise MemoryError("OpenVINO gave no masks, as it does when memory is short")
        return masks


def convert(network: keras.Model) -> OpenVinoNetwork:
    """Convert a network to OpenVINO, in float32 on the CPU; what is written on the way is deleted.

    It has as many threads as `OMP_NUM_THREADS` says, which Dask sets to 1 for its workers; else one a core.
    """
    openvino = _openvino()
    # float32, since the default is bfloat16 where the CPU has it; no pinning, or all workers get the same core.
    how: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    if threads := os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]:
        how["INFERENCE_NUM_THREADS"] = int(threads)
    with tempfile.TemporaryDirectory(prefix="calfin-openvino-") as folder:
        path = Path(folder) / "network.xml"
        network.export(str(path), format="openvino", verbose=False)
        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # a mapped file could not be deleted everywhere
        model = core.read_model(path)
    # Tile by tile is as quick on a CPU as several at once, and with one shape all memory is taken at the first.
    model.reshape([1, *network.input_shape[1:]])
    return OpenVinoNetwork(core.compile_model(model, "CPU", how), network.input_shape)


def _openvino() -> Any:  # noqa: ANN401 - a module
    # OpenVINO would report to Google Analytics that it is imported and what it converts; so it takes its stub for that.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return import_module("openvino")
    except ImportError as error:
        raise ValueError(
            f"the engine openvino needs the extra 'openvino': pip install \"calfin-cloud[openvino]\" where the network "
            f"runs, or use the engine keras ({error})"
        ) from error
