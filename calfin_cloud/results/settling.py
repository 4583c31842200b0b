"""Verdicts meet the fronts of today: each belongs to the line that a person judged or drew, whatever its number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import geopandas as gpd
import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from calfin_cloud.storage import digest

Verdict = Mapping[str, Any]


@dataclass
class Place:
    """A row of the fronts table, or a drawn front that has none (`row` is None): its line, and what was said last."""

    row: Any
    front: int
    line: BaseGeometry | None
    drawn: BaseGeometry | None = None
    verdict: Verdict | None = None

    @property
    def shown(self) -> BaseGeometry | None:
        """The line that people see."""
        return self.line if self.drawn is None else self.drawn


@dataclass
class Settled:
    """The places of scenes with verdicts, by key; and the verdicts whose front is gone, the oldest first."""

    places: dict[str, list[Place]] = field(default_factory=dict)
    orphaned: list[Verdict] = field(default_factory=list)


def settle_verdicts(fronts: gpd.GeoDataFrame, verdicts: Sequence[Verdict]) -> Settled:
    """Find the front that each verdict is about; the last one on a front counts.

    A verdict is about the line that it was given on. Where a recompute has changed or lost that line, `accept` and
    `reject` are orphaned. A drawn line stays as long as its scene does: in place of the front that it lies near to, in
    place of none where the scene has no front, else beside the others.

    Parameters
    ----------
    fronts
        Table of `storage.read_fronts`.
    verdicts
        As `storage.read_reviews` returns them, the oldest first.
    """
    by_key = defaultdict(list)
    for verdict in verdicts:
        by_key[verdict["key"]].append(verdict)
    settled = Settled()
    for row in fronts[fronts["key"].isin(by_key.keys())].itertuples():
        settled.places.setdefault(row.key, []).append(Place(row.Index, int(row.front), row.geometry))
    for verdict in verdicts:
        places = settled.places.get(verdict["key"], [])
        place = _find(verdict, places)
        if place is None and verdict["verdict"] == "redraw" and places:
            place = Place(None, max(p.front for p in places) + 1, None)
            places.append(place)
        if place is None:
            settled.orphaned.append(verdict)
            continue
        if verdict["verdict"] == "redraw":
            place.drawn = shapely.force_2d(shape(verdict["geometry"]))
        elif place.drawn is not None and verdict.get("line") != line_id(place.drawn):
            place.drawn = None  # it was said of the automatic line
        place.verdict = verdict
    return settled


def line_id(line: BaseGeometry | None) -> str:
    """Digest of a line; empty for none."""
    return "" if line is None else digest(line.wkb)


def _find(verdict: Verdict, places: Sequence[Place]) -> Place | None:
    if "line" not in verdict:  # of a version that told fronts by their numbers only
        return next((place for place in places if place.front == verdict["front"]), None)
    told = verdict["line"]
    for place in places:
        if told in (line_id(place.drawn), line_id(place.line)) and (told or place.shown is None):
            return place
    if verdict["verdict"] != "redraw":
        return None
    drawn = shapely.force_2d(shape(verdict["geometry"]))
    empty = [place for place in places if place.shown is None]
    near = [(drawn.hausdorff_distance(place.shown), place) for place in places if place.shown is not None]
    distance, nearest = min(near, key=lambda pair: pair[0], default=(0.0, None))
    if nearest is not None and distance <= max(drawn.length, nearest.shown.length) / 2:  # type: ignore[union-attr]
        return nearest
    return empty[0] if empty else None
