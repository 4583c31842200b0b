"""The ice mask beside an edge: a front has ice on one side and none on the other."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates

from calfin_cloud.fronts.lines import normals_of, scale_of
from calfin_cloud.resampling import TRUNCATE, gaussian_gradient


class IceStep(NamedTuple):
    """How steeply the ice mask falls, and in which direction.

    `gradient`: (2, y, x) along rows and columns, on pixels of `factor` image pixels a side, from the `corner` (row,
    column) on; its length is 1 at the edge of a mask that falls straight from 1 to 0.
    """

    gradient: NDArray[np.float64]
    factor: int
    corner: tuple[int, int] = (0, 0)


def ice_step(ice: NDArray[np.floating], width_px: float, *, around: NDArray[np.floating] | None = None) -> IceStep:
    """Measure the step of an ice mask (y, x) at every pixel, seen through a Gaussian of so many px of a 256 px frame.

    The network's ice mask is blurred by tens of pixels where its edge is sharp: a narrow window would see no step.
    Missing pixels (NaN) take the value of the nearest one with data. With points `around` (n, 2) row, column of the
    image the step is measured where these need it only, to the same values.
    """
    scale = scale_of(ice.shape)
    factor = max(1, int(scale))
    missing = np.isnan(ice)
    if missing.all():
        return IceStep(np.zeros((2, *(-(-n // factor) for n in ice.shape))), factor)
    coarse = _block_means(np.where(missing, 0.0, ice), factor)
    known = _block_means(1.0 - missing, factor) if missing.any() else np.ones(1)
    if not known.all():
        nearest = distance_transform_edt(known == 0, return_distances=False, return_indices=True)
        coarse = (coarse / np.maximum(known, 1e-9))[tuple(nearest)]
    sigma = width_px * scale / factor
    part, corner = _part_around(coarse, around, factor, sigma) if around is not None else (coarse, (0, 0))
    return IceStep(gaussian_gradient(part, sigma) * sigma * np.sqrt(2 * np.pi), factor, corner)


def step_at(step: IceStep, points: NDArray[np.floating] | NDArray[np.intp]) -> NDArray[np.float64]:
    """Step (n, 2) along rows and columns at points (n, 2) row, column of the image."""
    at = (np.asarray(points, dtype=float).T + 0.5) / step.factor - 0.5 - np.array(step.corner)[:, None]
    return np.column_stack([map_coordinates(axis, at, order=1, mode="nearest") for axis in step.gradient])


def contrast_along(step: IceStep, line: NDArray[np.floating]) -> float:
    """Mean step of the ice mask from one side of a line (n, 2) row, column to the other, 0 to 1."""
    if len(line) < 2:
        return 0.0
    return float(abs((step_at(step, line) * normals_of(line)).sum(axis=1).mean()))


def _part_around(
    coarse: NDArray[np.float64], points: NDArray[np.floating], factor: int, sigma: float
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Part of an image that points of the finer one see through a Gaussian, and its first row and column."""
    reach = int(TRUNCATE * sigma) + 3  # and the pixels between which a point lies
    first = np.maximum(np.floor(points.min(axis=0) / factor).astype(int) - reach, 0)
    last = np.maximum(np.ceil(points.max(axis=0) / factor).astype(int) + reach, 0)
    top, left = (int(v) for v in np.minimum(first, np.array(coarse.shape) - 1))
    return coarse[top : last[0] + 1, left : last[1] + 1], (top, left)


def _block_means(image: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Mean of each block of `factor` pixels a side; the last row and column are repeated up to a whole block."""
    if factor == 1:
        return image
    whole = np.pad(image, [(0, -n % factor) for n in image.shape], mode="edge")
    rows, columns = (n // factor for n in whole.shape)
    return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA))
