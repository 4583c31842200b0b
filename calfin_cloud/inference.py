"""Scenes become masks, lazily: three channels, a first pass over the domain, a second over windows around fronts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, uniform_filter

from calfin_cloud import network as networks  # what runs a network waits until one is loaded
from calfin_cloud.domains import FJORD_SOURCES, Domain
from calfin_cloud.fronts import (
    DEFAULT,
    TraceSettings,
    Window,
    candidate_boxes,
    resize,
    whole_box,
    window_around,
)
from calfin_cloud.imagery import STRIPE_WIDTH_M, wide_parts
from calfin_cloud.network import CALFIN as CALFIN  # noqa: PLC0414 - named from here too, as the next
from calfin_cloud.network import LEVELS
from calfin_cloud.network import PICTURE_SIZE as INPUT_SIZE
from calfin_cloud.network import InferenceSettings as InferenceSettings  # noqa: PLC0414
from calfin_cloud.preprocess import input_channels, resize_channels
from calfin_cloud.schema import MASKS, MOST_BOXES, check_masks, check_scenes
from calfin_cloud.sensors import Kind

TAPER_PX = 16  # a window fades into the first pass over so many pixels

NOT_SEEN, UNKNOWN, OPTICAL, SAR = range(4)
"""Values of the last channel: no data, or data of a kind of sensor."""

SEEN_BY: dict[Kind, int] = {"unknown": UNKNOWN, "optical": OPTICAL, "sar": SAR}

VERIFIER_REACH_PX, VERIFIER_LEAST = 15, 0.1
"""A front counts in full where the verifier sees this much of one so near, in px of what the network sees."""

MAGNIFIED = 2
"""A picture that is shown to the network so many times as large goes to the verifier too, whatever its sensor."""

ROCK_WINDOW_PX, ROCK_SHARES = 21, (0.2, 0.6)
"""A front counts in full up to the first share of rock in the land around it, from the second not at all."""


def load_network(network: str, settings: InferenceSettings) -> None:
    """Load a network, given by name or path, and its verifier; they stay in this process."""
    networks.load_predictor(network, settings)
    if verifier := networks.verifier_of(network):
        networks.load_predictor(verifier, replace(settings, stride=None))


def prepare_scenes(scenes: xr.DataArray) -> xr.DataArray:
    """Make the network's input lazily: scenes (time, band, y, x) -> (time, y, x, channel) uint8.

    Channels: raw, contrast-equalised and shadow-corrected grey (calfin-method 2.3), then where the scene has data the
    kind of its sensor, by the coordinate `sensor_kind`, else `UNKNOWN`.
    """
    check_scenes(scenes)
    x = scenes["x"].values
    unknown = xr.DataArray(["unknown"] * scenes.sizes["time"], dims="time")
    channels: xr.DataArray = xr.apply_ufunc(
        partial(_prepare_block, resolution_m=float(x[1] - x[0])),
        scenes,
        scenes.coords.get("sensor_kind", unknown),
        input_core_dims=[["band", "y", "x"], []],
        output_core_dims=[["y", "x", "channel"]],
        dask="parallelized",
        output_dtypes=[np.uint8],
        dask_gufunc_kwargs={"output_sizes": {"channel": 4}},
    )
    return channels


def predict_overviews(
    channels: xr.DataArray, *, network: str, settings: InferenceSettings | None = None
) -> xr.DataArray:
    """Predict the first pass lazily: scenes (time, y, x, channel) uint8 -> (time, row, column, mask) float32 of 256 px.

    A chunk goes through the network as one batch. The network travels by name or path and is loaded once per worker.
    """
    overviews: xr.DataArray = xr.apply_ufunc(
        partial(overview_of, network=network, settings=settings),
        channels,
        input_core_dims=[["y", "x", "channel"]],
        output_core_dims=[["row", "column", "mask"]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {"row": INPUT_SIZE, "column": INPUT_SIZE, "mask": len(MASKS)}},
    )
    return overviews


def find_candidates(overviews: xr.DataArray, domain: Domain, *, trace: TraceSettings = DEFAULT) -> xr.DataArray:
    """Find the candidate fronts of first passes lazily, no network: -> (time, candidate, edge) int32, -1 where none.

    Edges are first row, last row, first column, last column in px of the domain, the last ones outside.
    """
    boxes: xr.DataArray = xr.apply_ufunc(
        partial(_candidate_block, domain=domain, trace=trace),
        overviews,
        input_core_dims=[["row", "column", "mask"]],
        output_core_dims=[["candidate", "edge"]],
        dask="parallelized",
        output_dtypes=[np.int32],
        dask_gufunc_kwargs={"output_sizes": {"candidate": MOST_BOXES, "edge": 4}},
    )
    return boxes


def predict_masks(
    channels: xr.DataArray,
    overviews: xr.DataArray,
    candidates: xr.DataArray,
    *,
    network: str,
    settings: InferenceSettings | None = None,
    trace: TraceSettings = DEFAULT,
) -> xr.DataArray:
    """Predict the second pass lazily and lay it over the first: -> masks (time, mask, y, x) float32.

    The windows around all candidates of a chunk go through the network as one batch, across scenes.
    """
    masks = xr.apply_ufunc(
        partial(masks_of, network=network, settings=settings, trace=trace),
        channels,
        overviews,
        candidates,
        input_core_dims=[["y", "x", "channel"], ["row", "column", "mask"], ["candidate", "edge"]],
        output_core_dims=[["mask", "y", "x"]],
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    return check_masks(masks.assign_coords(mask=list(MASKS)))


def prepare_scene(scene: NDArray[np.float32], resolution_m: float, kind: Kind = "unknown") -> NDArray[np.uint8]:
    """Make the input of one scene: (band, y, x) float32 with NaN = missing -> (y, x, 4) uint8.

    The last channel is the kind of the sensor where the scene has data, see `SEEN_BY`, and 0 elsewhere; narrow SLC-off
    gaps count as data, for the network looks across.
    """
    signal = scene[0]
    channels = np.rint(input_channels(signal)).astype("uint8")
    valid = ~wide_parts(np.isnan(signal), STRIPE_WIDTH_M / 2 / resolution_m)
    return np.dstack([channels, np.where(valid, SEEN_BY[kind], NOT_SEEN).astype("uint8")])


def predict_scene(
    channels: NDArray[np.uint8],
    *,
    network: str,
    fjord_mask: NDArray[np.bool_] | None = None,
    settings: InferenceSettings | None = None,
    trace: TraceSettings = DEFAULT,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Predict one scene in two passes: (y, x, 4) uint8 -> masks (mask, y, x) float32, candidates (n, edge) int32.

    Pass 1 sees the whole scene at 256 x 256, pass 2 a square window around each candidate front (calfin-method 6.4).
    NaN where the scene has no data.
    """
    overviews = overview_of(channels[None], network=network, settings=settings)
    boxes = candidates_of(overviews[0], channels.shape[:2], fjord_mask=fjord_mask, trace=trace)
    (masks,) = masks_of(channels[None], overviews, boxes[None], network=network, settings=settings, trace=trace)
    return masks, boxes


