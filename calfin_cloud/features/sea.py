"""Ocean polygon, front and land of one scene in; which pixels are sea, and how far each is from the front, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize, shapes
from shapely.geometry import LineString, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

SHORE_PX = 2
"""Pixels beside land and front show both, and a coast is known no better: they are no open sea."""

LEAST_SEA_PX = 400
"""Less sea than this is none: 20 x 20 px."""


@dataclass(frozen=True)
class Sea:
    """The sea of one scene, all arrays (y, x).

    Attributes
    ----------
    water
        Where there is sea, ice that floats on it included.
    open
        The same without `SHORE_PX` beside land and front.
    front_m
        Distance from the front on the ground in metres, float32, to some 2 %.
    pixel_m
        Side of a pixel on the ground.
    transform
        From pixels to the CRS of the domain.
    """

    water: Bools
    open: Bools
    front_m: Floats
    pixel_m: float
    transform: Affine

    @property
    def pixel_area_m2(self) -> float:
        """Area of a pixel on the ground."""
        return self.pixel_m**2


def sea_of(
    ocean: BaseGeometry | None,
    fronts: Sequence[LineString],
    shape: tuple[int, int],
    transform: Affine,
    *,
    pixel_m: float,
    land: BaseGeometry | None = None,
) -> Sea | None:
    """Find the sea of a scene: its ocean polygon less the land of maps; None where hardly any is left.

    Parameters
    ----------
    ocean
        Ocean polygon of the scene in the CRS of `transform`; None where it has none.
    fronts
        Its fronts, in the same CRS.
    shape
        Rows and columns of the grid.
    pixel_m
        Side of a pixel on the ground.
    land
        Land by the static maps of the place, where there are any.
    """
    if ocean is None or ocean.is_empty or not fronts:
        return None
    water = _burnt([ocean], shape, transform)
    if land is not None and not land.is_empty:
        water &= ~_burnt([land], shape, transform)
    if water.sum() < LEAST_SEA_PX:
        return None
    line = _burnt(fronts, shape, transform, touched=True)
    away = cv2.distanceTransform((~line).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return Sea(water, water & ~grown(~water, SHORE_PX), (away * pixel_m).astype(np.float32), pixel_m, transform)


def outlines(mask: Bools, transform: Affine) -> MultiPolygon | None:
    """Outline the parts of a mask (y, x) along the sides of their pixels; None for an empty one.

    Parts are those that share sides: two that meet at a corner are two.
    """
    if not mask.any():
        return None
    found = shapes(mask.astype(np.uint8), mask=mask, connectivity=4, transform=transform)
    return MultiPolygon([Polygon(rings[0], rings[1:]) for rings in (of["coordinates"] for of, _ in found)])


def labelled(mask: Bools) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give the parts of a mask (y, x) that share sides numbers from 1 on, and count the pixels of each from 0 on."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    return labels, stats[:, cv2.CC_STAT_AREA].astype(np.int64)


def grown(mask: Bools, pixels: int) -> Bools:
    """Widen a mask (y, x) by so many pixels; beyond the border there is nothing of it."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1,) * 2)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


def _burnt(
    geometries: Sequence[BaseGeometry], shape_: tuple[int, int], transform: Affine, *, touched: bool = False
) -> Bools:
    there = [g for g in geometries if not g.is_empty]
    if not there:
        return np.zeros(shape_, dtype=bool)
    burnt = rasterize(there, out_shape=shape_, transform=transform, all_touched=touched, dtype="uint8")
    return np.asarray(burnt > 0)
