"""Fronts of any product, drawn or mapped, as one table: columns recognised by name, or named by the caller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd

from calfin_cloud.domains import id_text
from calfin_cloud.vectors import read_vectors

PRODUCT_COLUMNS = {
    "key": ("key",),
    "scene_id": ("scene_id", "ImageID", "Image_ID", "src", "image_id"),
    "glacier_id": ("glacier_id", "GlacierID", "Glacier_ID", "GLACIER_ID", "glacier", "RefName", "GlacierNam", "name"),
    "datetime": ("datetime", "date", "Date", "SourceDate", "DATE", "acq_time"),
    "sensor": ("platform", "Satellite", "Sensor", "sensor", "sat"),
    "author": ("author", "Author", "Analyst"),
    "quality_flag": ("quality_flag", "QualFlag", "Quality_Fl", "quality"),
    "sigma_m": ("sigma_m",),
    "score": ("score",),
}
"""Our name of a column -> those of CALFIN, TermPicks, MEaSUREs, PROMICE, ESA-CCI and this project's own stores.

A column of dates may hold decimal years. Without one the first date in a scene's name counts, else decimal years, else
the column `Year`, dated 15 August as the original dates PROMICE. Glacier and satellite come from scene names like
CALFIN's where there is no column for them.
"""

YEAR_COLUMNS = ("Year", "year", "YEAR")

DECIMAL_YEAR_COLUMNS = ("decimal_year", "DecDate")

YEARS = (1800, 2200)  # numbers in a column of dates that are years

DATE_IN_NAME = r"((?:19|20)\d\d)-?([01]\d)-?([0-3]\d)"
CALFIN_NAME = r"(?P<glacier_id>.+?)_(?P<sensor>[A-Z]{2}\d\d|S1[A-D])_"
"""Beginning of the name of a scene of CALFIN: domain and satellite."""


def read_product(path: str | Path, columns: Mapping[str, str] | None = None) -> gpd.GeoDataFrame:
    """Read fronts of any vector format: `PRODUCT_COLUMNS` and a line, a row a front, in the file's CRS.

    Parameters
    ----------
    path
        Shapefile, GeoPackage, GeoJSON or GeoParquet with a CRS.
    columns
        Our name of a column -> the file's, where it is not recognised: ``{"datetime": "when"}``.

    Returns
    -------
    GeoDataFrame
        `key, scene_id, glacier_id, datetime` (UTC), `sensor, author, quality_flag, sigma_m, score`, empty or NaN
        where the file does not say, and `geometry`.

    Raises
    ------
    ValueError
        The file cannot be read, or has no CRS, no such column, or rows without a date.

    Examples
    --------
    >>> fronts = cc.read_product("real/reference.parquet")
    >>> len(fronts), fronts["glacier_id"].unique().tolist(), fronts.crs.to_epsg()
    (159, ['75'], 3413)
    """
    return product_of(read_vectors(path, "file of fronts"), columns, source=str(path))


def product_of(
    table: gpd.GeoDataFrame, columns: Mapping[str, str] | None = None, *, source: str = "the table"
) -> gpd.GeoDataFrame:
    """Bring a table of fronts to the columns of `read_product`, rows without a line left out.

    Raises
    ------
    ValueError
        There is no CRS, no such column, or rows are without a date.
    """
    if table.crs is None:
        raise ValueError(f"{source} has no CRS: say which one with ogr2ogr -a_srs, or geopandas' set_crs")
    if unknown := set(columns or {}) - set(PRODUCT_COLUMNS) | set((columns or {}).values()) - set(table.columns):
        raise ValueError(f"{source}: no column {sorted(unknown)}; ours are {list(PRODUCT_COLUMNS)}, its {list(table)}")
    found = {ours: (columns or {}).get(ours) or _first(theirs, table) for ours, theirs in PRODUCT_COLUMNS.items()}
    table = table[table.geometry.notna() & ~table.geometry.is_empty].reset_index(drop=True)
    made = gpd.GeoDataFrame(geometry=table.geometry)
    made["datetime"] = _dates(table, found["datetime"], found["scene_id"], source)
    if undated := int(made["datetime"].isna().sum()):
        raise ValueError(f"{source}: {undated} of {len(made)} fronts have no date: give them one, or leave them out")
    for ours in ("scene_id", "glacier_id", "sensor", "author"):
        made[ours] = table[found[ours]].map(id_text) if found[ours] else ""
    named = made["scene_id"].str.extract(CALFIN_NAME).fillna("")
    for ours in ("glacier_id", "sensor"):
        made[ours] = made[ours] if found[ours] else named[ours]
    for ours in ("quality_flag", "sigma_m", "score"):
        made[ours] = pd.to_numeric(table[found[ours]], errors="coerce") if found[ours] else np.nan
    days = made["datetime"].dt.strftime("%Y-%m-%d")
    fallback = made["glacier_id"] + "/" + made["scene_id"].where(made["scene_id"] != "", days)
    fallback += ("/" + made["author"]).where(made["author"] != "", "")  # who else drew the scene drew another front
    made["key"] = table[found["key"]].astype(str) if found["key"] else fallback
    return made[[*PRODUCT_COLUMNS, "geometry"]]


def _first(names: tuple[str, ...], table: gpd.GeoDataFrame) -> str | None:
    return next((name for name in names if name in table.columns), None)


def _dates(table: gpd.GeoDataFrame, column: str | None, scene: str | None, source: str) -> Any:  # noqa: ANN401 - a pandas series
    if column:
        numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
        is_year = numbers.between(*YEARS)
        if is_year.any() and is_year.equals(table[column].notna()) and (numbers % 1 > 0).any():
            return _instants(numbers)
        if is_year.any():
            raise ValueError(
                f"{source}: column {column} has years without a day, got {table[column][is_year].iloc[0]}: expected "
                "dates as 2019-07-04, or decimal years; call the column Year to date all fronts of a year 15 August"
            )
        try:
            return pd.to_datetime(table[column], utc=True, format="ISO8601")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{source}: column {column} has no ISO dates: {error}") from error
    if scene:
        parts = table[scene].astype(str).str.extract(DATE_IN_NAME)
        if parts.notna().all(axis=None):
            return pd.to_datetime(parts[0] + "-" + parts[1] + "-" + parts[2], utc=True)
    if decimal := _first(DECIMAL_YEAR_COLUMNS, table):
        return _instants(table[decimal].astype(float))
    if year := _first(YEAR_COLUMNS, table):
        return pd.to_datetime(table[year].astype(int).astype(str) + "-08-15", utc=True)
    expected = (*PRODUCT_COLUMNS["datetime"], *DECIMAL_YEAR_COLUMNS, *YEAR_COLUMNS)
    raise ValueError(f"{source} has no date: expected one of {expected}, got {list(table)}; name it with columns=")


def _instants(years: pd.Series) -> pd.Series:
    """UTC times of decimal years, to a second; leap years have 366 days."""
    known = years.dropna()
    whole = np.floor(known)
    starts, ends = (pd.to_datetime((whole + k).astype(int).astype(str) + "-01-01", utc=True) for k in (0, 1))
    made: pd.Series = (starts + (ends - starts) * (known - whole)).dt.round("s")
    return made.reindex(years.index)
