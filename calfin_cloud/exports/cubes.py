"""Ice masks and level sets on a domain's grid, as CF datasets (time, y, x)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401 - brings the accessor .rio
import xarray as xr
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_edt
from zarr.storage import LocalStore

UNKNOWN = 255
EMPTY = np.empty((0, 0, 0), dtype=np.float32)
ORIGINS = ("none", "observed", "carried")
ICE = {
    "long_name": "share of scenes that show ice",
    "units": "percent",
    "cell_methods": "time: mean (of the scenes of the month)",
    "ancillary_variables": "origin n_scenes",
}
ORIGIN = {
    "long_name": "where the ice of the month is from",
    "flag_values": np.arange(len(ORIGINS), dtype=np.int8),
    "flag_meanings": " ".join(ORIGINS),
}
LEVEL = {"long_name": "distance to the ocean on the map, negative on ice and land", "units": "m"}
SPCLEVELSET = "ISSM's md.levelset.spclevelset has a row a vertex, a column a time, and decimal_year as its last row."
SOURCE = "calving fronts in satellite scenes; method: doi:10.5194/tc-15-1663-2021"
TIME = {"standard_name": "time", "long_name": "time", "axis": "T", "units_metadata": "leap_seconds: none"}


def consolidate(path: Path) -> None:
    """Put the metadata of all arrays into that of the group, where xarray looks first and warns if there are none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(LocalStore(path))  # of a path alone Zarr takes a `?` or `#` for a query


def monthly_ice(polygons: gpd.GeoDataFrame, grid: GeoBox, *, carry_months: int = 0) -> xr.Dataset:
    """Share of the scenes of each month that show ice, on the grid of one domain.

    Parameters
    ----------
    polygons
        Ocean and ice of one domain (`storage.read_polygons`), in the grid's CRS.
    grid
        North-up, square pixels.
    carry_months
        A month without a scene takes the ice of the last one that has some, if that is at most so many months before.

    Returns
    -------
    Dataset
        `ice` (time, y, x) uint8 in percent, 255 where no scene knows; `origin` (time) of `ORIGINS`, which tells months
        with scenes from carried ones and from those that nothing is known of; `n_scenes` (time). No month is missing
        between the first and the last. CF names, with bounds of the months and the grid mapping.
    """
    scenes = scenes_of(polygons)
    months = scenes["datetime"].dt.tz_localize(None).dt.to_period("M")
    span = pd.period_range(months.min(), months.max(), freq="M")
    ice = np.full((len(span), *grid.shape), UNKNOWN, dtype=np.uint8)
    count, origin, last = np.zeros(len(span), dtype=np.int32), np.zeros(len(span), dtype=np.int8), 0
    for place, month in enumerate(span):
        of_month = scenes[months == month]
        count[place] = len(of_month)
        if len(of_month):
            ice[place] = _percent((_known_ice(row.ocean, row.ice, grid) for row in of_month.itertuples()), grid)
            origin[place], last = ORIGINS.index("observed"), place
        elif place - last <= carry_months:
            ice[place], origin[place] = ice[last], ORIGINS.index("carried")
    data: dict[str, Any] = {
        "ice": (("time", "y", "x"), ice, ICE),
        "origin": ("time", origin, ORIGIN),
        "n_scenes": ("time", count, {"long_name": "number of scenes of the month", "units": "1"}),
        "time_bnds": (("time", "bound"), np.stack([span.to_timestamp(), (span + 1).to_timestamp()], axis=1)),
    }
    cube = _on_grid(data, span.to_timestamp().to_numpy(), grid)
    cube["time"].attrs["bounds"] = "time_bnds"
    cube["time"].encoding["units"] = "days since 1970-01-01"
    carried = f"take the ice of the last one before, at most {carry_months} months back, and are marked as carried"
    gaps = carried if carry_months else "are there, all unknown, and nothing is interpolated"
    cube.attrs |= {"title": "Monthly ice mask of a glacier front", "comment": f"Months without a scene {gaps}."}
    cube["ice"].encoding["_FillValue"] = np.uint8(UNKNOWN)
    return cube


def level_set_series(polygons: gpd.GeoDataFrame, grid: GeoBox) -> xr.Dataset:
    """Signed distance in m to the edge of the ocean for every scene: below 0 on ice and land, above 0 on the ocean.

    That is the sign of ISSM's `md.mask.ice_levelset`. Scenes of one time are one, with the nearest edge of any and all
    their ids as `scene_id`; NaN where the ocean holds no pixel's centre, or all. `decimal_year` (time) is what ISSM
    wants as the last row of a time series. Levels are computed when they are read or written, scene by scene, so that
    memory does not grow with the number of scenes.
    """
    scenes = scenes_of(polygons)
    by_time = scenes.groupby("datetime").agg({"ocean": tuple, "scene_id": ", ".join}).reset_index()
    oceans = da.from_array(by_time["ocean"].to_numpy(), chunks=1)[:, None, None]
    levels = oceans.map_blocks(_levels, grid, chunks=(1, *map(int, grid.shape)), dtype=np.float32, meta=EMPTY)
    when = by_time["datetime"].dt.tz_localize(None)
    data: dict[str, Any] = {
        "ice_levelset": (("time", "y", "x"), levels, LEVEL),
        "decimal_year": ("time", decimal_years(when), {"long_name": "time in years, as ISSM has it", "units": "1"}),
        "scene_id": ("time", by_time["scene_id"].to_numpy(dtype=str), {"long_name": "scenes of the front"}),
    }
    made = _on_grid(data, when.to_numpy(), grid)
    return made.assign_attrs(title="Ice level set of a glacier front", comment=SPCLEVELSET)


