"""What tables of others call things: columns by name, ids of glaciers, dates in any of their forms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

GLACIER_COLUMNS = ("glacier_id", "glacier", "RefName", "GlacierNam", "name")
DATE_COLUMNS = ("datetime", "date", "SourceDate", "acq_time")
SCENE_COLUMNS = ("scene_id", "ImageID", "src")
DECIMAL_YEAR_COLUMNS = ("decimal_year", "DecDate")
YEAR_COLUMNS = ("Year",)

YEARS = (1800, 2200)  # numbers in a column of dates that are years
MONTH = r"\d{4}[-/ ]\d\d?"
DATE_IN_NAME = r"((?:19|20)\d\d)-?([01]\d)-?([0-3]\d)"


def first_column(names: Sequence[str], table: pd.DataFrame) -> str | None:
    """Find the column of a table that has the first of the names; letters' case and underscores do not matter.

    Examples
    --------
    >>> first_column(("glacier_id", "name"), pd.DataFrame(columns=["Name", "GLACIERID"]))
    'GLACIERID'
    """
    columns = {_plain(str(column)): str(column) for column in reversed(table.columns)}
    return next((columns[_plain(name)] for name in names if _plain(name) in columns), None)


def id_text(value: Any) -> str:  # noqa: ANN401 - a value of a table
    """Id as text, empty where there is none; whole numbers lose the `.0` that a column with gaps gives them."""
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def glacier_ids(table: pd.DataFrame, column: str) -> pd.Series:
    """Ids of glaciers as text, empty where there is none; 0, CALFIN's for one without a number, is its `RefName`."""
    ids: pd.Series = table[column].map(id_text)
    name = first_column(("RefName",), table)
    return ids if name is None else ids.where(ids != "0", table[name].map(id_text))


def satellite_code(platform: str, scene_id: str = "") -> str:
    """Satellite as CALFIN writes it: LC08, LE07, LT05, LM02, S1A, S2B; the platform as it is where it is another.

    Examples
    --------
    >>> satellite_code("LANDSAT_8"), satellite_code("sentinel-1a"), satellite_code("RADARSAT-1")
    ('LC08', 'S1A', 'RADARSAT-1')
    """
    if found := re.match(r"(L[A-Z]\d\d|S[12][A-D])_", scene_id):
        return found.group(1)
    if sentinel := re.fullmatch(r"s(?:entinel)?[-_ ]?([12][a-d])", platform.lower()):
        return f"S{sentinel.group(1).upper()}"
    if landsat := re.fullmatch(r"landsat[-_ ]?0?([1-9])", platform.lower()):
        return f"L{'MMMTTTECC'[int(landsat.group(1)) - 1]}0{landsat.group(1)}"
    return platform


def dates_of(
    table: pd.DataFrame, column: str | None = None, *, scene: str | None = None, source: str = "the table"
) -> pd.Series | None:
    """UTC times of the rows of a table, NaT where a row has none; None where no column tells of dates.

    A column of dates may hold decimal years. Without one the first date in a scene's name counts, else decimal years,
    else the columns `Year`, `Month` and `Day`: without the last two 15 August, as the original dates PROMICE. `column`
    names the one of dates, `scene` that of the scenes' names, where they are not recognised.

    Raises
    ------
    ValueError
        A date cannot be read, or is a year or a month without a day.
    """
    if column := column or first_column(DATE_COLUMNS, table):
        return _read_dates(table[column], f"{source}: column {column}")
    if scene := scene or first_column(SCENE_COLUMNS, table):
        parts = table[scene].astype(str).str.extract(DATE_IN_NAME)
        if parts.notna().all(axis=None):
            return _read_dates(parts[0] + "-" + parts[1] + "-" + parts[2], f"{source}: column {scene}")
    if decimal := first_column(DECIMAL_YEAR_COLUMNS, table):
        years = pd.to_numeric(table[decimal], errors="coerce").astype(float)
        return _instants(_unless_lost(years, table[decimal], f"{source}: column {decimal}", "numbers as 2019.505"))
    if year := first_column(YEAR_COLUMNS, table):
        told: dict[str, Any] = {"year": table[year], "month": 8, "day": 15}
        told |= {part: table[name] for part in ("month", "day") if (name := first_column((part,), table))}
        numbers = pd.DataFrame(told).apply(pd.to_numeric, errors="coerce")
        days: pd.Series = pd.to_datetime(numbers, utc=True, errors="coerce")
        given = table[year].where(pd.DataFrame(told).notna().all(axis=1))
        return _unless_lost(days, given, f"{source}: column {year}", "one that makes a date with its month and day")
    return None


def _read_dates(values: pd.Series, where: str) -> pd.Series:
    values = values.map(lambda value: (value.strip() or None) if isinstance(value, str) else value)
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    is_year = numbers.between(*YEARS)
    if is_year.any() and is_year.equals(values.notna()) and (numbers % 1 > 0).any():
        return _instants(numbers)
    if is_year.any():
        raise ValueError(
            f"{where} has years without a day, got {values[is_year].iloc[0]}: expected dates as 2019-07-04, or decimal "
            "years; call the column Year to date all fronts of a year 15 August"
        )
    if (months := values.astype(str).str.fullmatch(MONTH)).any():
        raise ValueError(
            f"{where} has months without a day, got {values[months].iloc[0]!r}: expected dates as 2019-07-04; "
            "write the day that shall stand for the month, such as 2019-07-15"
        )
    made: pd.Series = pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce")
    return _unless_lost(made, values, where, "ISO dates as 2019-07-04")


def _unless_lost(made: pd.Series, values: pd.Series, where: str, expected: str) -> pd.Series:
    """Return what was made of values, if none of these is lost."""
    if (lost := values.notna() & made.isna()).any():
        raise ValueError(f"{where} cannot be read, got {str(values[lost].iloc[0])!r}: expected {expected}")
    return made


def _instants(years: pd.Series) -> pd.Series:
    """UTC times of decimal years, to a second; leap years have 366 days."""
    known = years.dropna()
    whole = np.floor(known)
    starts, ends = (pd.to_datetime((whole + k).astype(int).astype(str) + "-01-01", utc=True) for k in (0, 1))
    made: pd.Series = (starts + (ends - starts) * (known - whole)).dt.round("s")
    return made.reindex(years.index)


def _plain(name: str) -> str:
    return name.lower().replace("_", "")
