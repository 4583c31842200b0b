"""Fronts that a series makes implausible are flagged with a reason, and their score is lowered; none is deleted."""

from __future__ import annotations

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

PLAUSIBILITY_REASONS = {
    "too_fast": "the glacier would have had to advance faster than its ice moves",
    "outlier": "the front lies apart from those before and after it, which agree with each other",
    "outside_fjord": "much of the front lies outside the fjord",
}


@dataclass(frozen=True)
class PlausibilitySettings:
    """Limits of the checks in time.

    Attributes
    ----------
    fastest_m_a_day
        Speed above which no ice moves; Jakobshavn, the fastest, reached 46 m a day in summer (Joughin et al. 2014,
        doi:10.5194/tc-8-209-2014).
    neighbours
        Fronts before and after that an outlier is held against.
    deviations
        How many robust standard deviations of its neighbours, or of itself, an outlier lies apart.
    least_m
        Nothing nearer to its neighbours than this is an outlier.
    most_days
        Neighbours further in time than this say nothing.
    most_outside
        Share of a front's length that may lie outside the fjord.
    lowered
        Factor on the score for each reason.
    """

    fastest_m_a_day: float = 50.0
    neighbours: int = 3
    deviations: float = 4.0
    least_m: float = 200.0
    most_days: float = 400.0
    most_outside: float = 0.2
    lowered: float = 0.25


def check_series(positions: pd.DataFrame, settings: PlausibilitySettings | None = None) -> pd.DataFrame:
    """Flag the implausible positions of every series: `key`, `branch`, `flag`, `detail`, a row an objection.

    An outlier is held against the median of up to `neighbours` fronts on either side. An advance that is too fast is
    blamed on the front that lies further from its other neighbours.
    """
    settings = settings or PlausibilitySettings()
    rows: list[tuple[str, str, str, str]] = []
    for (_, branch), part in positions.dropna(subset="position_m").groupby(["glacier_id", "branch"]):
        series = part.sort_values("datetime")
        keys = series["key"].to_numpy()
        days = ((series["datetime"] - series["datetime"].iloc[0]) / pd.Timedelta(days=1)).to_numpy()
        places, sigmas = series["position_m"].to_numpy(), series["sigma_m"].fillna(0).to_numpy()
        apart, noise = _apart(days, places, settings)
        limits = np.maximum(settings.deviations * np.hypot(noise, sigmas), settings.least_m)
        for i in np.flatnonzero(np.abs(apart) > limits).tolist():
            detail = f"{apart[i]:+.0f} m from its neighbours, at most {limits[i]:.0f} m are usual"
            rows.append((keys[i], str(branch), "outlier", detail))
        for i, speed in _too_fast(days, places, sigmas, apart, settings):
            detail = f"{speed:.0f} m a day, at most {settings.fastest_m_a_day:g} are possible"
            rows.append((keys[i], str(branch), "too_fast", detail))
    return pd.DataFrame(rows, columns=["key", "branch", "flag", "detail"])


def check_fjord(
    fronts: gpd.GeoDataFrame, fjord: BaseGeometry, settings: PlausibilitySettings | None = None
) -> pd.DataFrame:
    """Flag the fronts of which more than `most_outside` lies outside the fjord, as `check_series` does."""
    settings = settings or PlausibilitySettings()
    lines = fronts[fronts.geometry.notna()]
    outside = shapely.length(lines.geometry.difference(fjord)) / shapely.length(lines.geometry)
    rows = [
        (key, "", "outside_fjord", f"{share:.0%} of its length, at most {settings.most_outside:.0%} is accepted")
        for key, share in zip(lines["key"], outside, strict=True)
        if share > settings.most_outside
    ]
    return pd.DataFrame(rows, columns=["key", "branch", "flag", "detail"])


def flag_fronts(
    fronts: gpd.GeoDataFrame, objections: pd.DataFrame, settings: PlausibilitySettings | None = None
) -> gpd.GeoDataFrame:
    """Add the columns `flags` and `flag_details` to fronts, and lower the score of those that have one.

    Objections are to all fronts of a scene (`key`), or to one of them where they have its number (`front`).
    """
    settings = settings or PlausibilitySettings()
    to = ["key", "front"] if "front" in objections else ["key"]
    by_front = objections.drop_duplicates([*to, "flag"]).groupby(to)
    told = pd.DataFrame({"flags": by_front["flag"].agg(",".join), "flag_details": by_front["detail"].agg("; ".join)})
    mine = fronts[to].join(told, on=to).fillna("")
    flagged = fronts.assign(flags=mine["flags"], flag_details=mine["flag_details"])
    count = flagged["flags"].str.count(",") + (flagged["flags"] != "")
    flagged["score"] = fronts["score"] * settings.lowered**count
    return flagged


def _apart(
    days: NDArray[np.float64], places: NDArray[np.float64], settings: PlausibilitySettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure how far each position is from the line through its neighbours' medians, and their scatter about it.

    Zero where there is no neighbour on one of both sides: the first and last front cannot be held against two. The
    scatter is at least what is usual in the whole series.
    """
    apart, noise = np.full(len(days), np.nan), np.zeros(len(days))
    for i in range(len(days)):
        near = np.abs(days - days[i]) <= settings.most_days
        before = np.flatnonzero(near & (np.arange(len(days)) < i))[-settings.neighbours :]
        after = np.flatnonzero(near & (np.arange(len(days)) > i))[: settings.neighbours]
        if not len(before) or not len(after):
            continue
        ends = [(np.median(days[side]), np.median(places[side])) for side in (before, after)]
        (day_0, place_0), (day_1, place_1) = ends
        slope = (place_1 - place_0) / max(day_1 - day_0, 1e-9)
        others = np.r_[before, after]
        left = places[others] - (place_0 + slope * (days[others] - day_0))
        apart[i] = places[i] - (place_0 + slope * (days[i] - day_0))
        noise[i] = 1.4826 * np.median(np.abs(left)) + abs(place_1 - place_0) / 4
    usual = 1.4826 * np.nanmedian(np.abs(apart)) if np.isfinite(apart).any() else 0.0
    return np.nan_to_num(apart), np.maximum(noise, usual)


def _too_fast(
    days: NDArray[np.float64],
    places: NDArray[np.float64],
    sigmas: NDArray[np.float64],
    apart: NDArray[np.float64],
    settings: PlausibilitySettings,
) -> list[tuple[int, float]]:
    """Place and speed in m a day of each front to blame for an advance that two standard deviations cannot explain."""
    found = []
    for i in range(len(days) - 1):
        advance = places[i + 1] - places[i] - 2 * np.hypot(sigmas[i], sigmas[i + 1])
        passed = max(days[i + 1] - days[i], 1.0)  # a front has a day, not an hour
        if advance / passed > settings.fastest_m_a_day and advance > settings.least_m:
            blamed = i if abs(apart[i]) > abs(apart[i + 1]) else i + 1
            found.append((blamed, advance / passed))
    return found
