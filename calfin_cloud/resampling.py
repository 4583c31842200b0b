"""Images to another size, gradients, distances, parts, polygons on pixels, smooth lines: what all rooms do alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from shapely.geometry.base import BaseGeometry

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


def mirrored(picture: NDArray[Any]) -> NDArray[Any]:
    """Mirror a picture (y, x, c) at its lower or right border to a square.

    Examples
    --------
    >>> mirrored(np.array([[[1], [2]]]))[..., 0].tolist()
    [[1, 2], [1, 2]]
    """
    missing = [(0, max(picture.shape[:2]) - n) for n in picture.shape[:2]]
    return np.pad(picture, [*missing, (0, 0)], mode="symmetric")


def unmirrored(masks: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Stretch the part of masks (y, x, ...) that shows the picture of `shape` (y, x) which `mirrored` made square."""
    side = max(shape[:2])
    if shape[0] == shape[1]:
        return masks
    return resize(resize(masks, (side, side))[: shape[0], : shape[1]], masks.shape[:2])


def gaussian_gradient(
    image: NDArray[np.floating], sigma_px: float, *, border: int = cv2.BORDER_REPLICATE
) -> NDArray[np.float64]:
    """Gradient (2, y, x) along rows and columns of an image (y, x), seen through a Gaussian; the border is repeated.

    That of `scipy.ndimage.gaussian_filter(image, sigma, order=1, mode="nearest")` to rounding, five times as fast; with
    `cv2.BORDER_REFLECT` that of its default mode.
    """
    smooth = _gaussian(sigma_px)
    reach = len(smooth) // 2
    slope = smooth * np.arange(-reach, reach + 1) / sigma_px**2
    return np.stack([_filtered(image, *pair, border) for pair in ((slope, smooth), (smooth, slope))])


def gaussian_mean(image: NDArray[np.floating], sigma_px: float) -> NDArray[np.float64]:
    """Image (y, x) seen through a Gaussian, mirrored at its border: `scipy.ndimage.gaussian_filter` to rounding.

    Examples
    --------
    >>> gaussian_mean(np.array([[0.0, 0.0, 3.0, 0.0, 0.0]]), 0.5).round(2).tolist()
    [[0.0, 0.32, 2.36, 0.32, 0.0]]
    """
    return _filtered(image, _gaussian(sigma_px), _gaussian(sigma_px), cv2.BORDER_REFLECT)


def _filtered(
    image: NDArray[np.floating], along_y: NDArray[np.float64], along_x: NDArray[np.float64], border: int
) -> NDArray[np.float64]:
    image = np.ascontiguousarray(image, dtype=np.float64)
    return np.asarray(cv2.sepFilter2D(image, cv2.CV_64F, along_x, along_y, borderType=border))


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


def border_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel of a mask (y, x) to the nearest one outside, beyond the border of the image included.

    Examples
    --------
    >>> border_distance(np.ones((3, 4), dtype=bool)).tolist()
    [[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    if not mask.all():
        return distance_inside(np.pad(mask, 1))[1:-1, 1:-1]
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]).astype(np.float32) + 1 for n in mask.shape)
    return np.asarray(np.minimum.outer(rows, columns))


