"""A store becomes files in the formats that others read, with a note on where they are from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from shapely.geometry.base import BaseGeometry

from calfin_cloud.domains import Domain
from calfin_cloud.exports import (
    CRS,
    calfin_lines,
    calfin_polygons,
    exp_text,
    known_name,
    level_set_series,
    levels_of,
    merge_levels,
    monthly_ice,
    read_mesh,
    region_at,
    termpicks_lines,
    write_by_glacier,
    write_collection,
)
from calfin_cloud.results.reviewed_polygons import reviewed_polygons
from calfin_cloud.results.reviewing import REVIEW_COLUMNS, reviewed_fronts
from calfin_cloud.results.seaward import features_of, flat
from calfin_cloud.results.spreadsheets import write_csv
from calfin_cloud.results.training_scenes import write_domain_files, write_training_scenes
from calfin_cloud.schema import NO_FRONT, check_name
from calfin_cloud.storage import (
    checked_domains,
    masks_url,
    picture_path,
    read_store,
    read_store_domains,
)
from calfin_cloud.vectors import read_vectors

CALFIN = """Cheng, D., Hayes, W., Larour, E., Mohajerani, Y., Wood, M., Velicogna, I., and Rignot, E. (2021):
Calving Front Machine (CALFIN), The Cryosphere 15, 1663-1675, doi:10.5194/tc-15-1663-2021"""

README = """# Calving fronts

{scenes} scenes ({counts}) of {domains} domains, {span}. Version {version}, by {author}. Formats: {formats}.

## Made by

{made_by}

Every line has the id of its scene; `calfin show STORE SCENE` tells which file, network and settings made it. Fronts
that people rejected are left out (scenes that have no other count as `no_front` for the reason `rejected`), redrawn
ones are as drawn and have who drew them as author, and the polygons of their scenes are closed anew. `reviewed.csv`
has what people said, with the lines.

`calfin timeseries` has checked the fronts of {checked} of {domains} domains in time. {doubtful} fronts are doubtful:
`doubtful.csv` has them with the reason and a lowered score. They are in all files.

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


REVIEWED_COLUMNS = ("key", "domain", "scene_id", "front", "datetime", *REVIEW_COLUMNS)
REJECTED = {"state": "no_front", "reason": "rejected", "detail": "people rejected all its fronts"}
REJECTED |= {"flags": "", "flag_details": ""}
"""What the row of a scene has of whose fronts none is left."""

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


