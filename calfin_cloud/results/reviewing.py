"""What people say of fronts becomes flags and corrected lines beside the automatic ones, and pairs to train on."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from shapely.errors import ShapelyError
from shapely.geometry import shape

from calfin_cloud.domains import Domain
from calfin_cloud.object_stores import store_text
from calfin_cloud.results.choosing import ORDER, chosen_fronts
from calfin_cloud.results.settling import Place, line_id, settle_verdicts
from calfin_cloud.results.training_scenes import write_training_scenes
from calfin_cloud.schema import FIRST_YEAR, LAST_YEAR
from calfin_cloud.storage import instant, read_flags, read_reviews, read_store_domains, write_review
from calfin_cloud.timeseries import flag_fronts, length_scale

log = logging.getLogger(__name__)

VERDICTS = ("accept", "reject", "redraw")
REVIEW_COLUMNS = ("verdict", "reviewer", "reviewed_at", "note")
MOST_NAMED = 8  # scenes in a warning
MANUAL_FLAG = {10: 0, 13: 3}
"""Quality flag of an automatic front -> that of a line a person drew (calfin-method 8)."""


def apply_verdicts(store: str, verdicts: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Check verdicts against the fronts of a store and keep them; count them by verdict.

    Parameters
    ----------
    verdicts
        Each with `key` and `front` as in the fronts table (`front` -1 for a scene without one), `verdict` (of
        `VERDICTS`), `author`, `time` (ISO), and for `redraw` a `geometry`: GeoJSON LineString in the CRS of the
        store, within the domain. `line`, which the report gives, tells the line that was judged (`line_id` of its
        data); without it that is the line of today. Nothing is kept if one of them is wrong.

    Raises
    ------
    ValueError
        A verdict is wrong; nothing is kept then.
    """
    before = read_reviews(store)
    places = settle_verdicts(fronts := chosen_fronts(store, before), before).places
    known = {(row.key, int(row.front)): row.geometry for row in fronts.itertuples()}
    known |= {(key, max(p.front, 0)): p.shown for key, of_scene in places.items() for p in of_scene if p.shown}
    domains = {domain.name: domain for domain in read_store_domains(store)}
    for place, verdict in enumerate(verdicts):
        if trouble := _trouble(verdict, known) or _misplaced(verdict, domains):
            raise ValueError(f"verdict {place + 1} of {len(verdicts)}: {trouble}")
    write_review(store, [{"line": line_id(known.get((v["key"], v["front"]))), **v} for v in verdicts])
    return Counter(str(v["verdict"]) for v in verdicts)


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """Read a file of verdicts: a JSON list, as the report saves it.

    Raises
    ------
    ValueError
        The file is no JSON list.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows add a mark
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}; take the file that the report saves") from None
    if not isinstance(content, list) or not all(isinstance(v, dict) for v in content):
        raise ValueError(f"{path} must hold a list of verdicts, got a {type(content).__name__}")
    return content


def reviewed_fronts(store: str, *, flagged: bool = True) -> gpd.GeoDataFrame:
    """Read the fronts of a store with the last verdict on each: `REVIEW_COLUMNS` are empty where nobody looked.

    A verdict belongs to the line that was judged, see `settling.settle_verdicts`: one on a line that has changed since,
    by a retrace or another network, is void, and `orphaned_verdicts` lists it. A drawn line stays: it has the quality
    flag of a manual front, and no uncertainty. A rejected front stays in the table. Fronts that time makes doubtful
    have the `flags` and `flag_details` that `calfin timeseries` kept, and a lower score (`timeseries.flag_fronts`),
    unless `flagged` is False. Where `calfin reconcile` has run, fronts are as it chose them, with `choice` and
    `choice_why` (`choosing.chosen_fronts`). What is stored of the automatic fronts does not change.
    """
    verdicts = read_reviews(store)
    fronts = chosen_fronts(store, verdicts)
    settled = settle_verdicts(fronts, verdicts)
    fronts = fronts.assign(**dict.fromkeys(REVIEW_COLUMNS, ""))
    beside = []
    for places in settled.places.values():
        for place in (p for p in places if p.verdict is not None):
            row = _with_verdict(
                fronts.loc[place.row if place.row is not None else places[0].row].copy(), place, fronts.crs
            )
            if place.row is None:
                beside.append(row)
            else:
                fronts.loc[place.row, row.index] = row
    if beside:
        further = gpd.GeoDataFrame(beside, crs=fronts.crs).astype(dict(fronts.dtypes))
        fronts = pd.concat([fronts, further]).sort_values(ORDER, ignore_index=True)
    return flag_fronts(fronts, read_flags(store, fronts)) if flagged else fronts


def in_time(fronts: gpd.GeoDataFrame, store: str) -> gpd.GeoDataFrame:
    """Leave out scenes of a store with dates that no report, series or export can tell; a warning names them."""
    is_told = fronts["datetime"].dt.year.between(FIRST_YEAR, LAST_YEAR)
    if not is_told.all():
        _tell_left_out(store, tuple(fronts.loc[~is_told, "key"].unique()))
    told: gpd.GeoDataFrame = fronts[is_told].reset_index(drop=True)
    return told


@cache  # a verb may read its store several times
def _tell_left_out(store: str, scenes: tuple[str, ...]) -> None:
    named = ", ".join(scenes[:MOST_NAMED]) + (f", ... ({len(scenes)})" if len(scenes) > MOST_NAMED else "")
    years = f"{FIRST_YEAR} to {LAST_YEAR}"
    log.warning("%s: scenes whose dates are not of the years %s are left out: %s", store, years, named)


def orphaned_verdicts(store: str) -> list[dict[str, Any]]:
    """List the verdicts that are about no front of today, the oldest first: their scene is gone, or the line judged."""
    verdicts = read_reviews(store)
    return [dict(v) for v in settle_verdicts(chosen_fronts(store, verdicts), verdicts).orphaned]


def _with_verdict(row: pd.Series[Any], place: Place, crs: Any) -> pd.Series[Any]:  # noqa: ANN401 - of pyproj
    """Say in the row of a front what was said of it; a drawn line has its own flag, and nothing measured of another."""
    assert place.verdict is not None
    said, when = place.verdict, instant(place.verdict["time"]).isoformat().replace("+00:00", "Z")
    row[list(REVIEW_COLUMNS)] = said["verdict"], said["author"], when, said.get("note", "")
    if place.drawn is None:
        return row
    automatic = int(row["quality_flag"])
    row["geometry"], row["front"] = place.drawn, max(place.front, 0)
    row["length_m"] = place.drawn.length / length_scale(crs, place.drawn)
    row["state"], row["reason"], row["quality_flag"] = "front", "", MANUAL_FLAG.get(automatic, automatic)
    row[["sigma_m", "half95_m", "score"]] = np.nan
    row["vertex_sigma_m"] = []
    return row


def usable_fronts(store: str | Path, *, flagged: bool = True) -> gpd.GeoDataFrame:
    """Read the fronts of a store that no person has rejected, redrawn ones as drawn; scenes without a front are out.

    Scenes whose dates cannot be told (`in_time`) are out too. Doubtful fronts are among them, with flags and a lower
    score, see `reviewed_fronts`.

    Parameters
    ----------
    store
        Folder or object prefix that `calfin map` made.
    flagged
        Take along the flags that `calfin timeseries` kept, and the score that they lower.

    Returns
    -------
    GeoDataFrame
        Rows of `read_fronts` with `verdict`, `reviewer`, `reviewed_at`, `note`, `flags` and `flag_details`.

    Raises
    ------
    ValueError
        There is no store.

    Examples
    --------
    >>> cc.usable_fronts("fronts")[["domain", "state", "verdict"]].values.tolist()
    [['Harald-Moltke-Brae', 'front', '']]
    """
    store = store_text(store)
    fronts = in_time(reviewed_fronts(store, flagged=flagged), store)
    usable: gpd.GeoDataFrame = fronts[(fronts["state"] == "front") & (fronts["verdict"] != "reject")]
    return usable.reset_index(drop=True)


def write_training_pairs(store: str, folder: Path) -> list[Path]:
    """Write the scenes whose fronts people accepted or redrew as pairs in CALFIN's layout, for `calfin train --data`.

    `<Domain>_<Satellite>_<scene>_<date>.png` is the scene as the network saw it, `..._mask.png` is 255 on ice and land
    and 0 on the ocean that the front closes. Scenes whose fronts do not close an ocean are left out.

    Raises
    ------
    ValueError
        The folder lies within a store.
    """
    fronts = reviewed_fronts(store)
    found = fronts[fronts["state"] == "front"]
    is_good = found["verdict"].isin(["accept", "redraw"]).groupby(found["key"]).transform("all")
    return write_training_scenes(store, folder, found[is_good], {d.name: d for d in read_store_domains(store)})


def _trouble(verdict: Mapping[str, Any], known: Mapping[tuple[str, int], Any]) -> str:
    """Say what is wrong with a verdict; nothing if all is right."""
    if odd := _odd_fields(verdict):
        return odd
    if verdict["verdict"] not in VERDICTS:
        return f"the verdict must be one of {VERDICTS}, got {verdict['verdict']!r}"
    # A front may be gone since its line was judged: then its scene has others today.
    is_gone = "line" in verdict and any(key == verdict["key"] for key, _ in known)
    if (verdict["key"], verdict["front"]) not in known and not is_gone:
        return f"the store has no front {verdict['front']} of {verdict['key']!r}"
    try:
        instant(verdict["time"])
    except ValueError:
        return f"the time must be as 2026-01-31T12:00:00Z, got {verdict['time']!r}"
    if verdict["verdict"] == "redraw" and not _is_line(verdict.get("geometry")):
        return f"it needs a GeoJSON LineString of some length, got {str(verdict.get('geometry'))[:80]}"
    return ""


def _misplaced(verdict: Mapping[str, Any], domains: Mapping[str, Domain]) -> str:
    """Say where a line should have been drawn; nothing if it lies there, or is of a domain that is not known."""
    domain = domains.get(verdict["key"].partition("/")[0])
    if verdict["verdict"] != "redraw" or domain is None or shape(verdict["geometry"]).intersects(domain.polygon):
        return ""
    got = shape(verdict["geometry"]).wkt[:80]
    return f"the line lies outside the domain {domain.name}, got {got}: give it in {domain.crs}, within the domain"


def _odd_fields(verdict: Mapping[str, Any]) -> str:
    if missing := [name for name in ("key", "front", "verdict", "author", "time") if verdict.get(name) in (None, "")]:
        return f"it lacks {missing}"
    try:
        json.dumps(verdict, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"it has half a character, {error.object[error.start : error.end]!a}: write the text anew, in UTF-8"
    kinds = dict.fromkeys(("key", "author", "note", "verdict", "time", "line"), str) | {"front": int}
    odd = [name for name, kind in kinds.items() if type(verdict.get(name, kind())) is not kind]
    return f"{odd} must be text, and the front a whole number" if odd else ""


def _is_line(geometry: Any) -> bool:  # noqa: ANN401 - any JSON value
    try:
        line = shape(geometry)
    except (ShapelyError, KeyError, TypeError, ValueError, AttributeError):
        return False
    return line.geom_type == "LineString" and 0 < line.length < np.inf