def touched_parts(mask: NDArray[np.bool_], by: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the connected parts of a mask (y, x) that have a pixel in common with another. Corners do not connect.

    Examples
    --------
    >>> touched_parts(np.array([[1, 1, 0, 1]], bool), np.array([[1, 0, 0, 0]], bool)).tolist()
    [[True, True, False, False]]
    """
    n, numbers = cv2.connectedComponents(np.ascontiguousarray(mask).view(np.uint8), connectivity=4)
    is_touched = np.zeros(n, dtype=bool)
    is_touched[numbers[by]] = True
    is_touched[0] = False
    return np.asarray(is_touched.take(numbers))


def burn(
    polygons: Sequence[BaseGeometry] | NDArray[np.object_], values: ArrayLike, shape: tuple[int, ...]
) -> NDArray[np.int32]:
    """Sum of the values (n,) of those polygons (n,) in pixels that hold the centre of each pixel, (y, x) int32.

    The first pixel reaches from 0 to 1. GDAL's pixels but for borders that run along centres, which are those of one
    side only. `rasterio.features.rasterize` asks every vertex for every row: a scene then costs a sixth more
    (`tests/benchmarks/steps.py`).

    Examples
    --------
    >>> burn([shapely.box(0, 0, 2, 1), shapely.box(1, 0, 3, 1)], [1, 2], (1, 3)).tolist()
    [[1, 3, 2]]
    """
    height, width = shape[:2]
    parts, of_polygon = shapely.get_parts(np.asarray(polygons, dtype=object), return_index=True)
    rings, of_part = shapely.get_rings(shapely.orient_polygons(parts), return_index=True)
    vertices, of_ring = shapely.get_coordinates(rings, return_index=True)
    is_edge = of_ring[1:] == of_ring[:-1]
    start, end = vertices[:-1][is_edge], vertices[1:][is_edge]
    # Going round with the inside on one side, a row enters a polygon at edges that go up, and leaves it at others.
    way = np.sign(start[:, 1] - end[:, 1]).astype(np.int32)
    value = way * np.asarray(values, dtype=np.int32)[of_polygon[of_part[of_ring[:-1][is_edge]]]]
    is_up = (way > 0)[:, None]
    low, high = np.where(is_up, end, start), np.where(is_up, start, end)
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.intp) for y in (low[:, 1], high[:, 1]))
    n_rows = last - first
    edge = np.repeat(np.arange(len(low)), n_rows)
    row = np.arange(len(edge)) + np.repeat(first - np.cumsum(n_rows) + n_rows, n_rows)
    (x, y), (dx, dy) = low[edge].T, (high - low)[edge].T
    column = np.clip(np.floor((row + 0.5 - y) * dx / dy + x + 0.5), 0, width).astype(np.intp)
    steps = np.zeros((height, width + 1), dtype=np.int32)
    np.add.at(steps, (row, column), value[edge])
    return steps.cumsum(axis=1, dtype=np.int32)[:, :width]


def smooth_line(line: NDArray[np.float64], window: int, *, is_closed: bool = False) -> NDArray[np.float64]:
    """Smooth vertices (n, 2) by a Savitzky-Golay filter of order 3: at each, the cubic of the `window` around it.

    `window` is more than 3, and odd for an open line; a line of fewer vertices stays as it is. An open line ends as the
    cubics of its first and last windows do; a closed line, whose last vertex is not its first, goes round. That of
    `scipy.signal.savgol_filter` to rounding; scipy.signal takes half a second to import.

    Examples
    --------
    >>> cubic = np.arange(8.0)[:, None] ** [1, 3]
    >>> np.allclose(smooth_line(cubic, 5), cubic)
    True
    """
    if not len(line) >= window > 3:
        return line
    before, after = (window - 1) // 2, window // 2
    powers = np.vander(np.arange(window) - (window - 1) / 2, 4)
    cubics = np.linalg.pinv(powers)  # of `window` vertices
    longer = np.concatenate([line[-before:], line, line[:after]]) if is_closed else line
    smooth = sliding_window_view(longer, window, axis=0) @ cubics[-1]
    if is_closed:
        return np.asarray(smooth)
    first, last = (powers @ (cubics @ line[part]) for part in (slice(window), slice(-window, None)))
    return np.concatenate([first[:before], smooth, last[-after:]])


def _blurred(image: NDArray[Any], factors: tuple[float, ...]) -> NDArray[Any]:
    kernels = [_gaussian(max(0.0, (factor - 1) / 2)) for factor in factors]
    if all(len(kernel) == 1 for kernel in kernels):
        return image
    return np.asarray(cv2.sepFilter2D(image, -1, kernels[1], kernels[0], borderType=cv2.BORDER_REFLECT_101))


def _gaussian(sigma: float) -> NDArray[np.float64]:
    reach = math.floor(TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2) if reach else np.ones(1)
    return np.asarray(weights / weights.sum())
