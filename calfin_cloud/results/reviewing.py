"""What people say of fronts becomes flags and corrected lines beside the automatic ones, and pairs to train on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import geopandas as gpd
import numpy as np
from rasterio.features import rasterize
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from calfin_cloud.domains import Domain
from calfin_cloud.exports.tables import satellite_code
from calfin_cloud.results.closing import close_scene
from calfin_cloud.storage import (
    digest,
    read_flags,
    read_fronts,
    read_places,
    read_reviews,
    read_scene_grey,
    read_store_domains,
    write_review,
)
from calfin_cloud.timeseries import flag_fronts, length_scale

VERDICTS = ("accept", "reject", "redraw")
REVIEW_COLUMNS = ("verdict", "reviewer", "reviewed_at", "note")
MANUAL_FLAG = {10: 0, 13: 3}
"""Quality flag of an automatic front -> that of a line a person drew (calfin-method 8)."""


def apply_verdicts(store: str, verdicts: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Check verdicts against the fronts of a store and keep them; count them by verdict.

    Parameters
    ----------
    verdicts
        Each with `key` and `front` as in the fronts table (`front` -1 for a scene without one), `verdict` (of
        `VERDICTS`), `author`, `time` (ISO), and for `redraw` a `geometry`: GeoJSON LineString in the CRS of the store.
        Nothing is kept if one of them is wrong.
    """
    fronts = read_fronts(store)
    known = set(zip(fronts["key"], fronts["front"], strict=True))
    for place, verdict in enumerate(verdicts):
        if trouble := _trouble(verdict, known):
            raise ValueError(f"verdict {place + 1} of {len(verdicts)}: {trouble}")
    lines = {(row.key, row.front): _line_id(row.geometry) for row in fronts.itertuples()}
    write_review(store, [{**v, "line": lines[v["key"], v["front"]]} for v in verdicts])
    return Counter(str(v["verdict"]) for v in verdicts)


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """Read a file of verdicts: a JSON list, as the report saves it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}; take the file that the report saves") from None
    if not isinstance(content, list) or not all(isinstance(v, dict) for v in content):
        raise ValueError(f"{path} must hold a list of verdicts, got a {type(content).__name__}")
    return content


def reviewed_fronts(store: str, *, flagged: bool = True) -> gpd.GeoDataFrame:
    """Read the fronts of a store with the last verdict on each: `REVIEW_COLUMNS` are empty where nobody looked.

    A verdict on a line that has changed since, by a retrace or another network, is void, unless it is a redrawn line.
    A redrawn front has the drawn line and the quality flag of a manual one, and no uncertainty; a rejected one stays in
    the table. Fronts that time makes doubtful have the `flags` and `flag_details` that `calfin timeseries` kept, and a
    lower score (`timeseries.flag_fronts`), unless `flagged` is False. What is stored of the automatic fronts does not
    change.
    """
    fronts = read_fronts(store)
    last = {(v["key"], int(v["front"])): v for v in read_reviews(store)}
    fronts = fronts.assign(**dict.fromkeys(REVIEW_COLUMNS, ""))
    for row, place in zip(fronts.index, zip(fronts["key"], fronts["front"], strict=True), strict=True):
        verdict = last.get(place)
        if verdict is None or not _is_valid(verdict, fronts.loc[row, "geometry"]):
            continue
        told = (verdict["verdict"], verdict["author"], verdict["time"], verdict.get("note", ""))
        fronts.loc[row, list(REVIEW_COLUMNS)] = told
        if verdict["verdict"] == "redraw":
            line = shape(verdict["geometry"])
            fronts.loc[row, "geometry"] = line
            length = line.length / length_scale(fronts.crs, line)
            fronts.loc[row, ["state", "reason", "length_m"]] = ("front", "", length)
            fronts.loc[row, "front"] = max(int(fronts.loc[row, "front"]), 0)
            fronts.loc[row, "quality_flag"] = MANUAL_FLAG.get(int(fronts.loc[row, "quality_flag"]), 0)
            fronts.loc[row, ["sigma_m", "half95_m", "score"]] = np.nan
            fronts.at[row, "vertex_sigma_m"] = []
    return flag_fronts(fronts, read_flags(store, fronts)) if flagged else fronts


def usable_fronts(store: str, *, flagged: bool = True) -> gpd.GeoDataFrame:
    """Read the fronts of a store that no person has rejected, redrawn ones as drawn; scenes without a front are out.

    Doubtful ones are among them, with flags and a lower score, see `reviewed_fronts`.
    """
    fronts = reviewed_fronts(store, flagged=flagged)
    usable: gpd.GeoDataFrame = fronts[(fronts["state"] == "front") & (fronts["verdict"] != "reject")]
    return usable.reset_index(drop=True)


def write_training_pairs(store: str, folder: Path) -> list[Path]:
    """Write the scenes whose fronts people accepted or redrew as pairs in CALFIN's layout, for `calfin train --data`.

    `<Domain>_<Satellite>_<scene>_<date>.png` is the scene as the network saw it, `..._mask.png` is 255 on ice and land
    and 0 on the ocean that the front closes. Scenes whose fronts do not close an ocean are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    domains = {d.name: d for d in read_store_domains(store)}
    fronts = reviewed_fronts(store)
    paths = []
    for _, scene in fronts[fronts["state"] == "front"].groupby("key"):
        if not scene["verdict"].isin(["accept", "redraw"]).all():
            continue
        first = scene.iloc[0]
        made = _training_pair(store, domains[first["domain"]], str(first["scene_id"]), scene)
        if made is None:
            continue
        satellite = satellite_code(first["platform"], first["scene_id"])
        plain = "".join(c if c.isalnum() else "-" for c in str(first["scene_id"]))[:120]
        stem = f"{str(first['domain']).replace('_', '-')}_{satellite}_{plain}_{first['datetime']:%Y-%m-%d}"
        for ending, picture in zip(("", "_mask"), made, strict=True):
            paths.append(folder / f"{stem}{ending}.png")
            cv2.imwrite(str(paths[-1]), picture)
    return paths


