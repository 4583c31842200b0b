"""Scenes become masks: channels, pictures of the whole scene, candidate fronts, pictures of windows around those.

The steps are plain functions over the scenes of one group (some scenes of one domain). `two_passes` has their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from calfin_cloud.domains import FJORD_SOURCES, Domain
from calfin_cloud.fronts import DEFAULT, TraceSettings, Window, candidate_boxes, whole_box, window_around
from calfin_cloud.imagery import STRIPE_WIDTH_M, wide_parts
from calfin_cloud.network import PICTURE_SIZE, InferenceSettings
from calfin_cloud.opinions import (
    FRONT,
    ICE,
    NOT_SEEN,
    SEEN_BY,
    Pictures,
    agreement_of,
    believed,
    is_optical,
    needs_verifier,
    predict_pictures,
    verifies_windows,
)
from calfin_cloud.preprocess import eight_bit_channels, resize_channels, to_eight_bit
from calfin_cloud.resampling import mirrored, resize, unmirrored
from calfin_cloud.schema import MASKS, MISSING, from_levels, to_levels
from calfin_cloud.sensors import Kind

PLAIN_RESOLUTION_M = 30.0  # of an image that says nothing; decides only which gaps are looked across


@dataclass(frozen=True)
class Prepared:
    """Scenes of one domain as the network may see them.

    Attributes
    ----------
    channels
        Of each scene (y, x, 4) uint8, see `prepare_scene`; None for one that is left out.
    fjord_mask
        (y, x) bool, True where a front may lie; None where nothing says so.
    """

    channels: Sequence[NDArray[np.uint8] | None]
    fjord_mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class SecondPass:
    """What the first pass shows of each scene that is not left out, and the windows that the second one looks at.

    Where the verifier does not see windows, `agreements` (256, 256) in 0 to 1 are what it saw of each whole scene.
    """

    overviews: Sequence[NDArray[np.float32]]
    agreements: Sequence[NDArray[np.float32] | None]
    boxes: Sequence[NDArray[np.int32]]
    windows: Sequence[Sequence[Window]]
    pictures: Pictures


class SceneMasks(NamedTuple):
    """Both passes of one scene: masks (mask, y, x) uint8 (`schema.from_levels`), boxes of candidates (n, edge) px."""

    masks: NDArray[np.uint8]
    boxes: NDArray[np.int32]


class Each(Protocol):
    """Runs a step for each group: at once, or as a task of a cluster."""

    def __call__(self, step: Callable[..., Any], *groups: Sequence[Any]) -> Sequence[Any]:
        """`[step(*of_group) for of_group in zip(*groups)]`."""


Predict = Callable[[Sequence[Any]], Sequence[Any]]
"""Runs the network step: `Pictures` of each group -> masks (n, 256, 256, 4) uint8 of each group."""


def two_passes(
    groups: Sequence[Any], *, settings: InferenceSettings, trace: TraceSettings, each: Each, predict: Predict
) -> Sequence[Any]:
    """Take groups of `Prepared` scenes through both passes of the network: their `SceneMasks`, None for one left out.

    Pass 1 sees each scene at 256 x 256, pass 2 a square window around each candidate front (calfin-method 6.4).
    """
    first = each(partial(first_pictures, settings=settings), groups)
    seen = predict(first)
    second = each(partial(second_pictures, settings=settings, trace=trace), groups, seen)
    windows = predict(each(pictures_of, second))
    return each(partial(lay_windows, settings=settings, trace=trace), groups, second, windows)


def predict_scene(
    channels: NDArray[np.uint8],
    *,
    network: str,
    fjord_mask: NDArray[np.bool_] | None = None,
    settings: InferenceSettings | None = None,
    trace: TraceSettings = DEFAULT,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Predict one scene in two passes: (y, x, 4) uint8 -> masks (mask, y, x) float32, candidates (n, edge) int32.

    NaN where the scene has no data.

    Parameters
    ----------
    channels
        (y, x, 4) uint8, what `prepare_scene` makes.
    network
        Name of a shipped network, or path of weights.
    fjord_mask
        (y, x) bool, True where a front may lie; None where nobody knows.
    settings
        How pictures are cut for the network, and what runs it.
    trace
        Settings that decide which candidates are looked at again.

    Returns
    -------
    tuple
        Probabilities of front edge and ice, (mask, y, x) float32, NaN = missing; boxes of the candidates that were
        looked at again, (n, 4) int32 top, bottom, left, right.

    Raises
    ------
    ValueError
        For a network that is not known, or a file that holds none.

    Examples
    --------
    >>> channels = cc.prepare_scene(scene, 30.0, "optical")
    >>> (front, ice), boxes = cc.predict_scene(channels, network="calfin-efficient")
    >>> front.shape == scene.shape[1:]
    True
    """
    settings = settings or InferenceSettings()
    predict = partial(predict_pictures, network=network, settings=settings)
    (((masks, boxes),),) = two_passes(
        [Prepared([channels], fjord_mask)],
        settings=settings,
        trace=trace,
        each=lambda step, *groups: [step(*of_group) for of_group in zip(*groups, strict=True)],
        predict=lambda groups: [predict(*of_group) for of_group in groups],
    )
    return from_levels(masks), boxes


