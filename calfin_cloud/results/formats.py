"""What is known of a store becomes files, a function a format; `exporting` calls them by name."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from shapely.geometry.base import BaseGeometry
from zarr.storage import LocalStore

from calfin_cloud.domains import Domain
from calfin_cloud.exports import (
    CRS,
    Levels,
    calfin_lines,
    calfin_polygons,
    consolidate,
    exp_text,
    level_set_series,
    levels_of,
    merge_levels,
    monthly_ice,
    region_at,
    termpicks_lines,
    write_by_glacier,
    write_collection,
)
from calfin_cloud.results.seaward import features_of, flat
from calfin_cloud.results.training_scenes import write_domain_files, write_training_scenes
from calfin_cloud.schema import check_name
from calfin_cloud.storage import masks_url, picture_path, read_fronts
from calfin_cloud.whole_files import whole_file, write_whole_file

T = TypeVar("T")

DOUBTFUL = {
    "long_name": "whether time makes the front doubtful, see doubtful.csv",
    "flag_values": np.array([0, 1], dtype=np.int8),
    "flag_meanings": "not_flagged flagged",
}


class Stored(NamedTuple):
    """What an export needs of a store."""

    store: str
    fronts: gpd.GeoDataFrame
    polygons: gpd.GeoDataFrame
    judged: gpd.GeoDataFrame
    domains: Mapping[str, Domain]
    made_by: Mapping[str, Any]
    author: str
    names: pd.DataFrame | None
    version: str
    carry_months: int
    places: xr.Dataset | None
    base: BaseGeometry | None


def doubtful_fronts(fronts: gpd.GeoDataFrame) -> pd.DataFrame:
    """Fronts that have a flag, without their lines."""
    columns = ["domain", "glacier_id", "scene_id", "front", "datetime", "score", "flags", "flag_details"]
    return pd.DataFrame(fronts.loc[fronts["flags"] != "", columns])


def _calfin(stored: Stored, folder: Path) -> list[Path]:
    paths = []
    for region, crs, names in _regions(stored):
        fronts, polygons = (t[t["domain"].isin(names)] for t in (stored.fronts, stored.polygons))
        same: dict[str, Any] = {"author": stored.author, "names": stored.names, "crs": crs}
        lines, closed = calfin_lines(fronts, **same), calfin_polygons(polygons, fronts, **same)
        paths += write_by_glacier(lines, folder, region=region, closed=False, version=stored.version)
        paths += write_by_glacier(closed, folder, region=region, closed=True, version=stored.version)
    return paths


def _termpicks(stored: Stored, folder: Path) -> list[Path]:
    paths, regions = [], _regions(stored)
    for region, crs, names in regions:
        fronts = stored.fronts[stored.fronts["domain"].isin(names)]
        table = termpicks_lines(fronts, author=stored.author, names=stored.names, crs=crs)
        if len(table):
            paths.append(folder / ("termpicks.shp" if len(regions) == 1 else f"termpicks_{region}.shp"))
            with whole_file(paths[-1]) as unfinished:
                table.to_file(unfinished, encoding="utf-8")
    return paths


def _gpkg(stored: Stored, folder: Path) -> list[Path]:
    path = folder / "calfin_cloud.gpkg"
    layers = {"fronts": stored.fronts, "polygons": stored.polygons, "reviewed": stored.judged}
    with whole_file(path) as unfinished:
        for layer, table in (layers | features_of(stored.store)).items():
            flat(table).to_file(unfinished, layer=layer, driver="GPKG")
    return [path]


def _issm(stored: Stored, folder: Path) -> list[Path]:
    """Write the fronts of each scene as contours, and its ice and ocean as closed ones (`closed`)."""
    found = stored.fronts[stored.fronts["state"] == "front"]
    (folder / "closed").mkdir(exist_ok=True)
    paths = [_contours(part, folder) for _, part in found.groupby("key", sort=False)]
    known = stored.polygons[stored.polygons.geometry.notna()]
    closed = known.groupby(["key", "kind"], sort=False)
    return paths + [_contours(part, folder / "closed", str(kind)) for (_, kind), part in closed]


def _contours(shapes: gpd.GeoDataFrame, folder: Path, kind: str = "") -> Path:
    """Write the contours of one scene."""
    first = shapes.iloc[0]
    name = f"{first['domain']} {first['datetime']:%Y-%m-%d} {first['scene_id']} {kind}".rstrip()
    stem = f"{first['domain']}_{first['datetime']:%Y%m%dT%H%M%S}_{first['key'].partition('/')[2]}"
    path = folder / f"{_safe(stem)}{'_' if kind else ''}{kind}.exp"
    write_whole_file(path, exp_text((name, shape) for shape in shapes.geometry))
    return path


def _levelset(stored: Stored, folder: Path) -> list[Path]:
    """Write a file a domain on its grid, or one of all domains on the mesh."""
    if stored.places is not None:
        return [_on_mesh(stored, stored.places, folder)]
    doubtful = doubtful_fronts(stored.fronts)

    def write(part: gpd.GeoDataFrame, domain: Domain) -> Path:
        levels = level_set_series(part, domain.grid)
        flagged = doubtful.loc[doubtful["domain"] == domain.name, "datetime"].dt.tz_localize(None).to_numpy()
        is_doubtful = np.isin(levels["time"].to_numpy(), flagged).astype(np.int8)
        levels["doubtful"] = ("time", is_doubtful, DOUBTFUL)
        return _netcdf(levels, folder, domain.name)

    return _by_domain(stored, write)


def _on_mesh(stored: Stored, places: xr.Dataset, folder: Path) -> Path:
    """Write the level set of all domains on a mesh."""
    sigmas = stored.fronts.groupby("key")["sigma_m"].max()

    def measure(part: gpd.GeoDataFrame, domain: Domain) -> Levels:
        return levels_of(part, sigmas, domain.polygon, domain.resolution_m, places)

    found = _by_domain(stored, measure)
    if not any(len(one.places) for one in found):
        got = [f"{places[name].min():.0f} to {places[name].max():.0f}" for name in ("map_x", "map_y")]
        raise ValueError(
            f"the mesh has x {got[0]}, y {got[1]} in {stored.made_by['crs']}, and no place in a domain with polygons: "
            "say in which CRS it is with --mesh-crs"
        )
    return _netcdf(merge_levels(found, places, base=stored.base), folder, "spclevelset")


def _icemask(stored: Stored, folder: Path) -> list[Path]:
    def write(part: gpd.GeoDataFrame, domain: Domain) -> Path:
        cube = monthly_ice(part, domain.grid, carry_months=stored.carry_months)
        path = folder / f"{domain.name}.zarr"
        cube.to_zarr(LocalStore(path), mode="w", consolidated=False)
        consolidate(path)
        return _netcdf(cube, folder, domain.name)

    return _by_domain(stored, write)


def _calfin_ts(stored: Stored, folder: Path) -> list[Path]:
    """Write what CALFIN trains on, and with: pictures, masks, georeference, boundaries of fjords, domains."""
    paths = write_training_scenes(stored.store, folder / "train", stored.fronts, stored.domains)
    return paths + [path for domain in stored.domains.values() for path in write_domain_files(domain, folder)]


def _stac(stored: Stored, folder: Path) -> list[Path]:
    base = stored.store if "://" in stored.store else str(Path(stored.store).resolve())
    mapped = read_fronts(stored.store)  # people draw in scenes without a picture, and reject fronts of some with one
    pictured = set(mapped.loc[mapped["front"] >= 0, "key"])
    features = features_of(stored.store)

    def addresses(domain: str, scene_id: str) -> dict[str, str]:
        links = {"masks": masks_url(base, domain), "fronts": f"{base}/fronts"}
        links |= {name: f"{base}/{name}" for name in features}
        has_picture = f"{domain}/{scene_id}" in pictured
        return links | ({"picture": f"{base}/{picture_path(domain, scene_id)}"} if has_picture else {})

    collection = write_collection(
        folder,
        stored.fronts,
        {name: domain.area_lonlat for name, domain in stored.domains.items()},
        addresses,
        id_="calfin-cloud-fronts",
        description="Calving fronts mapped by calfin_cloud, every scene with its state.",
        made_by=stored.made_by,
        features=features,
    )
    return [collection]


def _regions(stored: Stored) -> list[tuple[str, str, list[str]]]:
    """Regions of the domains, each with the CRS of its tables and its domains."""
    found: dict[str, list[str]] = {}
    for name, domain in stored.domains.items():
        found.setdefault(region_at(domain.middle_lonlat), []).append(name)
    return [(region, CRS.get(region, str(stored.made_by["crs"])), names) for region, names in sorted(found.items())]


def _by_domain(stored: Stored, make: Callable[[gpd.GeoDataFrame, Domain], T]) -> list[T]:
    """Make something of the polygons of each domain that has an ocean, by its name."""
    known = stored.polygons[stored.polygons.geometry.notna()]
    names = sorted(known.loc[known["kind"] == "ocean", "domain"].unique())
    return [make(stored.polygons[stored.polygons["domain"] == name], stored.domains[str(name)]) for name in names]


def _netcdf(dataset: xr.Dataset, folder: Path, name: str) -> Path:
    path = folder / f"{check_name(name)}.nc"
    for variable in dataset.data_vars.values():
        if variable.ndim > 1:
            variable.encoding["zlib"] = True
        if variable.chunks:
            variable.encoding["chunksizes"] = tuple(sizes[0] for sizes in variable.chunks)
    with dask.config.set(scheduler="synchronous"), whole_file(path) as unfinished:  # a scene at a time
        with _DroppingFile(unfinished, "w+") as file:
            dataset.to_netcdf(file, engine="h5netcdf")
        if file.failure:
            raise file.failure
    return path


class _DroppingFile(io.FileIO):
    """A file that keeps its first failure and drops all after it: HDF5 ends the process if it cannot close a file."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:  # noqa: ANN401 - as of `io`
        return self._unless_failed(super().write, data, len(data))

    def truncate(self, size: int | None = None) -> int:
        return self._unless_failed(super().truncate, size, size or 0)

    def _unless_failed(self, do: Callable[[Any], int], given: Any, otherwise: int) -> int:  # noqa: ANN401
        try:
            return otherwise if self.failure else do(given)
        except OSError as error:
            self.failure = error
            return otherwise


def _safe(name: str) -> str:
    """Name of a file made of a scene id, which comes from a catalogue: at most 200 plain characters."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:200]


FORMATS: dict[str, Callable[[Stored, Path], list[Path]]] = {
    "calfin": _calfin,
    "termpicks": _termpicks,
    "gpkg": _gpkg,
    "issm": _issm,
    "levelset": _levelset,
    "icemask": _icemask,
    "calfin-ts": _calfin_ts,
    "stac": _stac,
}
