"""The way of a scene, step by step: read, look, predict in two passes, trace; plain functions, in their order.

A step takes the scenes of a group (some scenes of one domain), and a scene that fails leaves the others alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from typing import Any, NamedTuple

import distributed
import numpy as np
import pystac
from numpy.typing import NDArray
from shapely.geometry import LineString

from calfin_cloud.domains import Domain
from calfin_cloud.figures import scene_png
from calfin_cloud.fronts import (
    Front,
    fjord_from_scenes,
    georeference,
    place_of,
    trace_placed,
    uncertainty_of,
)
from calfin_cloud.imagery import read_each, scene_fractions, stack_pixels
from calfin_cloud.inference import (
    Each,
    Predict,
    Prepared,
    SceneMasks,
    prepare_scene,
    tracing_mask,
    two_passes,
)
from calfin_cloud.opinions import predict_pictures
from calfin_cloud.pipeline.features import keep_bands, measured_features
from calfin_cloud.pipeline.settings import MapSettings, calibration_of
from calfin_cloud.polygons import Polygons, close_polygons
from calfin_cloud.schema import UNSEEN, SceneError, from_levels
from calfin_cloud.sensors import Kind, acquired, is_slc_off, item_of, kind_of
from calfin_cloud.storage import (
    encode_scene,
    read_candidates,
    read_scene_grey,
    read_scene_masks,
    unless_silent,
    write_picture,
)

log = logging.getLogger(__name__)

Item = Mapping[str, Any]
"""A STAC item as JSON values: pystac's own may drag its whole catalogue to a worker."""

Facts = dict[str, Any]
"""What is known of a scene: `reason`, `detail`, fractions, and where it was traced `fronts`, `rejected`, `polygons`,
`features` where they are wanted, and the `masks` that are yet to be stored."""

Result = Facts | Exception


@dataclass(frozen=True)
class Group:
    """Scenes of one domain that go through the steps together; `places` are theirs on the time axis of the masks."""

    store: str
    domain: Domain
    items: Sequence[Item]
    places: Sequence[int]

    @cached_property
    def stac_items(self) -> list[pystac.Item]:
        """The items as pystac's own, made once and only on the worker that needs them."""
        return [item_of(item) for item in self.items]

    @property
    def targets(self) -> list[Target]:
        """Where the results of each scene go."""
        return [
            Target(self.store, self.domain, place, item.id, acquired(item))
            for item, place in zip(self.stac_items, self.places, strict=True)
        ]


class Target(NamedTuple):
    """Where the results of one scene go."""

    store: str
    domain: Domain
    place: int
    scene_id: str
    when: datetime | None = None


class Look(NamedTuple):
    """First look at one scene: its fractions, or why it is left out; the network's input where it is not."""

    facts: Result
    channels: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Looks(Prepared):
    """First look at the scenes of a group: `facts` of each, or what went wrong; channels of those to be mapped.

    `targets` say where the results of each go: all that further steps ask of a group, without its items.
    """

    facts: Sequence[Result] = ()
    targets: Sequence[Target] = ()


def map_looks(looks: Sequence[Any], settings: MapSettings, *, each: Each, predict: Predict) -> Sequence[Any]:
    """Take groups of scenes that were looked at through all further steps: a list of results of each group."""
    masks = two_passes(looks, settings=settings.inference, trace=settings.trace, each=each, predict=predict)
    return each(partial(finish, settings=settings), looks, masks)


def map_look(looks: Looks, *, settings: MapSettings) -> list[Result]:
    """Take the scenes of one group through all further steps, one step after the other in this process."""
    predict = partial(predict_pictures, network=settings.network, settings=settings.inference)
    (results,) = map_looks(
        [looks],
        settings,
        each=lambda step, *lists: [step(*call) for call in zip(*lists, strict=True)],
        predict=lambda pictures: [predict(*of_group) for of_group in pictures],
    )
    return list(results)


# The steps


def look(group: Group, *, settings: MapSettings) -> Looks:
    """Read the scenes of a group, some at once, measure them, and prepare those that are worth the network."""
    items = group.stac_items
    with suppress(ValueError, KeyError):  # no task of a worker
        distributed.secede()  # reading is mostly waiting: others may run meanwhile
    looked = []
    for item, scene in zip(items, read_each(stack_pixels(items, group.domain)), strict=True):
        try:
            if isinstance(scene, Exception):
                raise scene
            seen = look_at_scene(
                scene,
                resolution_m=group.domain.resolution_m,
                slc_off_possible=is_slc_off(item),
                settings=settings,
                kind=kind_of(item),
            )
            if settings.features and seen.channels is not None:
                _keep_bands(group, item, scene, settings)
            looked.append(seen)
        except Exception as error:
            looked.append(Look(error, None))
    walls = tracing_mask(group.domain, settings.trace)
    return Looks([of.channels for of in looked], walls, [of.facts for of in looked], group.targets)


def _keep_bands(group: Group, item: pystac.Item, scene: NDArray[np.float32], settings: MapSettings) -> None:
    """Keep the bands that features are measured from; without them a feature is `unreadable`, and a front is not."""
    try:
        keep_bands(group.store, item, scene, group.domain, settings.features)
    except Exception as error:
        log.warning("%s: the bands of its features could not be kept: %s", item.id, error)


def finish(looks: Looks, masks: Sequence[SceneMasks | None], *, settings: MapSettings) -> list[Result]:
    """Trace the scenes that were predicted; of the others, say why they were not."""
    each = zip(looks.targets, looks.facts, looks.channels, masks, strict=True)
    store = next((target.store for target in looks.targets), "")
    return unless_silent(store, [partial(_finish, *of_scene, settings) for of_scene in each])