def prepare_scene(scene: NDArray[np.float32], resolution_m: float, kind: Kind = "unknown") -> NDArray[np.uint8]:
    """Make the input of one scene: (band, y, x) float32 with NaN = missing -> (y, x, 4) uint8.

    CALFIN's three channels (calfin-method 2.3); the last one is the kind of the sensor where the scene has data, see
    `SEEN_BY`, and 0 elsewhere. Narrow SLC-off gaps count as data, for the network looks across.

    Parameters
    ----------
    scene
        (band, y, x) float32, signal and cloud as in `schema.BANDS`; NaN = missing.
    resolution_m
        Side of a pixel, which tells stripes from wide gaps.
    kind
        `optical`, `sar` or `unknown`: which second opinion fronts will get.

    Returns
    -------
    ndarray
        (y, x, 4) uint8: grey, contrast-enhanced and shadow-corrected; kind of the sensor, 0 where there is no data.

    Raises
    ------
    SceneError
        `nodata` or `flat` for a scene that shows nothing.

    Examples
    --------
    >>> ramp = np.tile(np.arange(64, dtype=np.float32), (64, 1))
    >>> prepare_scene(np.stack([ramp, np.zeros_like(ramp)]), 30.0, "optical").shape
    (64, 64, 4)
    """
    signal = scene[0]
    missing = np.isnan(signal)
    valid = ~wide_parts(missing, STRIPE_WIDTH_M / 2 / resolution_m) if missing.any() else ~missing
    seen = np.where(valid, SEEN_BY[kind], NOT_SEEN)
    return np.asarray(cv2.merge([eight_bit_channels(to_eight_bit(signal)), seen.astype(np.uint8)]))


def prepare_image(image: NDArray[np.float32], kind: Kind = "unknown") -> NDArray[np.uint8]:
    """Make the input of an image (y, x) that comes without clouds and scale, as `prepare_scene` does.

    Raises
    ------
    SceneError
        `nodata` or `flat` for an image that shows nothing.
    """
    return prepare_scene(np.stack([image, np.full_like(image, np.nan)]), PLAIN_RESOLUTION_M, kind)


def tracing_mask(domain: Domain, trace: TraceSettings) -> NDArray[np.bool_] | None:
    """Fjord mask (y, x) that fronts of a domain are traced with.

    A derived boundary closes polygons, but fronts traced with it were no better than without (ARCHITECTURE, 11): it
    serves only the settings of the release, which cannot do without walls.
    """
    drawn = domain.fjord_source == FJORD_SOURCES[0]
    return domain.fjord_mask if drawn or trace.window.one_front else None


def first_pictures(group: Prepared, *, settings: InferenceSettings) -> Pictures:
    """Picture of each whole scene that is not left out."""
    return _pictures([channels for channels in group.channels if channels is not None], settings)


def second_pictures(
    group: Prepared, seen: NDArray[np.uint8], *, settings: InferenceSettings, trace: TraceSettings
) -> SecondPass:
    """Find the candidate fronts of the first pass `seen` (n, 256, 256, 4), and take a picture of each's window.

    A window that shows the whole scene shows no more than the first pass did, and is not predicted again.
    """
    scenes = [channels for channels in group.channels if channels is not None]
    overviews = [_believed(masks, scene, settings) for masks, scene in zip(seen, scenes, strict=True)]
    boxes = [
        candidates_of(overview, scene.shape[:2], fjord_mask=group.fjord_mask, trace=trace)
        for overview, scene in zip(overviews, scenes, strict=True)
    ]
    windows = [_windows(of_scene, scene.shape, trace) for of_scene, scene in zip(boxes, scenes, strict=True)]
    cut = [window.cut(scene) for scene, of_scene in zip(scenes, windows, strict=True) for window in of_scene]
    shown = _pictures(cut, settings)
    agreements = [
        None if verifies_windows(scene, settings) else _agreement(masks, scene, settings)
        for masks, scene in zip(seen, scenes, strict=True)
    ]
    is_seen = [agreed is not None for agreed, of_scene in zip(agreements, windows, strict=True) for _ in of_scene]
    shown = shown._replace(verify=shown.verify & ~np.array(is_seen, dtype=bool))
    return SecondPass(overviews, agreements, boxes, windows, shown)


