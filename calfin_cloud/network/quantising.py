"""Files of OpenVINO that multiply in numbers of 8 bits, made of those that multiply in float32 and of real pictures."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.network.engines import openvino, read_openvino
from calfin_cloud.network.files import form_of, has_openvino, hashes_of, openvino_file, openvino_note, weights_path
from calfin_cloud.network.settings import PICTURE_SIZE
from calfin_cloud.whole_files import read_json, whole_file, write_json


def save_eight_bit(name_or_path: str | Path, pictures: NDArray[np.uint8]) -> Path:
    """Write the eight-bit file for OpenVINO of weights, for pictures shown whole; return the path of its `.xml`.

    Activations become numbers of 8 bits after training, weights of 7, by NNCF: with 8, sums overflow on CPUs without
    VNNI. The pictures tell how large activations get, so they must be of training glaciers, and of all kinds of
    sensors. Masks are no longer those of float32; what that does to fronts is for
    `calfin evaluate --variant fast` to say. The note beside the weights gets the hashes.

    Parameters
    ----------
    name_or_path
        Weights that come with a file for OpenVINO and the whole picture, see `save_openvino`.
    pictures
        (n, 256, 256, 3) uint8, as the network sees them; some 300 are enough.

    Returns
    -------
    Path
        File for `InferenceSettings(eight_bit=True)`.

    Raises
    ------
    ValueError
        For weights without a file for OpenVINO and the whole picture, and for pictures of another shape or type.
    ImportError
        NNCF is not installed.

    Examples
    --------
    >>> save_eight_bit("glacier.weights.h5", pictures)  # doctest: +SKIP
    PosixPath('glacier-256-int8.xml')
    """
    expected = (PICTURE_SIZE, PICTURE_SIZE, 3)
    if not len(pictures) or pictures.shape[1:] != expected or pictures.dtype != np.uint8:
        raise ValueError(f"pictures must be (n, *{expected}) uint8, n > 0, got {pictures.shape} {pictures.dtype}")
    if not has_openvino(name_or_path, PICTURE_SIZE):
        raise ValueError(f"{name_or_path} has no file for OpenVINO and whole pictures: make it by save_openvino")
    path = weights_path(name_or_path)
    model = read_openvino(name_or_path, PICTURE_SIZE)
    model.reshape([1, *expected])
    quantised = _quantised(model, pictures)
    quantised.reshape([-1, *expected])
    file = openvino_file(path, PICTURE_SIZE, eight_bit=True)
    with whole_file(file) as unfinished:
        openvino.save_model(quantised, str(unfinished), compress_to_fp16=False)
    about = read_json(openvino_note(path))
    about["files"][form_of(PICTURE_SIZE, eight_bit=True)] = hashes_of(file)
    write_json(openvino_note(path), about)
    return file


def _quantised(model: Any, pictures: NDArray[np.uint8]) -> Any:  # noqa: ANN401 - models of OpenVINO
    try:
        nncf = import_module("nncf")
    except ImportError as error:
        raise ImportError(
            f'eight-bit files are made by NNCF, which is missing: pip install "nncf" ({error})'
        ) from error
    shown = nncf.Dataset(list(pictures), lambda picture: picture[None].astype(np.float32) / 127.5 - 1)
    # Weights keep to half of their range: CPUs without VNNI add pairs of products in 16 bits, which would be too few.
    more = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    # Mixed: activations that are never negative use all 256 steps for what is.
    preset = nncf.QuantizationPreset.MIXED
    return nncf.quantize(model, shown, preset=preset, subset_size=len(pictures), advanced_parameters=more)
