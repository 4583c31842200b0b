"""Fronts of any product, drawn or mapped, as one table: columns recognised by name, or named by the caller."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from calfin_cloud.columns import (
    DATE_COLUMNS,
    DECIMAL_YEAR_COLUMNS,
    GLACIER_COLUMNS,
    SCENE_COLUMNS,
    YEAR_COLUMNS,
    dates_of,
    first_column,
    glacier_ids,
    id_text,
    satellite_code,
)
from calfin_cloud.object_stores import has_store
from calfin_cloud.vectors import check_shapes, read_vectors

PRODUCT_COLUMNS = {
    "key": ("key",),
    "scene_id": SCENE_COLUMNS,
    "glacier_id": GLACIER_COLUMNS,
    "datetime": DATE_COLUMNS,
    "sensor": ("platform", "Satellite", "Sensor", "sat"),
    "author": ("author", "Analyst"),
    "quality_flag": ("quality_flag", "QualFlag", "Quality_Fl", "quality"),
    "sigma_m": ("sigma_m",),
    "score": ("score",),
}
"""Our name of a column -> those of CALFIN, TermPicks, MEaSUREs, PROMICE, ESA-CCI and this project's own stores.

Case and underscores do not matter. Dates are read as `columns.dates_of` does. Glacier and satellite come from scene
names like CALFIN's where there is no column for them; a column `id` that has one of several dates is of glaciers then.
"""

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
        The file cannot be read, is a store, or has no CRS, no such column, rows without a date, shapes that are no
        lines, or a key of several dates.

    Examples
    --------
    >>> fronts = cc.read_product("real/reference.parquet")
    >>> len(fronts), fronts["glacier_id"].unique().tolist(), fronts.crs.to_epsg()
    (159, ['75'], 3413)
    """
    try:
        table = read_vectors(path, "file of fronts")
    except ValueError as error:
        if not _is_store(os.fspath(path)):
            raise
        raise ValueError(
            f"{path} is a store of `calfin map`, not a file of fronts: `store_product` reads it"
        ) from error
    return product_of(table, columns, source=str(path))


def _is_store(address: str) -> bool:
    """Whether a store lies at an address, False where nobody can tell."""
    try:
        return has_store(address)
    except Exception:  # what the reading of the file has found is told
        return False


def product_of(
    table: gpd.GeoDataFrame, columns: Mapping[str, str] | None = None, *, source: str = "the table"
) -> gpd.GeoDataFrame:
    """Bring a table of fronts to the columns of `read_product`; rows without a line, or twice the same, are left out.

    Raises
    ------
    ValueError
        There is no CRS, no such column, rows are without a date or no lines, or fronts of several dates share a key.
    """
    if table.crs is None:
        raise ValueError(f"{source} has no CRS: say which one with ogr2ogr -a_srs, or geopandas' set_crs")
    if unknown := set(columns or {}) - set(PRODUCT_COLUMNS) | set((columns or {}).values()) - set(table.columns):
        raise ValueError(f"{source}: no column {sorted(unknown)}; ours are {list(PRODUCT_COLUMNS)}, its {list(table)}")
    found = {ours: (columns or {}).get(ours) or first_column(theirs, table) for ours, theirs in PRODUCT_COLUMNS.items()}
    table = table[shapely.get_num_coordinates(table.geometry.to_numpy()) > 0]
    check_shapes(table, "lines", source)
    table = table[shapely.length(table.geometry.to_numpy()) > 0].reset_index(drop=True)  # all its points may be one
    made = gpd.GeoDataFrame(geometry=table.geometry.force_2d())
    dates = dates_of(table, found["datetime"], scene=found["scene_id"], source=source)
    if dates is None:
        expected = (*DATE_COLUMNS, *DECIMAL_YEAR_COLUMNS, *YEAR_COLUMNS)
        raise ValueError(
            f"{source} has no date: expected one of {expected}, got {list(table)}; name it: "
            f"--columns datetime=COLUMN, or columns={{'datetime': COLUMN}} in Python"
        )
    made["datetime"] = dates
    if undated := int(made["datetime"].isna().sum()):
        raise ValueError(f"{source}: {undated} of {len(made)} fronts have no date: give them one, or leave them out")
    made["glacier_id"] = glacier_ids(table, found["glacier_id"]) if found["glacier_id"] else ""
    for ours in ("scene_id", "sensor", "author"):
        made[ours] = table[found[ours]].map(id_text) if found[ours] else ""
    named = made["scene_id"].str.extract(CALFIN_NAME).fillna("")
    for ours in ("glacier_id", "sensor"):
        made[ours] = made[ours] if found[ours] else named[ours]
    if (made["glacier_id"] == "").all():
        made["glacier_id"] = _ids_of_several_dates(table, made["datetime"])
    codes = [satellite_code(*pair) for pair in zip(made["sensor"], made["scene_id"], strict=True)]
    made["sensor"] = pd.Series(codes, index=made.index, dtype=str)  # also of no front
    for ours in ("quality_flag", "sigma_m", "score"):
        made[ours] = pd.to_numeric(table[found[ours]], errors="coerce") if found[ours] else np.nan
    # A day may have fronts of several scenes: without names their times and satellites tell them apart.
    passes = made["datetime"].dt.strftime("%Y-%m-%dT%H:%M:%S").str.removesuffix("T00:00:00")
    passes += ("/" + made["sensor"]).where(made["sensor"] != "", "")
    fallback = made["glacier_id"] + "/" + made["scene_id"].where(made["scene_id"] != "", passes)
    fallback += ("/" + made["author"]).where(made["author"] != "", "")  # who else drew the scene drew another front
    keys = table[found["key"]].map(id_text) if found["key"] else pd.Series("", made.index)
    same = pd.DataFrame({"key": keys, "fallback": fallback, "line": made.geometry.to_wkb()}).duplicated()
    # Lines of one key are parts of one front: not so where nothing tells their glaciers apart.
    fallback += ("/" + made.index.astype(str)).where(made["glacier_id"] == "", "")
    made["key"] = keys.where(keys != "", fallback)
    if (twice := made.groupby("key")["datetime"].transform("nunique") > 1).any():
        raise ValueError(
            f"{source}: fronts of several dates have the {found['key']} {made['key'][twice].iloc[0]!r}, which would be "
            "that of one front: rename the column"
        )
    return made.loc[~same, [*PRODUCT_COLUMNS, "geometry"]].reset_index(drop=True)


def _ids_of_several_dates(table: gpd.GeoDataFrame, dates: pd.Series) -> pd.Series | str:
    """Values of a column `id`, where one has several dates: then it is of a glacier, as for domains, and no number."""
    if (column := first_column(("id",), table)) is None:
        return ""
    ids = glacier_ids(table, column)
    pairs = pd.DataFrame({"id": ids, "date": dates})[ids != ""].drop_duplicates()
    return ids if pairs["id"].duplicated().any() else ""


def check_product(table: gpd.GeoDataFrame) -> None:
    """Refuse what is no table of `read_product`.

    Raises
    ------
    ValueError
        It lacks a column, or its dates have no time zone.
    """
    if lacks := [name for name in PRODUCT_COLUMNS if name not in table]:
        told = f"got one without the columns {lacks}"
    elif table["datetime"].dt.tz is None:
        told = "got one whose dates have no time zone"
    else:
        return
    raise ValueError(f"fronts are compared as tables of `read_product` or `store_product`, {told}")
