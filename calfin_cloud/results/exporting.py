"""A store becomes files in the formats that others read, with a note on where they are from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import pandas as pd

from calfin_cloud.domains import Domain
from calfin_cloud.exports import CALFIN_NAMES, known_name, read_mesh
from calfin_cloud.object_stores import store_text
from calfin_cloud.results.formats import FORMATS, Stored, doubtful_fronts
from calfin_cloud.results.reviewed_polygons import reviewed_polygons
from calfin_cloud.results.reviewing import REVIEW_COLUMNS, in_time, reviewed_fronts
from calfin_cloud.results.spreadsheets import write_csv
from calfin_cloud.schema import NO_FRONT, check_name
from calfin_cloud.storage import checked_domains, domain_of, outside_stores, read_store, read_store_domains
from calfin_cloud.vectors import read_vectors
from calfin_cloud.whole_files import write_whole_file

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
NAMED_BY = {"domain", "glacier_id"}
NAMED = f"with {' or '.join(sorted(NAMED_BY))}, and one of {', '.join(CALFIN_NAMES)}"
"""What names of glaciers must have."""
REJECTED = {"state": "no_front", "reason": "rejected", "detail": "people rejected all its fronts"}
REJECTED |= {"flags": "", "flag_details": ""}
"""What the row of a scene has of whose fronts none is left."""


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
        There is no store, the folder lies within one, a format is not known, an option goes with none of the formats,
        the version cannot be part of a name, or `names` lacks its columns.

    Examples
    --------
    >>> paths = cc.export_store("fronts", "products", ["gpkg"], author="A. Person")
    >>> sum(path.suffix == ".gpkg" for path in paths)
    1
    """
    store, folder = store_text(store), outside_stores(folder)
    formats = [formats] if isinstance(formats, str) else list(formats)
    _check_names(names, version)
    _check_options(formats, mesh=mesh, mesh_crs=mesh_crs, base=base, carry_months=carry_months)
    domains = {d.name: d for d in read_store_domains(store)}
    fronts, polygons, judged = _reviewed(store)
    made_by = read_store(store)
    places = None if mesh is None else read_mesh(Path(mesh), crs=made_by["crs"], mesh_crs=mesh_crs)
    land = None if base is None else read_vectors(base, "base", of="polygons").to_crs(made_by["crs"]).union_all()
    names = _with_known_names(names, fronts, domains, store)
    stored = Stored(
        store, fronts, polygons, judged, domains, made_by, author, names, version, carry_months, places, land
    )
    paths = []
    for name in formats:
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        paths += FORMATS[name](stored, target)
    return [*paths, *_write_notes(stored, formats, folder)]


def _write_notes(stored: Stored, formats: Sequence[str], folder: Path) -> list[Path]:
    """Write what lies beside the formats: where they are from, how to cite them, what is doubtful, what people said."""
    readme, citation, doubtful, reviewed = (
        folder / name for name in ("README.md", "CITATION.cff", "doubtful.csv", "reviewed.csv")
    )
    write_csv(doubtful_fronts(stored.fronts), doubtful)
    write_csv(stored.judged[[*REVIEWED_COLUMNS]].assign(line=stored.judged.geometry.to_wkt()), reviewed)
    write_whole_file(readme, _readme(stored, formats))
    write_whole_file(citation, CITATION.format(version=stored.version, author=json.dumps(stored.author)))
    return [readme, citation, doubtful, reviewed]


def read_names(path: str | Path) -> pd.DataFrame:
    """Read the names of glaciers, as `exports.calfin_lines` takes them, from a CSV file.

    Raises
    ------
    ValueError
        The file cannot be read, or lacks the columns.
    """
    try:
        names = pd.read_csv(path, dtype=str)
    except ValueError as error:  # of pandas, and of a text that is not UTF-8
        raise ValueError(f"cannot read the names {path}: {error}; expected a CSV in UTF-8 {NAMED}") from error
    _check_columns(names, str(path))
    return names


def _check_names(names: pd.DataFrame | None, version: str) -> None:
    check_name(version, what="the version of the data")
    if names is not None:
        _check_columns(names, "the table of names")


def _check_columns(names: pd.DataFrame, what: str) -> None:
    if not (NAMED_BY & set(names) and set(CALFIN_NAMES) & set(names)):
        raise ValueError(f"{what} has the columns {list(names)}, expected some {NAMED}")


def _check_options(
    formats: Sequence[str],
    *,
    mesh: str | Path | None,
    mesh_crs: str | None,
    base: str | Path | None,
    carry_months: int,
) -> None:
    """Refuse formats that are not known, and options that go with none of the formats."""
    if not formats:
        raise ValueError(f"got no formats, expected some of {list(FORMATS)}")
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise ValueError(f"got the unknown formats {unknown}, expected some of {list(FORMATS)}")
    if mesh is not None and "levelset" not in formats:
        raise ValueError(f"a mesh is for level sets, got the formats {list(formats)}: add levelset")
    if mesh_crs is not None and mesh is None:
        raise ValueError(f"a mesh has the CRS {mesh_crs!r}, but there is none: name the mesh, or leave its CRS out")
    if base is not None and mesh is None:
        raise ValueError("a base mask is for level sets on a mesh: name the mesh, or leave it out")
    if carry_months < 0:
        raise ValueError(f"an ice mask can be carried for 0 months or more, got {carry_months}")


def _reviewed(store: str) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Fronts without those that people rejected, the polygons that they close, and fronts with a verdict.

    Scenes keep a row.

    The `author` of a redrawn front is who drew it, empty of all others.
    """
    fronts = in_time(reviewed_fronts(store), store)
    polygons = reviewed_polygons(store, fronts)
    is_rejected = fronts["verdict"] == "reject"
    kept = fronts[~is_rejected]
    lost = fronts[is_rejected & ~fronts["key"].isin(kept["key"])].drop_duplicates("key")
    lost = lost.assign(**{column: [value] * len(lost) for column, value in (NO_FRONT | REJECTED).items()})
    kept = pd.concat([kept, lost.astype(dict(fronts.dtypes))]).sort_index().reset_index(drop=True)
    judged = fronts[fronts["verdict"] != ""]
    return kept.assign(author=kept["reviewer"].where(kept["verdict"] == "redraw", "")), polygons, judged


def _with_known_names(
    names: pd.DataFrame | None, fronts: gpd.GeoDataFrame, domains: Mapping[str, Domain], store: str
) -> pd.DataFrame:
    """Add the names that are known of glaciers after those that are given."""
    pairs = fronts[["domain", "glacier_id"]].drop_duplicates("domain").itertuples(index=False)
    rows = [(name, known_name(glacier, domain_of(domains, name, store).middle_lonlat)) for name, glacier in pairs]
    known = pd.DataFrame([row for row in rows if row[1]], columns=["domain", "AltName"])
    return known if names is None else pd.concat([names, known], ignore_index=True)


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
        doubtful=len(doubtful_fronts(stored.fronts)),
    )
