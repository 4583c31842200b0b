"""What is kept beside the fronts and never overwrites them: verdicts of people, flags of time, choices of all dates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import geopandas as gpd
import pandas as pd

from calfin_cloud.schema import check_name
from calfin_cloud.sensors import in_utc
from calfin_cloud.storage.files import digest, list_files, open_place, read_sealed, seal, write_whole

FLAG_COLUMNS = ("key", "front", "branch", "flag", "detail")
VERDICTS_REMEDY = "delete it, then apply the file of verdicts that it was made of once more"
FLAGS_REMEDY = "run `calfin timeseries` on the store once more"
CHOICES_REMEDY = "delete it and run `calfin reconcile` on the store once more"


def write_review(store: str, verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Keep a file of verdicts (JSON values) under a name made of its content, so that keeping it twice is once."""
    fs, root = open_place(store)
    text = json.dumps(list(verdicts), sort_keys=True)
    path = f"{root}/reviews/{digest(text.encode())}.json"
    write_whole(fs, path, seal({"verdicts": list(verdicts)}))
    return path


def read_reviews(store: str) -> list[dict[str, Any]]:
    """Read all verdicts of a store, the oldest first by the instant they name, whatever its offset from UTC."""
    fs, root = open_place(store)
    found = [v for content in read_sealed(fs, f"{root}/reviews", VERDICTS_REMEDY).values() for v in content["verdicts"]]
    return sorted(found, key=lambda verdict: (instant(verdict["time"]), json.dumps(verdict, sort_keys=True)))


def instant(time: object) -> datetime:
    """Return the instant that a time in ISO form names, in UTC; a bare time is UTC. Raises `ValueError` for others.

    >>> instant("2026-01-31T14:00:00+02:00").isoformat()
    '2026-01-31T12:00:00+00:00'
    """
    try:
        return in_utc(datetime.fromisoformat(str(time)))
    except OverflowError:
        raise ValueError(f"a time must be within the years 1 to 9999, got {time!r}") from None


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
    kept = [flag for content in read_sealed(fs, f"{root}/flags", FLAGS_REMEDY).values() for flag in content["flags"]]
    lines = {(row.key, row.front): row.geometry for row in fronts[fronts["state"] == "front"].itertuples()}
    valid = [f for f in kept if (line := lines.get((f["key"], f["front"]))) and digest(line.wkb) == f["line"]]
    return pd.DataFrame(valid, columns=list(FLAG_COLUMNS))


def checked_domains(store: str) -> list[str]:
    """Names of the domains whose fronts were checked in time, sorted."""
    fs, root = open_place(store)
    return [path.rpartition("/")[2].removesuffix(".json") for path in list_files(fs, f"{root}/flags", ".json")]


def write_choices(store: str, domain: str, choices: Mapping[str, Any]) -> None:
    """Keep the choices of a domain (JSON values, see `results.choosing`) in place of earlier ones."""
    fs, root = open_place(store)
    write_whole(fs, f"{root}/choices/{check_name(domain)}.json", seal(choices))


def read_choices(store: str) -> dict[str, dict[str, Any]]:
    """Read the choices of a store by domain; empty where `calfin reconcile` has not run."""
    fs, root = open_place(store)
    return read_sealed(fs, f"{root}/choices", CHOICES_REMEDY)
