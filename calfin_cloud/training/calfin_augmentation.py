"""A prepared sample goes in, a patch as the original augments it comes out (calfin-method 5.1 and 5.2).

The scene is squeezed to 256 x 256 px first; image, ice mask and front are then turned, mirrored and cropped alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize
from skimage.transform import resize

from calfin_cloud.datasets import ICE, UNKNOWN, Sample, coastline
from calfin_cloud.network import TILE_SIZE
from calfin_cloud.preprocess import eight_bit_channels, resize_channels
from calfin_cloud.training.patches import FAR_PX, FRAME_SIZE, FRONT_HALF_WIDTH_PX, Prepared, frame_scale
from calfin_cloud.training.settings import Label

CROPS = (0.3, 0.4, 0.3)
"""Shares of patches cropped anywhere, rotated a little and cropped near the middle, rotated more and centred."""

LITTLE_DEG, MORE_DEG = 6.0, 12.0

NEAR_MIDDLE_PX = 236
"""Side of the middle part from which a patch that is rotated a little is cropped."""

SHARPEN_SHARE, SHARPEN_ALPHA, SHARPEN_LIGHTNESS = 0.2, (0.2, 0.5), (0.5, 1.0)

NOISE_SHARE, NOISE_SIGMA = 0.2, (0.01 * 255, 0.05 * 255)
"""Standard deviation in grey levels; the same noise goes to the three channels."""


class Frame(NamedTuple):
    """A sample squeezed to `FRAME_SIZE`: channels (y, x, 3) uint8, ice mask, front edge, px to its middle line."""

    sample: Sample
    channels: NDArray[np.uint8]
    ice: NDArray[np.uint8]
    edge: NDArray[np.bool_]
    distance: NDArray[np.float32]


class Move(NamedTuple):
    """Where the pixels of a patch come from: quarter turns, transposition, OpenCV's flip code, angle, corner (y, x)."""

    quarter_turns: int
    is_transposed: bool
    flip: int | None
    angle_deg: float
    corner: tuple[int, int]


def squeeze(prepared: Prepared) -> Frame:
    """Squeeze a sample to a square; its edge is that of its ice mask, or the drawn front where no ice mask is drawn.

    The original drops scenes smaller than 256 px; here they are enlarged, or most of the open image sets were lost.
    """
    shape = (FRAME_SIZE, FRAME_SIZE)
    channels = np.round(resize_channels(eight_bit_channels(prepared.grey), shape)).astype(np.uint8)
    ice = resize(prepared.ice, shape, order=0, preserve_range=True, anti_aliasing=False).astype(np.uint8)
    if knows_ice(prepared):
        edge = ice_edge(ice)
        line = skeletonize(edge)
        distance = distance_transform_edt(~line) if line.any() else np.full(shape, FAR_PX)
    else:
        distance = resize(prepared.distance, shape, order=1, anti_aliasing=False) / frame_scale(prepared.grey.shape)
        edge = distance <= FRONT_HALF_WIDTH_PX
    return Frame(prepared.sample, channels, ice, edge, distance.astype(np.float32))


def knows_ice(prepared: Prepared) -> bool:
    """Whether the ice mask was drawn, not guessed from the front: then it is known up to the front."""
    pixels = prepared.front_pixels
    at = prepared.ice[pixels[:, 0], pixels[:, 1]] if len(pixels) else prepared.ice
    return bool(np.mean(at != UNKNOWN) > 0.5)


def ice_edge(ice: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Edge between ice and ocean, about 3 px wide; the border of the unknown is none."""
    known = ice != UNKNOWN
    if not known.any():
        return np.zeros(ice.shape, bool)
    rows, columns = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(coastline(ice[rows, columns] == ICE) & known)


def release_patch(
    frame: Frame, rng: np.random.Generator, *, label: Label = "before"
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cut one patch as the original does: channels (y, x, 3) in 0..255 and front, ice, known (y, x, 3).

    What a rotation brings in from outside is 0: black, and ocean.
    """
    move = draw_move(rng)
    patch = moved(frame.channels, move, cv2.INTER_LINEAR)
    ice = moved(frame.ice, move, cv2.INTER_NEAREST)
    if label == "before":
        front = moved(frame.edge.astype(np.uint8), move, cv2.INTER_NEAREST) > 0
    else:
        front = moved(frame.distance, move, cv2.INTER_LINEAR, outside=FAR_PX) <= FRONT_HALF_WIDTH_PX
    if rng.random() < SHARPEN_SHARE:
        patch = sharpen(patch, rng.uniform(*SHARPEN_ALPHA), rng.uniform(*SHARPEN_LIGHTNESS))
    if rng.random() < NOISE_SHARE:
        patch = add_noise(patch, rng.uniform(*NOISE_SIGMA), rng)
    return patch.astype(np.float32), np.stack([front, ice == ICE, ice != UNKNOWN], axis=-1).astype(np.float32)


def draw_move(rng: np.random.Generator) -> Move:
    """Draw a quarter turn, a transposition and a flip, each every other time, then one of three crops."""
    quarter_turns = int(rng.integers(4)) if rng.random() < 0.5 else 0
    is_transposed = bool(rng.random() < 0.5)
    flip = int(rng.integers(-1, 2)) if rng.random() < 0.5 else None
    crop = rng.choice(len(CROPS), p=CROPS)
    side = (FRAME_SIZE, NEAR_MIDDLE_PX, TILE_SIZE)[crop]
    widest = (0.0, LITTLE_DEG, MORE_DEG)[crop]
    inset = (FRAME_SIZE - side) // 2
    y, x = (inset + int(rng.random() * (side - TILE_SIZE)) for _ in range(2))
    return Move(quarter_turns, is_transposed, flip, float(rng.uniform(-widest, widest)), (y, x))


def moved(values: NDArray[Any], move: Move, interpolation: int, *, outside: float = 0) -> NDArray[Any]:
    """Move a frame (y, x) or (y, x, c), and crop it to `TILE_SIZE`."""
    values = np.rot90(values, move.quarter_turns)
    if move.is_transposed:
        values = values.swapaxes(0, 1)
    values = np.ascontiguousarray(values)
    if move.flip is not None:
        values = cv2.flip(values, move.flip)
    if move.angle_deg:
        size = (FRAME_SIZE, FRAME_SIZE)
        turn = cv2.getRotationMatrix2D((FRAME_SIZE / 2, FRAME_SIZE / 2), move.angle_deg, 1.0)
        values = cv2.warpAffine(
            values, turn, size, flags=interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=(outside,) * 3
        )
    y, x = move.corner
    return np.asarray(values[y : y + TILE_SIZE, x : x + TILE_SIZE])


def sharpen(patch: NDArray[np.uint8], alpha: float, lightness: float) -> NDArray[np.uint8]:
    """Blend a patch (y, x, c) with its 3x3 high pass, `alpha` parts of it; a `lightness` of 1 keeps the mean."""
    high_pass = np.full((3, 3), -1.0)
    high_pass[1, 1] = 8 + lightness
    kernel = alpha * high_pass
    kernel[1, 1] += 1 - alpha
    return np.asarray(cv2.filter2D(patch, -1, kernel))


def add_noise(patch: NDArray[np.uint8], sigma: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add Gaussian noise of `sigma` grey levels to a patch (y, x, c), the same to all channels."""
    noise = np.round(rng.normal(0, sigma, patch.shape[:2]))
    return np.clip(patch + noise[..., None], 0, 255).astype(np.uint8)
