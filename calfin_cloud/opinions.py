"""Pictures go in, what the network and its verifier see of them comes out, and how far a front is then believed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from calfin_cloud import network as networks  # Keras waits until a network is loaded
from calfin_cloud.network import PICTURE_SIZE, InferenceSettings, shown_whole
from calfin_cloud.schema import MISSING, from_levels
from calfin_cloud.sensors import Kind

NOT_SEEN, UNKNOWN, OPTICAL, SAR = range(4)
"""Values of the last channel: no data, or data of a kind of sensor."""

SEEN_BY: dict[Kind, int] = {"unknown": UNKNOWN, "optical": OPTICAL, "sar": SAR}

FRONT, ICE, ROCK, VERIFIED = range(4)
"""Masks that the network step returns: those of the network (rock only where it knows rock), and the front of a second
look: that of the verifier, or of the network at the transposed picture."""

VERIFIER_REACH_PX, VERIFIER_LEAST = 15, 0.1
"""A front counts in full where the verifier sees this much of one so near, in px of the picture the network sees."""

MAGNIFIED = 2
"""Where pictures are not turned, one that is shown so many times as large goes to the verifier, whatever its sensor."""

ROCK_WINDOW_PX, ROCK_SHARES = 21, (0.2, 0.6)
"""A front counts in full up to the first share of rock in the land around it, from the second not at all."""


class Pictures(NamedTuple):
    """Input of the network step: (n, 256, 256, 3) uint8; which get a second look, and which are optical, (n,)."""

    pictures: NDArray[np.uint8]
    verify: NDArray[np.bool_]
    optical: NDArray[np.bool_]


def predict_pictures(
    pictures: NDArray[np.uint8],
    verify: NDArray[np.bool_],
    optical: NDArray[np.bool_],
    *,
    network: str,
    settings: InferenceSettings,
) -> NDArray[np.uint8]:
    """Network step: pictures (n, 256, 256, 3) uint8 -> masks (n, 256, 256, 4) uint8, see `FRONT` and `VERIFIED`.

    The one step that a GPU takes. Of pictures that ask for it, a second look is taken, at the whole of each.
    """
    masks = np.empty((*pictures.shape[:3], VERIFIED + 1), dtype=np.uint8)
    if not len(pictures):
        return masks
    verify, optical = np.ravel(verify), np.ravel(optical)
    has_verifier = networks.verifier_of(network) is not None
    of_light = shown_whole(settings) if settings.optical_whole and has_verifier else settings
    of_others = _seen_turned if settings.turned and has_verifier else _predicted
    for asked, predicted, way in ((optical, _predicted, of_light), (~optical, of_others, settings)):
        if asked.all():  # nearly always: no need to copy pictures and masks
            return predicted(pictures, verify, network, way)
        if asked.any():
            masks[asked] = predicted(pictures[asked], verify[asked], network, way)
    return masks


def believed(seen: NDArray[np.uint8], shown: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Front and ice (256, 256, mask) float32 of a picture's masks `seen` (256, 256, 4), after a second opinion.

    In pictures of light (`shown` (y, x, 4) is what was pictured) it is the verifier's, in others that of the network's
    own mask of rock, where it has one, and what it sees in the transpose.
    """
    masks = from_levels(seen)
    front, ice = masks[..., FRONT], masks[..., ICE]
    if not is_optical(shown) and (seen[..., ROCK] != MISSING).any():
        front = front * beside_glaciers(ice, masks[..., ROCK])
    if (agreed := agreement_of(seen)) is not None:
        front = front * agreed
    return np.dstack([front, ice])


def agreement_of(seen: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """How far the verifier believes the front of a picture, (256, 256) in 0 to 1; None where it has not seen it."""
    if (seen[..., VERIFIED] == MISSING).all():
        return None
    return agreement(from_levels(seen[..., VERIFIED]))


def agreement(front: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far a front is believed, 0 to 1, where a verifier sees this front mask (y, x)."""
    near = cv2.dilate(front, np.ones(2 * [2 * VERIFIER_REACH_PX + 1], dtype=np.uint8))
    return np.asarray(np.minimum(near / VERIFIER_LEAST, 1), dtype=np.float32)


def beside_glaciers(ice: NDArray[np.float32], rock: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far a front is believed, 0 to 1, from the land around it, all (y, x): rock does not calve."""
    land, rocky = (uniform_filter(mask, ROCK_WINDOW_PX) for mask in (ice, ice * rock))
    full, none = ROCK_SHARES
    return np.asarray(np.clip((none - rocky / (land + 1e-3)) / (none - full), 0, 1), dtype=np.float32)


def is_optical(shown: NDArray[np.uint8]) -> bool:
    """Whether a picture (y, x, 4) shows light."""
    return bool(shown[..., 3].max(initial=NOT_SEEN) == OPTICAL)


def needs_verifier(shown: NDArray[np.uint8], settings: InferenceSettings) -> bool:
    """Whether a picture (y, x, 4) gets another look: one of light, one that is turned, or one of few pixels."""
    return is_optical(shown) or settings.turned or MAGNIFIED * max(shown.shape[:2]) <= PICTURE_SIZE


def verifies_windows(shown: NDArray[np.uint8], settings: InferenceSettings) -> bool:
    """Whether windows of a scene (y, x, 4) get another look of their own; else that of the whole scene counts."""
    return settings.verify_windows and (is_optical(shown) or not settings.turned)


def verifying(settings: InferenceSettings) -> InferenceSettings:
    """Return the settings of the verifier: it sees the whole picture, at a third of the price of its tiles."""
    return replace(settings, stride=None)


def _predicted(
    pictures: NDArray[np.uint8], verify: NDArray[np.bool_], network: str, settings: InferenceSettings
) -> NDArray[np.uint8]:
    """Masks (n, 256, 256, 4) of pictures that are shown alike, the verifier's where it is asked."""
    masks = np.full((*pictures.shape[:3], VERIFIED + 1), MISSING, dtype=np.uint8)
    own = networks.predict_pictures(pictures, network=network, settings=settings)
    for kind in range(own.shape[-1]):  # NumPy copies many pairs or triples one by one
        masks[..., kind] = own[..., kind]
    if verify.any() and (verifier := networks.verifier_of(network)):
        seen = networks.predict_pictures(pictures[verify], network=verifier, settings=verifying(settings))
        masks[verify, ..., VERIFIED] = seen[..., FRONT]
    return masks


def _seen_turned(
    pictures: NDArray[np.uint8], verify: NDArray[np.bool_], network: str, settings: InferenceSettings
) -> NDArray[np.uint8]:
    """Masks (n, 256, 256, 4) of pictures shown upright and turned by 180 degrees; the transpose verifies them."""
    masks = np.full((*pictures.shape[:3], VERIFIED + 1), MISSING, dtype=np.uint8)
    see = partial(networks.predict_pictures, network=network, settings=shown_whole(settings))
    upright, turned = see(pictures), see(pictures[:, ::-1, ::-1])[:, ::-1, ::-1]
    masks[..., : upright.shape[-1]] = np.rint((upright.astype(np.float32) + turned) / 2)
    if verify.any():
        masks[verify, ..., VERIFIED] = see(pictures[verify].swapaxes(1, 2))[..., FRONT].swapaxes(1, 2)
    return masks
