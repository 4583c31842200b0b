"""A store becomes files in the formats that others read, with a note on where they are from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import pandas as pd
import pystac
import xarray as xr

from calfin_cloud.domains import Domain
from calfin_cloud.exports import (
    calfin_lines,
    calfin_polygons,
    collection_of,
    exp_text,
    level_set_series,
    monthly_ice,
    termpicks_lines,
    write_by_glacier,
)
from calfin_cloud.results.reviewing import REVIEW_COLUMNS, reviewed_fronts
from calfin_cloud.schema import check_name
from calfin_cloud.storage import (
    masks_url,
    picture_path,
    read_polygons,
    read_store,
    read_store_domains,
)

CALFIN = """Cheng, D., Hayes, W., Larour, E., Mohajerani, Y., Wood, M., Velicogna, I., and Rignot, E. (2021):
Calving Front Machine (CALFIN), The Cryosphere 15, 1663-1675, doi:10.5194/tc-15-1663-2021"""

README = """# Calving fronts

{scenes} scenes ({counts}) of {domains} domains, {span}. Version {version}, by {author}. Formats: {formats}.

## Made by

{made_by}

Every line has the id of its scene; `calfin show STORE SCENE` tells which file, network and settings made it. Fronts
that people rejected are left out, redrawn ones are as drawn, and the polygons of both are left out.

## Cite

CITATION.cff, and the method: {method}. The scenes: Landsat by USGS, Sentinel by ESA/Copernicus.
"""

CITATION = """cff-version: 1.2.0
title: Calving fronts mapped by calfin_cloud
message: If you use these data, please cite them and the method.
type: dataset
version: "{version}"
authors:
  - name: {author}
references:
  - type: article
    title: "Calving Front Machine (CALFIN): glacial termini dataset and automated deep learning extraction method for Greenland, 1972-2019"
    authors:
      - family-names: Cheng
        given-names: Daniel
    journal: The Cryosphere
    year: 2021
    doi: 10.5194/tc-15-1663-2021
"""  # noqa: E501


class Stored(NamedTuple):
    """What an export needs of a store."""

    store: str
    fronts: gpd.GeoDataFrame
    polygons: gpd.GeoDataFrame
    domains: Mapping[str, Domain]
    made_by: Mapping[str, Any]
    author: str
    names: pd.DataFrame | None
    version: str


def export_store(
    store: str,
    folder: Path,
    formats: Sequence[str],
    *,
    author: str,
    names: pd.DataFrame | None = None,
    version: str = "1.0",
) -> list[Path]:
    """Write the results of a store into a folder, each format into a folder of its own, and a README with the lineage.

    Parameters
    ----------
    formats
        Of `FORMATS`: `calfin` and `termpicks` (Shapefiles), `gpkg`, `issm` (.exp contours), `levelset` (NetCDF),
        `icemask` (monthly, Zarr and NetCDF), `stac`.
    author
        Who answers for the lines: CALFIN's column `Author`.
    names
        Names of the glaciers, see `exports.calfin_lines`.
    """
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise ValueError(f"got the unknown formats {unknown}, expected some of {list(FORMATS)}")
    domains = {d.name: d for d in read_store_domains(store)}
    fronts, polygons = _reviewed(store)
    stored = Stored(store, fronts, polygons, domains, read_store(store), author, names, version)
    paths = []
    for name in formats:
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        paths += FORMATS[name](stored, target)
    readme, citation = folder / "README.md", folder / "CITATION.cff"
    readme.write_text(_readme(stored, formats), encoding="utf-8")
    citation.write_text(CITATION.format(version=version, author=json.dumps(author)), encoding="utf-8")
    return [*paths, readme, citation]


def _reviewed(store: str) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Fronts without those that people rejected, and polygons of the scenes whose fronts people left as they are."""
    fronts, polygons = reviewed_fronts(store), read_polygons(store)
    changed = fronts.loc[fronts["verdict"].isin(["reject", "redraw"]), "key"]
    kept = fronts[fronts["verdict"] != "reject"].drop(columns=list(REVIEW_COLUMNS)).reset_index(drop=True)
    return kept, polygons[~polygons["key"].isin(changed)].reset_index(drop=True)


def _calfin(stored: Stored, folder: Path) -> list[Path]:
    lines = calfin_lines(stored.fronts, author=stored.author, names=stored.names, crs=_polar_crs(stored))
    closed = calfin_polygons(
        stored.polygons, stored.fronts, author=stored.author, names=stored.names, crs=_polar_crs(stored)
    )
    region = "Antarctica" if _polar_crs(stored) == "EPSG:3031" else "Greenland"
    version = stored.version
    return [
        *write_by_glacier(lines, folder, region=region, closed=False, version=version),
        *write_by_glacier(closed, folder, region=region, closed=True, version=version),
    ]


def _termpicks(stored: Stored, folder: Path) -> list[Path]:
    table = termpicks_lines(stored.fronts, author=stored.author, crs=_polar_crs(stored))
    if table.empty:
        return []
    table.to_file(folder / "termpicks.shp", encoding="utf-8")
    return [folder / "termpicks.shp"]