def export_store(
    store: str | Path,
    folder: str | Path,
    formats: Sequence[str],
    *,
    author: str,
    names: pd.DataFrame | None = None,
    version: str = "1.0",
    carry_months: int = 0,
    mesh: str | Path | None = None,
    mesh_crs: str | None = None,
    base: str | Path | None = None,
) -> list[Path]:
    """Write the results of a store into a folder, each format into a folder of its own, and a README with the lineage.

    Beside it lie `doubtful.csv`: the fronts that time makes doubtful, why, and their score; and `reviewed.csv`: what
    people said of fronts, with the lines that they rejected or drew.

    Parameters
    ----------
    store
        Folder or object prefix that `calfin map` made.
    folder
        Is made; files of an earlier export in it are replaced.
    formats
        Of `FORMATS`: `calfin` and `termpicks` (Shapefiles), `gpkg`, `issm` (.exp contours), `levelset` (NetCDF),
        `icemask` (monthly, Zarr and NetCDF), `calfin-ts` (pictures and masks to train on, domains and fjord masks),
        `stac`.
    author
        Who answers for the lines: CALFIN's column `Author`; of a redrawn line it is who drew it.
    names
        Names of the glaciers, see `exports.calfin_lines`. Where none is given, glaciers of Greenland with a
        MEaSUREs number have the name of CALFIN's data, if there is one, as `AltName`.
    version
        Of the data, in names of files.
    carry_months
        For how long an ice mask stands for months without a scene, see `exports.monthly_ice`.
    mesh, mesh_crs
        Where level sets are wanted, and its CRS, see `exports.read_mesh`: one file for all domains, a column a
        month. Without it each domain has a file of its own, on its grid, a time a scene.
    base
        Polygons of ice and land that tell the level outside all domains, see `exports.merge_levels`.

    Returns
    -------
    list
        Paths of what was written.

    Raises
    ------
    ValueError
        There is no store, a format is not known, or an option goes with none of the formats.

    Examples
    --------
    >>> paths = cc.export_store("fronts", "products", ["gpkg"], author="A. Person")
    >>> sum(path.suffix == ".gpkg" for path in paths)
    1
    """
    store = str(store)
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise ValueError(f"got the unknown formats {unknown}, expected some of {list(FORMATS)}")
    if mesh is not None and "levelset" not in formats:
        raise ValueError(f"a mesh is for level sets, got the formats {list(formats)}: add levelset")
    if base is not None and mesh is None:
        raise ValueError("a base mask is for level sets on a mesh: name the mesh, or leave it out")
    if carry_months < 0:
        raise ValueError(f"an ice mask can be carried for 0 months or more, got {carry_months}")
    domains = {d.name: d for d in read_store_domains(store)}
    fronts, polygons, judged = _reviewed(store)
    made_by = read_store(store)
    places = None if mesh is None else read_mesh(Path(mesh), crs=made_by["crs"], mesh_crs=mesh_crs)
    land = None if base is None else read_vectors(base, "base").to_crs(made_by["crs"]).union_all()
    names = _with_known_names(names, fronts, domains)
    judged = judged[judged["verdict"] != ""]
    stored = Stored(
        store, fronts, polygons, judged, domains, made_by, author, names, version, carry_months, places, land
    )
    folder, paths = Path(folder), []
    for name in formats:
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        paths += FORMATS[name](stored, target)
    readme, citation, doubtful, reviewed = (
        folder / name for name in ("README.md", "CITATION.cff", "doubtful.csv", "reviewed.csv")
    )
    write_csv(_doubtful(fronts), doubtful)
    write_csv(judged[[*REVIEWED_COLUMNS]].assign(line=judged.geometry.to_wkt()), reviewed)
    readme.write_text(_readme(stored, formats), encoding="utf-8")
    citation.write_text(CITATION.format(version=version, author=json.dumps(author)), encoding="utf-8")
    return [*paths, readme, citation, doubtful, reviewed]


