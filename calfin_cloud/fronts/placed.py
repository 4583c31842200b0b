"""Masks of one scene and what is known of its place in; its fronts out, guided by known termini where there are any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from itertools import chain

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from scipy.spatial import cKDTree
from shapely.geometry import LineString, MultiPolygon, Polygon

from calfin_cloud.domains import Domain
from calfin_cloud.fronts.evidence import map_weight
from calfin_cloud.fronts.filters import Objection
from calfin_cloud.fronts.found import Front, Rejected, Trace
from calfin_cloud.fronts.guided import Guide, Judged, Seen, judge_line, see, trace_guided, widths_m
from calfin_cloud.fronts.lines import fill_gaps, length_of, scale_of
from calfin_cloud.fronts.settings import DEFAULT, GuideSettings, MapWeights, TraceSettings
from calfin_cloud.fronts.trace import trace_fronts
from calfin_cloud.fronts.vertices import pixels_of, vertices_of
from calfin_cloud.schema import NO_BOXES
from calfin_cloud.termini import nearest_in_time, years_between

Area = Polygon | MultiPolygon

BETTER = 0.1  # worth by which a free front must beat a guided one that is not sure
SAME_PX = 3.0  # in px of a 256 px frame: a path most of which lies so near to another is the same front


@dataclass(frozen=True)
class Place:
    """What is known of the place of a scene, in its pixels.

    Attributes
    ----------
    guides
        Termini of the date nearest to the scene's, one a tributary.
    weight
        (y, x) of a free front's edges by maps of ice and ocean, 0 to 1; None without such maps.
    """

    guides: tuple[Guide, ...] = ()
    weight: NDArray[np.float32] | None = None


NOWHERE = Place()


def place_of(domain: Domain, when: date | None, settings: TraceSettings = DEFAULT) -> Place:
    """Bring what a domain knows of its place to the pixels of its grid, for a scene of a date."""
    guides: tuple[Guide, ...] = ()
    if settings.guide is not None:
        transform = domain.grid.transform
        nearest = nearest_in_time(domain.termini, when)
        others = [(t, pixels_of(t.line, transform)) for t in domain.termini if t not in nearest]
        guides = tuple(
            Guide(
                pixels_of(_inside(t.line, domain), transform),
                tuple(line for o, line in others if o.line.centroid.distance(t.line.centroid) < t.line.length),
                years_between(t, when),
                domain.ground_m,
            )
            for t in nearest
        )
    weight = None
    if settings.maps is not None and domain.ice is not None:
        weight = _weight_of(domain.grid, domain.ground_m, domain.ice, domain.ocean, settings.maps)
    return Place(guides, weight)


def trace_placed(
    front: NDArray[np.floating],
    ice: NDArray[np.floating],
    *,
    place: Place = NOWHERE,
    fjord_mask: NDArray[np.bool_] | None = None,
    boxes: NDArray[np.integer] = NO_BOXES,
    settings: TraceSettings = DEFAULT,
) -> Trace:
    """Trace the fronts of one scene at its place; where nothing is known of it as `trace_fronts` does.

    At known termini a guided path is taken for each. Where it is not sure, a free front that is better supported there,
    by the same measure, is taken instead; and where none is credible, a sure free front that has left the corridors'
    reach. If there is none either, the scene has no front.

    Parameters
    ----------
    front, ice, fjord_mask, boxes
        As in `trace_fronts`, all on the grid of the domain.
    place
        What is known, see `place_of`.
    """
    weighted = front if place.weight is None else front * place.weight
    free = trace_fronts(weighted, ice, fjord_mask=fjord_mask, boxes=boxes, settings=settings)
    if not place.guides or settings.guide is None:
        return free
    seen = see(front, settings.guide)
    guided = [trace_guided(seen, guide, settings.guide) for guide in place.guides]
    chosen = [_choose(seen, *pair, free, settings.guide) for pair in zip(place.guides, guided, strict=True)]
    fronts: list[Front] = []
    for judged, by in sorted(chain.from_iterable(chosen), key=lambda found: -found[0].worth):
        made = front_of(seen, judged, by, settings)
        if not _is_among(made, fronts, SAME_PX * scale_of(front.shape)):
            fronts.append(made)
    if not fronts:
        return _without(guided, free, settings.guide)
    covered = sum(length_of(f.line) for f in fronts) / _known_length(place.guides, SAME_PX * scale_of(front.shape))
    fronts = [replace(f, covered=covered) for f in sorted(fronts, key=lambda f: -length_of(f.line))]
    beaten = [f for f in free.fronts if not _is_among(f, fronts, SAME_PX * scale_of(front.shape))]
    what = "another line lies across the fjord at the known terminus, and is better supported there"
    no = [Rejected(f.line, Objection("terminus", "not_chosen", f.confidence, math.nan, what)) for f in beaten]
    return Trace(tuple(fronts), rejected=(*free.rejected, *no))


def _choose(
    seen: Seen, guide: Guide, guided: Judged | None, free: Trace, settings: GuideSettings
) -> list[tuple[Judged, str]]:
    """Fronts at one known terminus, and by what they were traced: one that is guided, or free ones; empty if none."""
    if guided is not None and guided.is_sure(settings):
        return [(guided, "guided")]
    judged = [judge_line(seen, fill_gaps(_pixels(f, seen)), guide, settings) for f in free.fronts]
    credible = [j for j in judged if j is not None and j.is_credible(settings)]
    if guided is None or not guided.is_credible(settings):
        # Within reach of the terminus the corridors were searched; what has left them must be sure.
        reach = max(widths_m(guide.years, settings))
        return [(j, "free") for j in credible if j.is_sure(settings) and j.away_m > reach]
    better = [j for j in credible if j.worth > guided.worth + BETTER]
    return [(j, "free") for j in better] or [(guided, "guided")]


def front_of(seen: Seen, judged: Judged, by: str, settings: TraceSettings) -> Front:
    """Make a front of a path that is believed, its vertices on the crest of the probability."""
    crest = 0.0 if settings.guide is None else settings.guide.crest_px
    how = replace(settings.vertex, ridge_px=crest)
    line = vertices_of(judged.path, seen.edge, scale_of(seen.edge.shape), how)
    confidence = float(seen.edge[tuple(judged.path.T)].mean())
    return Front(line, confidence, by, judged.away_m, judged.least, "; ".join(judged.ends))


def _without(guided: list[Judged | None], free: Trace, settings: GuideSettings) -> Trace:
    """Say why no front lies across the fjord at any known terminus."""
    best = max((found for found in guided if found), key=lambda found: found.worth, default=None)
    what = "no edge runs across the fjord there"
    if best is not None:
        what = (
            f"the best edge across the fjord has a mean probability of {best.support:.2f} on {best.cover:.0%} of the "
            f"terminus, at least {settings.credible:g} on {settings.least_cover:.0%} is needed"
        )
    objection = Objection("terminus", "not_across", best.support if best else 0.0, settings.credible, what)
    no = tuple(Rejected(f.line, objection) for f in free.fronts)
    return Trace((), objection.reason, objection.detail, (*free.rejected, *no))


def _is_among(front: Front, others: list[Front], near_px: float) -> bool:
    """Whether most of a front lies at one of the others."""
    if not others:
        return False
    vertices = np.concatenate([other.line for other in others])
    apart, _ = cKDTree(vertices).query(front.line)
    return bool((apart <= near_px).mean() > 0.5)


def _known_length(guides: Sequence[Guide], near_px: float) -> float:
    """Length in px of all known termini; one that several people drew counts once."""
    kept: list[NDArray[np.float64]] = []
    for guide in sorted(guides, key=lambda guide: -length_of(guide.line)):
        points = shapely.get_coordinates(shapely.segmentize(LineString(guide.line), 1.0))
        if not kept or (cKDTree(np.concatenate(kept)).query(points)[0] <= near_px).mean() <= 0.5:
            kept.append(points)
    return sum(length_of(points) for points in kept)


def _inside(line: LineString, domain: Domain) -> LineString:
    """Longest part of a known terminus within the domain, beyond which no scene is looked at; all of it if none is."""
    parts = shapely.get_parts(line.intersection(domain.polygon))
    return max((part for part in parts if part.length > 0), key=lambda part: part.length, default=line)


def _pixels(front: Front, seen: Seen) -> NDArray[np.intp]:
    """Vertices of a front as pixels (n, 2) row, column of the scene."""
    last = np.array(seen.edge.shape) - 1
    return np.clip(np.rint(front.line[:, ::-1]), 0, last).astype(np.intp)


@lru_cache(maxsize=2)  # the same for all scenes of a domain, which comes to each task as a copy of its own
def _weight_of(
    grid: GeoBox, pixel_m: float, ice: Area, ocean: Area | None, settings: MapWeights
) -> NDArray[np.float32] | None:
    """Weight (y, x) of edges by maps of ice and ocean in the grid's CRS, not to be written to."""
    weight = map_weight(_burnt(grid, ice), _burnt(grid, ocean), pixel_m, settings)
    if weight is not None:
        weight.flags.writeable = False
    return weight


def _burnt(grid: GeoBox, area: Area | None) -> NDArray[np.bool_] | None:
    """Polygons on a grid, (y, x) bool; None without."""
    if area is None:
        return None
    burnt = rasterize([(area, 1)], out_shape=tuple(grid.shape), transform=grid.transform, dtype="uint8")
    return np.asarray(burnt, dtype=bool)
