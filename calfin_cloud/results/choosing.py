"""The fronts of a store as `calfin reconcile` chose them; what was mapped stays as it is stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import geopandas as gpd
import pandas as pd
import shapely

from calfin_cloud.results.settling import line_id
from calfin_cloud.schema import NO_FRONT
from calfin_cloud.storage import read_choices, read_fronts

CHOICE_COLUMNS = ("choice", "choice_why")
ORDER = ["domain", "datetime", "scene_id", "front"]

Entry = Mapping[str, Any]
"""Choices of one scene: `lines`, the digests of its mapped lines that they are about, and `rows`.

Each of the rows has `choice`, `why` and `front`, its number in the scene; those that come in have their `line` (WKB in
hexadecimal digits) and `columns` too.
"""


def chosen_fronts(store: str, verdicts: Sequence[Mapping[str, Any]] = ()) -> gpd.GeoDataFrame:
    """Read the fronts of a store, where it was reconciled as chosen, with `CHOICE_COLUMNS`; empty where it was not.

    Dropped fronts are not in the table; a scene that has none left says so in its row. Choices on lines that have
    changed since are void.

    Parameters
    ----------
    verdicts
        As `storage.read_reviews` returns them. Where the last one of a scene is about a line that was mapped and not
        chosen, the scene is as mapped: a person's word beats the choice.
    """
    fronts = read_fronts(store)
    found = read_choices(store)
    table = fronts.assign(**dict.fromkeys(CHOICE_COLUMNS, ""))
    entries = {key: entry for choices in found.values() for key, entry in choices["scenes"].items()}
    if not entries:
        return table
    said = {verdict["key"]: verdict.get("line") for verdict in verdicts}
    of_scenes = _lines_by_key(fronts, entries)
    gone: list[int] = []
    rows: list[pd.Series[Any]] = []
    for key, places in of_scenes.items():
        entry = entries[key]
        scene = table.loc[places]
        if valid_entry(entry, scene) and (key not in said or said[key] in _ids(entry, scene)):
            gone += places
            rows += _rows(scene, entry["rows"])
    if not rows:
        return table
    made = gpd.GeoDataFrame(rows, crs=fronts.crs).astype(dict(table.dtypes))
    kept = table.drop(index=gone)
    joined: gpd.GeoDataFrame = pd.concat([kept, made] if len(kept) else [made])
    return joined.sort_values(ORDER, ignore_index=True)


def valid_entry(entry: Entry, scene: gpd.GeoDataFrame) -> bool:
    """Whether choices are about the lines that a scene has now."""
    return bool(entry["lines"] == lines_of(scene))


def lines_of(scene: gpd.GeoDataFrame) -> list[str]:
    """Digests of the mapped lines of a scene, in the order of their numbers."""
    return [line_id(line) for line in scene.sort_values("front").geometry if line is not None]


def _lines_by_key(fronts: gpd.GeoDataFrame, entries: Mapping[str, Entry]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, key in fronts.loc[fronts["key"].isin(entries.keys()), "key"].items():
        places[key].append(place)
    return places


def _ids(entry: Entry, scene: gpd.GeoDataFrame) -> set[str]:
    """Digests of the lines that are chosen; the empty one where there is none."""
    mapped = {int(row.front): line_id(row.geometry) for row in scene.itertuples()}
    kept = {mapped[row["front"]] for row in entry["rows"] if row["choice"] == "kept"}
    came = {line_id(shapely.from_wkb(row["line"])) for row in entry["rows"] if "line" in row}
    return kept | came or {""}


def _rows(scene: gpd.GeoDataFrame, choices: Sequence[Mapping[str, Any]]) -> list[pd.Series[Any]]:
    """Rows of a scene as chosen."""
    by_number, first = {int(row["front"]): row for _, row in scene.iterrows()}, scene.iloc[0]
    rows = []
    for choice in (c for c in choices if c["choice"] != "dropped"):
        row = by_number.get(choice["front"], first).copy()
        if "line" in choice:
            row["state"], row["reason"], row["detail"] = "front", "", ""
            for name, value in choice["columns"].items():
                row[name] = float("nan") if value is None else value
            row["front"], row["geometry"] = choice["front"], shapely.from_wkb(choice["line"])
        row[list(CHOICE_COLUMNS)] = choice["choice"], choice["why"]
        rows.append(row)
    if rows:
        return rows
    row, why = first.copy(), "; ".join(choice["why"] for choice in choices)
    for name, value in (NO_FRONT | {"state": "no_front", "reason": "out_of_sequence", "detail": why}).items():
        row[name] = value
    row[list(CHOICE_COLUMNS)] = "dropped", why
    return [row]
