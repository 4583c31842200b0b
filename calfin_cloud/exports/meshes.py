"""A file that names places, the vertices of a mesh or the nodes of a grid, becomes places in the CRS of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from calfin_cloud.vectors import crs_of

METRES = ("m", "meter", "meters", "metre", "metres")
REMEDY = (
    "give the NetCDF that ISSM's export_netCDF writes, a NetCDF with x and y, or a table of x and y "
    "(writematrix([md.mesh.x md.mesh.y], 'mesh.csv') in MATLAB, numpy.savetxt in Python)"
)


def read_mesh(path: str | Path, *, crs: str, mesh_crs: str | None = None) -> xr.Dataset:
    """Read the vertices of a mesh, or the nodes of a grid, and where they lie in another CRS.

    Parameters
    ----------
    path
        NetCDF with `x` and `y` in metres, in its group `mesh` as ISSM exports a model, or at its top: of one
        dimension both for a mesh, of one each for a grid. Else a table of text with the columns `x` and `y`, or two
        without names; separated by commas, semicolons or blanks.
    crs
        CRS of the places that are wanted.
    mesh_crs
        CRS of the file, the same if it is not given.

    Returns
    -------
    Dataset
        Coordinates `x` and `y` as in the file, of the dimension `vertex` or of `x` and `y`; on these dimensions
        `map_x` and `map_y`, m in `crs`. Its attribute `crs` is that of `x` and `y`.

    Raises
    ------
    ValueError
        The file has no x and y that can be read, in metres and of one length, or there is no CRS `mesh_crs`.
    """
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic.startswith((b"\x89HDF", b"CDF")):
        x, y = _read_netcdf(path, "scipy" if magic.startswith(b"CDF") else "h5netcdf")
    else:
        x, y = (xr.DataArray(column, dims="vertex") for column in _read_table(path))
    if not x.size or not y.size or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"{path}: got {x.size} x and {y.size} y, expected some, and numbers only: {REMEDY}")
    across, down = xr.broadcast(y, x)[::-1]
    where = transform(
        CRS.from_user_input(crs_of(mesh_crs or crs)),
        CRS.from_user_input(crs),
        across.values.ravel(),
        down.values.ravel(),
    )
    on_map = {
        name: (across.dims, np.reshape(values, across.shape))
        for name, values in zip(("map_x", "map_y"), where, strict=True)
    }
    coords = {"x": (x.dims, x.values), "y": (y.dims, y.values)}
    return xr.Dataset(on_map, coords=coords, attrs={"crs": str(mesh_crs or crs)})


def _read_netcdf(path: str | Path, engine: Literal["h5netcdf", "scipy"]) -> tuple[xr.DataArray, xr.DataArray]:
    """Read x and y of a NetCDF file: on `vertex` both, or each on its own dimension."""
    file = _open_with_xy(path, engine)
    x, y = (file[name].reset_coords(drop=True).squeeze() for name in ("x", "y"))
    if wrong := {str(units) for v in (x, y) if (units := v.attrs.get("units", "m")) not in METRES}:
        raise ValueError(f"{path}: x and y must be in metres, got {sorted(wrong)}: convert them")
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"{path}: x and y must have one dimension, got {x.dims} {x.shape} and {y.dims} {y.shape}")
    dims = ("vertex", "vertex") if x.dims == y.dims else ("x", "y")
    first, second = (xr.DataArray(v.values.astype(float), dims=dim) for v, dim in zip((x, y), dims, strict=True))
    return first, second


def _open_with_xy(path: str | Path, engine: Literal["h5netcdf", "scipy"]) -> xr.Dataset:
    """Read x and y of the group `mesh`, where ISSM has them, else of the top."""
    for group in ("mesh", None) if engine == "h5netcdf" else (None,):
        options: dict[str, Any] = {} if group is None else {"group": group}
        try:
            with xr.open_dataset(path, engine=engine, decode_cf=False, backend_kwargs=options) as file:
                if {"x", "y"} <= set(file.variables):
                    return file[["x", "y"]].load()
        except OSError as error:  # there is no such group
            if group is None:
                raise ValueError(f"{path} cannot be read as NetCDF ({error}): {REMEDY}") from None
    raise ValueError(f"{path} has no x and y, neither in a group `mesh` nor at its top: {REMEDY}")


def _read_table(path: str | Path) -> NDArray[np.float64]:
    """Read x and y (2, n) of a table of text."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig").replace(",", " ").replace(";", " ")
        lines = [cells for line in text.splitlines() if (cells := line.split()) and not cells[0].startswith("#")]
        names = [name.strip("\"'").lower() for name in lines[0]]
        is_named = {"x", "y"} <= set(names)
        columns = (names.index("x"), names.index("y")) if is_named else (0, 1)
        rows = [[float(cells[column]) for column in columns] for cells in lines[is_named:]]
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is neither NetCDF nor a table of x and y ({error}): {REMEDY}") from None
    return np.reshape(rows, (-1, 2)).T
