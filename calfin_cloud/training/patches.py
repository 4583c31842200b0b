"""A prepared sample goes in, one augmented patch with its masks comes out: scale, turn, tone, speckle, shade, gaps."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from calfin_cloud.datasets import ICE, OCEAN, UNKNOWN, Sample
from calfin_cloud.network import TILE_SIZE
from calfin_cloud.preprocess import eight_bit_channels, to_eight_bit
from calfin_cloud.training.settings import Label

FRAME_SIZE = 256
"""Side in px to which a scene or window is squeezed before tiles are cut; a patch is `TILE_SIZE` px of such a frame."""

FRONT_HALF_WIDTH_PX = 1.5
"""A front is drawn about 3 px wide in the patch, whatever the scale of the patch (Cheng et al. 2021)."""

FAR_PX = 1e4

BEND_SHARE = 0.5
"""Share of the patches whose shapes are bent."""

MELANGE_SHARE, MELANGE_REACH_PX = 0.2, (8.0, 60.0)
"""Share of the patches in whose sea ice is painted, and how far from the front it reaches, in px of a 256 px frame."""

SEA_SHARE, COARSE_SHARE = 0.25, 0.25
"""Shares of the patches whose sea is as bright as in another sea state, and that are seen in coarser pixels."""


class Prepared(NamedTuple):
    """A sample as patches are cut from it: 8-bit grey, px to the front, ice and rock mask, front pixels (y, x)."""

    sample: Sample
    grey: NDArray[np.uint8]
    distance: NDArray[np.float32]
    ice: NDArray[np.uint8]
    rock: NDArray[np.uint8]
    front_pixels: NDArray[np.intp]


def prepare(sample: Sample) -> Prepared:
    """Stretch a sample, and measure each pixel's distance to the front, from which it is drawn anew at any scale."""
    line = skeletonize(sample.front)
    distance = distance_transform_edt(~line) if line.any() else np.full(line.shape, FAR_PX)
    rock = np.full_like(sample.ice, UNKNOWN) if sample.rock is None else sample.rock
    return Prepared(
        sample, to_eight_bit(sample.image), distance.astype(np.float32), sample.ice, rock, np.argwhere(line)
    )


