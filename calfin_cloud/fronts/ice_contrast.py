"""The ice mask beside an edge: a front has ice on one side and none on the other."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates

from calfin_cloud.fronts.lines import scale_of
from calfin_cloud.resampling import gaussian_gradient


class IceStep(NamedTuple):
    """How steeply the ice mask falls, and in which direction.

    `gradient`: (2, y, x) along rows and columns, on pixels of `factor` image pixels a side; its length is 1 at the
    edge of a mask that falls straight from 1 to 0.
    """

    gradient: NDArray[np.float64]
    factor: int


def ice_step(ice: NDArray[np.floating], width_px: float) -> IceStep:
    """Measure the step of an ice mask (y, x) at every pixel, seen through a Gaussian of so many px of a 256 px frame.

    The network's ice mask is blurred by tens of pixels where its edge is sharp: a narrow window would see no step.
    Missing pixels (NaN) take the value of the nearest one with data.
    """
    scale = scale_of(ice.shape)
    factor = max(1, int(scale))
    missing = np.isnan(ice)
    coarse = _block_means(np.where(missing, 0.0, ice), factor)
    known = _block_means(1.0 - missing, factor) if missing.any() else np.ones_like(coarse)
    if not known.any():
        return IceStep(np.zeros((2, *known.shape)), factor)
    if not known.all():
        nearest = distance_transform_edt(known == 0, return_distances=False, return_indices=True)
        coarse = (coarse / np.maximum(known, 1e-9))[tuple(nearest)]
    sigma = width_px * scale / factor
    return IceStep(gaussian_gradient(coarse, sigma) * sigma * np.sqrt(2 * np.pi), factor)


def step_at(step: IceStep, points: NDArray[np.floating] | NDArray[np.intp]) -> NDArray[np.float64]:
    """Step (n, 2) along rows and columns at points (n, 2) row, column of the image."""
    at = (np.asarray(points, dtype=float).T + 0.5) / step.factor - 0.5
    return np.column_stack([map_coordinates(axis, at, order=1, mode="nearest") for axis in step.gradient])


def contrast_along(step: IceStep, line: NDArray[np.floating]) -> float:
    """Mean step of the ice mask from one side of a line (n, 2) row, column to the other, 0 to 1."""
    if len(line) < 2:
        return 0.0
    along = np.gradient(np.asarray(line, dtype=float), axis=0)
    across = np.column_stack([-along[:, 1], along[:, 0]]) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    return float(abs((step_at(step, line) * across).sum(axis=1).mean()))


def _block_means(image: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Mean of each block of `factor` pixels a side; the last row and column are repeated up to a whole block."""
    if factor == 1:
        return image
    whole = np.pad(image, [(0, -n % factor) for n in image.shape], mode="edge")
    rows, columns = (n // factor for n in whole.shape)
    return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA))