def tracing_mask(domain: Domain, trace: TraceSettings) -> NDArray[np.bool_] | None:
    """Fjord mask (y, x) that fronts of a domain are traced with.

    A derived boundary closes polygons, but fronts traced with it were no better than without (ARCHITECTURE, 11): it
    serves only the settings of the release, which cannot do without walls.
    """
    drawn = domain.fjord_source == FJORD_SOURCES[0]
    return domain.fjord_mask if drawn or trace.window.one_front else None


def overview_of(
    channels: NDArray[np.uint8], *, network: str, settings: InferenceSettings | None = None
) -> NDArray[np.float32]:
    """First pass of scenes, all in one batch: (n, y, x, 4) uint8 -> (n, 256, 256, mask), NaN for one without data."""
    seen = channels[..., 3].any(axis=(1, 2))
    overviews = np.full((len(channels), INPUT_SIZE, INPUT_SIZE, len(MASKS)), np.nan, dtype=np.float32)
    if seen.any():
        overviews[seen] = _predict_pictures(list(channels[seen]), network, settings)
    return overviews


def candidates_of(
    overview: NDArray[np.float32],
    shape: tuple[int, ...],
    *,
    fjord_mask: NDArray[np.bool_] | None = None,
    trace: TraceSettings = DEFAULT,
) -> NDArray[np.int32]:
    """Boxes (n, edge) of the candidate fronts of a first pass (256, 256, mask), in px of a scene of `shape` (y, x)."""
    if np.isnan(overview).all():
        return np.empty((0, 4), dtype=np.int32)
    low = None if fjord_mask is None else resize(fjord_mask.astype("uint8"), overview.shape[:2], nearest=True) > 0
    return candidate_boxes(overview[..., 0], overview[..., 1], shape, fjord_mask=low, settings=trace)


