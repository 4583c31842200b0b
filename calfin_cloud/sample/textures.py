"""Textures of synthetic scenes: the same at the same map coordinates, whatever the grid."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

Floats = NDArray[np.float32]
Points = NDArray[Any]  # floats; scipy gives float32, coordinates are float64

TEXTURE_PX = 1024
ROUGHNESS = {"smooth": 2.2, "cloud": 1.6, "rough": 1.0, "fine": 0.4}
"""Textures by the exponent of their amplitude spectrum, 1 / frequency ** exponent."""


@lru_cache(maxsize=8)
def texture(name: str) -> Floats:
    """Periodic fractal noise of mean 0 and standard deviation 1, (TEXTURE_PX, TEXTURE_PX)."""
    rng = np.random.default_rng(sorted(ROUGHNESS).index(name))
    frequency = np.hypot(np.fft.fftfreq(TEXTURE_PX)[:, None], np.fft.rfftfreq(TEXTURE_PX))
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((TEXTURE_PX, TEXTURE_PX)))
    noise = np.fft.irfft2(white / frequency ** ROUGHNESS[name])
    return np.asarray(noise / noise.std(), dtype=np.float32)


@lru_cache(maxsize=1)
def floes() -> tuple[Floats, Floats]:
    """Periodic Voronoi cells: a random number 0 to 1 for each cell, and the distance to its border (texture pixels)."""
    rng = np.random.default_rng(7)
    points = rng.uniform(0, TEXTURE_PX, (6000, 2))
    rows, columns = np.mgrid[:TEXTURE_PX, :TEXTURE_PX]
    distance, cell = cKDTree(points, boxsize=TEXTURE_PX).query(np.column_stack([rows.ravel(), columns.ravel()]), k=2)
    border = (distance[:, 1] - distance[:, 0]).reshape(rows.shape)
    return rng.uniform(size=6000)[cell[:, 0]].reshape(rows.shape).astype(np.float32), border.astype(np.float32)


def cut_from(table: Floats, x: Points, y: Points, step: tuple[float, float], at: float, order: int = 1) -> Floats:
    """Cut from a texture of which one pixel is `step` (x, y) metres, shifted by `at` pixels."""
    places = [y / step[1] + 2.3 * at, x / step[0] + at]
    return np.asarray(map_coordinates(table, places, order=order, mode="grid-wrap", output=np.float32))


def texture_at(name: str, x: Points, y: Points, step_m: float, at: float) -> Floats:
    """Fractal noise of mean 0 and standard deviation 1 at map coordinates; `name` is of `ROUGHNESS`."""
    return cut_from(texture(name), x, y, (step_m, step_m), at)


def curve(at: Points, row: int) -> Points:
    """Noise of rounded bays with ragged edges, along one row of the textures; standard deviation about 1."""
    bays, ragged = (texture(name)[row] for name in ("smooth", "cloud"))
    values = (bays - bays.mean()) / bays.std() + 0.16 * ragged
    return np.asarray(np.interp(at, np.arange(TEXTURE_PX), values, period=TEXTURE_PX))
