"""Contours as ISSM reads them (`.exp`, the Argus format of its `expread`)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry


def exp_text(contours: Iterable[tuple[str, BaseGeometry]]) -> str:
    """Text of an `.exp` file: a contour for each part of each named line or polygon, coordinates in the map's metres.

    A closed contour repeats its first point; of a polygon the outer ring and the holes are contours of their own.
    """
    return "\n".join(_contour(name, line) for name, shape in contours for line in _lines_of(shape))


def _lines_of(shape: BaseGeometry) -> Iterable[BaseGeometry]:
    for part in shapely.get_parts(shape):
        yield from shapely.get_parts(part.boundary) if part.geom_type == "Polygon" else [part]


def _contour(name: str, line: BaseGeometry) -> str:
    points = shapely.get_coordinates(line)
    rows = "\n".join(f"{x:.10g} {y:.10g}" for x, y in np.asarray(points))
    head = (
        f"## Name:{' '.join(name.split())}\n## Icon:0\n# Points Count  Value\n{len(points)} 1.000000\n# X pos Y pos\n"
    )
    return f"{head}{rows}\n"