def masks_of(
    channels: NDArray[np.uint8],
    overviews: NDArray[np.float32],
    candidates: NDArray[np.int32],
    *,
    network: str,
    settings: InferenceSettings | None = None,
    trace: TraceSettings = DEFAULT,
) -> NDArray[np.float32]:
    """Second pass of scenes (n, y, x, 4), the windows of all in one batch, laid over the first -> (n, mask, y, x).

    Windows fade into the first pass at their border, unless each is to give a front of its own. A window that shows the
    whole scene shows no more than the first pass did, and is not predicted again; nor is a scene without data.
    """
    shape = channels.shape[1:3]
    whole = Window(0, shape[0], 0, shape[1])
    windows = [
        [w for w in _windows(boxes, shape, trace) if w != whole and scene[..., 3].any()]
        for boxes, scene in zip(candidates, channels, strict=True)
    ]
    parts = [w.cut(scene) for scene, of_scene in zip(channels, windows, strict=True) for w in of_scene]
    predicted = iter(_predict_pictures(parts, network, settings))
    masks = np.empty((len(channels), len(MASKS), *shape), dtype=np.float32)
    for place, (overview, of_scene) in enumerate(zip(overviews, windows, strict=True)):
        laid = resize(overview, shape)
        for window in of_scene:
            weight = 1.0 if trace.window.one_front else _taper(window, shape)[..., None]
            window.cut(laid)[:] = (1 - weight) * window.cut(laid) + weight * resize(next(predicted), window.shape)
        masks[place] = np.where(channels[place, ..., 3] > 0, np.moveaxis(laid, -1, 0), np.float32(np.nan))
    return masks


def _windows(boxes: NDArray[np.int32], shape: tuple[int, ...], trace: TraceSettings) -> list[Window]:
    """Windows of a scene's second pass; one front a window asks for the middle of the scene too, if all else fails."""
    around = [box for box in boxes if box[0] >= 0]
    if trace.window.one_front:
        around.append(whole_box(shape))
    return list(dict.fromkeys(window_around(box, shape, trace.window) for box in around))


def _prepare_block(block: NDArray[np.float32], kinds: NDArray[Any], *, resolution_m: float) -> NDArray[np.uint8]:
    return np.stack([prepare_scene(scene, resolution_m, kind) for scene, kind in zip(block, kinds, strict=True)])


def _candidate_block(block: NDArray[np.float32], *, domain: Domain, trace: TraceSettings) -> NDArray[np.int32]:
    boxes = np.full((len(block), MOST_BOXES, 4), -1, dtype=np.int32)
    fjord_mask = tracing_mask(domain, trace)
    for place, overview in enumerate(block):
        found = candidates_of(overview, domain.shape, fjord_mask=fjord_mask, trace=trace)
        boxes[place, : len(found)] = found
    return boxes


