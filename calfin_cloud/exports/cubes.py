"""Ice masks and level sets on a domain's grid, as CF datasets (time, y, x)."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401 - brings the accessor .rio
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_edt

UNKNOWN = 255


def monthly_ice(polygons: gpd.GeoDataFrame, grid: GeoBox) -> xr.Dataset:
    """Share of the scenes of each month that show ice, on the grid of one domain.

    Parameters
    ----------
    polygons
        Ocean and ice of one domain (`storage.read_polygons`), in the grid's CRS.
    grid
        North-up, square pixels.

    Returns
    -------
    Dataset
        `ice` (time, y, x) uint8 in percent, 255 where no scene of the month knows; `n_scenes` (time). Months without a
        scene are there, all unknown, so that the cube has no gaps. CF names, with the grid mapping.
    """
    scenes = _scenes_of(polygons)
    months = scenes["datetime"].dt.tz_localize(None).dt.to_period("M")
    span = pd.period_range(months.min(), months.max(), freq="M")
    ice = np.full((len(span), *grid.shape), UNKNOWN, dtype=np.uint8)
    count = np.zeros(len(span), dtype=np.int32)
    for place, month in enumerate(span):
        of_month = scenes[months == month]
        count[place] = len(of_month)
        if len(of_month):
            ice[place] = _percent([_known_ice(row.ocean, row.ice, grid) for row in of_month.itertuples()])
    data: dict[str, Any] = {
        "ice": (("time", "y", "x"), ice, {"long_name": "share of scenes that show ice", "units": "percent"}),
        "n_scenes": ("time", count, {"long_name": "number of scenes"}),
    }
    cube = _on_grid(data, span.to_timestamp().to_numpy(), grid)
    cube["ice"].encoding = {"_FillValue": np.uint8(UNKNOWN), "zlib": True}
    return cube


def level_set_series(polygons: gpd.GeoDataFrame, grid: GeoBox) -> xr.Dataset:
    """Signed distance in m to the edge of the ocean for every scene: below 0 on ice and land, above 0 on the ocean.

    That is the sign of ISSM's `md.mask.ice_levelset`. `decimal_year` (time) is what ISSM wants as the last row of a
    time series.
    """
    scenes = _scenes_of(polygons)
    pixel = float(grid.transform.a)
    levels = np.stack([_signed_distance(row.ocean, grid) * pixel for row in scenes.itertuples()]).astype(np.float32)
    when = scenes["datetime"].dt.tz_localize(None)
    year = when.dt.year + (when.dt.dayofyear - 0.5) / when.dt.is_leap_year.map({True: 366, False: 365})
    data: dict[str, Any] = {
        "ice_levelset": (
            ("time", "y", "x"),
            levels,
            {"long_name": "distance to the ocean's edge", "units": "m"},
        ),
        "decimal_year": ("time", year.to_numpy(), {"units": "year"}),
        "scene_id": ("time", scenes["scene_id"].to_numpy(dtype=str)),
    }
    return _on_grid(data, when.to_numpy(), grid)


def level_set_on_mesh(levels: xr.Dataset, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Level sets at the vertices of a mesh: (vertex + 1, time) float64, decimal years in the last row, as ISSM has it.

    Bilinear; vertices outside the grid take the nearest value of its border.
    """
    xs = xr.DataArray(np.clip(x, *_range(levels["x"])), dims="vertex")
    ys = xr.DataArray(np.clip(y, *_range(levels["y"])), dims="vertex")
    values = levels["ice_levelset"].interp(x=xs, y=ys).transpose("vertex", "time")
    return np.vstack([values.to_numpy(), levels["decimal_year"].to_numpy()])


def _scenes_of(polygons: gpd.GeoDataFrame) -> pd.DataFrame:
    """One row a scene that has an ocean, by time: `scene_id`, `datetime`, `ocean`, `ice` (None where there is none)."""
    known = polygons[polygons.geometry.notna()]
    if len(domains := set(known["domain"])) != 1:
        raise ValueError(f"a cube is of one domain with polygons, got {sorted(domains)[:5]}")
    shapes = {kind: part.set_index("key").geometry for kind, part in known.groupby("kind")}
    if "ocean" not in shapes:
        raise ValueError("no scene of the domain has an ocean polygon: its fronts were not closed, see their reasons")
    scenes = known[known["kind"] == "ocean"][["key", "scene_id", "datetime"]].sort_values(["datetime", "key"])
    ice = shapes.get("ice", gpd.GeoSeries([], crs=known.crs))
    by_key = ice.to_dict()
    scenes["ocean"] = scenes["key"].map(shapes["ocean"].to_dict())
    scenes["ice"] = [by_key.get(key) for key in scenes["key"]]
    return pd.DataFrame(scenes.reset_index(drop=True))


def _known_ice(ocean: object, ice: object, grid: GeoBox) -> NDArray[np.float64]:
    """1 on ice, 0 on the ocean, NaN elsewhere."""
    shapes = [(shape, value) for shape, value in ((ocean, 1), (ice, 2)) if shape is not None]
    burnt = rasterize(shapes, out_shape=tuple(grid.shape), transform=grid.transform, dtype="uint8")
    return np.asarray(np.choose(burnt, [np.nan, 0.0, 1.0]))


def _percent(scenes: list[NDArray[np.float64]]) -> NDArray[np.uint8]:
    known = np.sum([np.isfinite(scene) for scene in scenes], axis=0)
    share = np.nansum(scenes, axis=0) / np.maximum(known, 1)
    return np.where(known > 0, np.rint(100 * share), UNKNOWN).astype(np.uint8)


def _signed_distance(ocean: object, grid: GeoBox) -> NDArray[np.float64]:
    """Distance in px from every pixel centre to the edge of the ocean, negative outside."""
    is_ocean = rasterize([(ocean, 1)], out_shape=tuple(grid.shape), transform=grid.transform, dtype="uint8") > 0
    outside, inside = distance_transform_edt(~is_ocean), distance_transform_edt(is_ocean)
    return np.asarray(np.where(is_ocean, inside - 0.5, 0.5 - outside))


def _on_grid(data: dict[str, Any], time: NDArray[np.datetime64], grid: GeoBox) -> xr.Dataset:
    coords = {
        "time": ("time", time.astype("datetime64[ns]"), {"standard_name": "time"}),
        "y": ("y", grid.coordinates["y"].values, {"units": "m", "standard_name": "projection_y_coordinate"}),
        "x": ("x", grid.coordinates["x"].values, {"units": "m", "standard_name": "projection_x_coordinate"}),
    }
    made: xr.Dataset = xr.Dataset(data, coords=coords, attrs={"Conventions": "CF-1.11"}).rio.write_crs(str(grid.crs))
    return made


def _range(coordinate: xr.DataArray) -> tuple[float, float]:
    return float(coordinate.min()), float(coordinate.max())
