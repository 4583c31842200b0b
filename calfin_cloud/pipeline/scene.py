"""One scene: its masks are stored, and its fronts and polygons made from what is stored. These are tasks of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString

from calfin_cloud.domains import Domain
from calfin_cloud.figures import scene_png
from calfin_cloud.fronts import (
    Calibration,
    Front,
    calibration_beside,
    fjord_from_scenes,
    georeference,
    place_of,
    read_calibration,
    trace_placed,
    uncertainty_of,
)
from calfin_cloud.imagery import scene_fractions
from calfin_cloud.inference import prepare_scene, tracing_mask
from calfin_cloud.network import network_id, weights_path
from calfin_cloud.pipeline.recipes import calibration_id
from calfin_cloud.pipeline.settings import MapSettings
from calfin_cloud.polygons import Polygons, close_polygons
from calfin_cloud.sensors import Kind
from calfin_cloud.storage import read_candidates, read_scene_grey, read_scene_masks, write_masks, write_picture

Facts = dict[str, Any]
"""What is known of a scene: `reason`, `detail`, fractions, and where it was traced `fronts`, `rejected`, `polygons`."""

Result = Facts | Exception


class Look(NamedTuple):
    """First look at a scene: its fractions, or why it is left out; the network's input (y, x, 4) where it is not."""

    facts: Facts
    channels: NDArray[np.uint8] | None


class Target(NamedTuple):
    """Where the results of one scene go."""

    store: str
    domain: Domain
    place: int
    scene_id: str
    when: date | None = None


def look_at_scene(
    scene: NDArray[np.float32],
    *,
    resolution_m: float,
    slc_off_possible: bool,
    settings: MapSettings,
    kind: Kind = "unknown",
) -> Look:
    """Measure a scene (band, y, x) of a kind of sensor, and prepare it for the network if it is worth that."""
    fractions = scene_fractions(scene, resolution_m=resolution_m, slc_off_possible=slc_off_possible)
    facts = fractions | verdict(fractions, settings)
    return Look(facts, None if "reason" in facts else prepare_scene(scene, resolution_m, kind))


def verdict(facts: Mapping[str, float], settings: MapSettings) -> dict[str, str]:
    """Reason and detail why a scene is not worth the network; empty if it is."""
    for reason, fraction, limit in (
        ("nodata", facts["nodata_fraction"], settings.max_nodata),
        ("cloudy", facts["cloud_fraction"], settings.max_cloud),
    ):
        if fraction > limit:  # an unknown cloud fraction is NaN and passes
            return {"reason": reason, "detail": f"{fraction:.0%} of the domain, at most {limit:.0%} is accepted"}
    return {}


def finish_scene(
    masks: NDArray[np.float32], candidates: NDArray[np.int32], look: Look, target: Target, settings: MapSettings
) -> Facts:
    """Store and trace a scene that was predicted; one that was left out is only told why."""
    if look.channels is None:
        return look.facts
    return look.facts | store_and_trace(masks, candidates, look.channels, target, settings)


def store_and_trace(
    masks: NDArray[np.float32],
    candidates: NDArray[np.int32],
    channels: NDArray[np.uint8],
    target: Target,
    settings: MapSettings,
) -> Facts:
    """Write the masks of a scene and trace its fronts from what is stored; return what was found."""
    store, domain, place, *_ = target
    boxes = candidates[candidates[:, 0] >= 0]
    write_masks(store, domain.name, place, masks, candidates=boxes, grey=channels[..., 0])
    return trace_stored(target, settings)


def trace_stored(target: Target, settings: MapSettings) -> Facts:
    """Trace a scene whose masks are stored, draw its picture; return what was found."""
    store, domain, place, scene_id, when = target
    front, ice = read_scene_masks(store, domain.name, place)
    walls = tracing_mask(domain, settings.trace)
    trace = trace_placed(
        front,
        ice,
        place=place_of(domain, when, settings.trace),
        fjord_mask=walls,
        boxes=read_candidates(store, domain.name, place),
        settings=settings.trace,
    )
    on_map = [georeference(f.line, domain.grid.transform) for f in trace.fronts]
    grey = read_scene_grey(store, domain.name, place)
    if grey is not None:
        lines, rejected = [f.line for f in trace.fronts], [r.line for r in trace.rejected]
        write_picture(store, domain.name, scene_id, scene_png(grey, lines, rejected=rejected))
    return {
        "reason": trace.reason,
        "detail": trace.detail,
        "isolation": ("none" if walls is None else domain.fjord_source) if trace.fronts else "",
        "fronts": [
            _columns(line, f) | _how_sure(f, front, ice, domain, settings)
            for line, f in zip(on_map, trace.fronts, strict=True)
        ],
        "rejected": [(georeference(r.line, domain.grid.transform), r.objection) for r in trace.rejected],
        "polygons": _close(trace.fronts, on_map, ice, domain, settings),
        "fjord": domain.fjord_source or "scene",
    }


def _columns(line: LineString, found: Front) -> dict[str, Any]:
    """Say how a front was traced, as columns of the fronts table."""
    return {
        "geometry": line,
        "confidence": found.confidence,
        "least_confidence": found.least,
        "traced_by": found.traced_by,
        "guide_distance_m": found.guide_m,
        "ends": found.ends,
    }


def _how_sure(
    found: Front, front: NDArray[np.float32], ice: NDArray[np.float32], domain: Domain, settings: MapSettings
) -> dict[str, Any]:
    """Uncertainty of a front in metres, and its score."""
    sure, metres = uncertainty_of(found.line, front, ice, calibration_of(settings.network)), domain.resolution_m
    return {
        "sigma_m": sure.sigma_px * metres,
        "half95_m": sure.half95_px * metres,
        "vertex_sigma_m": [] if np.isnan(sure.sigma_px) else (sure.vertex_sigma_px * metres).astype("float32").tolist(),
        "score": sure.score,
        "score_reasons": sure.reasons,
    }


def calibration_of(network: str) -> Calibration | None:
    """Read the calibration beside weights given by name or path; None where there is none."""
    return _calibration(network, calibration_id(network))


@lru_cache(maxsize=4)
def _calibration(network: str, _: str) -> Calibration | None:
    return read_calibration(calibration_beside(weights_path(network)), network=network_id(network))


def _close(
    fronts: Sequence[Front],
    lines: Sequence[LineString],
    ice: NDArray[np.float32],
    domain: Domain,
    settings: MapSettings,
) -> Polygons | None:
    """Close the fronts against the walls of the fjord; without a boundary, against those that the scene shows."""
    if not fronts:
        return None
    fjord = domain.fjord_mask
    if fjord is None:
        fjord = fjord_from_scenes([(ice, [f.line for f in fronts])])
    return close_polygons(lines, ice, domain.grid, fjord_mask=fjord, settings=settings.polygons)
