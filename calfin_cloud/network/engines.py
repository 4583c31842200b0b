"""Pictures go in, masks come out, by OpenVINO: quicker on a CPU than Keras, equal up to rounding, there at once."""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.network.files import checked_openvino_file
from calfin_cloud.network.settings import LEVELS, PICTURE_SIZE, Cut
from calfin_cloud.network.threads import threads_here

# OpenVINO would report to Google Analytics that it is imported and what it converts; so it takes its stub for that.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
openvino = import_module("openvino")


class OpenVinoPictures:
    """A network that OpenVINO runs tile by tile, in several threads at once.

    Each tile goes through together with its transpose. More at once are no quicker on a CPU, and take more memory.
    """

    at_once = 1

    def __init__(self, model: Any, cut: Cut) -> None:  # noqa: ANN401 - a model of OpenVINO
        self.compiled, self.cut = compile_model(_with_views(model, cut)), cut
        self.masks = int(self.compiled.output(0).shape[-1])
        counts = np.zeros((PICTURE_SIZE, PICTURE_SIZE, 1), np.float32)
        for row, column in cut.offsets:
            counts[row : row + cut.size, column : column + cut.size] += 1
        self._share = 1 / counts
        self._of_thread = threading.local()

    def predict(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Predict masks (n, 256, 256, mask) in `LEVELS` of pictures (n, 256, 256, 3), both uint8."""
        masks = np.empty((*pictures.shape[:3], self.masks), np.uint8)
        for picture, of_picture in zip(pictures, masks, strict=True):
            of_picture[:] = self._blend(picture)
        return masks

    def _blend(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Average the masks of overlapping tiles with equal weights, in whole `LEVELS`."""
        total = np.zeros((PICTURE_SIZE, PICTURE_SIZE, self.masks), np.float32)
        for row, column in self.cut.offsets:
            window = np.s_[row : row + self.cut.size, column : column + self.cut.size]
            total[window] += self._predict(picture[window])
        total *= self._share
        return np.rint(total, out=total)

    def _predict(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predict one tile (y, x, 3), in `LEVELS`; the result is good until the next one of this thread."""
        if not hasattr(self._of_thread, "request"):  # buffers that are used again
            self._of_thread.request = self.compiled.create_infer_request()
        request = self._of_thread.request
        request.get_output_tensor(0).data[:] = np.nan
        request.infer([np.ascontiguousarray(tile)[None]], share_inputs=True)
        masks: NDArray[np.float32] = request.get_output_tensor(0).data[0]
        if np.isnan(masks[0]).all():  # with one thread OpenVINO 2026.4 returns in silence when memory is short
            raise MemoryError("OpenVINO gave no masks, as it does when memory is short")
        return masks


def read_model(path: Path, *, is_kept: bool = True) -> Any:  # noqa: ANN401 - a model of OpenVINO
    """Read a model; one whose file is not kept is read into memory, since a mapped file cannot be deleted everywhere.

    Constants are mapped from a kept file until the model is compiled.
    """
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": is_kept})
    return core.read_model(str(path))


def read_openvino(name_or_path: str | Path, size: int, *, eight_bit: bool = False) -> Any:  # noqa: ANN401
    """Read the network of weights that come with a file for OpenVINO and a side of input in px."""
    return read_model(checked_openvino_file(name_or_path, size, eight_bit=eight_bit))


def compile_model(model: Any) -> Any:  # noqa: ANN401
    """Compile a model for the CPU, in float32.

    It has the threads of the worker, see `threads_here`; else one a core.
    """
    # float32, since the default is bfloat16 where the CPU has it; no pinning, or all workers get the same core.
    how: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    if threads := threads_here():
        how["INFERENCE_NUM_THREADS"] = threads
    return openvino.Core().compile_model(model, "CPU", how)


def _with_views(model: Any, cut: Cut) -> Any:  # noqa: ANN401
    """Put a network of tiles into a graph (1, y, x, 3) uint8 -> (1, y, x, mask) float32 in `LEVELS`.

    The tile becomes -1..1, and its masks are averaged with those of its transpose.
    """
    ops = openvino.opset13
    tile = ops.parameter([1, cut.size, cut.size, 3], np.uint8, name="tile")
    swap = ops.constant([0, 2, 1, 3])
    shown = ops.subtract(ops.divide(ops.convert(tile, "f32"), np.float32(127.5)), np.float32(1))
    views = ops.concat([shown, ops.transpose(shown, swap)], axis=0) if cut.transposed else shown
    for use in model.input(0).get_target_inputs():
        use.replace_source_output(views.output(0))
    masks = model.output(0).get_node().input_value(0)
    if cut.transposed:
        first, second = ops.split(masks, ops.constant(0), 2).outputs()
        masks = ops.multiply(ops.add(first, ops.transpose(second, swap)), np.float32(0.5))
    return openvino.Model([ops.result(ops.multiply(masks, np.float32(LEVELS)))], [tile])
