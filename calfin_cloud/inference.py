"""Scenes become masks, lazily: three channels, a first pass over the domain, a second over windows around fronts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from calfin_cloud.domains import Domain
from calfin_cloud.fronts import TraceSettings, candidate_windows
from calfin_cloud.imagery import STRIPE_WIDTH_M, wide_parts
from calfin_cloud.network import load_network, predict_tiles
from calfin_cloud.preprocess import input_channels, normalise, resize_channels
from calfin_cloud.schema import MASKS, check_masks, check_scenes
from calfin_cloud.tiles import blend_tiles, cut_tiles

INPUT_SIZE = 256  # side of a scene or window as the network sees it (calfin-method 3.1)
TAPER_PX = 16  # a window fades into the first pass over so many pixels


@dataclass(frozen=True)
class InferenceSettings:
    """How a picture of 256 px is cut for the network.

    The original cuts nine tiles, 16 px apart (`CALFIN`). Four tiles of the picture and four of its transpose cost as
    much and gave better fronts on the validation glaciers Kangerlussuaq and Crane (model card of calfin-small).

    Attributes
    ----------
    stride
        Pixels between tiles.
    transposed
        Average the masks with those of the transposed picture.
    """

    stride: int = 32
    transposed: bool = True


CALFIN = InferenceSettings(stride=16, transposed=False)


def prepare_scenes(scenes: xr.DataArray) -> xr.DataArray:
    """Make the network's input lazily: scenes (time, band, y, x) -> (time, y, x, channel) uint8.

    Channels: raw, contrast-equalised and shadow-corrected grey (calfin-method 2.3), then 255 where the scene has data.
    """
    check_scenes(scenes)
    x = scenes["x"].values
    channels: xr.DataArray = xr.apply_ufunc(
        partial(_prepare_block, resolution_m=float(x[1] - x[0])),
        scenes,
        input_core_dims=[["band", "y", "x"]],
        output_core_dims=[["y", "x", "channel"]],
        dask="parallelized",
        output_dtypes=[np.uint8],
        dask_gufunc_kwargs={"output_sizes": {"channel": 4}},
    )
    return channels


def predict_masks(
    channels: xr.DataArray,
    domain: Domain,
    *,
    network: str,
    settings: InferenceSettings | None = None,
    trace: TraceSettings | None = None,
) -> xr.DataArray:
    """Predict the masks of prepared scenes lazily: (time, y, x, channel) uint8 -> (time, mask, y, x) float32.

    The network travels by name or path and is loaded once per worker process.
    """
    masks = xr.apply_ufunc(
        partial(_predict_block, domain=domain, network=network, settings=settings, trace=trace),
        channels,
        input_core_dims=[["y", "x", "channel"]],
        output_core_dims=[["mask", "y", "x"]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {"mask": len(MASKS)}},
    )
    return check_masks(masks.assign_coords(mask=list(MASKS)))


def prepare_scene(scene: NDArray[np.float32], resolution_m: float) -> NDArray[np.uint8]:
    """Make the input of one scene: (band, y, x) float32 with NaN = missing -> (y, x, 4) uint8.

    The last channel is 255 where the scene has data; narrow SLC-off gaps count as data, for the network looks across.
    """
    signal = scene[0]
    channels = np.rint(input_channels(signal)).astype("uint8")
    valid = ~wide_parts(np.isnan(signal), STRIPE_WIDTH_M / 2 / resolution_m)
    return np.dstack([channels, np.where(valid, 255, 0).astype("uint8")])


def predict_scene(
    channels: NDArray[np.uint8],
    *,
    network: str,
    fjord_mask: NDArray[np.bool_] | None = None,
    settings: InferenceSettings | None = None,
    trace: TraceSettings | None = None,
) -> NDArray[np.float32]:
    """Predict the masks of one scene in two passes: (y, x, 4) uint8 -> (mask, y, x) float32 probabilities.

    Pass 1 sees the whole scene at 256 x 256, pass 2 a square window around each candidate front (calfin-method 6.4),
    all windows in one batch. Windows fade into the first pass at their border. NaN where the scene has no data.
    """
    picture, valid = channels[..., :3], channels[..., 3] > 0
    shape = valid.shape
    predict = partial(_predict_pictures, model=load_network(network), settings=settings or InferenceSettings())
    (low,) = predict([picture])
    masks = _resize(low, shape)
    fjord_low = None if fjord_mask is None else _resize(fjord_mask.astype("uint8"), low.shape[:2], nearest=True) > 0
    found = candidate_windows(low[..., 0], low[..., 1], fjord_mask=fjord_low, settings=trace or TraceSettings())
    windows = list(dict.fromkeys(_square_window(w, low.shape[:2], shape) for w in found))
    windows = [w for w in windows if w != (0, shape[0], 0, shape[1]) or max(shape) > 1.25 * INPUT_SIZE]
    if windows:
        highs = predict([picture[a:b, c:d] for a, b, c, d in windows])
        for (a, b, c, d), high in zip(windows, highs, strict=True):
            weight = _taper((a, b, c, d), shape)[..., None]
            masks[a:b, c:d] = (1 - weight) * masks[a:b, c:d] + weight * _resize(high, (b - a, d - c))
    return np.where(valid, np.moveaxis(masks, -1, 0), np.float32(np.nan))


def _prepare_block(block: NDArray[np.float32], *, resolution_m: float) -> NDArray[np.uint8]:
    return np.stack([prepare_scene(scene, resolution_m) for scene in block])


def _predict_block(block: NDArray[np.uint8], *, domain: Domain, **how: Any) -> NDArray[np.float32]:  # noqa: ANN401
    return np.stack([predict_scene(channels, fjord_mask=domain.fjord_mask, **how) for channels in block])


def _predict_pictures(
    pictures: Sequence[NDArray[np.uint8]],
    model: Any,  # noqa: ANN401 - keras is untyped
    settings: InferenceSettings,
) -> list[NDArray[np.float32]]:
    """Masks (256, 256, 2) of each picture (y, x, 3), the tiles of all in one batch."""
    shape = (INPUT_SIZE, INPUT_SIZE)
    inputs = [normalise(resize_channels(p.astype("float32"), shape)) for p in pictures]
    views = [*inputs, *(np.swapaxes(i, 0, 1) for i in inputs)] if settings.transposed else inputs
    cuts = [cut_tiles(view, stride=settings.stride) for view in views]
    predicted = predict_tiles(model, np.concatenate([tiles for tiles, _ in cuts]))
    parts = np.split(predicted, np.cumsum([len(tiles) for tiles, _ in cuts])[:-1])
    masks = [blend_tiles(part, offsets, shape) for part, (_, offsets) in zip(parts, cuts, strict=True)]
    upright, turned = masks[: len(pictures)], masks[len(pictures) :]
    if not turned:
        return upright
    return [np.asarray((m + np.swapaxes(t, 0, 1)) / 2, "float32") for m, t in zip(upright, turned, strict=True)]


def _square_window(
    window: tuple[slice, slice], low_shape: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """First, last row, first, last column of a square window in scene pixels, at least 256 a side, inside the scene."""
    spans = [(s.start * n / m, s.stop * n / m) for s, m, n in zip(window, low_shape, shape, strict=True)]
    side = max(INPUT_SIZE, *(math.ceil(stop - start) for start, stop in spans))
    bounds: list[int] = []
    for (start, stop), n in zip(spans, shape, strict=True):
        length = min(side, n)
        first = int(np.clip(round((start + stop - length) / 2), 0, n - length))
        bounds += [first, first + length]
    return bounds[0], bounds[1], bounds[2], bounds[3]


def _taper(window: tuple[int, int, int, int], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Weight of a window's pixels, 1 inside and falling to 0 at its border, except where that is the scene's border."""
    ramps = []
    for first, last, n in ((*window[:2], shape[0]), (*window[2:], shape[1])):
        pixel = np.arange(first, last, dtype="float32")
        lower = np.full_like(pixel, np.inf) if first == 0 else pixel - first + 0.5
        upper = np.full_like(pixel, np.inf) if last == n else last - pixel - 0.5
        ramps.append(np.clip(np.minimum(lower, upper) / TAPER_PX, 0, 1))
    return np.asarray(np.minimum.outer(*ramps), dtype="float32")


def _resize(image: NDArray[Any], shape: tuple[int, ...], *, nearest: bool = False) -> NDArray[Any]:
    """Resize (y, x[, c]) with pixel centres kept in place."""
    how = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=how))