def decimal_years(when: pd.Series) -> NDArray[np.float64]:
    """Write times as years, each day at its noon, in leap years of 366 days."""
    days = (when.dt.dayofyear - 0.5) / when.dt.is_leap_year.map({True: 366, False: 365})
    return np.asarray(when.dt.year + days, dtype=float)


def scenes_of(polygons: gpd.GeoDataFrame) -> pd.DataFrame:
    """One row a scene that has an ocean, by time: `scene_id`, `datetime`, `ocean`, `ice` (None where there is none).

    Raises
    ------
    ValueError
        The polygons are of several domains, or none has an ocean.
    """
    known = polygons[polygons.geometry.notna()]
    if len(domains := set(known["domain"])) != 1:
        raise ValueError(f"a cube is of one domain with polygons, got {sorted(domains)[:5]}")
    shapes = {kind: part.set_index("key").geometry for kind, part in known.groupby("kind")}
    if "ocean" not in shapes:
        raise ValueError("no scene of the domain has an ocean polygon: its fronts were not closed, see their reasons")
    scenes = known[known["kind"] == "ocean"][["key", "scene_id", "datetime"]].sort_values(["datetime", "key"])
    for kind in ("ocean", "ice"):
        scenes[kind] = [shapes.get(kind, {}).get(key) for key in scenes["key"]]
    return pd.DataFrame(scenes.reset_index(drop=True))


def _known_ice(ocean: object, ice: object, grid: GeoBox) -> NDArray[np.float64]:
    """1 on ice, 0 on the ocean, NaN elsewhere."""
    shapes = [(shape, value) for shape, value in ((ocean, 1), (ice, 2)) if shape is not None]
    burnt = rasterize(shapes, out_shape=tuple(grid.shape), transform=grid.transform, dtype="uint8")
    return np.asarray(np.choose(burnt, [np.nan, 0.0, 1.0]))


def _percent(scenes: Iterable[NDArray[np.float64]], grid: GeoBox) -> NDArray[np.uint8]:
    known, ice = np.zeros(grid.shape, dtype=np.int32), np.zeros(grid.shape)
    for scene in scenes:  # one at a time, since a month may have hundreds
        known += np.isfinite(scene)
        ice += np.nan_to_num(scene)
    return np.where(known > 0, np.rint(100 * ice / np.maximum(known, 1)), UNKNOWN).astype(np.uint8)


def nearest_edge(levels: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    """Level of the nearest edge of any scene: scenes (...) of one time -> (...)."""
    stack = np.array(levels)
    return np.asarray(np.take_along_axis(stack, np.abs(stack).argmin(axis=0)[None], axis=0)[0])


def _levels(oceans: NDArray[np.object_], grid: GeoBox) -> NDArray[np.float32]:
    """Distance (1, y, x) in m from every pixel centre to the edge of the oceans of one time, negative outside."""
    shape = tuple(grid.shape)
    masks = [rasterize([(o, 1)], out_shape=shape, transform=grid.transform, dtype="uint8") > 0 for o in oceans.item()]
    edges = [_signed(is_ocean) for is_ocean in masks if is_ocean.any() and not is_ocean.all()]
    levels = nearest_edge(edges) * float(grid.transform.a) if edges else np.full(shape, np.nan)
    return np.asarray(levels, dtype=np.float32)[None]


def _signed(is_ocean: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance in pixels to the edge of an ocean (y, x), negative outside; there must be an inside and an outside."""
    outside, inside = distance_transform_edt(~is_ocean), distance_transform_edt(is_ocean)
    return np.asarray(np.where(is_ocean, inside - 0.5, 0.5 - outside))


def _on_grid(data: dict[str, Any], time: NDArray[np.datetime64], grid: GeoBox) -> xr.Dataset:
    coords = {"time": ("time", time.astype("datetime64[ns]"), TIME), **coords_of(grid)}
    attrs = {"Conventions": "CF-1.11", "source": SOURCE, "history": "calfin export"}
    return with_crs(xr.Dataset(data, coords=coords, attrs=attrs), str(grid.crs))


def coords_of(grid: GeoBox) -> dict[str, Any]:
    """Coordinates y and x of a grid, at the centres of its pixels."""
    return {name: (name, grid.coordinates[name].values, axis_of(name) | {"axis": name.upper()}) for name in ("y", "x")}


def axis_of(name: str) -> dict[str, str]:
    """Attributes of x or y on a map, as CF has them."""
    return {"units": "m", "standard_name": f"projection_{name}_coordinate", "long_name": f"{name} on the map"}


def with_crs(dataset: xr.Dataset, crs: str) -> xr.Dataset:
    """Say in which CRS x and y are, as CF does it."""
    made: xr.Dataset = dataset.rio.write_crs(crs)
    mapping = made["spatial_ref"].attrs
    if mapping.get("grid_mapping_name") == "polar_stereographic":  # CF asks for it, PROJ does not say it
        mapping["latitude_of_projection_origin"] = math.copysign(90.0, mapping["standard_parallel"])
    for name in ("x", "y"):
        made[name].encoding["_FillValue"] = None  # none is missing
    for variable in made.data_vars.values():
        if {"x", "y", "vertex"} & set(variable.dims):
            variable.encoding["grid_mapping"] = "spatial_ref"
    return made