def pictures_of(second: SecondPass) -> Pictures:
    """Pictures of the second pass, which alone travel to the network."""
    return second.pictures


def lay_windows(
    group: Prepared,
    second: SecondPass,
    seen: NDArray[np.uint8],
    *,
    settings: InferenceSettings,
    trace: TraceSettings,
) -> list[SceneMasks | None]:
    """Lay the windows `seen` (n, 256, 256, 4) over the first pass: masks of each scene, None for one left out.

    Windows fade into the first pass at their border, unless each is to give a front of its own.
    """
    predicted = iter(seen)
    scenes = iter(zip(second.overviews, second.agreements, second.boxes, second.windows, strict=True))
    laid: list[SceneMasks | None] = []
    for channels in group.channels:
        if channels is None:
            laid.append(None)
            continue
        overview, agreed, boxes, windows = next(scenes)
        shape = channels.shape[:2]
        masks = resize(overview, shape)
        agreement = None if agreed is None else resize(agreed, shape)
        for window in windows:
            part = resize(_believed(next(predicted), window.cut(channels), settings), window.shape)
            if agreement is not None:
                part[..., FRONT] *= window.cut(agreement)
            weight = np.float32(1) if trace.window.one_front else window.taper(shape)[..., None]
            below = window.cut(masks)
            below *= 1 - weight
            part *= weight
            below += part
        levels = np.ascontiguousarray(np.moveaxis(to_levels(masks), -1, 0))
        levels[:, channels[..., 3] == NOT_SEEN] = MISSING
        laid.append(SceneMasks(levels, boxes))
    return laid


def candidates_of(
    overview: NDArray[np.float32],
    shape: tuple[int, ...],
    *,
    fjord_mask: NDArray[np.bool_] | None = None,
    trace: TraceSettings = DEFAULT,
) -> NDArray[np.int32]:
    """Boxes (n, edge) of the candidate fronts of a first pass (256, 256, mask), in px of a scene of `shape` (y, x).

    Edges are first row, last row, first column, last column, the last ones outside.
    """
    low = None if fjord_mask is None else resize(fjord_mask.astype("uint8"), overview.shape[:2], nearest=True) > 0
    return candidate_boxes(overview[..., FRONT], overview[..., ICE], shape, fjord_mask=low, settings=trace)


def _believed(seen: NDArray[np.uint8], shown: NDArray[np.uint8], settings: InferenceSettings) -> NDArray[np.float32]:
    """Front and ice (256, 256, mask) of a picture's masks, after a second opinion, and without what was mirrored."""
    masks = believed(seen, shown)
    return unmirrored(masks, shown.shape) if settings.square_pixels else masks


def _agreement(
    seen: NDArray[np.uint8], shown: NDArray[np.uint8], settings: InferenceSettings
) -> NDArray[np.float32] | None:
    """How far the verifier believes the front of a picture, as `_believed`; None where it has not seen it."""
    agreed = agreement_of(seen)
    return unmirrored(agreed, shown.shape) if agreed is not None and settings.square_pixels else agreed


def _pictures(shown: Sequence[NDArray[np.uint8]], settings: InferenceSettings) -> Pictures:
    """Resize scenes or parts of them, each (y, x, 4), to the network's size."""
    pictures = np.empty((len(shown), PICTURE_SIZE, PICTURE_SIZE, 3), dtype=np.uint8)
    for place, part in enumerate(shown):
        view = mirrored(part[..., :3]) if settings.square_pixels else part[..., :3]
        pictures[place] = np.rint(resize_channels(view, (PICTURE_SIZE, PICTURE_SIZE)))
    return Pictures(pictures, _flags(partial(needs_verifier, settings=settings), shown), _flags(is_optical, shown))


def _flags(is_so: Callable[[NDArray[np.uint8]], bool], shown: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_]:
    return np.array([is_so(part) for part in shown], dtype=bool)


def _windows(boxes: NDArray[np.int32], shape: tuple[int, ...], trace: TraceSettings) -> list[Window]:
    """Windows of a scene's second pass; one front a window asks for the middle of the scene too, if all else fails."""
    around = list(boxes)
    if trace.window.one_front:
        around.append(whole_box(shape))
    windows = dict.fromkeys(window_around(box, shape, trace.window) for box in around)
    return [window for window in windows if window != Window(0, shape[0], 0, shape[1])]


assert len(MASKS) == ICE + 1
