"""Fronts of one scene and its fjord in; closed ocean and ice polygons out (calfin-method 7). Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy.ndimage import binary_fill_holes
from shapely.affinity import affine_transform
from shapely.geometry import GeometryCollection, LineString, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry
from skimage.measure import find_contours

from calfin_cloud.resampling import burn, smooth_line

GRID_PX = 1e-4  # lines are cut at each other on this grid, so that an end on a wall meets it in spite of rounding


@dataclass(frozen=True)
class PolygonSettings:
    """What closes a front and what counts as ocean; the defaults are the released constants (calfin-method 7).

    Attributes
    ----------
    edge_preference
        An end goes to the edge of the image where that is so many times nearer than the nearest wall, else to the wall.
    max_gap
        Longest way from the end of a front to a wall or an edge, as a share of the grid's mean side.
    min_share_of_grid, min_share_of_largest
        Least area of a part of the fjord that may be ocean by `ice_evidence`.
    ice_evidence
        Mean ice probability of a part of the fjord from which it is ice; below, it is ocean.
    small_ice_evidence
        The same for smaller parts, such as the slivers between a front and a wall; 0 makes all of them ice, as the
        original does.
    median_px
        Window of the median that cleans the walls.
    min_vertices
        Contours of the walls with no more vertices than these are left out.
    smooth_vertices
        Window of the Savitzky-Golay filter of order 3 along the walls.
    """

    edge_preference: float = 1.5
    max_gap: float = 0.15
    min_share_of_grid: float = 0.025
    min_share_of_largest: float = 0.01
    ice_evidence: float = 224 / 255
    small_ice_evidence: float = 0.5
    median_px: int = 3
    min_vertices: int = 10
    smooth_vertices: int = 9


@dataclass(frozen=True)
class Polygons:
    """Ocean and ice of one scene in the CRS of its grid; they are valid and share the fronts as their border.

    Islands are holes. Without polygons both are None and `reason` is one of `schema.POLYGON_REASONS`; `detail` has the
    measured values, or tells which fronts were left out of polygons that were made.
    """

    ocean: MultiPolygon | None
    ice: MultiPolygon | None
    reason: str = ""
    detail: str = ""


class _Banks(NamedTuple):
    """What closes a front, in pixels; areas, so that an end within one is no way from it."""

    walls: BaseGeometry
    edge: BaseGeometry


class _Closed(NamedTuple):
    """Lines in pixels that cut the fjord (fronts and the ways from their ends), fronts left out, and what they lack."""

    cuts: list[LineString]
    left_out: list[LineString]
    too_far: str


def close_polygons(
    lines: Sequence[LineString],
    ice: NDArray[np.floating],
    grid: GeoBox,
    *,
    fjord_mask: NDArray[np.bool_] | None,
    settings: PolygonSettings | None = None,
) -> Polygons:
    """Cut the fjord along all fronts of one scene into ocean and ice.

    The ends of the fronts are led to the nearest wall or edge of the image and the fjord is cut along them; parts whose
    mean ice probability is high are ice, the others ocean (calfin-method 7). The original burns the fronts into a
    raster and loses half a pixel on either side; here the cut is the front itself. A front whose end is too far away is
    left out, as in the original, but not where that turns the ice behind it into ocean: the scene is then rejected.

    Parameters
    ----------
    lines
        Fronts in the CRS of the grid.
    ice
        (y, x) probability of ice or land; NaN = missing, which bears no evidence.
    grid
        The scene's grid.
    fjord_mask
        (y, x) bool, True where a front may lie. None: wherever the scene has data, gaps amid the data included; the
        edge of the data is then the edge of the image, and there are no walls.
    settings
        What closes a front and counts as ocean; those of the release where not given.

    Returns
    -------
    Polygons
        `ocean` and `ice` in the CRS of the grid, or None of both and a `reason`.

    Raises
    ------
    ValueError
        A line is none, or ice, grid and fjord mask differ in shape.

    Examples
    --------
    >>> ice = np.repeat([[1.0] * 128 + [0.0] * 128], 256, axis=0)  # ice in the western half
    >>> grid = cc.box_grid((0, 0, 7680, 7680), "EPSG:3413")
    >>> closed = cc.close_polygons([LineString([(3840, 0), (3840, 7680)])], ice, grid, fjord_mask=None)
    >>> round(closed.ocean.area / 7680**2, 2)
    0.5
    """
    settings = settings or PolygonSettings()
    _check(lines, ice, grid, fjord_mask)
    fjord = outline_fjord(_with_data(ice) if fjord_mask is None else fjord_mask, settings)
    in_pixels = [_moved(line, ~grid.transform) for line in lines]
    banks = _find_banks(fjord, ice.shape, has_walls=fjord_mask is not None)
    cuts, left_out, too_far = _close_fronts(in_pixels, banks, ice.shape, settings)
    if not cuts:
        return _rejected("front_not_closed" if left_out else "no_front", too_far)
    return _sorted_by_evidence(_cut(fjord, cuts), ice, grid, left_out, too_far, settings)


def _sorted_by_evidence(
    parts: NDArray[np.object_],
    ice: NDArray[np.floating],
    grid: GeoBox,
    left_out: Sequence[LineString],
    too_far: str,
    settings: PolygonSettings,
) -> Polygons:
    """Tell the parts of a fjord that are ocean from those that are ice, by the ice mask within them."""
    evidence = mean_evidence(parts, ice)
    is_large = _are_large(parts, ice.size, settings)
    limit = np.where(is_large, settings.ice_evidence, settings.small_ice_evidence)
    is_ocean, is_ice = evidence < limit, evidence >= limit  # both are False where no pixel has data
    measured = _describe(evidence[is_large], settings)
    if not (is_ocean & is_large).any():
        return _rejected("no_ocean", measured)
    if not is_ice.any() or evidence[is_ice].max() <= evidence[is_ocean & is_large].max():
        return _rejected("no_ice", measured)
    if any(line.intersection(shapely.union_all(parts[is_ocean])).length > line.length / 2 for line in left_out):
        return _rejected("front_not_closed", f"{too_far}; the ice behind would count as ocean")
    ocean, behind = (_merge(parts[which], grid.transform) for which in (is_ocean, is_ice))
    return Polygons(ocean, behind, detail=too_far)


def outline_fjord(fjord_mask: NDArray[np.bool_], settings: PolygonSettings | None = None) -> MultiPolygon:
    """Outline a fjord mask (y, x) bool: polygons in pixels, x = column, y = row, the first pixel from 0 to 1.

    Its walls are contours, smoothed over a few pixels; the straight edges and the corners of the image stay.
    """
    packed = np.packbits(fjord_mask).tobytes()
    return _outlined(packed, fjord_mask.shape, settings or PolygonSettings())


@lru_cache(maxsize=2)  # all scenes of a domain with a boundary have the same fjord
def _outlined(packed: bytes, shape: tuple[int, ...], settings: PolygonSettings) -> MultiPolygon:
    fjord_mask = np.unpackbits(np.frombuffer(packed, np.uint8), count=math.prod(shape)).reshape(shape)
    margin = settings.smooth_vertices
    # Walls go on straight beyond the image, where they are closed: nothing within it is bent by that.
    wide = cv2.medianBlur(np.pad(fjord_mask, margin, mode="edge"), settings.median_px)
    contours = [c for c in find_contours(np.pad(wide, 1), 0.5) if len(c) > settings.min_vertices]
    rings = [_smooth_ring(c[:, ::-1] - margin - 0.5, settings.smooth_vertices) for c in contours]
    filled = shapely.build_area(GeometryCollection(list(shapely.get_parts(shapely.unary_union(rings)))))
    return _polygons_of(shapely.intersection(filled, _frame(shape), grid_size=GRID_PX))


def mean_evidence(parts: NDArray[np.object_], ice: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of an ice mask (y, x) over polygons (n,) in pixels, without missing pixels; NaN where there are only those.

    A polygon without a pixel centre takes the pixel it lies in.
    """
    if len(parts) == 0:
        return np.empty(0)
    numbers = burn(parts, np.arange(1, len(parts) + 1), ice.shape)
    of_pixel, n = numbers.ravel().astype(np.intp), len(parts) + 1
    n_pixels = np.bincount(of_pixel, minlength=n)[1:]
    missing = np.isnan(ice).ravel()
    counts = n_pixels - np.bincount(of_pixel[missing], minlength=n)[1:]
    sums = np.bincount(of_pixel, weights=np.where(missing, 0, ice.ravel()), minlength=n)[1:]
    inside = shapely.get_coordinates(shapely.point_on_surface(parts)).astype(int)[:, ::-1]
    nearest = ice[tuple(np.minimum(inside, np.array(ice.shape) - 1).T)]
    mean = np.divide(sums, counts, out=np.full(len(parts), np.nan), where=counts > 0)
    return np.asarray(np.where(n_pixels > 0, mean, nearest), dtype=np.float64)