def _training_pair(store: str, domain: Domain, scene_id: str, scene: gpd.GeoDataFrame) -> tuple[Any, Any] | None:
    """Picture and mask of one scene, uint8 (y, x); None where its fronts close no ocean."""
    grey = read_scene_grey(store, domain.name, read_places(store, domain.name)[scene_id])
    ocean = close_scene(store, domain, scene_id, list(scene.geometry)).ocean
    if grey is None or ocean is None:
        return None
    wet = rasterize([(ocean, 1)], out_shape=domain.shape, transform=domain.grid.transform, dtype="uint8")
    return grey, np.where(wet > 0, 0, 255).astype(np.uint8)


def _is_valid(verdict: Mapping[str, Any], line: BaseGeometry | None) -> bool:
    return bool(verdict["verdict"] == "redraw" or verdict.get("line", _line_id(line)) == _line_id(line))


def _line_id(line: BaseGeometry | None) -> str:
    return "" if line is None else digest(line.wkb)


def _trouble(verdict: Mapping[str, Any], known: set[tuple[str, int]]) -> str:
    """Say what is wrong with a verdict; nothing if all is right."""
    if missing := [name for name in ("key", "front", "verdict", "author", "time") if verdict.get(name) in (None, "")]:
        return f"it lacks {missing}"
    if verdict["verdict"] not in VERDICTS:
        return f"the verdict must be one of {VERDICTS}, got {verdict['verdict']!r}"
    if (verdict["key"], verdict["front"]) not in known:
        return f"the store has no front {verdict['front']} of {verdict['key']!r}"
    try:
        datetime.fromisoformat(str(verdict["time"]))
    except ValueError:
        return f"the time must be as 2026-01-31T12:00:00Z, got {verdict['time']!r}"
    if verdict["verdict"] == "redraw" and not _is_line(verdict.get("geometry")):
        return f"it needs a GeoJSON LineString of some length, got {str(verdict.get('geometry'))[:80]}"
    return ""


def _is_line(geometry: Any) -> bool:  # noqa: ANN401 - any JSON value
    try:
        line = shape(geometry)
    except (ShapelyError, KeyError, TypeError, ValueError, AttributeError):
        return False
    return line.geom_type == "LineString" and line.length > 0
