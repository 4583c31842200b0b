"""A field of ice velocity -> the line along which a glacier flows past its fronts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from shapely.geometry import LineString

if TYPE_CHECKING:
    from scipy.interpolate import RegularGridInterpolator

LEAST_M_A = 1.0  # where ice moves slower, or nobody knows, the line goes on straight
REMEDY = "give a NetCDF with vx and vy on x and y, or a GeoTIFF with these two bands, in m a year"


def read_velocity(path: str | Path, crs: object) -> xr.Dataset:
    """Open a field of velocity lazily: `vx` and `vy` (y, x) along the axes of the map, in m a year.

    Parameters
    ----------
    path
        NetCDF or GeoTIFF in the CRS of the fronts, since the vectors are along its axes.

    Raises
    ------
    ValueError
        There are no two components, or the file names another CRS than `crs`.
    """
    import rioxarray  # noqa: F401 - brings the accessor .rio

    try:
        if str(path).endswith((".tif", ".tiff")):
            bands = xr.open_dataset(path, engine="rasterio")["band_data"]
            field = xr.Dataset({"vx": bands.isel(band=0, drop=True), "vy": bands.isel(band=1, drop=True)})
        else:
            field = xr.open_dataset(path, engine="h5netcdf", decode_coords="all")[["vx", "vy"]]
    except (KeyError, IndexError, OSError) as error:
        raise ValueError(f"{path} holds no velocity ({error}): {REMEDY}") from None
    own = field.rio.crs
    if own is not None and own != type(own).from_user_input(crs):
        raise ValueError(f"{path} is in {own}, the fronts in {crs}: bring the velocity to the map of the fronts")
    if not {"x", "y"} <= set(field["vx"].dims):
        raise ValueError(f"{path} has the dimensions {field['vx'].dims}, expected x and y: {REMEDY}")
    return field.sortby(["x", "y"])


def stream_line(
    field: xr.Dataset, start: NDArray[np.float64], seaward: tuple[float, float], reach_m: float
) -> LineString:
    """Follow the flow from a point up and down by `reach_m` each: a line from ice to sea, in the CRS of the field.

    Where the field knows nothing, such as beyond the front, the line goes on straight.
    """
    from scipy.interpolate import RegularGridInterpolator

    left, low = start - 2 * reach_m
    right, high = start + 2 * reach_m
    part = field.sel(x=slice(left, right), y=slice(low, high))
    if min(part.sizes["x"], part.sizes["y"]) < 2:
        return LineString([start - reach_m * np.array(seaward), start + reach_m * np.array(seaward)])
    vectors = np.stack([part[name].transpose("y", "x").to_numpy() for name in ("vx", "vy")], axis=-1)
    at = RegularGridInterpolator((part["y"].to_numpy(), part["x"].to_numpy()), vectors, bounds_error=False)
    step = float(np.abs(np.diff(part["x"].to_numpy())).min())
    down, up = (_follow(at, start, np.array(seaward), side, step, int(reach_m / step)) for side in (1, -1))
    return LineString(np.concatenate([up[::-1], start[None], down]))


def _follow(
    at: RegularGridInterpolator,
    start: NDArray[np.float64],
    heading: NDArray[np.float64],
    side: int,
    step: float,
    count: int,
) -> NDArray[np.float64]:
    """Points (count, 2) of steps of one length down (1) or up (-1) the flow (midpoint rule)."""
    place, points = start, []
    for _ in range(count):
        heading = _heading(at, place, heading)
        heading = _heading(at, place + side * step / 2 * heading, heading)
        place = place + side * step * heading
        points.append(place)
    return np.array(points).reshape(-1, 2)


def _heading(at: RegularGridInterpolator, place: NDArray[np.float64], last: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the unit vector of the flow at a place, the last one where it is not known."""
    vector = at(place[::-1])[0]
    speed = float(np.hypot(*vector))
    return np.asarray(vector / speed) if speed >= LEAST_M_A else last  # NaN is not
