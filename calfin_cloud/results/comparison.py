"""Two products, or the authors of one, against each other: pairs by glacier and date, distances and bias."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from calfin_cloud.figures.comparison import comparison_png
from calfin_cloud.figures.coverage import QUARTERS, coverage_png
from calfin_cloud.metrics import FAR_M, common_distances, line_distances, points_along
from calfin_cloud.products import check_product
from calfin_cloud.results.boxes import Lines, check_lines, seaward_near
from calfin_cloud.results.clusters import clustered_mean, line_groups
from calfin_cloud.results.spreadsheets import write_csv
from calfin_cloud.storage import outside_stores
from calfin_cloud.timeseries import box_position, derive_gate, length_scale, season_of
from calfin_cloud.vectors import check_metres
from calfin_cloud.whole_files import write_whole_file

PAIRED = ("datetime", "sensor", "author")  # columns of both fronts that a pair keeps
PAIR_COLUMNS = ("key_a", "key_b", "glacier_id", "season", *(f"{name}_{side}" for name in PAIRED for side in "ab"))
MEASURES = ("days", "distance_m", "common_m", "hd95_m", "advance_m")
GROUPS = ("all", "sensor", "season", "authors", "year")
POINTS = 20
MOST_APART_M = 100_000.0  # of two fronts of one glacier, whatever their dates
MOST_LONGER = 50.0  # a line is a coast if it is so many times as long as the front beside it
UNKNOWN = "unknown"
SUMMARY_COLUMNS = (
    *("by", "group", "pairs", "lines", "glaciers"),
    *(f"{name}{end}" for name in ("distance_m", "common_m", "advance_m") for end in ("", "_low", "_high")),
    *("distance_median_m", "common_median_m", "hd95_m"),
)


def compare_products(
    a: gpd.GeoDataFrame,
    b: gpd.GeoDataFrame | None = None,
    *,
    days: float = 8.0,
    by_place: bool = False,
    lines: Lines | None = None,
) -> pd.DataFrame:
    """Measure the fronts of one product against those of another, a row a pair.

    Parameters
    ----------
    a, b
        Tables of `products.read_product`; `a` in a projected CRS in metres. Without `b`, the authors of `a` are
        compared with each other, as TermPicks did.
    days
        Longest time between the two fronts of a pair. Each front of `a` is paired with the nearest in time of `b`
        (of every other author, without `b`).
    by_place
        For products that number glaciers differently: the glacier of a front is, in `b`, the one whose fronts of any
        date most of its points are nearest to, within 5 km; both fronts of a pair have a part beside each other. Of
        longer lines, such as coasts, what lies up to 5 km around the box of the front of `a` is compared.
    lines
        Its ice tells on which side the sea lies; without it `advance_m` is NaN.

    Returns
    -------
    DataFrame
        `PAIR_COLUMNS` and `MEASURES`, in m on the ground: `distance_m` and `hd95_m` of the symmetric nearest distances
        (`metrics.line_distances`), `common_m` the mean where both lines lie beside each other (`common_distances`),
        since products cut fronts at different ends, and `advance_m`, by how much `a` lies further out than `b` in the
        mean across their common width.

    Raises
    ------
    ValueError
        The fronts of `a` are not in a projected CRS in metres, a table is none of `read_product`, two fronts of a
        glacier lie 100 km apart, or by place a coast is given first.

    Examples
    --------
    >>> mapped, lines = cc.store_product("fronts")
    >>> pairs = cc.compare_products(mapped, cc.read_product("real/reference.parquet"), days=1, lines=lines)
    >>> len(pairs), bool(pairs["distance_m"].iloc[0] < 150)
    (1, True)
    """
    for table in (a,) if b is None else (a, b):
        check_product(table)
    check_metres(a.crs, "a comparison")
    check_lines(lines or Lines())
    mine = _whole(a)
    mine = mine.assign(is_southern=mine.to_crs(4326).bounds["maxy"] < 0)
    products = [part for _, part in mine.groupby("author")] if b is None else [_whole(b.to_crs(a.crs))]
    rows = []
    for row in mine.itertuples():
        others = [p for p in products if b is not None or p["author"].iloc[0] > row.author]  # pairs of authors once
        found = [_partner(row, part, days, by_place) for part in others]
        for other in sorted(filter(None, found), key=lambda other: (other.wait, other.key)):
            rows.append(_pair(row, other, a.crs, lines))
    return pd.DataFrame(rows, columns=[*PAIR_COLUMNS, *MEASURES])


def summarise_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Summarise pairs over all, by both sensors, season, pair of authors and year: a row a group.

    Columns: `by`, `group`, `pairs`, `lines` (groups of pairs that share no front with another), `glaciers`;
    `distance_m`, `common_m` and `advance_m`: means over pairs, each with `_low` and `_high` of its 95 % interval by
    drawing glaciers, and in each its groups of lines; `distance_median_m`, `common_median_m`: medians over pairs;
    `hd95_m`: mean.

    Parameters
    ----------
    pairs
        What `compare_products` returns.

    Returns
    -------
    DataFrame
        A row a group, as above; distances in m on the ground.

    Examples
    --------
    >>> mapped, lines = cc.store_product("fronts")
    >>> pairs = cc.compare_products(mapped, cc.read_product("real/reference.parquet"), days=1, lines=lines)
    >>> cc.summarise_pairs(pairs).query("by == 'all'")["pairs"].tolist()
    [1]
    """
    if pairs.empty:
        return pd.DataFrame(columns=list(SUMMARY_COLUMNS))
    named = pairs.assign(
        all="all",
        sensor=_both(pairs, "sensor"),
        authors=_both(pairs, "author"),
        year=pairs["datetime_a"].dt.year.astype(str),
        line=line_groups(pairs),
    )
    rows = [_summary(by, str(group), part) for by in GROUPS for group, part in named.groupby(by)]
    return pd.DataFrame(
        [row for row in rows if row["group"] != f"{UNKNOWN} - {UNKNOWN}"], columns=list(SUMMARY_COLUMNS)
    )