def _gpkg(stored: Stored, folder: Path) -> list[Path]:
    path = folder / "calfin_cloud.gpkg"
    path.unlink(missing_ok=True)
    for layer, table in (("fronts", stored.fronts), ("polygons", stored.polygons)):
        plain = table[[c for c in table.columns if c != "vertex_sigma_m"]]  # GeoPackage has no lists
        plain.to_file(path, layer=layer, driver="GPKG")
    return [path]


def _issm(stored: Stored, folder: Path) -> list[Path]:
    found = stored.fronts[stored.fronts["state"] == "front"]
    paths = []
    for domain, part in found.groupby("domain"):
        for key, lines in part.groupby("key", sort=False):
            first = lines.iloc[0]
            name = f"{domain} {first['datetime']:%Y-%m-%d} {first['scene_id']}"
            stem = f"{domain}_{first['datetime']:%Y%m%dT%H%M%S}_{str(key).partition('/')[2]}"
            paths.append(folder / f"{_safe(stem)}.exp")
            paths[-1].write_text(exp_text((name, line) for line in lines.geometry), encoding="utf-8")
    return paths


def _levelset(stored: Stored, folder: Path) -> list[Path]:
    return _by_domain(stored, lambda part, domain: _netcdf(level_set_series(part, domain.grid), folder, domain))


def _icemask(stored: Stored, folder: Path) -> list[Path]:
    def write(part: gpd.GeoDataFrame, domain: Domain) -> Path:
        cube = monthly_ice(part, domain.grid)
        plain = cube.drop_encoding()
        plain["ice"].attrs["_FillValue"] = cube["ice"].encoding["_FillValue"]
        plain.to_zarr(folder / f"{domain.name}.zarr", mode="w", consolidated=False)
        return _netcdf(cube, folder, domain)

    return _by_domain(stored, write)


def _stac(stored: Stored, folder: Path) -> list[Path]:
    base = stored.store if "://" in stored.store else str(Path(stored.store).resolve())

    def addresses(domain: str, scene_id: str) -> dict[str, str]:
        links = {"masks": masks_url(base, domain), "fronts": f"{base}/fronts"}
        found = stored.fronts[(stored.fronts["scene_id"] == scene_id) & (stored.fronts["domain"] == domain)]
        return links | ({"picture": f"{base}/{picture_path(domain, scene_id)}"} if found["front"].max() >= 0 else {})

    collection = collection_of(
        stored.fronts,
        {name: domain.polygon_lonlat for name, domain in stored.domains.items()},
        addresses,
        id_="calfin-cloud-fronts",
        description="Calving fronts mapped by calfin_cloud, every scene with its state.",
        made_by=stored.made_by,
    )
    collection.normalize_hrefs(str(folder))
    collection.save(pystac.CatalogType.SELF_CONTAINED)
    return [folder / "collection.json"]


FORMATS: dict[str, Callable[[Stored, Path], list[Path]]] = {
    "calfin": _calfin,
    "termpicks": _termpicks,
    "gpkg": _gpkg,
    "issm": _issm,
    "levelset": _levelset,
    "icemask": _icemask,
    "stac": _stac,
}


def _polar_crs(stored: Stored) -> str:
    """CRS of the community's tables: polar stereographic of the hemisphere."""
    south = any(d.polygon_lonlat.centroid.y < 0 for d in stored.domains.values())
    return "EPSG:3031" if south else "EPSG:3413"


def _by_domain(stored: Stored, write: Callable[[gpd.GeoDataFrame, Domain], Path]) -> list[Path]:
    """Write a file for each domain that has ocean polygons."""
    ocean = stored.polygons[(stored.polygons["kind"] == "ocean") & stored.polygons.geometry.notna()]
    return [
        write(stored.polygons[stored.polygons["domain"] == name], stored.domains[str(name)])
        for name in sorted(ocean["domain"].unique())
    ]


def _netcdf(dataset: xr.Dataset, folder: Path, domain: Domain) -> Path:
    path = folder / f"{check_name(domain.name)}.nc"
    dataset.to_netcdf(path, engine="h5netcdf")
    return path


def _safe(name: str) -> str:
    """Name of a file made of a scene id, which comes from a catalogue: at most 200 plain characters."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:200]


def _readme(stored: Stored, formats: Sequence[str]) -> str:
    scenes = stored.fronts.drop_duplicates("key")
    span = f"{scenes['datetime'].min():%Y-%m-%d} to {scenes['datetime'].max():%Y-%m-%d}" if len(scenes) else "no date"
    return README.format(
        scenes=len(scenes),
        counts=", ".join(f"{n} {state}" for state, n in scenes["state"].value_counts().items()),
        domains=len(stored.domains),
        span=span,
        version=stored.version,
        author=stored.author,
        formats=", ".join(formats),
        made_by="\n".join(f"* {key}: {value}" for key, value in sorted(stored.made_by.items())),
        method=CALFIN,
    )
