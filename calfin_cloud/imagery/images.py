"""A plain image on disk in; its grey levels (y, x) out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from calfin_cloud.imagery.files import LOWEST, opened
from calfin_cloud.schema import SceneError

SMALLEST_IMAGE_PX = 64
MOST_IMAGE_PIXELS = 2**26
"""A Landsat scene of 7,800 x 7,800 px; an image is held whole, as 8 bytes a pixel."""


def read_image(path: str | Path) -> NDArray[np.float32]:
    """Read a plain image of 8 or 16 bit, grey or RGB(A), as grey (y, x) float32: the mean of its colours.

    NaN where the alpha channel is 0, the file says nodata, or a value is the lowest that float32 has.

    Raises
    ------
    SceneError
        `unreadable` for what is no PNG, GeoTIFF or JPEG 2000, for a broken one, for complex numbers or such as float32
        does not hold, for sides under 64 px and for more than 67 million pixels; `refused_address` for a file that
        refers to others.
    """
    try:
        with opened(path) as file:
            _check_size(path, file)
            colours = [i for i, c in zip(file.indexes, file.colorinterp, strict=True) if c != ColorInterp.alpha]
            pixels = file.read(colours)
            if file.colorinterp[0] == ColorInterp.palette:
                pixels = _colours_of(file)[:, pixels[0]]
            missing = (file.dataset_mask() == 0) | (pixels == LOWEST).any(axis=0)
    except rasterio.RasterioIOError as error:
        raise SceneError("unreadable", f"cannot read {path}: {error}; expected a PNG or a GeoTIFF") from None
    grey = pixels.mean(axis=0, dtype=np.float64)
    grey[missing | ~np.isfinite(grey)] = np.nan
    if np.abs(grey).max(initial=0.0, where=~np.isnan(grey)) > np.finfo(np.float32).max:
        raise SceneError("unreadable", f"{path} has numbers beyond float32: scale it with gdal_translate -scale")
    small: NDArray[np.float32] = grey.astype(np.float32)
    return small


def _colours_of(file: rasterio.DatasetReader) -> NDArray[np.uint8]:
    """Colours (3, n) of a file whose pixels are numbers of colours."""
    table = np.zeros((3, np.iinfo(file.dtypes[0]).max + 1), dtype=np.uint8)
    for number, colour in file.colormap(1).items():
        table[:, number] = colour[:3]
    return table


def _check_size(path: str | Path, file: rasterio.DatasetReader) -> None:
    """Look at the head of the file, before any memory is taken for its pixels."""
    real = all(not dtype.startswith("complex") for dtype in file.dtypes)
    if not real or min(file.shape) < SMALLEST_IMAGE_PX or file.width * file.height * file.count > 4 * MOST_IMAGE_PIXELS:
        got = f"{file.width} x {file.height} pixels of {file.count} x {file.dtypes[0]}"
        raise SceneError(
            "unreadable",
            f"{path} has {got}, expected real numbers, {SMALLEST_IMAGE_PX} px a side or more and at most "
            f"{MOST_IMAGE_PIXELS} pixels of four colours",
        )
