"""What people read of a store: the table of its scenes."""

from __future__ import annotations

import geopandas as gpd
import pandas as pd

MOST_YEARS = 4


def summarise_scenes(fronts: gpd.GeoDataFrame, distances: pd.DataFrame | None = None) -> pd.DataFrame:
    """Make the table for people, a row a scene: date, state, reason, fronts, length in m, distances to a reference.

    `distances` is what `evaluation.compare_fronts` returns: `key`, `reference_date`, `distance_m`. Where a scene lies
    between two references, those of each year have a column.

    Parameters
    ----------
    fronts
        Table of `read_fronts`.
    distances
        What `compare_fronts` returns; without it there is no column of distances.

    Returns
    -------
    DataFrame
        `domain, scene_id, datetime` (day), `platform, state, reason, n_fronts, length_m, confidence, sigma_m,
        score`.

    Examples
    --------
    >>> cc.summarise_scenes(cc.read_fronts("fronts"))[["datetime", "platform", "state", "n_fronts"]].values.tolist()
    [['2021-09-27', 'landsat-8', 'front', 1]]
    """
    by_key = fronts.groupby("key", sort=False)
    scenes = by_key[["domain", "scene_id", "datetime", "platform", "state", "reason"]].first()
    scenes["n_fronts"] = by_key["front"].max() + 1
    scenes["length_m"] = by_key["length_m"].sum(min_count=1).round()
    scenes["confidence"] = by_key["confidence"].max().round(2)
    scenes["sigma_m"] = by_key["sigma_m"].max().round()
    scenes["score"] = by_key["score"].min().round(2)
    scenes["datetime"] = pd.to_datetime(scenes["datetime"], utc=True).dt.strftime("%Y-%m-%d")
    if distances is not None and not distances.empty:
        scenes = scenes.join(_distance_columns(distances))
    table: pd.DataFrame = scenes.reset_index(drop=True)
    return table


def _distance_columns(distances: pd.DataFrame) -> pd.DataFrame | pd.Series:
    """Distances by key: one column, or one for each year of the references where scenes have several."""
    years = distances["reference_date"].str[:4]
    if not distances["key"].duplicated().any() or years.nunique() > MOST_YEARS:
        return distances.groupby("key")["distance_m"].min().round(1)
    by_year = distances.assign(year=years).pivot_table(index="key", columns="year", values="distance_m")
    return by_year.round(1).add_prefix("m_to_")
