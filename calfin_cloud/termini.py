"""Where a glacier is known to have ended: dated lines of any product, by glacier, and as values of JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import geopandas as gpd
import pandas as pd
import shapely
from shapely.geometry import LineString

from calfin_cloud.columns import SCENE_COLUMNS, dates_of, first_column

SOURCE_COLUMNS = ("source", *SCENE_COLUMNS, "author")
DAYS_A_YEAR = 365.25
DIGITS = 2  # of a coordinate in metres


@dataclass(frozen=True)
class Terminus:
    """One known line where a glacier ended.

    Attributes
    ----------
    line
        In the CRS of its domain, in metres.
    date
        When it was there; None where nobody has noted it.
    source
        Scene, product or person that it comes from.

    Examples
    --------
    >>> Terminus(LineString([(0, 0), (3000, 0)]), date(2013, 3, 14), "MEaSUREs")
    """

    line: LineString
    date: date | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.line.geom_type != "LineString" or self.line.length <= 0:
            raise ValueError(f"a terminus must be a line of some length, got {self.line.wkt[:80]}: leave it out")


def termini_of(table: gpd.GeoDataFrame, crs: str, *, source: str = "") -> tuple[Terminus, ...]:
    """Make termini of the lines of a table, the oldest first, undated ones last; parts of multi-lines become several.

    Parameters
    ----------
    table
        Lines in any CRS, with dates (`columns.dates_of`) and a column that says where they are from (`SOURCE_COLUMNS`),
        where there are such.
    crs
        CRS of the termini, in metres.
    source
        Where the lines are from, for a table that does not say it.

    Raises
    ------
    ValueError
        A date cannot be read: a terminus without its date would guide fronts of the wrong years.
    """
    whence = first_column(SOURCE_COLUMNS, table)
    there = table[shapely.get_num_coordinates(table.geometry.to_numpy()) > 0]
    lines = there.geometry.to_crs(crs)
    told = dates_of(there, source="the termini")
    dates = [pd.NaT] * len(there) if told is None else told
    names = there[whence].fillna("").astype(str) if whence else [source] * len(there)
    made = [
        Terminus(shapely.set_precision(part, 10.0**-DIGITS), None if pd.isna(day) else day.date(), name or source)
        for shape, day, name in zip(lines, dates, names, strict=True)
        for part in shapely.get_parts(shapely.force_2d(shape))
        if part.geom_type == "LineString" and part.length > 0
    ]
    return tuple(sorted(made, key=lambda t: (t.date is None, t.date or date.min, t.line.bounds)))


def nearest_in_time(termini: Sequence[Terminus], when: date | None) -> tuple[Terminus, ...]:
    """Return all termini of the date nearest to `when`, of tributaries too; undated ones where none has a date."""
    dated = [t for t in termini if t.date is not None]
    if not dated or when is None:
        return tuple(termini if not dated else (t for t in dated if t.date == dated[-1].date))
    nearest = min((t.date for t in dated if t.date), key=lambda day: (abs((day - when).days), day))
    return tuple(t for t in dated if t.date == nearest)


def years_between(terminus: Terminus, when: date | None) -> float:
    """Years from a terminus to a date, either way; infinite where one of them is not known."""
    return abs((terminus.date - when).days) / DAYS_A_YEAR if terminus.date and when else math.inf


def termini_json(termini: Iterable[Terminus]) -> list[dict[str, str]]:
    """Termini as values of JSON, lines as WKT, for `read_termini`."""
    return [{"line": t.line.wkt, "date": t.date.isoformat() if t.date else "", "source": t.source} for t in termini]


def read_termini(values: Iterable[Mapping[str, Any]]) -> tuple[Terminus, ...]:
    """Read what `termini_json` wrote."""
    return tuple(
        Terminus(
            shapely.from_wkt(value["line"]),
            date.fromisoformat(value["date"]) if value.get("date") else None,
            str(value.get("source") or ""),
        )
        for value in values
    )
