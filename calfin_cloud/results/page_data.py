"""What the page of the report shows: of all glaciers one line each, of one glacier all its fronts, in JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from calfin_cloud.domains import Domain
from calfin_cloud.exports import json_value
from calfin_cloud.land import packed
from calfin_cloud.results.choosing import CHOICE_COLUMNS
from calfin_cloud.results.series import Course
from calfin_cloud.results.settling import line_id

SIMPLIFY_PX = 0.5
JUDGED = ("score", "score_reasons", "flags", "flag_details", "verdict", "reviewer")
FACTS = (*JUDGED, "sigma_m", "length_m", "quality_flag")
POINT = ("key", "datetime", "change_m", "sigma_m")
RATE = ("rate_m_a", "rate_low_m_a", "rate_high_m_a")
MOST_SPARKS = 40  # points of the small line in the list of glaciers
DAYS_AT_AN_END = 365.0  # the change of a glacier is between the means of its first and last year


class Shown(NamedTuple):
    """Tables of a store that the page is made of: all of them, or those of one domain."""

    fronts: gpd.GeoDataFrame
    rejected: gpd.GeoDataFrame
    references: gpd.GeoDataFrame
    positions: pd.DataFrame
    seasonal: pd.DataFrame
    rates: pd.DataFrame


def shown_tables(
    fronts: gpd.GeoDataFrame, rejected: gpd.GeoDataFrame, references: gpd.GeoDataFrame, series: Course | None
) -> Shown:
    """Bring the tables of a store together; without a series there are no positions."""
    if series is None:
        nothing = pd.DataFrame(columns=["key", "glacier_id", "branch", "datetime", "change_m", "sigma_m"])
        return Shown(fronts, rejected, references, nothing, nothing, nothing)
    known = series.positions.dropna(subset="change_m")
    domains = known["key"].str.split("/").str[0]
    return Shown(fronts, rejected, references, known.assign(domain=domains), series.seasonal, series.rates)


def tables_of(shown: Shown, domain: Domain) -> Shown:
    """Take the rows of one domain; of the series those of its glacier, in the branch that the page leads with."""
    references = shown.references
    if len(references):
        references = references[references.geometry.intersects(domain.polygon)]
    positions = shown.positions
    positions = positions[positions["domain"] == domain.name] if "domain" in positions else positions
    first = positions["branch"].min() if len(positions) else ""
    glacier = positions["glacier_id"].iloc[0] if len(positions) else ""
    rows = [t[(t["glacier_id"] == glacier) & (t["branch"] == first)] for t in (shown.seasonal, shown.rates)]
    return Shown(
        shown.fronts[shown.fronts["domain"] == domain.name],
        shown.rejected[shown.rejected["domain"] == domain.name],
        references,
        positions,
        *rows,
    )


def glacier_line(domain: Domain, tables: Shown, number: int) -> dict[str, Any]:
    """Summarise one domain for the overview: where it is, how many fronts it has, and how far they moved."""
    found = tables.fronts[tables.fronts["state"] == "front"]
    when = found["datetime"]
    return {
        "name": domain.name,
        "id": domain.glacier_id,
        "file": f"data/{number:05}.js",
        "bounds": [round(v, 1) for v in domain.grid.boundingbox.bbox],
        "resolution": domain.resolution_m,
        "fronts": len(found),
        "rejected": int((found["verdict"] == "reject").sum()),
        "scenes": int(tables.fronts["key"].nunique()),
        "candidates": len(tables.rejected),
        "references": len(tables.references),
        "years": sorted({int(y) for y in when.dt.year}),
        "first": f"{when.min():%Y-%m-%d}" if len(found) else "",
        "last": f"{when.max():%Y-%m-%d}" if len(found) else "",
        **_change(tables),
    }


def scenes_of(tables: Shown) -> pd.DataFrame:
    """Scenes of a domain by time: `key` and `scene_id`; the page calls each by its place among them."""
    scenes: pd.DataFrame = tables.fronts.drop_duplicates("key").sort_values(["datetime", "key"])[["key", "scene_id"]]
    return scenes


def glacier_data(
    domain: Domain,
    tables: Shown,
    pictures: Sequence[int],
    number: int,
    features: Mapping[str, list[dict[str, Any]]] | None = None,
) -> dict[str, Any]:
    """Gather all that the page shows of one domain; lines are those of `packed`, in m of the store's CRS.

    Scenes, which have long names, are called by their place in `scenes`, those with a picture in `pictures` too.
    `features` are those of `seaward.page_features`, where the store has any.
    """
    found = tables.fronts[tables.fronts["state"] == "front"].sort_values(["datetime", "front"])
    without = tables.fronts[tables.fronts["state"] != "front"].sort_values("datetime")
    tolerance = SIMPLIFY_PX * domain.resolution_m
    scenes = scenes_of(tables)
    places = {key: place for place, key in enumerate(scenes["key"])}
    return {
        "number": number,
        "domain": domain.name,
        "scenes": scenes["scene_id"].tolist(),
        "fronts": [_front_data(row, places, tolerance) for row in found.to_dict("records")],
        "candidates": [
            [
                places[row.key],
                f"{row.datetime:%Y-%m-%d}",
                row.reason,
                row.filter,
                row.detail,
                _line(row.geometry, tolerance),
            ]
            for row in tables.rejected.itertuples()
        ],
        "references": [
            [f"{row.datetime:%Y-%m-%d}", row.author, _line(part, tolerance)]
            for row in tables.references.itertuples()
            for part in shapely.get_parts(row.geometry)
        ],
        "without": [
            [places[row.key], f"{row.datetime:%Y-%m-%d}", row.platform, row.state, row.reason, row.detail]
            for row in without.itertuples()
        ],
        "positions": _positions(tables.positions, places),
        "seasonal": _seasonal(tables.seasonal),
        "pictures": list(pictures),
        **({"features": dict(features)} if features else {}),
    }


def plain(value: Any) -> Any:  # noqa: ANN401 - a cell of a table
    """Value as JSON has it, three places after the point; None for NaN and infinity."""
    value = json_value(value)
    return (round(value, 3) if np.isfinite(value) else None) if isinstance(value, float) else value


def _front_data(row: Mapping[Any, Any], places: Mapping[str, int], tolerance: float) -> dict[str, Any]:
    names = FACTS if row["choice"] in ("", "kept") else (*FACTS, *CHOICE_COLUMNS)
    facts = {name: plain(row[name]) for name in names if name in row and plain(row[name]) not in (None, "")}
    return {
        "scene": places[row["key"]],
        "front": int(row["front"]),
        "date": f"{row['datetime']:%Y-%m-%d}",
        "time": f"{row['datetime']:%H:%M}",
        "platform": row["platform"],
        "line": _line(row["geometry"], tolerance),
        "line_id": line_id(row["geometry"]),
        **facts,
    }


def _line(line: Any, tolerance: float) -> list[int]:  # noqa: ANN401 - a shapely line
    return packed(shapely.get_coordinates(line.simplify(tolerance)))


def _positions(positions: pd.DataFrame, places: Mapping[str, int]) -> list[dict[str, Any]]:
    """Positions by branch: scene, date, advance since the start and its uncertainty, in m."""
    return [
        {
            "branch": str(branch),
            "points": [
                [places[key], f"{when:%Y-%m-%d}", plain(change), plain(sigma)]
                for key, when, change, sigma in zip(*(part.sort_values("datetime")[c] for c in POINT), strict=True)
            ],
        }
        for branch, part in positions.groupby("branch")
    ]


def _seasonal(seasonal: pd.DataFrame) -> list[list[Any]]:
    """Month, deviation in m and its standard error."""
    columns = ("month", "deviation_m", "sigma_m")
    if seasonal.empty:
        return []
    return [[plain(v) for v in row] for row in zip(*(seasonal[c] for c in columns), strict=True)]


def _change(tables: Shown) -> dict[str, Any]:
    """Advance from the mean of the first to that of the last year, its rate, and a few points of the series."""
    mine = tables.positions
    mine = mine[mine["branch"] == mine["branch"].min()].sort_values("datetime") if len(mine) else mine
    if mine.empty:
        return {"change": None, "rate": None, "rate_range": None, "spark": []}
    days = (mine["datetime"] - mine["datetime"].iloc[0]).dt.total_seconds().to_numpy() / 86_400
    change = mine["change_m"].to_numpy(dtype=float)
    ends = [change[days >= days[-1] - DAYS_AT_AN_END], change[days <= DAYS_AT_AN_END]]
    rate = tables.rates.iloc[0] if len(tables.rates) else dict.fromkeys(RATE, np.nan)
    reach = [plain(rate[name]) for name in RATE[1:]]
    taken = np.unique(np.linspace(0, len(days) - 1, MOST_SPARKS).astype(int))
    return {
        "change": round(float(ends[0].mean() - ends[1].mean()), 1) if days[-1] > DAYS_AT_AN_END else None,
        "rate": plain(rate["rate_m_a"]),
        "rate_range": None if None in reach else reach,
        "spark": [[round(days[i]), round(change[i])] for i in taken],
    }