def _finish(
    target: Target,
    facts: Result,
    channels: NDArray[np.uint8] | None,
    predicted: SceneMasks | None,
    settings: MapSettings,
) -> Result:
    if isinstance(facts, Exception) or predicted is None or channels is None:
        return facts
    return facts | trace_predicted(predicted, channels[..., 0], target, settings)


def retrace(group: Group, reasons: Sequence[tuple[str, str]], *, settings: MapSettings) -> list[Result]:
    """Trace the scenes of a group anew from their stored masks; `reasons` are what the store says of each now.

    A scene without masks that the network had not seen stays as it is.
    """
    each = zip(group.targets, reasons, strict=True)
    return unless_silent(group.store, [partial(_retrace, target, *reason, settings) for target, reason in each])


def _retrace(target: Target, reason: str, detail: str, settings: MapSettings) -> Result:
    levels = read_scene_masks(target.store, target.domain.name, target.place)
    if not np.isnan(levels[0]).all():
        return _trace_stored(levels, target, settings)
    if reason in UNSEEN:
        return SceneError(reason, detail)
    return SceneError("unreadable", "its masks are no longer in the store: `calfin retry` maps it again")


# What the steps are made of


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
    if left_out := why_left_out(fractions, settings):
        return Look(fractions | left_out, None)
    try:
        return Look(fractions, prepare_scene(scene, resolution_m, kind))
    except SceneError as error:  # it shows nothing: how much of it is cloud or missing is known all the same
        return Look(fractions | {"reason": error.reason, "detail": error.message}, None)


def why_left_out(facts: Mapping[str, float], settings: MapSettings) -> dict[str, str]:
    """Reason and detail why a scene is not worth the network; empty if it is."""
    for reason, fraction, limit in (
        ("nodata", facts["nodata_fraction"], settings.max_nodata),
        ("cloudy", facts["cloud_fraction"], settings.max_cloud),
    ):
        if fraction > limit:  # an unknown cloud fraction is NaN and passes
            return {"reason": reason, "detail": f"{fraction:.0%} of the domain, at most {limit:.0%} is accepted"}
    return {}


def trace_predicted(predicted: SceneMasks, grey: NDArray[np.uint8], target: Target, settings: MapSettings) -> Facts:
    """Trace the fronts of a scene; return what was found, and its masks and grey picture (y, x) to be stored."""
    encoded = encode_scene(predicted.masks, candidates=predicted.boxes, grey=grey)
    found = trace_scene(from_levels(predicted.masks), predicted.boxes, grey, target, settings)
    return found | {"masks": encoded}


def trace_scene(
    masks: NDArray[np.float32],
    boxes: NDArray[np.int32],
    grey: NDArray[np.uint8] | None,
    target: Target,
    settings: MapSettings,
) -> Facts:
    """Trace a scene from its masks (mask, y, x) as they are stored, and draw its picture; return what was found."""
    store, domain, _, scene_id, when = target
    front, ice = masks
    walls = tracing_mask(domain, settings.trace)
    place = place_of(domain, when.date() if when else None, settings.trace)
    trace = trace_placed(front, ice, place=place, fjord_mask=walls, boxes=boxes, settings=settings.trace)
    on_map = [georeference(f.line, domain.grid.transform) for f in trace.fronts]
    if grey is not None:
        lines, rejected = [f.line for f in trace.fronts], [r.line for r in trace.rejected]
        write_picture(store, domain.name, scene_id, scene_png(grey, lines, rejected=rejected))
    facts: Facts = {
        "reason": trace.reason,
        "detail": trace.detail,
        "isolation": ("none" if walls is None else domain.fjord_source) if trace.fronts else "",
        "fronts": [
            _columns(line, f, domain) | _uncertainty(f, trace.fronts, masks, domain, settings)
            for line, f in zip(on_map, trace.fronts, strict=True)
        ],
        "rejected": [(georeference(r.line, domain.grid.transform), r.objection) for r in trace.rejected],
        "polygons": _close(trace.fronts, on_map, ice, domain, settings),
        "fjord": domain.fjord_source or "scene",
    }
    if settings.features and when:
        facts["features"] = measured_features(store, domain, scene_id, facts, when, settings.features)
    return facts


def _trace_stored(masks: NDArray[np.float32], target: Target, settings: MapSettings) -> Facts:
    where = (target.store, target.domain.name, target.place)
    return trace_scene(masks, read_candidates(*where), read_scene_grey(*where), target, settings)


def _columns(line: LineString, found: Front, domain: Domain) -> dict[str, Any]:
    """Say how a front was traced, as columns of the fronts table."""
    return {
        "geometry": line,
        "confidence": found.confidence,
        "least_confidence": found.least,
        "traced_by": found.traced_by,
        "guide_distance_m": found.guide_m,
        "ends": found.ends,
    }


def _uncertainty(
    found: Front, fronts: Sequence[Front], masks: NDArray[np.float32], domain: Domain, settings: MapSettings
) -> dict[str, Any]:
    """Uncertainty of one of the fronts of a scene in metres on the ground, and its score."""
    others = [front.line for front in fronts if front is not found]
    calibration = calibration_of(settings.network)
    sure = uncertainty_of(
        found.line,
        masks[0],
        masks[1],
        calibration,
        others=others,
        traced_by=found.traced_by,
        covered=found.covered,
    )
    metres = domain.ground_m
    return {
        "sigma_m": sure.sigma_px * metres,
        "half95_m": sure.half95_px * metres,
        "vertex_sigma_m": [] if np.isnan(sure.sigma_px) else (sure.vertex_sigma_px * metres).astype("float32").tolist(),
        "score": sure.score,
        "score_reasons": sure.reasons,
    }


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
