"""An image goes in, overlapping tiles come out; predicted tiles go in, their mean comes out. Pure NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TILE_SIZE, STRIDE = 224, 16
"""Side of a tile and step between tiles in px (Cheng et al. 2021); 256 px give nine tiles."""

SMALLEST_IMAGE = 64
"""Side in px below which a scene shows too little to be mirrored up to a tile."""


def cut_tiles(
    image: NDArray[np.float32], *, size: int = TILE_SIZE, stride: int = STRIDE
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Cut an image (y, x, c) into overlapping square tiles that cover every pixel.

    Tiles lie `stride` px apart, the last of a row or column at its end. An image smaller than a tile is mirrored at its
    lower and right border.

    Returns
    -------
    tiles
        (n, size, size, c), row by row.
    offsets
        (n, 2) first row and column of each tile. For 256 px: {0, 16, 32} x {0, 16, 32} (Cheng et al. 2021).

    Examples
    --------
    >>> tiles, offsets = cut_tiles(np.zeros((256, 256, 3), np.float32))
    >>> tiles.shape, offsets[:4].tolist()
    ((9, 224, 224, 3), [[0, 0], [0, 16], [0, 32], [16, 0]])
    """
    if image.ndim != 3 or min(image.shape[:2]) < SMALLEST_IMAGE:
        raise ValueError(
            f"image must be (y, x, c) with sides of at least {SMALLEST_IMAGE} px, got {image.shape}: resize it first"
        )
    if size < 1 or not 1 <= stride <= size:
        raise ValueError(f"stride must lie in 1..size, got stride {stride} and size {size}: larger steps leave gaps")
    missing = [(0, max(0, size - n)) for n in image.shape[:2]]
    padded = np.pad(image, [*missing, (0, 0)], mode="symmetric")
    rows, columns = (_starts(n, size, stride) for n in padded.shape[:2])
    offsets = np.array([(r, c) for r in rows for c in columns], dtype=np.intp)
    return np.stack([padded[r : r + size, c : c + size] for r, c in offsets]), offsets


def blend_tiles(tiles: NDArray[np.float32], offsets: NDArray[np.intp], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Average overlapping tiles (n, size, size, c) with equal weights to an image (y, x, c) of `shape` (y, x)."""
    if len(tiles) != len(offsets) or len(tiles) == 0:
        raise ValueError(
            f"got {len(tiles)} tiles and {len(offsets)} offsets, expected as many of both: pass what cut_tiles returned"
        )
    size = tiles.shape[1]
    extent = np.maximum(np.max(offsets, axis=0) + size, shape)
    total = np.zeros((*extent, tiles.shape[-1]), np.float64)
    count = np.zeros((*extent, 1), np.int64)
    for tile, (r, c) in zip(tiles, offsets, strict=True):
        total[r : r + size, c : c + size] += tile
        count[r : r + size, c : c + size] += 1
    total, count = total[: shape[0], : shape[1]], count[: shape[0], : shape[1]]
    if not count.all():
        raise ValueError(
            f"{int((count == 0).sum())} pixels of {shape} lie in no tile: shape and offsets belong to different images"
        )
    return (total / count).astype(np.float32)


def _starts(n: int, size: int, stride: int) -> list[int]:
    """First pixels of tiles along an axis of `n` px."""
    starts = list(range(0, n - size + 1, stride))
    return starts if starts[-1] == n - size else [*starts, n - size]
