"""Plain images without a map: their fronts in pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString, mapping

from calfin_cloud.fronts import DEFAULT, Trace, TraceSettings, Uncertainty, trace_fronts, uncertainty_of
from calfin_cloud.imagery import read_image
from calfin_cloud.inference import predict_scene, prepare_image
from calfin_cloud.network import DEFAULT_NETWORK, InferenceSettings
from calfin_cloud.pipeline.settings import calibration_of
from calfin_cloud.schema import FAILURES, SceneError
from calfin_cloud.sensors import Kind
from calfin_cloud.whole_files import write_whole_file

SURE = ("sigma_px", "half95_px", "score", "score_reasons")

Feature = dict[str, Any]


def trace_image(
    path: str | Path,
    *,
    network: str = DEFAULT_NETWORK,
    settings: InferenceSettings | None = None,
    trace: TraceSettings = DEFAULT,
    kind: Kind = "unknown",
) -> list[Feature]:
    """Trace the fronts of a plain image, without a domain: a GeoJSON feature a front, at least one an image.

    `kind` is that of the sensor, and decides which second opinion fronts get (see `inference`).
    Properties `image, front, state, reason, detail, confidence`, and `sigma_px, half95_px, score, score_reasons` (see
    `fronts.Uncertainty`); geometry a LineString or None in pixel coordinates: x = column, y = row, the centre of the
    first pixel at (0, 0).

    Parameters
    ----------
    path
        PNG or GeoTIFF, grey or RGB(A), 8 or 16 bit, 64 px a side or more.
    network
        Name of a shipped network, or path of weights.
    settings
        How pictures are cut for the network, and what runs it.
    trace
        From masks to fronts.
    kind
        `optical`, `sar` or `unknown`.

    Returns
    -------
    list
        Features; the state of an image that cannot be read is `failed`, with the error as `detail`.

    Raises
    ------
    ValueError
        The network is not known, or its file holds none.

    Examples
    --------
    >>> (feature, *_) = cc.trace_image("missing.png")
    >>> feature["properties"]["state"], feature["geometry"]
    ('failed', None)
    """
    try:
        channels = prepare_image(read_image(path), kind)
        (front, ice), boxes = predict_scene(channels, network=network, settings=settings, trace=trace)
        traced = trace_fronts(front, ice, boxes=boxes, settings=trace)
        sure = _how_sure(traced, front, ice, network)
    except SceneError as error:
        traced, sure = Trace((), error.reason, error.message), []
    return _features_of(path, traced, sure)


def _features_of(path: str | Path, traced: Trace, sure: Sequence[Uncertainty]) -> list[Feature]:
    state = "front" if traced.fronts else "no_front" if traced.reason not in FAILURES else "failed"
    about = {"image": str(path), "front": -1, "state": state, "reason": traced.reason, "detail": traced.detail}
    features: list[Feature] = [
        {
            "properties": about | {"front": n, "confidence": found.confidence} | _plain(how_sure),
            "geometry": mapping(LineString(found.line)),
        }
        for n, (found, how_sure) in enumerate(zip(traced.fronts, sure, strict=True))
    ] or [{"properties": about | {"confidence": None} | dict.fromkeys(SURE), "geometry": None}]
    return [{"type": "Feature", **feature} for feature in features]


def _how_sure(traced: Trace, front: NDArray[np.float32], ice: NDArray[np.float32], network: str) -> list[Uncertainty]:
    """Uncertainty of each front of an image, from its masks (y, x)."""
    lines = [f.line for f in traced.fronts]
    others = [[*lines[:n], *lines[n + 1 :]] for n in range(len(lines))]  # an edge that they follow is not missing
    return [
        uncertainty_of(line, front, ice, calibration_of(network), others=of)
        for line, of in zip(lines, others, strict=True)
    ]


def _plain(how_sure: Uncertainty) -> dict[str, Any]:
    """Turn an uncertainty into JSON values; NaN, which JSON does not know, is None."""
    values = dict(zip(SURE, (how_sure.sigma_px, how_sure.half95_px, how_sure.score, how_sure.reasons), strict=True))
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def write_image_fronts(features: Sequence[Feature], path: Path) -> None:
    """Write the features of plain images as GeoJSON."""
    text = json.dumps({"type": "FeatureCollection", "features": list(features)}, ensure_ascii=False, indent=1)
    write_whole_file(path, text + "\n")
