"""The table of a run and its pictures in; one self-contained HTML report out."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from calfin_cloud.figures.pictures import (
    FRONT_COLOUR,
    LINE_WORDS,
    MAX_PICTURES,
    REFERENCE_COLOUR,
    REJECTED_COLOUR,
    hex_colour,
    open_picture,
)
from calfin_cloud.schema import POLYGON_KINDS, POLYGON_REASONS, REASONS, STATES, front_key

STATE_WORDS = {"front": "front found", "no_front": "no front", "failed": "failed"}
SCENE_COLUMNS = ("domain", "scene_id", "datetime", "platform", "state", "reason", "n_fronts", "length_m", "confidence")
REJECTED_COLUMNS = ("key", "candidate", "filter", "reason", "value", "limit", "detail")
POLYGON_COLUMNS = ("key", "kind", "reason", "detail", "area_m2")

_TEMPLATE = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
).get_template("report.html.jinja")


def report_html(
    scenes: pd.DataFrame,
    pictures: Mapping[str, bytes],
    *,
    title: str,
    provenance: Mapping[str, object],
    rejected: pd.DataFrame | None = None,
    polygons: pd.DataFrame | None = None,
) -> str:
    """Write the report of a run as one HTML page that opens offline: counts, pictures, table, provenance.

    Parameters
    ----------
    scenes
        A row a scene with `SCENE_COLUMNS` (`datetime` as text) and any further numeric columns; names ending in `_m`
        are metres, `m_to_DATE` and `distance_m` distances to reference fronts.
    pictures
        PNG of each scene by `domain/scene_id`; the first `MAX_PICTURES` are embedded, the rest are counted.
    provenance
        What made the run: model, code, settings, CRS; nested mappings and dataclasses are spread out.
    rejected
        Rejected candidates, a row each with `REJECTED_COLUMNS`; each scene lists its own.
    polygons
        Ocean and ice, a row each with `POLYGON_COLUMNS`; each scene tells their areas, or why there are none.
    """
    rejected = pd.DataFrame(columns=REJECTED_COLUMNS) if rejected is None else rejected
    polygons = pd.DataFrame(columns=POLYGON_COLUMNS) if polygons is None else polygons
    _check_columns(scenes, SCENE_COLUMNS, "scenes")
    _check_columns(rejected, REJECTED_COLUMNS, "rejected candidates")
    _check_columns(polygons, POLYGON_COLUMNS, "polygons")
    if unknown := sorted({str(s) for s in scenes["state"]} - set(STATES)):
        raise ValueError(f"scenes have the unknown states {unknown}, expected {STATES}")
    scenes = _with_areas(scenes, polygons)
    numbers = _number_columns(scenes)
    notes = _notes(rejected, polygons)
    rows = [_report_row(row, numbers) | notes[_key(row)] for row in scenes.to_dict("records")]
    cards, n_left_out = _cards(rows, pictures)
    return _TEMPLATE.render(
        title=_clean(title),
        n_scenes=len(rows),
        states=[(s, STATE_WORDS[s], sum(row["state"] == s for row in rows)) for s in STATES],
        reasons=_count_reasons(rows),
        medians=_medians(scenes),
        headers=[_header(c) for c in numbers],
        rows=rows,
        cards=cards,
        n_left_out=n_left_out,
        provenance=[(_clean(k), _clean(v)) for k, v in _flatten(provenance)],
        line_words=LINE_WORDS,
        front_colour=hex_colour(FRONT_COLOUR),
        rejected_colour=hex_colour(REJECTED_COLOUR),
        reference_colour=hex_colour(REFERENCE_COLOUR),
    )


def _check_columns(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    if missing := [c for c in columns if c not in table.columns]:
        raise ValueError(f"{what} lack the columns {missing}, expected {columns}")


def _key(row: Mapping[Any, Any]) -> str:
    return front_key(row["domain"], row["scene_id"])


def _with_areas(scenes: pd.DataFrame, polygons: pd.DataFrame) -> pd.DataFrame:
    """Scenes with the areas of their polygons in km2, a column for each kind that a scene of the run has."""
    areas = {
        f"{kind}_km2": polygons[polygons["kind"] == kind].groupby("key")["area_m2"].sum(min_count=1) / 1e6
        for kind in POLYGON_KINDS
    }
    keys = pd.Series([_key(row) for row in scenes.to_dict("records")], index=scenes.index, dtype=object)
    return scenes.assign(**{name: keys.map(area) for name, area in areas.items() if area.notna().any()})


def _notes(rejected: pd.DataFrame, polygons: pd.DataFrame) -> defaultdict[str, dict[str, Any]]:
    """Rejected candidates of each scene by its key, and the sentences on polygons that are missing or lack a front."""
    notes: defaultdict[str, dict[str, Any]] = defaultdict(lambda: {"rejected": [], "remarks": []})
    for row in rejected.sort_values(["key", "candidate"]).to_dict("records"):
        why = REASONS.get(row["reason"], row["reason"])
        texts = {"filter": row["filter"], "reason": why, "detail": row["detail"]}
        measures = {name: "–" if pd.isna(row[name]) else f"{row[name]:.3g}" for name in ("value", "limit")}
        notes[row["key"]]["rejected"].append({k: _clean(v) for k, v in texts.items()} | measures)
    for row in polygons[(polygons["reason"] != "") | (polygons["detail"] != "")].to_dict("records"):
        why = f"no polygons, since {POLYGON_REASONS.get(row['reason'], row['reason'])}" if row["reason"] else "polygons"
        remark = _clean(f"{why}: {row['detail']}" if row["detail"] else why)
        remarks = notes[row["key"]]["remarks"]
        if remark not in remarks:  # ocean and ice mostly lack for the same reason
            remarks.append(remark)
    return notes


def _thumbnail_uri(png: bytes, what: str) -> str:
    """Picture as a data URI: JPEG of a third of the PNG's size, full colour resolution to keep the thin lines."""
    out = io.BytesIO()
    open_picture(png, what).save(out, "JPEG", quality=80, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _number_columns(scenes: pd.DataFrame) -> list[str]:
    further = scenes.select_dtypes("number").columns
    return ["n_fronts", "length_m", "confidence", *(c for c in further if c not in SCENE_COLUMNS)]


def _report_row(row: Mapping[Any, Any], numbers: Sequence[str]) -> dict[str, Any]:
    reason = "" if pd.isna(row["reason"]) else str(row["reason"])
    words = REASONS.get(reason, reason) if reason or row["state"] == "front" else "no reason was recorded"
    texts = {k: "–" if pd.isna(row[k]) else _clean(row[k]) for k in ("domain", "scene_id", "datetime", "platform")}
    return {
        **texts,
        "key": _key(row),
        "state": row["state"],
        "state_words": STATE_WORDS[row["state"]],
        "reason": _clean(words),
        "numbers": [_number(c, row[c]) for c in numbers],
        "facts": [_fact(c, row[c]) for c in numbers if not pd.isna(row[c]) and row[c]],
    }


def _cards(rows: Sequence[dict[str, Any]], pictures: Mapping[str, bytes]) -> tuple[list[dict[str, Any]], int]:
    """Cards of the contact sheet in the order of the table, and the number of scenes left out of it.

    Scenes with and without a picture are limited apart, so that failures never crowd out the pictures.
    """
    cards = []
    n_shown = {True: 0, False: 0}
    for row in rows:
        png = pictures.get(row["key"])
        n_shown[png is not None] += 1
        if n_shown[png is not None] > MAX_PICTURES:
            continue
        try:
            picture = (
                {"uri": _thumbnail_uri(png, row["key"]), "missing": ""}
                if png is not None
                else {"missing": "no picture"}
            )
        except ValueError:
            picture = {"missing": "its picture cannot be read"}
        cards.append({**row, **picture})
    return cards, len(rows) - len(cards)


def _count_reasons(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    """State, its words, reason and number of scenes: by state, the most frequent reason first."""
    counts = Counter((row["state"], row["state_words"], row["reason"]) for row in rows)
    return sorted(((*what, n) for what, n in counts.items()), key=lambda line: (STATES.index(line[0]), -line[3]))


def _medians(scenes: pd.DataFrame) -> list[str]:
    """Sentences on the distances to reference fronts: median and number of scenes."""
    columns = [c for c in _number_columns(scenes) if c.startswith("m_to_") or c == "distance_m"]
    return [
        f"Median {_fact(c, float(scenes[c].median()))}, over {scenes[c].count()} scenes with a front and a reference"
        for c in columns
        if scenes[c].notna().any()
    ]


def _label(column: str) -> tuple[str, str]:
    """Name of a column in words, and its unit."""
    if column.startswith("m_to_"):
        return f"distance to reference of {column.removeprefix('m_to_')}", "m"
    units = {"_km2": "km²", "_m": "m", "_px": "px", "_deg": "°", "_days": "days"}
    suffix = next((s for s in units if column.endswith(s)), "")
    words = {"distance_m": "distance to reference", "n_fronts": "fronts"}
    return words.get(column, column.removesuffix(suffix).replace("_", " ")), units.get(suffix, "")


def _header(column: str) -> str:
    words, unit = _label(column)
    return f"{words} ({unit})" if unit else words


def _fact(column: str, value: float) -> str:
    words, unit = _label(column)
    return f"{words}: {_number(column, value)}\N{NO-BREAK SPACE}{unit}".rstrip()


def _number(column: str, value: float) -> str:
    """Value as text: lengths in whole metres, other measures in tenths, shares in hundredths."""
    if pd.isna(value):
        return "–"
    whole = column in ("length_m", "n_fronts") or isinstance(value, int | np.integer)
    return f"{value:,.{0 if whole else 1 if _label(column)[1] else 2}f}"


def _flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        nested = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        if isinstance(nested, Mapping):
            yield from _flatten(nested, f"{name}.")
        else:
            yield name, json.dumps(nested, default=str) if isinstance(nested, list | tuple | dict) else nested


def _clean(value: object) -> str:
    """Text that every browser and UTF-8 file takes: control characters and lone surrogates become a mark."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
