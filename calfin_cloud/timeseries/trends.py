"""Positions become change: since a start, as rates, through the year, by month, by region (calfin-method 10)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

DAYS_A_YEAR = 365.25
LEAST_SIGMA_M = 1.0  # what no uncertainty is below, so that a front without one does not outweigh all others
SEASONS = ("winter", "spring", "summer", "autumn")
SERIES = ["glacier_id", "branch"]


def season_of(when: datetime, *, is_southern: bool) -> str:
    """Season of a day, by months: December to February is winter in the north and summer in the south."""
    return SEASONS[(when.month % 12 // 3 + 2 * is_southern) % 4]


def relative_change(positions: pd.DataFrame) -> pd.DataFrame:
    """Add `change_m`, the position relative to the first date on which all branches of a glacier have one.

    Positive is advance. Where no date has all branches, each branch starts at its own first one.
    """
    parts = []
    for _, glacier in positions.groupby("glacier_id", sort=False):
        usable = glacier.dropna(subset="position_m")
        by_date = usable.pivot_table(index="datetime", columns="branch", values="position_m").sort_index()
        whole = by_date.dropna()
        start = whole.iloc[0] if len(whole) else by_date.bfill().iloc[0] if len(by_date) else pd.Series(dtype=float)
        parts.append(glacier.assign(change_m=glacier["position_m"] - glacier["branch"].map(start)))
    return pd.concat(parts, ignore_index=True) if parts else positions.assign(change_m=np.nan)


def yearly_positions(positions: pd.DataFrame) -> pd.DataFrame:
    """Mean position of each series and calendar year with its standard error: the larger of two.

    One is carried from the uncertainties of the fronts, the other comes from their scatter. Columns: `glacier_id`,
    `branch`, `year`, `position_m`, `sigma_m`, `n`, and `rate_m`, `rate_sigma_m`, the change since the year before.
    """
    usable = positions.dropna(subset="position_m").assign(year=lambda t: t["datetime"].dt.year)
    rows = []
    for (glacier, branch, year), part in usable.groupby([*SERIES, "year"]):
        mean, sigma = _weighted_mean(part["position_m"].to_numpy(), _sigmas(part["sigma_m"]))
        rows.append((glacier, branch, year, mean, sigma, len(part)))
    table = pd.DataFrame(rows, columns=[*SERIES, "year", "position_m", "sigma_m", "n"])
    before = table.groupby(SERIES).shift(1)
    follows = table["year"] - before["year"] == 1
    table["rate_m"] = (table["position_m"] - before["position_m"]).where(follows)
    table["rate_sigma_m"] = ((table["sigma_m"] ** 2 + before["sigma_m"] ** 2) ** 0.5).where(follows)
    return table


def rates(positions: pd.DataFrame) -> pd.DataFrame:
    """Rate of each series over its whole time in m a year, of a weighted straight line, with its standard error.

    The error is carried from every front, and grows with what the line leaves over (reduced chi square above 1).
    Columns: `glacier_id`, `branch`, `rate_m_a`, `rate_sigma_m_a`, `change_m` (in all), `first`, `last`, `n`.
    """
    rows = []
    for (glacier, branch), part in positions.dropna(subset="position_m").groupby(SERIES):
        years = _years(part["datetime"])
        slope, sigma = _slope(years, part["position_m"].to_numpy(), _sigmas(part["sigma_m"]))
        first, last = part["datetime"].min(), part["datetime"].max()
        rows.append((glacier, branch, slope, sigma, slope * np.ptp(years), first, last, len(part)))
    return pd.DataFrame(rows, columns=[*SERIES, "rate_m_a", "rate_sigma_m_a", "change_m", "first", "last", "n"])


def seasonal_cycle(positions: pd.DataFrame) -> pd.DataFrame:
    """Mean deviation of each calendar month from the year around it, by series, in m.

    The year around a front is the straight line through all fronts within half a year. Left out are fronts with fewer
    than four others in three different months there, or with none a quarter of a year before and after. Columns:
    `glacier_id`, `branch`, `month`, `deviation_m`, `sigma_m` (standard error of the mean), `n`.
    """
    rows = []
    for (glacier, branch), part in positions.dropna(subset="position_m").groupby(SERIES):
        months, deviation = part["datetime"].dt.month.to_numpy(), _deviation_from_year(part)
        for month in range(1, 13):
            values = deviation[(months == month) & np.isfinite(deviation)]
            if len(values):
                error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan
                rows.append((glacier, branch, month, float(values.mean()), error, len(values)))
    return pd.DataFrame(rows, columns=[*SERIES, "month", "deviation_m", "sigma_m", "n"])


def monthly_grid(positions: pd.DataFrame, *, most_days: int = 400) -> pd.DataFrame:
    """Positions on the first of every month, linear between fronts, never beyond them, NaN in gaps over `most_days`.

    Columns: `glacier_id`, `branch`, `month` (UTC), `position_m`, `sigma_m` (carried from both neighbours).
    """
    rows = []
    for (glacier, branch), part in positions.dropna(subset="position_m").groupby(SERIES):
        by_date = part.groupby("datetime")[["position_m", "sigma_m"]].mean().sort_index()
        months = pd.date_range(by_date.index[0], by_date.index[-1], freq="MS", normalize=True)
        months = months[(months >= by_date.index[0]) & (months <= by_date.index[-1])]
        place = np.searchsorted(by_date.index, months, side="right").clip(1, max(len(by_date) - 1, 1))
        for month, i in zip(months, place, strict=True):
            rows.append((glacier, branch, month, *_between(by_date.iloc[i - 1 : i + 1], month, most_days)))
    return pd.DataFrame(rows, columns=[*SERIES, "month", "position_m", "sigma_m"])


def regional_mean(monthly: pd.DataFrame, region_of: Mapping[str, str], *, whole: str = "all") -> pd.DataFrame:
    """Mean change over glaciers by region and month, and over all under the name `whole`, since each glacier's start.

    Branches of a glacier are averaged first. A glacier that enters later enters at the mean of the others, because only
    its changes from month to month are averaged: so nothing jumps. What changed in a gap is spread over its months.

    Columns: `region`, `month`, `change_m`, `sigma_m`, `n` glaciers. `sigma_m` is the standard error over glaciers of
    all that changed since the start, months of a glacier not being independent (clustered by glacier); NaN in months of
    one glacier, which add nothing to it either, as one tells nothing of the others.
    """
    by_glacier = monthly.pivot_table(index="month", columns="glacier_id", values="position_m", aggfunc="mean")
    steps = by_glacier.resample("MS").mean().interpolate(limit_area="inside").diff() if len(by_glacier) else by_glacier
    regions = {g: region_of.get(str(g), "") for g in steps.columns}
    rows = []
    for region in [*sorted(set(regions.values()) - {""}), whole]:
        of_region = steps[[g for g, name in regions.items() if region in (name, whole)]].dropna(how="all")
        mean, n = of_region.mean(axis=1), of_region.notna().sum(axis=1)
        table = pd.DataFrame({"change_m": mean.cumsum(), "sigma_m": _clustered_error(of_region), "n": n})
        rows.append(table.reset_index().assign(region=region))
    columns = ["region", "month", "change_m", "sigma_m", "n"]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def _clustered_error(steps: pd.DataFrame) -> pd.Series:
    """Compute the standard error of the cumulated mean of steps (month, glacier), each glacier being one draw."""
    n = steps.notna().sum(axis=1)
    shares = steps.sub(steps.mean(axis=1), axis=0).div(n, axis=0).fillna(0.0).cumsum()
    seen = (steps.notna().cumsum() > 0).sum(axis=1)
    error = ((shares**2).sum(axis=1) * seen / (seen - 1)) ** 0.5
    return error.where(n > 1)


def _sigmas(sigma: pd.Series) -> NDArray[np.float64]:
    """Uncertainties for weights: those that are unknown count as the median of the known, or as one another."""
    known = sigma.to_numpy(dtype=float)
    fill = np.nanmedian(known) if np.isfinite(known).any() else LEAST_SIGMA_M
    return np.maximum(np.where(np.isfinite(known), known, fill), LEAST_SIGMA_M)


def _weighted_mean(values: NDArray[np.float64], sigmas: NDArray[np.float64]) -> tuple[float, float]:
    weights = sigmas**-2
    mean = float((weights * values).sum() / weights.sum())
    carried = 1 / np.sqrt(weights.sum())
    scatter = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return mean, float(max(carried, scatter))


def _slope(years: NDArray[np.float64], values: NDArray[np.float64], sigmas: NDArray[np.float64]) -> tuple[float, float]:
    """Slope of a weighted straight line and its standard error; NaN where all fronts are of one time."""
    if np.ptp(years) == 0:
        return np.nan, np.nan
    weights = sigmas**-2
    centred = years - (weights * years).sum() / weights.sum()
    spread = (weights * centred**2).sum()
    slope = float((weights * centred * values).sum() / spread)
    left = values - (weights * values).sum() / weights.sum() - slope * centred
    free = len(values) - 2
    chi2 = float((weights * left**2).sum() / free) if free > 0 else 1.0
    return slope, float(np.sqrt(max(chi2, 1.0) / spread))


def _deviation_from_year(series: pd.DataFrame) -> NDArray[np.float64]:
    """Deviation of each position from the straight line through those within half a year of it; NaN for too few."""
    years, values = _years(series["datetime"]), series["position_m"].to_numpy()
    months = series["datetime"].dt.month.to_numpy()
    deviation = np.full(len(values), np.nan)
    for place, year in enumerate(years):
        near = np.abs(years - year) <= 0.5
        is_between = (years[near] - year).min() <= -0.25 and (years[near] - year).max() >= 0.25
        if is_between and near.sum() >= 5 and len(set(months[near])) >= 3:
            deviation[place] = values[place] - np.polyfit(years[near] - year, values[near], 1)[1]
    return deviation


def _between(pair: pd.DataFrame, month: pd.Timestamp, most_days: int) -> tuple[float, float]:
    """Position and its uncertainty at a time between two fronts."""
    first, last = pair.index[0], pair.index[-1]
    days = (last - first) / pd.Timedelta(days=1)
    if days > most_days:
        return np.nan, np.nan
    share = (month - first) / (last - first) if days else 0.0
    weights = np.array([1 - share, share])[: len(pair)]
    return float(weights @ pair["position_m"]), float(np.sqrt((weights**2) @ (pair["sigma_m"] ** 2)))


def _years(when: pd.Series) -> NDArray[np.float64]:
    """Decimal years since 2000."""
    days = (when - pd.Timestamp("2000-01-01", tz=when.dt.tz)) / pd.Timedelta(days=1)
    return np.asarray(days, dtype=float) / DAYS_A_YEAR
