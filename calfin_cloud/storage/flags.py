"""Flags that time puts on fronts: kept beside them, a file a domain, and never in the table of fronts."""

from __future__ import annotations

import geopandas as gpd
import pandas as pd

from calfin_cloud.schema import check_name
from calfin_cloud.storage.files import digest, list_files, open_place, read_sealed, seal, write_whole

FLAG_COLUMNS = ("key", "front", "branch", "flag", "detail")
REMEDY = "run `calfin timeseries` on the store once more"


def write_flags(store: str, fronts: gpd.GeoDataFrame, flags: pd.DataFrame) -> list[str]:
    """Keep the flags of fronts in place of earlier ones of their domains; return the domains for which that is news.

    Parameters
    ----------
    fronts
        All fronts that were checked, of whole domains: rows of `read_fronts` with a line, or as a person drew it.
    flags
        `key`, `branch`, `flag`, `detail`, a row an objection to the fronts of a scene.
    """
    fs, root = open_place(store)
    found = flags.merge(fronts[["key", "front", "domain", "geometry"]], on="key").sort_values(list(FLAG_COLUMNS))
    rows = found[list(FLAG_COLUMNS)].assign(line=[digest(line.wkb) for line in found["geometry"]])
    news = []
    for domain in sorted(fronts["domain"].unique()):
        path = f"{root}/flags/{check_name(domain)}.json"
        data = seal({"flags": rows[found["domain"] == domain].to_dict("records")})
        if not (fs.exists(path) and bytes(fs.cat_file(path)) == data):
            write_whole(fs, path, data)
            news.append(str(domain))
    return news


def read_flags(store: str, fronts: gpd.GeoDataFrame) -> pd.DataFrame:
    """Read the flags of these fronts: `FLAG_COLUMNS`; those of a line that has changed since are void."""
    fs, root = open_place(store)
    kept = [flag for content in read_sealed(fs, f"{root}/flags", REMEDY).values() for flag in content["flags"]]
    lines = {(row.key, row.front): row.geometry for row in fronts[fronts["state"] == "front"].itertuples()}
    valid = [f for f in kept if (line := lines.get((f["key"], f["front"]))) and digest(line.wkb) == f["line"]]
    return pd.DataFrame(valid, columns=list(FLAG_COLUMNS))


def checked_domains(store: str) -> list[str]:
    """Names of the domains whose fronts were checked in time, sorted."""
    fs, root = open_place(store)
    return [path.rpartition("/")[2].removesuffix(".json") for path in list_files(fs, f"{root}/flags", ".json")]