def count_fronts(fronts: gpd.GeoDataFrame) -> pd.DataFrame:
    """Count the fronts of a product by glacier, year and season, and those drawn twice.

    Columns: `glacier_id`, `year`, `season` and its `months`, as DJF (December counts for the year it lies in),
    `fronts`, and `duplicates`: how many of them lie on the day of another one of the same glacier by the same author.
    """
    whole = _whole(fronts)
    is_southern = whole.to_crs(4326).bounds["maxy"] < 0
    pairs = zip(whole["datetime"], is_southern, strict=True)
    day = whole["datetime"].dt.date
    table = pd.DataFrame(
        {
            "glacier_id": whole["glacier_id"],
            "year": whole["datetime"].dt.year,
            "season": [season_of(when, is_southern=south) for when, south in pairs],
            "months": [QUARTERS[month % 12 // 3] for month in whole["datetime"].dt.month],
            "duplicates": pd.DataFrame({"g": whole["glacier_id"], "d": day, "a": whole["author"]}).duplicated(),
        }
    )
    grouped = table.groupby(["glacier_id", "year", "season", "months"])["duplicates"]
    return grouped.agg(fronts="size", duplicates="sum").reset_index()


def write_comparison(
    pairs: pd.DataFrame,
    folder: Path,
    *,
    title: str,
    products: Mapping[str, gpd.GeoDataFrame] | None = None,
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Write pairs and summary (CSV) and the picture of their distributions; return the summary.

    Of each product, by its letter, its counts of fronts (`counts-a.csv`) and a heat map of them (`coverage-a.png`),
    whose title has its name.

    Raises
    ------
    ValueError
        The folder lies within a store.
    """
    outside_stores(folder).mkdir(parents=True, exist_ok=True)
    summary = summarise_pairs(pairs)
    write_csv(pairs, folder / "pairs.csv")
    write_csv(summary, folder / "summary.csv")
    picture = comparison_png(pairs.assign(sensor=_both(pairs, "sensor")), title=title)
    write_whole_file(folder / "comparison.png", picture)
    for letter, fronts in (products or {}).items():
        counts = count_fronts(fronts)
        write_csv(counts, folder / f"counts-{letter}.csv")
        told = f"{counts['fronts'].sum()} fronts of {counts['glacier_id'].nunique()} glaciers"
        name = (names or {}).get(letter, letter)
        title = f"{name}: {told}, {counts['duplicates'].sum()} of them on a day that has another"
        write_whole_file(folder / f"coverage-{letter}.png", coverage_png(counts, title=title))
    return summary


def _whole(fronts: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """One row a key: the parts of a front together."""
    return fronts.dissolve("key", as_index=False, sort=False) if fronts["key"].duplicated().any() else fronts


def _candidates(row: Any, others: gpd.GeoDataFrame, by_place: bool) -> gpd.GeoDataFrame:  # noqa: ANN401 - a named tuple
    """Fronts of the same glacier, of any date: by id, or by place, of that to which most points of it are nearest."""
    if not by_place:
        return others[(others["glacier_id"] == row.glacier_id) & (others["glacier_id"] != "")]
    around = np.add(row.geometry.bounds, (-FAR_M, -FAR_M, FAR_M, FAR_M))
    near = others.iloc[others.sindex.query(shapely.box(*around))]
    near = near.set_geometry(shapely.clip_by_rect(near.geometry, *around))  # a coast may be a continent's
    near = near[near.geometry.length > 0]
    points = points_along(row.geometry, row.geometry.length / POINTS)
    nearest = near.sindex.nearest(points, return_all=False, max_distance=FAR_M)[1]
    glaciers = near["glacier_id"].iloc[nearest].mode()[:1]
    return near[near["glacier_id"].isin(glaciers) & (near.distance(row.geometry) <= FAR_M)]


def _partner(row: Any, others: gpd.GeoDataFrame, days: float, by_place: bool) -> Any:  # noqa: ANN401 - named tuples
    """Find the front of the same glacier that is nearest in time, None where none is; by place it must lie beside."""
    candidates = _candidates(row, others, by_place)
    apart = (candidates["datetime"] - row.datetime).abs()
    close = candidates.assign(wait=apart)[apart <= pd.Timedelta(days=days)].sort_values(["wait", "key"])
    for candidate in close.itertuples():
        _check_pair(row, candidate, by_place)
        if not by_place or _are_beside(row.geometry, candidate.geometry):
            return candidate
    return None


def _check_pair(a: Any, b: Any, by_place: bool) -> None:  # noqa: ANN401 - named tuples
    """Refuse a pair whose distance means nothing: of two places with one number, or of a coast and a front."""
    if not (apart := a.geometry.distance(b.geometry)) <= MOST_APART_M:
        raise ValueError(
            f"glacier {a.glacier_id!r} lies {apart / 1000:.0f} km apart in the two products ({a.key}, {b.key}), which "
            "number glaciers differently: use --by-place, or by_place=True in Python"
        )
    if by_place and a.geometry.length > MOST_LONGER * b.geometry.length:
        raise ValueError(
            f"{a.key or 'a line'} is {a.geometry.length / 1000:.0f} km long, the front beside it ({b.key}) "
            f"{b.geometry.length / 1000:.1f} km: of a coast and fronts give it second, of which parts are then compared"
        )


def _are_beside(a: BaseGeometry, b: BaseGeometry) -> bool:
    """Whether fronts have a part beside each other and are no further apart than the first is long."""
    return a.distance(b) <= a.length and len(common_distances(a, b)) > 0


def _pair(a: Any, b: Any, crs: Any, lines: Lines | None) -> dict[str, Any]:  # noqa: ANN401 - named tuples, a CRS
    scale = length_scale(crs, a.geometry)
    distances = line_distances(a.geometry, b.geometry) / scale
    row = {"key_a": a.key, "key_b": b.key, "glacier_id": a.glacier_id}
    row |= {"season": season_of(a.datetime, is_southern=a.is_southern)}
    row |= {f"{name}_{side}": getattr(front, name) for name in PAIRED for side, front in (("a", a), ("b", b))}
    row |= {"days": (a.datetime - b.datetime) / pd.Timedelta(days=1), "distance_m": distances.mean()}
    common = common_distances(a.geometry, b.geometry) / scale
    row |= {"common_m": common.mean() if len(common) else np.nan, "hd95_m": np.percentile(distances, 95)}
    return row | {"advance_m": _advance(a.geometry, b.geometry, (lines or Lines()).ice.get(a.glacier_id)) / scale}


def _advance(a: BaseGeometry, b: BaseGeometry, ice: BaseGeometry | None) -> float:
    """Map metres by which front `a` lies seaward of `b`, across what both share; NaN where it cannot be told."""
    seaward = seaward_near([a, b], ice)
    if seaward is None:
        return float("nan")
    try:
        gate = derive_gate([a, b], seaward)
    except ValueError:
        return float("nan")
    return box_position(a, gate).position_m - box_position(b, gate).position_m


def _both(pairs: pd.DataFrame, what: str) -> pd.Series:
    a, b = (pairs[f"{what}_{side}"].astype(str).replace("", UNKNOWN) for side in "ab")
    return a + " - " + b


def _summary(by: str, group: str, part: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"by": by, "group": group, "pairs": len(part)}
    row |= {"lines": part["line"].nunique(), "glaciers": part["glacier_id"].nunique()}
    for name in ("distance_m", "common_m", "advance_m"):
        mean, low, high = clustered_mean(part[name], part["glacier_id"], part["line"])
        row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    medians = {f"{name}_median_m": part[f"{name}_m"].dropna().median() for name in ("distance", "common")}
    return row | medians | {"hd95_m": part["hd95_m"].mean()}