def _reviewed(store: str) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Fronts without those that people rejected, the polygons that they close, and all fronts; scenes keep a row.

    The `author` of a redrawn front is who drew it, empty of all others.
    """
    fronts = reviewed_fronts(store)
    polygons = reviewed_polygons(store, fronts)
    is_rejected = fronts["verdict"] == "reject"
    kept = fronts[~is_rejected]
    lost = fronts[is_rejected & ~fronts["key"].isin(kept["key"])].drop_duplicates("key")
    lost = lost.assign(**{column: [value] * len(lost) for column, value in (NO_FRONT | REJECTED).items()})
    kept = pd.concat([kept, lost]).sort_index().reset_index(drop=True)
    return kept.assign(author=kept["reviewer"].where(kept["verdict"] == "redraw", "")), polygons, fronts


def _doubtful(fronts: gpd.GeoDataFrame) -> pd.DataFrame:
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
        table = termpicks_lines(stored.fronts[stored.fronts["domain"].isin(names)], author=stored.author, crs=crs)
        if len(table):
            paths.append(folder / ("termpicks.shp" if len(regions) == 1 else f"termpicks_{region}.shp"))
            table.to_file(paths[-1], encoding="utf-8")
    return paths


def _gpkg(stored: Stored, folder: Path) -> list[Path]:
    path = folder / "calfin_cloud.gpkg"
    path.unlink(missing_ok=True)
    layers = {"fronts": stored.fronts, "polygons": stored.polygons, "reviewed": stored.judged}
    layers |= {name: flat(table) for name, table in features_of(stored.store).items()}
    for layer, table in layers.items():
        plain = table[[c for c in table.columns if c != "vertex_sigma_m"]]  # GeoPackage has no lists
        plain.to_file(path, layer=layer, driver="GPKG")
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
    path.write_text(exp_text((name, shape) for shape in shapes.geometry), encoding="utf-8")
    return path


def _levelset(stored: Stored, folder: Path) -> list[Path]:
    """Write a file a domain on its grid, or one of all domains on the mesh."""
    if stored.places is not None:
        return [_on_mesh(stored, stored.places, folder)]
    doubtful = _doubtful(stored.fronts)

    def write(part: gpd.GeoDataFrame, domain: Domain) -> Path:
        levels = level_set_series(part, domain.grid)
        flagged = doubtful.loc[doubtful["domain"] == domain.name, "scene_id"].to_numpy(dtype=str)
        is_doubtful = np.isin(levels["scene_id"].to_numpy(), flagged).astype(np.int8)
        levels["doubtful"] = ("time", is_doubtful, DOUBTFUL)
        return _netcdf(levels, folder, domain.name)

    return _by_domain(stored, write)


def _on_mesh(stored: Stored, places: xr.Dataset, folder: Path) -> Path:
    """Write the level set of all domains on a mesh."""
    sigmas = stored.fronts.groupby("key")["sigma_m"].max()
    ocean = stored.polygons[(stored.polygons["kind"] == "ocean") & stored.polygons.geometry.notna()]
    found = []
    for name in sorted(ocean["domain"].unique()):
        domain = stored.domains[str(name)]
        part = stored.polygons[stored.polygons["domain"] == name]
        found.append(levels_of(part, sigmas, domain.polygon, float(domain.grid.transform.a), places))
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
        cube.to_zarr(folder / f"{domain.name}.zarr", mode="w", consolidated=False)
        return _netcdf(cube, folder, domain.name)

    return _by_domain(stored, write)


def _calfin_ts(stored: Stored, folder: Path) -> list[Path]:
    """Write what CALFIN trains on, and with: pictures, masks, georeference, boundaries of fjords, domains."""
    paths = write_training_scenes(stored.store, folder / "train", stored.fronts, stored.domains)
    return paths + [path for domain in stored.domains.values() for path in write_domain_files(domain, folder)]


def _stac(stored: Stored, folder: Path) -> list[Path]:
    base = stored.store if "://" in stored.store else str(Path(stored.store).resolve())
    pictured = set(stored.fronts.loc[stored.fronts["front"] >= 0, "key"])

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


def _regions(stored: Stored) -> list[tuple[str, str, list[str]]]:
    """Regions of the domains, each with the CRS of its tables and its domains."""
    found: dict[str, list[str]] = {}
    for name, domain in stored.domains.items():
        found.setdefault(region_at(domain.area_lonlat), []).append(name)
    return [(region, CRS.get(region, str(stored.made_by["crs"])), names) for region, names in sorted(found.items())]


def _with_known_names(
    names: pd.DataFrame | None, fronts: gpd.GeoDataFrame, domains: Mapping[str, Domain]
) -> pd.DataFrame:
    """Add the names that are known of glaciers after those that are given."""
    pairs = fronts[["domain", "glacier_id"]].drop_duplicates("domain").itertuples(index=False)
    rows = [(name, known_name(glacier, domains[name].area_lonlat)) for name, glacier in pairs]
    known = pd.DataFrame([row for row in rows if row[1]], columns=["domain", "AltName"])
    return known if names is None else pd.concat([names, known], ignore_index=True)


def _by_domain(stored: Stored, write: Callable[[gpd.GeoDataFrame, Domain], Path]) -> list[Path]:
    """Write a file for each domain that has ocean polygons."""
    ocean = stored.polygons[(stored.polygons["kind"] == "ocean") & stored.polygons.geometry.notna()]
    return [
        write(stored.polygons[stored.polygons["domain"] == name], stored.domains[str(name)])
        for name in sorted(ocean["domain"].unique())
    ]


def _netcdf(dataset: xr.Dataset, folder: Path, name: str) -> Path:
    path = folder / f"{check_name(name)}.nc"
    for variable in dataset.data_vars.values():
        if variable.ndim > 1:
            variable.encoding["zlib"] = True
        if variable.chunks:
            variable.encoding["chunksizes"] = tuple(sizes[0] for sizes in variable.chunks)
    with dask.config.set(scheduler="synchronous"):  # a scene at a time
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
        checked=len(checked_domains(stored.store)),
        doubtful=len(_doubtful(stored.fronts)),
    )
