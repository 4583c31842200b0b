"""Ocean polygons of many domains -> one level set in time at all places of a mesh or grid, as ISSM wants it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from calfin_cloud.exports.cubes import LEVEL, axis_of, decimal_years, nearest_edge, scenes_of, with_crs

ORIGINS = ("unknown", "between_scenes", "held", "base")
SIGMA = {
    "long_name": "standard deviation of the distance",
    "units": "m",
    "comment": "That of the fronts, and between two scenes a share of how far the front moved, largest half way. "
    "NaN where fronts have none, and where the distance is held: nobody has seen how far the front has moved since.",
}
ORIGIN = {
    "long_name": "where the distance is from",
    "flag_values": np.arange(len(ORIGINS), dtype=np.int8),
    "flag_meanings": " ".join(ORIGINS),
    "comment": "held: as in the first or last scene of the domain. base: outside all domains, from the mask given.",
}
SPCLEVELSET = (
    "md.levelset.spclevelset of ISSM: a row a vertex, then decimal years; a column a time; NaN: not constrained"
)


class Levels(NamedTuple):
    """Level sets of one domain: number (v,) of the places in it, and how far each lies from its border in m.

    By scene: `days` (s,), sorted; `level_m` (s, v), negative on ice and land; `sigma_m` (s,) of the fronts.
    """

    places: NDArray[np.intp]
    depth_m: NDArray[np.float64]
    days: pd.DatetimeIndex
    level_m: NDArray[np.float32]
    sigma_m: NDArray[np.float64]

    @property
    def years(self) -> NDArray[np.float64]:
        """Days of the scenes as decimal years (s,)."""
        return decimal_years(pd.Series(self.days))


def levels_of(
    polygons: gpd.GeoDataFrame, sigmas: pd.Series, area: Polygon, pixel_m: float, places: xr.Dataset
) -> Levels:
    """Measure the level sets of one domain at the places that lie in it.

    Parameters
    ----------
    polygons
        Ocean and ice of one domain (`storage.read_polygons`), in the CRS of `map_x` and `map_y`.
    sigmas
        Standard deviation of the fronts in m, by the key of their scene.
    area, pixel_m
        Rectangle of the domain, and its pixel: what of the ocean's edge lies within a pixel of the rectangle's is no
        coast.
    places
        Of `meshes.read_mesh`.
    """
    points = _points(places)
    inside = np.flatnonzero(shapely.contains_properly(area, points))
    scenes = scenes_of(polygons)
    border = area.boundary.buffer(pixel_m, join_style="mitre")
    levels = np.array([_signed(ocean, border, points[inside]) for ocean in scenes["ocean"]], dtype=np.float32)
    # Scenes of one day are one: the nearest edge of any.
    days, number = np.unique(scenes["datetime"].dt.tz_localize(None).dt.normalize(), return_inverse=True)
    nearest = [nearest_edge(levels[number == place]) for place in range(len(days))]
    sigma = scenes["key"].map(sigmas).groupby(number).max().to_numpy(dtype=float)
    depth = shapely.distance(area.boundary, points[inside])
    return Levels(inside, depth, pd.DatetimeIndex(days), np.array(nearest).reshape(len(days), -1), sigma)


def merge_levels(found: Sequence[Levels], places: xr.Dataset, *, base: BaseGeometry | None = None) -> xr.Dataset:
    """Bring the level sets of many domains to the first of every month, at all places.

    Between two scenes of a domain the level is linear in time, before the first and after the last it is held, and how
    sure it is is not known. A place in several domains has that of the one in which it lies deepest.

    Parameters
    ----------
    base
        Ice and land, in the CRS of `map_x` and `map_y`: the level of places outside all domains, at all times. Without
        it they are NaN, which ISSM leaves unconstrained.

    Returns
    -------
    Dataset
        On `time` and the dimensions of the places: `ice_levelset` and `sigma` in m, `origin` of `ORIGINS`; `time`,
        `decimal_year`; on a mesh `spclevelset` and `spclevelset_sigma` (vertices + 1, time).
    """
    months = _months(found)
    years, size = decimal_years(pd.Series(months)), places["map_x"].size
    level, sigma = np.full((2, len(years), size), np.nan, dtype=np.float32)
    origin, depth = np.zeros((len(years), size), dtype=np.int8), np.zeros(size)
    if base is not None:
        points = _points(places)
        shapely.prepare(base)
        away = shapely.distance(base.boundary, points)
        level[:], origin[:] = np.where(shapely.contains(base, points), -away, away), ORIGINS.index("base")
    for one in found:
        deeper = one.depth_m > depth[one.places]
        into = one.places[deeper]
        depth[into] = one.depth_m[deeper]
        is_held = ((months < one.days[0]) | (months > one.days[-1]))[:, None]
        level[:, into], of_scenes = _at_times(one, deeper, years)
        sigma[:, into] = np.where(is_held, np.nan, of_scenes)
        origin[:, into] = np.where(is_held, ORIGINS.index("held"), ORIGINS.index("between_scenes"))
    return _dataset(places, months, years, (level, sigma, origin))


def _points(places: xr.Dataset) -> NDArray[Any]:
    return np.asarray(shapely.points(places["map_x"].to_numpy().ravel(), places["map_y"].to_numpy().ravel()))


def _signed(ocean: BaseGeometry, border: BaseGeometry, points: NDArray[Any]) -> NDArray[np.float64]:
    """Distance of points to the coast of an ocean, negative outside it."""
    coast = ocean.boundary.difference(border)
    shapely.prepare(ocean)
    away = shapely.distance(ocean.boundary if coast.is_empty else coast, points)
    return np.asarray(np.where(shapely.contains(ocean, points), away, -away))


def _at_times(one: Levels, wanted: NDArray[np.bool_], years: NDArray[np.float64]) -> tuple[Any, Any]:
    """Level and standard deviation (t, v) of a domain at given years."""
    inside = np.clip(years, one.years[0], one.years[-1])
    before = np.clip(np.searchsorted(one.years, inside, side="right") - 1, 0, max(len(one.years) - 2, 0))
    after = np.minimum(before + 1, len(one.years) - 1)
    span = one.years[after] - one.years[before]
    share = np.divide(inside - one.years[before], span, out=np.zeros_like(inside), where=span > 0)[:, None]
    first, last = one.level_m[before][:, wanted], one.level_m[after][:, wanted]
    of_fronts = (1 - share) ** 2 * one.sigma_m[before][:, None] ** 2 + share**2 * one.sigma_m[after][:, None] ** 2
    moved = share * (1 - share) * (last - first) ** 2  # of a front that jumped at any time between, as likely at each
    return (1 - share) * first + share * last, np.sqrt(of_fronts + moved)


def _months(found: Sequence[Levels]) -> pd.DatetimeIndex:
    """First days of the months from that of the first scene to that after the last."""
    first, last = min(one.days[0] for one in found), max(one.days[-1] for one in found)
    return pd.date_range(first.replace(day=1), last + pd.offsets.MonthBegin(1), freq="MS")


def _dataset(
    places: xr.Dataset, months: pd.DatetimeIndex, years: NDArray[np.float64], values: tuple[Any, ...]
) -> xr.Dataset:
    dims, shape = places["map_x"].dims, (len(years), *places["map_x"].shape)
    level, sigma, origin = (value.reshape(shape) for value in values)
    data: dict[str, Any] = {
        "ice_levelset": (("time", *dims), level, LEVEL | {"ancillary_variables": "sigma origin"}),
        "sigma": (("time", *dims), sigma, SIGMA),
        "origin": (("time", *dims), origin, ORIGIN),
        "decimal_year": ("time", years, {"long_name": "time in years, as ISSM has it", "units": "1"}),
    }
    if dims == ("vertex",):
        rows = [np.vstack([part.T, years]) for part in (level, sigma)]
        data["spclevelset"] = (("row", "time"), rows[0], {"long_name": SPCLEVELSET})
        told = {"long_name": "standard deviations, rows as spclevelset, NaN: not known"}
        data["spclevelset_sigma"] = (("row", "time"), rows[1], told)
    coords: dict[str, Any] = {name: places[name].assign_attrs(axis_of(name)) for name in ("x", "y")}
    made = xr.Dataset(
        data, coords=coords | {"time": ("time", months.to_numpy(), {"axis": "T", "standard_name": "time"})}
    )
    attrs = {"Conventions": "CF-1.11", "history": "calfin export", "title": "Ice level set of all glaciers of a store"}
    return with_crs(made.assign_attrs(attrs), str(places.attrs["crs"]))