def _find_banks(fjord: BaseGeometry, shape: tuple[int, ...], *, has_walls: bool) -> _Banks:
    frame = _frame(shape)
    beyond = frame.difference(fjord)
    return _Banks(beyond, frame.boundary) if has_walls else _Banks(Polygon(), frame.boundary.union(beyond))


def _close_fronts(
    lines: Sequence[BaseGeometry], banks: _Banks, shape: tuple[int, ...], settings: PolygonSettings
) -> _Closed:
    """Lead the ends of fronts (in pixels) to walls or edges, where those are near enough."""
    inside = [line.intersection(_frame(shape)) for line in lines]
    pieces = [p for line in inside for p in shapely.get_parts(line) if p.length > 0]
    limit = settings.max_gap * float(np.mean(shape))
    cuts: list[LineString] = []
    left_out: list[LineString] = []
    gaps = []
    for piece in pieces:
        ways = [] if piece.is_closed else [_way_out(Point(piece.coords[k]), banks, settings) for k in (0, -1)]
        gap = max((gap for _, gap in ways), default=0.0)
        if gap > limit:
            left_out.append(piece)
            gaps.append(f"{gap:.1f}")
        else:
            cuts += [piece, *(way for way, _ in ways)]
    ends = f"an end is {', '.join(gaps)} px from a wall or an edge, at most {limit:.1f} px"
    return _Closed(cuts, left_out, f"{len(gaps)} of {len(pieces)} fronts left out: {ends}" if gaps else "")


