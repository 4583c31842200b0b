"""Fronts that a series makes implausible are flagged with a reason, and their score is lowered; none is deleted."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from calfin_cloud.timeseries.processes import Floats

FASTEST_M_A_DAY = 50.0
"""Speed above which no ice moves; Jakobshavn, the fastest, reached 46 m a day in summer (Joughin et al. 2014,
doi:10.5194/tc-8-209-2014)."""

NEIGHBOURS, MOST_DAYS = 3, 400.0
"""Fronts before and after that an outlier is held against; those further in time say nothing."""

DEVIATIONS, LEAST_M = 4.0, 200.0
"""An outlier lies so many robust standard deviations of its neighbours, or of itself, apart, and no less than this."""

MOST_OUTSIDE = 0.2  # share of a front's length that may lie outside the fjord
LOWERED = 0.25  # factor on the score for each reason
OBJECTIONS = ["key", "branch", "flag", "detail"]


def check_series(positions: pd.DataFrame) -> pd.DataFrame:
    """Flag the implausible positions of every series: `key`, `branch`, `flag`, `detail`, a row an objection.

    An outlier is held against the median of up to `NEIGHBOURS` fronts on either side. An advance that is too fast is
    blamed on the front that lies further from its other neighbours.
    """
    rows: list[tuple[str, str, str, str]] = []
    for (_, branch), part in positions.dropna(subset="position_m").groupby(["glacier_id", "branch"]):
        series = part.sort_values("datetime")
        keys = series["key"].to_numpy()
        days = ((series["datetime"] - series["datetime"].iloc[0]) / pd.Timedelta(days=1)).to_numpy()
        places, sigmas = series["position_m"].to_numpy(), series["sigma_m"].fillna(0).to_numpy()
        apart, noise = _apart(days, places)
        limits = np.maximum(DEVIATIONS * np.hypot(noise, sigmas), LEAST_M)
        for i in np.flatnonzero(np.abs(apart) > limits).tolist():
            detail = f"{apart[i]:+.0f} m from its neighbours, at most {limits[i]:.0f} m are usual"
            rows.append((keys[i], str(branch), "outlier", detail))
        for i, speed in _too_fast(days, places, sigmas, apart):
            detail = f"{speed:.0f} m a day, at most {FASTEST_M_A_DAY:g} are possible"
            rows.append((keys[i], str(branch), "too_fast", detail))
    return pd.DataFrame(rows, columns=OBJECTIONS)


def check_fjord(fronts: gpd.GeoDataFrame, fjord: BaseGeometry) -> pd.DataFrame:
    """Flag the fronts of which more than `MOST_OUTSIDE` lies outside the fjord, as `check_series` does."""
    lines = fronts[fronts.geometry.notna()]
    outside = shapely.length(lines.geometry.difference(fjord)) / shapely.length(lines.geometry)
    rows = [
        (key, "", "outside_fjord", f"{share:.0%} of its length, at most {MOST_OUTSIDE:.0%} is accepted")
        for key, share in zip(lines["key"], outside, strict=True)
        if share > MOST_OUTSIDE
    ]
    return pd.DataFrame(rows, columns=OBJECTIONS)


def flag_fronts(fronts: gpd.GeoDataFrame, objections: pd.DataFrame) -> gpd.GeoDataFrame:
    """Add the columns `flags` and `flag_details` to fronts, and lower the score of those that have one.

    Objections are to all fronts of a scene (`key`), or to one of them where they have its number (`front`).
    """
    to = ["key", "front"] if "front" in objections else ["key"]
    by_front = objections.drop_duplicates([*to, "flag"]).groupby(to)
    told = pd.DataFrame({"flags": by_front["flag"].agg(",".join), "flag_details": by_front["detail"].agg("; ".join)})
    mine = fronts[to].join(told, on=to).fillna("")
    flagged = fronts.assign(flags=mine["flags"], flag_details=mine["flag_details"])
    count = flagged["flags"].str.count(",") + (flagged["flags"] != "")
    flagged["score"] = fronts["score"] * LOWERED**count
    return flagged


def _apart(days: Floats, places: Floats) -> tuple[Floats, Floats]:
    """Measure how far each position is from the line through its neighbours' medians, and their scatter about it.

    Zero where there is no neighbour on one of both sides: the first and last front cannot be held against two. The
    scatter is at least what is usual in the whole series.
    """
    apart, noise = np.full(len(days), np.nan), np.zeros(len(days))
    for i in range(len(days)):
        near = np.abs(days - days[i]) <= MOST_DAYS
        before = np.flatnonzero(near & (np.arange(len(days)) < i))[-NEIGHBOURS:]
        after = np.flatnonzero(near & (np.arange(len(days)) > i))[:NEIGHBOURS]
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


def _too_fast(days: Floats, places: Floats, sigmas: Floats, apart: Floats) -> list[tuple[int, float]]:
    """Place and speed in m a day of each front to blame for an advance that two standard deviations cannot explain."""
    found = []
    for i in range(len(days) - 1):
        advance = places[i + 1] - places[i] - 2 * np.hypot(sigmas[i], sigmas[i + 1])
        passed = max(days[i + 1] - days[i], 1.0)  # a front has a day, not an hour
        if advance / passed > FASTEST_M_A_DAY and advance > LEAST_M:
            blamed = i if abs(apart[i]) > abs(apart[i + 1]) else i + 1
            found.append((blamed, advance / passed))
    return found
