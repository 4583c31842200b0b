"""Fronts and ocean polygons with the columns of CALFIN's level 1 and of TermPicks (calfin-method 8)."""

from __future__ import annotations

import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from calfin_cloud.columns import satellite_code
from calfin_cloud.exports.cubes import decimal_years
from calfin_cloud.whole_files import whole_file

TOLERANCE_M = 0.5  # the original simplifies by Douglas and Peucker to this
CALFIN_NAMES = ("GrnlndcN", "OfficialN", "AltName", "RefName")
CALFIN_COLUMNS = (
    *("GlacierID", "Center_X", "Center_Y", "Latitude", "Longitude", "QualFlag", "Satellite", "Date", "ImageID"),
    *(*CALFIN_NAMES, "Author"),
)
TERMPICKS_COLUMNS = (
    *("GlacierID", "Date", "Year", "Month", "Day", "DecDate"),
    *("QualFlag", "Satellite", "ImageID", "Author", "Center_X", "Center_Y"),
    "RefName",  # ours: their ids of glaciers are numbers
)


def calfin_lines(
    fronts: gpd.GeoDataFrame, *, author: str, names: pd.DataFrame | None = None, crs: str = "EPSG:3413"
) -> gpd.GeoDataFrame:
    """Bring the fronts of a store to the lines of CALFIN's level 1, sorted by glacier and date.

    Parameters
    ----------
    fronts
        Table of `storage.read_fronts`; scenes without a front are left out.
    author
        Who answers for the lines, except those with another one in the column `author`: who drew them.
    names
        Columns `domain` or `glacier_id`, and any of `GrnlndcN, OfficialN, AltName, RefName`; without, `RefName` is the
        domain.
    crs
        CRS of the lines, `Center_X` and `Center_Y`.

    Returns
    -------
    GeoDataFrame
        `CALFIN_COLUMNS` and a LineString. A glacier id that is no number becomes 0, as the format has integers.
    """
    return _calfin_table(fronts[fronts["state"] == "front"], author, names, crs)


def calfin_polygons(
    polygons: gpd.GeoDataFrame,
    fronts: gpd.GeoDataFrame,
    *,
    author: str,
    names: pd.DataFrame | None = None,
    crs: str = "EPSG:3413",
) -> gpd.GeoDataFrame:
    """Bring the ocean polygons of a store to the closed ones of CALFIN's level 1, a row a polygon with its holes."""
    ocean = polygons[(polygons["kind"] == "ocean") & polygons.geometry.notna()]
    if "author" in fronts:  # an ocean closed by a drawn line is by who drew it
        drawn = fronts[fronts["author"] != ""].drop_duplicates("key").set_index("key")["author"]
        ocean = ocean.assign(author=ocean["key"].map(drawn).fillna(""))
    flags = fronts.drop_duplicates("key").set_index("key")["quality_flag"]
    parts = ocean.assign(quality_flag=ocean["key"].map(flags)).explode(ignore_index=True)
    return _calfin_table(parts, author, names, crs)


def termpicks_lines(
    fronts: gpd.GeoDataFrame, *, author: str, names: pd.DataFrame | None = None, crs: str = "EPSG:3413"
) -> gpd.GeoDataFrame:
    """Bring the fronts of a store to the columns of TermPicks (Goliber et al. 2022, doi:10.5194/tc-16-3215-2022).

    Parameters are those of `calfin_lines`. `RefName` is added, since a glacier whose id is no number has `GlacierID` 0.
    """
    table = calfin_lines(fronts, author=author, names=names, crs=crs)
    when = pd.to_datetime(table["Date"])
    table = table.assign(Year=when.dt.year, Month=when.dt.month, Day=when.dt.day, DecDate=decimal_years(when))
    made: gpd.GeoDataFrame = table[[*TERMPICKS_COLUMNS, "geometry"]]
    return made


def write_by_glacier(table: gpd.GeoDataFrame, folder: Path, *, region: str, closed: bool, version: str) -> list[Path]:
    """Write a CALFIN table as Shapefiles, named as CALFIN names them: all glaciers together, and each by `RefName`.

    Raises
    ------
    ValueError
        Two names would be one file, or one of them is that of all together.
    """
    if table.empty:
        return []
    years = table["Date"].str[:4]
    stem, ending = f"termini_{years.min()}-{years.max()}", f"{'_closed' if closed else ''}_v{version}.shp"
    parts = {region: table}
    for name, part in table.groupby("RefName"):
        in_file = re.sub(r"[^\w\-]+", "-", name)
        if in_file.lower() in map(str.lower, parts):
            raise ValueError(f"the RefName {name!r} would overwrite the file of another, {in_file!r}: rename it")
        parts[in_file] = part
    paths = []
    for name, part in parts.items():
        paths.append(folder / f"{stem}_{name}{ending}")
        with whole_file(paths[-1]) as unfinished:
            part.to_file(unfinished, encoding="utf-8")
    return paths


def _calfin_table(shapes: gpd.GeoDataFrame, author: str, names: pd.DataFrame | None, crs: str) -> gpd.GeoDataFrame:
    simple = shapes.set_geometry(shapes.geometry.simplify(TOLERANCE_M)).to_crs(crs)
    vertices = simple.geometry.get_coordinates()
    centres = vertices.groupby(level=0).mean().reindex(simple.index)
    lonlat = gpd.GeoSeries.from_xy(centres["x"], centres["y"], crs=crs).to_crs(4326)
    pairs = zip(simple["platform"], simple["scene_id"], strict=True)
    table = gpd.GeoDataFrame(
        {
            "GlacierID": pd.to_numeric(simple["glacier_id"], errors="coerce").fillna(0).astype("int64"),
            "Center_X": centres["x"],
            "Center_Y": centres["y"],
            "Latitude": lonlat.y,
            "Longitude": lonlat.x,
            "QualFlag": simple["quality_flag"].astype("int64"),
            "Satellite": [satellite_code(platform, scene) for platform, scene in pairs],
            "Date": simple["datetime"].dt.strftime("%Y-%m-%d"),
            "ImageID": simple["scene_id"],
        },
        geometry=simple.geometry,
    )
    for name in CALFIN_NAMES:
        default = simple["domain"] if name == "RefName" else pd.Series("", index=simple.index)
        named = _named(simple, names, name)
        table[name] = named.where(named.notna(), default)
    table["Author"] = simple["author"].where(simple["author"] != "", author) if "author" in simple else author
    return table[[*CALFIN_COLUMNS, "geometry"]].sort_values(["RefName", "Date", "ImageID"], ignore_index=True)


def _named(shapes: gpd.GeoDataFrame, names: pd.DataFrame | None, name: str) -> pd.Series:
    """One of the names of each shape, by its domain, else by its glacier; NaN where there is none."""
    found = pd.Series(np.nan, index=shapes.index, dtype=object)
    for column in ("domain", "glacier_id"):
        if names is not None and column in names and name in names:
            known = names.dropna(subset=[column, name]).drop_duplicates(column).set_index(column)[name]
            found = found.where(found.notna(), shapes[column].map(known))
    return found