def _way_out(end: Point, banks: _Banks, settings: PolygonSettings) -> tuple[LineString, float]:
    """Straight way from the end of a front to a wall or edge, and the distance in px to the nearer of both."""
    to_wall, to_edge = shapely.shortest_line(end, banks.walls), shapely.shortest_line(end, banks.edge)
    if to_wall is None or settings.edge_preference * to_edge.length < to_wall.length:
        return to_edge, to_edge.length
    return to_wall, min(to_wall.length, to_edge.length)


def _cut(fjord: BaseGeometry, cuts: Sequence[LineString]) -> NDArray[np.object_]:
    """Cut a fjord along lines: its parts as polygons (n,), which touch but do not overlap."""
    noded = shapely.union_all([fjord.boundary, *(c for c in cuts if c.length > 0)], grid_size=GRID_PX)
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(noded)))
    return np.asarray(faces[shapely.contains(fjord, shapely.point_on_surface(faces))])


def _are_large(parts: NDArray[np.object_], size: int, settings: PolygonSettings) -> NDArray[np.bool_]:
    areas = shapely.area(parts)
    least = max(settings.min_share_of_grid * size, settings.min_share_of_largest * areas.max(initial=0))
    return np.asarray(areas >= least, dtype=bool)


def _merge(parts: NDArray[np.object_], transform: Affine) -> MultiPolygon:
    """Merge parts in pixels to one valid geometry in the CRS of the transform; what lies amid them becomes a hole."""
    merged = _moved(shapely.coverage_union_all(parts), transform)
    return _polygons_of(merged if merged.is_valid else shapely.make_valid(merged, method="structure"))


def _polygons_of(geometry: BaseGeometry) -> MultiPolygon:
    return MultiPolygon([p for p in shapely.get_parts(geometry) if isinstance(p, Polygon) and not p.is_empty])


def _smooth_ring(ring: NDArray[np.float64], window: int) -> LineString:
    """Smooth a closed contour (n, 2), whose last vertex repeats the first."""
    smooth = smooth_line(ring[:-1], window, is_closed=True)
    return LineString(np.vstack([smooth, smooth[:1]]))


def _with_data(ice: NDArray[np.floating]) -> NDArray[np.bool_]:
    return np.asarray(binary_fill_holes(~np.isnan(ice)), dtype=bool)


def _frame(shape: tuple[int, ...]) -> Polygon:
    return Polygon(shapely.box(0, 0, shape[1], shape[0]))


def _moved(geometry: BaseGeometry, transform: Affine) -> BaseGeometry:
    a, b, c, d, e, f, *_ = transform
    return affine_transform(geometry, [a, b, d, e, c, f])


def _rejected(reason: str, detail: str) -> Polygons:
    return Polygons(None, None, reason, detail)


def _describe(evidence: NDArray[np.float64], settings: PolygonSettings) -> str:
    means = ", ".join(f"{e:.3f}" for e in evidence) or "none is large enough"
    return f"mean ice probability of the large parts: {means}; ocean is below {settings.ice_evidence:.3f}"


def _check(
    lines: Sequence[LineString], ice: NDArray[np.floating], grid: GeoBox, fjord_mask: NDArray[np.bool_] | None
) -> None:
    if wrong := [line for line in lines if not isinstance(line, BaseGeometry)]:
        raise ValueError(f"lines must be geometries, got {wrong[0]!r}: leave out the rows of scenes without a front")
    shapes = [ice.shape, tuple(grid.shape)] + ([fjord_mask.shape] if fjord_mask is not None else [])
    if len(set(shapes)) != 1 or ice.ndim != 2:
        raise ValueError(f"ice, grid and fjord_mask must share one shape (y, x), got {shapes}; cut them to one grid")
