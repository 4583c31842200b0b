"""Domains around the termini of a table, one a glacier."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Container
from itertools import chain, count
from typing import Any

import geopandas as gpd
import pandas as pd
import shapely
from odc.geo.geobox import GeoBox

from calfin_cloud.columns import first_column, glacier_ids, id_text
from calfin_cloud.domains.domain import MIN_SIDE_PX, Domain
from calfin_cloud.domains.grids import DEFAULT_RESOLUTION_M, best_crs, box_grid
from calfin_cloud.termini import termini_of

LONGEST_NAME = 100  # bytes of a name that is made of a table's
ID_COLUMNS = ("glacier_id", "glacier", "ID")
NAME_COLUMNS = ("name", "RefName", "GlacierName", "OfficialN")

log = logging.getLogger(__name__)


def domains_from_termini(
    termini: gpd.GeoDataFrame,
    *,
    id_column: str | None = None,
    resolution_m: float = DEFAULT_RESOLUTION_M,
    margin: float = 0.75,
    min_side_m: float = 6000.0,
    crs: str | None = None,
) -> list[Domain]:
    """Make one square domain around all termini of each glacier id, which it keeps with their dates and sources.

    The side is the longer side of the termini's box plus `margin` times that side on either end, at least `min_side_m`
    (CALFIN's re-crop is 2.5 times the front, `calfin-method` 6.4).

    Parameters
    ----------
    termini
        Lines in any CRS, with an id column (`ID_COLUMNS` in any case, or `id_column`); those without an id
        are left out, with a warning.
    id_column
        Column with the glacier id, where it has another name.
    resolution_m
        Pixel side of the grids.
    margin
        Room on either side of the termini, in lengths of their box.
    min_side_m
        Least side of a domain in metres.
    crs
        CRS of the grids; by place where not given.

    Returns
    -------
    list
        A domain for each glacier id, sorted by id.

    Raises
    ------
    ValueError
        The table has no CRS, no column of ids, no line, or no id.

    Examples
    --------
    >>> termini = gpd.read_parquet("real/reference.parquet")
    >>> (domain,) = cc.domains_from_termini(termini)
    >>> domain.name, len(domain.termini)
    ('glacier-75', 159)
    """
    name_column = first_column(NAME_COLUMNS, termini)
    domains = []
    taken: set[str] = set()
    for glacier, lines in _by_glacier(termini, id_column):
        grid = _square_around(lines.geometry, crs or best_crs(lines.geometry), resolution_m, margin, min_side_m)
        known = termini_of(lines, str(grid.crs))
        named = _as_name(lines[name_column].iloc[0]) if name_column else ""
        name = _free_name(named, _as_name(glacier), taken)
        taken.add(name)
        domains.append(Domain(name, grid, glacier, termini=known))
    return domains


def _by_glacier(termini: gpd.GeoDataFrame, id_column: str | None) -> list[tuple[str, gpd.GeoDataFrame]]:
    """Termini by the id of their glacier, in the order of ids; raise `ValueError` where none has one."""
    if termini.crs is None:
        raise ValueError("the termini have no CRS: assign one to the file, e.g. EPSG:3413")
    termini = termini[shapely.length(termini.geometry.to_numpy()) > 0]  # all points of a line may be one
    if termini.empty:
        raise ValueError("the file holds no termini")
    column = id_column or first_column(ID_COLUMNS, termini)
    if column is None or column not in termini.columns:
        raise ValueError(
            f"no column with glacier ids: got {list(termini.columns)}, expected one of {ID_COLUMNS}: name another "
            "with --id-column"
        )
    ids = glacier_ids(termini, column)
    if nameless := int((ids == "").sum()):
        if nameless == len(ids):
            raise ValueError(f"no line has a glacier id: the column {column} is empty; give it values, or name another")
        log.warning("%d of %d lines are left out: they have no glacier id in %s", nameless, len(ids), column)
    return sorted(termini[ids != ""].groupby(ids), key=lambda group: _by_number(group[0]))


def _by_number(glacier: str) -> tuple[float, str]:
    """Numbers in their order, before what is none."""
    return float(glacier) if glacier.isdecimal() else math.inf, glacier


def _free_name(named: str, glacier: str, taken: Container[str]) -> str:
    """First of the names of a domain that no other has: the glacier's own, that with its id, a numbered one."""
    first, *more = [named, f"{named}-{glacier}"] if named else [f"glacier-{glacier}"]
    return next(n for n in chain([first, *more], (f"{first}-{k}" for k in count(2))) if n not in taken)


def _as_name(text: Any) -> str:  # noqa: ANN401 - a value of a table
    """Make a name of a domain of whatever a table has in its place; empty where it has none."""
    words = re.sub(r"[^\w\-]+", "-", "" if pd.isna(text) else id_text(text)).strip("-_")
    return words.encode()[:LONGEST_NAME].decode(errors="ignore")


def _square_around(lines: gpd.GeoSeries, crs: str, resolution_m: float, margin: float, min_side_m: float) -> GeoBox:
    left, bottom, right, top = lines.to_crs(crs).total_bounds
    half = max((1 + 2 * margin) * max(right - left, top - bottom), min_side_m, MIN_SIDE_PX * resolution_m) / 2
    x, y = (left + right) / 2, (bottom + top) / 2
    return box_grid((x - half, y - half, x + half, y + half), crs, resolution_m)