def _predict_pictures(
    pictures: Sequence[NDArray[np.uint8]], network: str, settings: InferenceSettings | None
) -> list[NDArray[np.float32]]:
    """Masks (256, 256, 2) of each picture (y, x, 4), all in one batch; a second opinion weakens fronts.

    In pictures of light it is that of the network's verifier, in others that of its own mask of rock, where it has
    them; in coarse pictures, of few pixels, that of the verifier too.
    """
    settings = settings or InferenceSettings()
    masks = _masks_of_pictures([picture[..., :3] for picture in pictures], network, settings)
    by_light = [picture[..., 3].max(initial=NOT_SEEN) == OPTICAL for picture in pictures]
    for of_picture in (m for m, is_light in zip(masks, by_light, strict=True) if not is_light and m.shape[-1] > 2):
        of_picture[..., 0] *= beside_glaciers(of_picture[..., 1], of_picture[..., 2])
    if verifier := networks.verifier_of(network):
        verified = [i for i, p in enumerate(pictures) if by_light[i] or MAGNIFIED * max(p.shape[:2]) <= INPUT_SIZE]
        seen = _masks_of_pictures([pictures[i][..., :3] for i in verified], verifier, replace(settings, stride=None))
        for i, seen_by_verifier in zip(verified, seen, strict=True):
            masks[i][..., 0] *= agreement(seen_by_verifier[..., 0])
    return [of_picture[..., : len(MASKS)] for of_picture in masks]


def agreement(front: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far a front is believed, 0 to 1, where a verifier sees this front mask (y, x)."""
    return np.asarray(
        np.minimum(maximum_filter(front, 2 * VERIFIER_REACH_PX + 1) / VERIFIER_LEAST, 1), dtype=np.float32
    )


def beside_glaciers(ice: NDArray[np.float32], rock: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far a front is believed, 0 to 1, from the land around it, all (y, x): rock does not calve."""
    land, rocky = (uniform_filter(mask, ROCK_WINDOW_PX) for mask in (ice, ice * rock))
    full, none = ROCK_SHARES
    return np.asarray(np.clip((none - rocky / (land + 1e-3)) / (none - full), 0, 1), dtype=np.float32)


def _masks_of_pictures(
    pictures: Sequence[NDArray[np.uint8]], network: str, settings: InferenceSettings
) -> list[NDArray[np.float32]]:
    """Masks (256, 256, mask) of each picture (y, x, 3) by one network."""
    shape = (INPUT_SIZE, INPUT_SIZE)
    shown = [_mirrored(p) for p in pictures] if settings.square_pixels else pictures
    resized = [np.rint(resize_channels(p.astype("float32"), shape)).astype("uint8") for p in shown]
    batch = np.stack(resized) if resized else np.empty((0, *shape, 3), "uint8")
    predicted = networks.predict_pictures(batch, network=network, settings=settings).astype("float32")
    masks = list(predicted / np.float32(LEVELS))
    return [_unmirrored(m, p.shape) for m, p in zip(masks, pictures, strict=True)] if settings.square_pixels else masks


def _mirrored(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror a picture (y, x, c) at its lower or right border to a square."""
    missing = [(0, max(picture.shape[:2]) - n) for n in picture.shape[:2]]
    return np.pad(picture, [*missing, (0, 0)], mode="symmetric")


def _unmirrored(masks: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Stretch the part of masks (256, 256, mask) that shows the picture of `shape` (y, x) to the whole frame."""
    side = max(shape[:2])
    if shape[0] == shape[1]:
        return masks
    return resize(resize(masks, (side, side))[: shape[0], : shape[1]], masks.shape[:2])


def _taper(window: Window, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Weight of a window's pixels, 1 inside and falling to 0 at its border, except where that is the scene's border."""
    ramps = []
    for first, last, n in ((*window[:2], shape[0]), (*window[2:], shape[1])):
        pixel = np.arange(first, last, dtype="float32")
        lower = np.full_like(pixel, np.inf) if first == 0 else pixel - first + 0.5
        upper = np.full_like(pixel, np.inf) if last == n else last - pixel - 0.5
        ramps.append(np.clip(np.minimum(lower, upper) / TAPER_PX, 0, 1))
    return np.asarray(np.minimum.outer(*ramps), dtype="float32")