def random_patch(
    prepared: Prepared, rng: np.random.Generator, *, label: Label = "after", size: int = TILE_SIZE
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cut one augmented patch of `size` px: channels (y, x, 3) in 0..255 and its masks (y, x, 5), see `cut_patch`.

    The channels are made before the patch is cut, as for a scene that is mapped: there, too, they see the whole domain.
    """
    grey = sea_state(prepared, rng) if rng.random() < SEA_SHARE else prepared.grey
    if rng.random() < MELANGE_SHARE:
        grey = melange(prepared._replace(grey=grey), rng)
    grey = vary_grey(grey, prepared.sample.sensor, rng)
    if rng.random() < COARSE_SHARE:
        grey = coarsen(grey, rng.uniform(1.5, 4))
    if rng.random() < 0.25:  # as if the scene had more pixels: the shadow correction has a fixed radius
        zoom = rng.uniform(1.5, 2.5)
        large = eight_bit_channels(cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)).astype(
            np.float32
        )
        channels = cv2.resize(large, grey.shape[::-1], interpolation=cv2.INTER_AREA)
    else:
        channels = eight_bit_channels(grey).astype(np.float32)
    window = random_window(prepared, rng, size)
    bend = random_bend(rng, size) if rng.random() < BEND_SHARE else None
    return cut_patch(channels, prepared, window, border=bool(rng.random() < 0.5), label=label, bend=bend, size=size)


def cut_patch(
    channels: NDArray[np.float32],
    prepared: Prepared,
    window: NDArray[np.float64],
    *,
    border: bool,
    label: Label = "after",
    bend: NDArray[np.float32] | None = None,
    size: int = TILE_SIZE,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Warp channels and masks by `window`, a (2, 3) affine from patch (x, y) to scene (x, y), and by a bend before it.

    The masks are front, ice, 1 where the ice is known, rock, 1 where the rock is known.
    Outside the scene there is no data if `border`, else its mirror image. The front is 3 px wide in the patch, or,
    labelled `"before"`, in the whole scene squeezed to `FRAME_SIZE`.
    """
    mode = cv2.BORDER_CONSTANT if border else cv2.BORDER_REFLECT_101
    x, y = places_in_scene(window, bend, size)

    def warp(values: NDArray[Any], interpolation: int, outside: float) -> NDArray[Any]:
        return np.asarray(cv2.remap(values, x, y, interpolation, borderMode=mode, borderValue=(outside,) * 3))

    patch = warp(channels, cv2.INTER_LINEAR, 0)
    if label == "after":
        scale = np.sqrt(abs(np.linalg.det(window[:, :2])))  # scene pixels per patch pixel
        front = warp(prepared.distance, cv2.INTER_LINEAR, FAR_PX) <= FRONT_HALF_WIDTH_PX * scale
    else:
        drawn = prepared.distance <= FRONT_HALF_WIDTH_PX * frame_scale(prepared.grey.shape)
        front = warp(drawn.astype(np.uint8), cv2.INTER_NEAREST, 0) > 0
    ice, rock = (warp(mask, cv2.INTER_NEAREST, UNKNOWN) for mask in (prepared.ice, prepared.rock))
    masks = [front, ice == ICE, ice != UNKNOWN, rock == 1, rock != UNKNOWN]
    return patch, np.stack(masks, axis=-1).astype(np.float32)


def places_in_scene(
    window: NDArray[np.float64], bend: NDArray[np.float32] | None, size: int = TILE_SIZE
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the pixels of a patch lie in the scene, x and y each (y, x); a bend (2, y, x) moves them by px of it."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    if bend is not None:
        x, y = x + bend[0], y + bend[1]
    (xx, xy, x0), (yx, yy, y0) = window.astype(np.float32)
    return xx * x + xy * y + x0, yx * x + yy * y + y0


def random_bend(rng: np.random.Generator, size: int = TILE_SIZE) -> NDArray[np.float32]:
    """Draw smooth shifts (2, y, x) in px that stretch by a third at most: no coast keeps its shape."""
    cells = int(rng.integers(2, 5))
    field = np.stack([_clouds((size, size), rng, cells=cells) for _ in range(2)])
    steepest = max(np.abs(np.diff(field, axis=axis)).max() for axis in (1, 2))
    return np.asarray(field * rng.uniform(0.05, 0.33) / steepest, dtype=np.float32)


def frame_scale(shape: tuple[int, ...]) -> float:
    """Scene pixels per pixel of the frame to which a whole scene (y, x) is squeezed."""
    return float(np.sqrt(shape[0] * shape[1])) / FRAME_SIZE


def whole_scene(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Window of the middle tile of a whole scene squeezed to a square, as the first pass sees it."""
    return _window((shape[0] / 2, shape[1] / 2), (shape[0], shape[1]), 0.0, flip=False)


def random_window(prepared: Prepared, rng: np.random.Generator, size: int = TILE_SIZE) -> NDArray[np.float64]:
    """Draw a window as the two passes see it: the whole scene, or a part around the front; turned and mirrored."""
    height, width = prepared.grey.shape
    angle = 90 * rng.integers(4) + (rng.uniform(-20, 20) if rng.random() < 0.5 else 0)
    if rng.random() < 0.4:
        sides = np.array([height, width]) * rng.uniform(0.85, 1.15) * np.exp(rng.uniform(-0.1, 0.1, 2))
        centre = np.array([height, width]) / 2 + rng.uniform(-1, 1, 2) * sides / 16
    else:
        sides = min(height, width) * np.exp(rng.uniform(np.log(0.35), np.log(1.1)) + rng.uniform(-0.15, 0.15, 2))
        pixels = prepared.front_pixels
        near_front = len(pixels) > 0 and rng.random() < 0.85
        anchor = pixels[rng.integers(len(pixels))] if near_front else rng.uniform(0.2, 0.8, 2) * (height, width)
        centre = anchor + rng.uniform(-0.35, 0.35, 2) * sides
        inside = np.minimum(0.4 * sides, np.array([height, width]) / 2)
        centre = np.clip(centre, inside, np.array([height, width]) - inside)
    return _window(tuple(centre), tuple(sides), float(angle), flip=bool(rng.random() < 0.5), size=size)


def _window(
    centre: tuple[float, ...], sides: tuple[float, ...], angle_deg: float, *, flip: bool, size: int = TILE_SIZE
) -> NDArray[np.float64]:
    """Affine from patch (x, y) to scene (x, y) for a frame of `sides` (y, x) px around `centre` (y, x)."""
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
    linear = np.diag([sides[1], sides[0]]) @ turn / FRAME_SIZE  # turned, then squeezed: sides stay those of the scene
    middle = np.full(2, (size - 1) / 2)
    offset = np.array([centre[1], centre[0]]) - 0.5 - linear @ middle
    return np.column_stack([linear, offset])


def melange(prepared: Prepared, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint melange into the known ocean before the front: floes as bright as the ice beside it, never opaque.

    -> 8-bit grey (y, x); missing pixels (0) stay missing. A front stays visible, as a step in texture and brightness.
    """
    grey, distance = prepared.grey.astype(np.float32), prepared.distance / frame_scale(prepared.grey.shape)
    seen = prepared.grey > 0
    beside = seen & (prepared.ice == ICE) & (distance < MELANGE_REACH_PX[0])
    sea = seen & (prepared.ice == OCEAN)
    if not beside.any() or not sea.any():
        return prepared.grey
    reach = rng.uniform(*MELANGE_REACH_PX) * (1 + 0.5 * _clouds(grey.shape, rng, cells=int(rng.integers(3, 8))))
    floes = _clouds(grey.shape, rng, cells=int(max(grey.shape) / rng.uniform(2, 8)))
    cover = 1 / (1 + np.exp(-4 * (floes + rng.uniform(-0.5, 1.5))))
    cover *= rng.uniform(0.3, 0.8) * np.clip((reach - distance) / rng.uniform(2, 12), 0, 1) * sea
    bright = np.median(grey[beside]) * rng.uniform(0.7, 1.1) + 15 * floes
    painted = np.clip(np.round(grey + (bright - grey) * cover), 1, 255)
    return np.where(seen, painted, 0).astype(np.uint8)


def sea_state(prepared: Prepared, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Show the sea as bright and as rough as on another day, where all zones are drawn: 8-bit grey (y, x).

    A dark sea lies beside the coasts then as beside the front. Missing pixels (0) stay missing.
    """
    seen, sea = prepared.grey > 0, prepared.ice == OCEAN
    if prepared.sample.rock is None or not (seen & sea).any():
        return prepared.grey
    grey = prepared.grey.astype(np.float32)
    mean = grey[seen & sea].mean()
    level = rng.uniform(5, 130) + rng.uniform(0, 15) * _clouds(grey.shape, rng, cells=int(rng.integers(2, 8)))
    edge = cv2.GaussianBlur(sea.astype(np.float32), (0, 0), rng.uniform(0.4, 1.0))
    other = level + (grey - mean) * rng.uniform(0.1, 1.0)
    return np.where(seen, np.clip(np.round(grey + (other - grey) * edge * sea), 1, 255), 0).astype(np.uint8)


def coarsen(grey: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Show 8-bit grey (y, x) in pixels that are larger by `factor`; missing pixels (0) stay missing."""
    coarse = cv2.resize(grey, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    fine = cv2.resize(coarse, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(grey == 0, 0, np.maximum(fine, 1)).astype(np.uint8)


def _clouds(shape: tuple[int, ...], rng: np.random.Generator, *, cells: int) -> NDArray[np.float32]:
    """Smooth noise (y, x) of mean 0 and deviation about 1, so many cells a side."""
    coarse = rng.normal(size=(cells + 1, cells + 1)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def vary_grey(grey: NDArray[np.uint8], sensor: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Vary tone, noise and gaps of 8-bit grey (y, x) as sensors and seasons do; missing pixels (0) stay missing."""
    values: NDArray[np.floating] = grey.astype(np.float32) / 255
    if rng.random() < 0.7:
        values = np.clip(values, 0, 1) ** np.exp(rng.uniform(-0.6, 0.6))
    if rng.random() < 0.7:
        values = (values - 0.5) * rng.uniform(0.6, 1.3) + 0.5 + rng.uniform(-0.15, 0.15)
    if rng.random() < 0.3:
        before = np.linspace(0, 1, 5)
        after = np.concatenate([[0], (np.sort(rng.random(3)) + before[1:-1]) / 2, [1]])  # any curve that rises
        values = np.interp(values, before, after)
    if rng.random() < 0.2:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.4, 1.3))
    if rng.random() < 0.25:
        values = shade(np.asarray(values, dtype=np.float32), sensor, rng)
    if sensor == "sar" and rng.random() < 0.4:
        values = values * rng.gamma(1 / 0.05, 0.05, values.shape).astype(np.float32) ** rng.uniform(0.2, 1.0)
    elif rng.random() < 0.3:
        values = values + rng.normal(0, rng.uniform(0.005, 0.04), values.shape).astype(np.float32)
    varied = np.where(grey == 0, 0, np.clip(np.round(values * 255), 1, 255)).astype(np.uint8)
    if sensor == "optical" and rng.random() < 0.2:
        varied[slc_off_gaps(varied.shape, rng)] = 0
    return varied


def shade(values: NDArray[np.float32], sensor: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Lay shadow over grey 0..1 (y, x) as slopes cast it, or, for optical scenes, the veil of a thin cloud."""
    coarse = rng.normal(size=tuple(int(n) for n in rng.integers(3, 8, 2))).astype(np.float32)
    field = cv2.resize(coarse, values.shape[::-1], interpolation=cv2.INTER_CUBIC)
    cover = np.clip(field * rng.uniform(0.3, 1.5) - rng.uniform(0, 0.5), 0, 1)
    if sensor == "optical" and rng.random() < 0.5:
        return np.asarray(values + (rng.uniform(0.6, 1) - values) * cover * rng.uniform(0.3, 0.8), dtype=np.float32)
    return np.asarray(values * (1 - cover * rng.uniform(0.3, 0.8)), dtype=np.float32)


def slc_off_gaps(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the wedge-shaped gaps of Landsat 7 without its scan-line corrector: (y, x) bool."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    across, along = y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)
    period = rng.uniform(12, 35)
    width = 0.45 * period * np.clip(rng.uniform(0.2, 1) + rng.uniform(-1, 1) * along / max(shape), 0, 1)
    return np.asarray((across + rng.uniform(0, period)) % period < width)
