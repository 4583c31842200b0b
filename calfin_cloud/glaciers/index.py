"""The index of glaciers: their names, numbers and places, and their known termini."""

from __future__ import annotations

import difflib
import re
import unicodedata
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import geopandas as gpd
import pandas as pd

from calfin_cloud.domains import Domain

KIND = re.compile(r"(glacier|gletscher|gletsjer|isbrae|brae|isstrom|sermia|gl)$")
"""Words for glacier at the end of a name, as `_plain` writes it: the index has Petermann, people add Glacier."""


class Glacier(NamedTuple):
    """A row of the index: `id` of MEaSUREs or empty, names, longitude and latitude, source."""

    id: str
    name: str
    other_names: str
    lon: float
    lat: float
    source: str

    def __str__(self) -> str:
        return f"{self.name or 'glacier'} ({self.id or self.source})"


def read_glaciers() -> pd.DataFrame:
    """Read the index: `id` (MEaSUREs, else empty), `name`, `other_names` (`;` between), `lon`, `lat`, `source`.

    239 glaciers of Greenland, 67 of them with a name, and 39 elsewhere. Sources and licences are in `places/README.md`
    of the package.

    Examples
    --------
    >>> read_glaciers().set_index("id").loc["92", "name"]
    'Humboldt'
    """
    table: pd.DataFrame = pd.read_csv(_place("glaciers.csv"), dtype={"id": str}, keep_default_na=False)
    return table


def read_termini(glacier_id: str | None = None) -> gpd.GeoDataFrame:
    """Read the dated termini (`glacier_id`, `date`, line in EPSG:3413) of the index, or those of one glacier.

    Examples
    --------
    >>> read_termini("92")["date"].min()
    '2009-01-22'
    """
    termini = _all_termini()
    return termini if glacier_id is None else termini[termini["glacier_id"] == glacier_id].reset_index(drop=True)


def find_glacier(text: str) -> Glacier:
    """Find one glacier of the index by name, by another name, by part of a name, or by number.

    Accents do not matter, nor does a word for glacier at the end.

    Parameters
    ----------
    text
        Name, part of a name, or number of MEaSUREs; upper and lower case are alike.

    Returns
    -------
    Glacier
        Its row of the index: `id`, `name`, `other_names`, `lon`, `lat`, `source`.

    Raises
    ------
    ValueError
        None has it, or several do: the message names the nearest ones.

    Examples
    --------
    >>> find_glacier("sermersuaq").name
    'Humboldt'
    """
    glaciers = [Glacier(*row) for row in read_glaciers().itertuples(index=False, name=None)]
    wanted = _plain(str(text))
    bare = KIND.sub("", wanted)
    names = [[_plain(n) for n in (g.name, *g.other_names.split(";")) if n] for g in glaciers]
    number = re.fullmatch(r"(?:no|glacier)?(\d+)", wanted)
    exact = [g for g, own in zip(glaciers, names, strict=True) if wanted in own]
    numbered = [g for g in glaciers if number and g.id == number[1]]
    alike = [g for g, own in zip(glaciers, names, strict=True) if bare and any(bare == KIND.sub("", n) for n in own)]
    part = [g for g, own in zip(glaciers, names, strict=True) if bare and any(bare in n for n in own)]
    for found in (exact, numbered, alike, part):
        if len(found) == 1:
            return found[0]
        if found:
            told = ", ".join(map(str, found[:8]))
            raise ValueError(
                f"{len(found)} glaciers have {text!r} in their name: {told}; give the whole name or number"
            )
    known = {n: g for g, own in zip(glaciers, names, strict=True) for n in own}
    near = dict.fromkeys(str(known[n]) for n in difflib.get_close_matches(bare, known, n=4, cutoff=0.6))
    hint = f"did you mean {', '.join(near)}?" if near else "`calfin domains --list` prints all."
    raise ValueError(
        f"no glacier of the index is called {text!r}: {hint} Or give a place: --point LON,LAT, `domain_from_point`"
    )


def known_termini(domain: Domain) -> gpd.GeoDataFrame:
    """Read the termini of the index that touch a domain, in its CRS."""
    termini = read_termini().to_crs(domain.crs)
    return termini[termini.intersects(domain.polygon)].reset_index(drop=True)


@lru_cache(maxsize=1)
def _all_termini() -> gpd.GeoDataFrame:
    return gpd.read_parquet(_place("termini.parquet"))


def _place(name: str) -> str:
    return str(files("calfin_cloud") / "places" / name)


def _plain(text: str) -> str:
    """Letters and digits alone, without accents, in small letters: `Kong-Oscar` as `kong oscar` is found."""
    apart = unicodedata.normalize("NFD", text.lower().replace("æ", "ae").replace("ø", "o"))
    return "".join(c for c in apart if c.isalnum())
