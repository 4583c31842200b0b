"""Positions become change: since a start, as rates, through the year, by year and month (calfin-method 10)."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

from calfin_cloud.schema import SEASONS
from calfin_cloud.termini import DAYS_A_YEAR
from calfin_cloud.timeseries.bridging import (
    LONGEST_GAP,
    SERIES,
    change_error,
    explain_all,
    follow,
    history_of,
    waves_of,
    years_of,
)
from calfin_cloud.timeseries.processes import Asked, Floats, History, Told, ask, design

PARTS_A_YEAR = 24  # in which a year's mean is summed
DAYS = 366  # places of the year at which its waves are highest and lowest
HEIGHT_OF_NOISE = (0.0, 8.0, 21.3)
"""Mean square of the height of no, one or two waves whose coefficients are noise of variance 1.

Taken off, since errors make every wave higher: series without a season then have a height of 0.9 to 1.4 standard
deviations of a coefficient on average, in place of 2.5 to 4.3, and a season of ten is right to a twentieth.
"""

RATE_COLUMNS = (
    *("glacier_id", "branch", "rate_m_a", "rate_sigma_m_a", "rate_low_m_a", "rate_high_m_a"),
    *("change_m", "change_sigma_m", "seasonal_m", "seasonal_sigma_m", "first", "last", "n"),
)
YEAR_COLUMNS = (
    *("glacier_id", "branch", "year", "position_m", "sigma_m", "n", "months", "rate_m", "rate_sigma_m", "reason"),
)
MONTH_COLUMNS = ("glacier_id", "branch", "month", "position_m", "sigma_m", "days")


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


def rates(positions: pd.DataFrame) -> pd.DataFrame:
    """Rate of each series over its whole time in m a year, and what it changed from its first front to its last.

    The rate is the slope of a straight line, with the year's waves where fronts of all seasons tell them. Its error
    knows that neighbouring fronts are not independent (`processes`). The standard deviation is half of the 95 %
    interval over 1.96; NaN for fewer than four fronts.

    Columns: `glacier_id`, `branch`; `rate_m_a`, `rate_sigma_m_a`, `rate_low_m_a`, `rate_high_m_a` (95 % interval);
    `change_m`, `change_sigma_m`: last position less the first, NaN for fronts of one date; `seasonal_m`,
    `seasonal_sigma_m`: height of the yearly waves from their lowest to their highest, less what errors of fronts add to
    it, NaN where it is not known; `first`, `last`, `n`. Small seasons come out too low, often as 0: on average those of
    one standard deviation as two thirds, of two as four fifths, from four on right to a twentieth. The height
    +- 1.96 standard deviations holds 91 to 99 % of simulated seasons of any height.
    """
    parts = _series_of(positions)
    histories = [history_of(part, waves_of(part["datetime"])) for _, _, part in parts]
    rows = []
    for (glacier, branch, part), history, explanations in zip(parts, histories, explain_all(histories), strict=True):
        row = {"glacier_id": glacier, "branch": branch} | _rate(history)
        sigma = float(change_error(history, explanations, history.years[-1:])[0])
        if len(history.years) > 1:  # one date tells of no change, not of none
            row |= {"change_m": history.values[-1] - history.values[0], "change_sigma_m": sigma}
        row |= {"first": part["datetime"].min(), "last": part["datetime"].max(), "n": len(part)}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(RATE_COLUMNS))


def yearly_positions(positions: pd.DataFrame) -> pd.DataFrame:
    """Mean position of each series over every calendar year that has a front, with its standard deviation.

    It is the mean over the whole year, not that of the fronts: months without a front are filled from those around
    them and from the mean year of the glacier. A year with a gap of four months and more in a series that has never
    shown a whole year has no mean (`not_covered`), nor has one of fewer than four fronts (`too_few`).

    Columns: `glacier_id`, `branch`, `year`, `position_m`, `sigma_m`, `n` fronts, `months` that have some, and `rate_m`,
    `rate_sigma_m`, the change since the mean of the year before; `reason` where there is no mean.
    """
    rows = []
    for glacier, branch, part in _series_of(positions):
        history = history_of(part, waves_of(part["datetime"]))
        years, counts = np.unique(part["datetime"].dt.year, return_counts=True)
        table = pd.DataFrame({"glacier_id": glacier, "branch": branch, "year": years, "n": counts})
        months = part["datetime"].dt.month.groupby(part["datetime"].dt.year).nunique()
        is_told = np.array([bool(history.waves) or _widest_gap(history, year) <= LONGEST_GAP for year in years])
        values = np.full((4, len(years)), np.nan)
        values[:, is_told] = _year_means(history, years[is_told])
        names = ("position_m", "sigma_m", "rate_m", "rate_sigma_m")
        table = table.assign(**dict(zip(names, values, strict=True)))
        table["reason"] = np.where(~is_told, "not_covered", np.where(table["position_m"].isna(), "too_few", ""))
        rows.append(table.assign(months=months.to_numpy())[list(YEAR_COLUMNS)])
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(YEAR_COLUMNS))


def seasonal_cycle(positions: pd.DataFrame) -> pd.DataFrame:
    """Mean deviation of each calendar month from the twelve months around it, by series, in m.

    Series whose fronts leave a third of the year unseen, or are of less than two years or fewer than twelve, have none.
    Columns: `glacier_id`, `branch`, `month`, `deviation_m`, `sigma_m`, `n` fronts of the month.
    """
    rows = []
    for glacier, branch, part in _series_of(positions):
        history = history_of(part, waves_of(part["datetime"]))
        if not history.waves:
            continue
        counts = part["datetime"].dt.month.value_counts()
        months, told = _months_of_year(history, sorted(counts.index))
        for month, deviation, sigma in zip(months, told.value, told.sigma, strict=True):
            rows.append((glacier, branch, month, deviation, sigma, int(counts[month])))
    return pd.DataFrame(rows, columns=[*SERIES, "month", "deviation_m", "sigma_m", "n"])


def monthly_grid(positions: pd.DataFrame) -> pd.DataFrame:
    """Positions on the first of every month, linear between fronts and never beyond them.

    Columns: `glacier_id`, `branch`, `month` (UTC), `position_m`, `sigma_m`, which grows in gaps by what the glacier may
    have done there, and `days`, how far the nearest front is in time.
    """
    firsts = positions.dropna(subset="position_m").groupby(SERIES)["datetime"].agg(["min", "max"])
    if firsts.empty:
        return pd.DataFrame(columns=list(MONTH_COLUMNS))
    days = pd.date_range(firsts["min"].min().normalize(), firsts["max"].max(), freq="MS")
    table = monthly_follow(positions, days).merge(firsts.reset_index(), on=SERIES)
    is_between = (table["month"] >= table["min"]) & (table["month"] <= table["max"])
    return table.loc[is_between, list(MONTH_COLUMNS)].reset_index(drop=True)


def monthly_follow(positions: pd.DataFrame, days: pd.DatetimeIndex) -> pd.DataFrame:
    """Positions on given days as `monthly_grid` has them; beyond a series stands its first or last front."""
    parts = _series_of(positions)
    histories = [history_of(part) for _, _, part in parts]
    years, tables = years_of(days), []
    for (glacier, branch, _), history, explanations in zip(parts, histories, explain_all(histories), strict=True):
        position, sigma = follow(history, explanations, years)
        apart = np.abs(years[:, None] - history.years).min(axis=1) * DAYS_A_YEAR
        values = {"month": days, "position_m": position, "sigma_m": sigma, "days": apart.round(1)}
        tables.append(pd.DataFrame({"glacier_id": glacier, "branch": branch} | values, columns=list(MONTH_COLUMNS)))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(MONTH_COLUMNS))


def _series_of(positions: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Glacier, branch and positions of every series."""
    return [(str(g), str(b), part) for (g, b), part in positions.dropna(subset="position_m").groupby(SERIES)]


def _rate(history: History) -> dict[str, float]:
    """Slope and height of the yearly waves of one series, with their errors."""
    size = 2 + 2 * history.waves
    told = ask(history, Asked(history.years[:1], np.zeros((size - 1, 1)), np.eye(size)[1:]))
    names = ("rate_m_a", "rate_sigma_m_a", "rate_low_m_a", "rate_high_m_a")
    found = {name: float(part[0]) for name, part in zip(names, told, strict=True)}
    if np.isnan(found["rate_m_a"]) and np.ptp(history.years) > 0:
        found["rate_m_a"] = float(np.polyfit(history.years - history.years[0], history.values, 1)[0])
    if history.waves and np.isfinite(told.value).all():
        height, sigma = _height(history, told.value[1:], told.sigma[1:])
        found |= {"seasonal_m": height, "seasonal_sigma_m": sigma}
    return found


def _height(history: History, waves: Floats, sigmas: Floats) -> tuple[float, float]:
    """Height of the yearly waves, from their coefficients, with its standard deviation."""
    columns = design(history, np.arange(DAYS) / DAYS)[:, 2:]
    course = columns @ waves
    from_low_to_high = columns[course.argmax()] - columns[course.argmin()]
    of_noise = HEIGHT_OF_NOISE[history.waves] * np.mean(sigmas**2)
    height = np.sqrt(np.maximum(np.ptp(course) ** 2 - of_noise, 0))
    return float(height), float(np.linalg.norm(from_low_to_high * sigmas))


def _year_means(history: History, years: Floats) -> Floats:
    """Means over calendar years, their errors, and how much each is more than that of the year before, with errors."""
    if not len(years):
        return np.empty((4, 0))
    at = (years[:, None] + (np.arange(PARTS_A_YEAR) + 0.5) / PARTS_A_YEAR - 2000).ravel()
    means = np.repeat(np.eye(len(years)), PARTS_A_YEAR, axis=1) / PARTS_A_YEAR
    follows = np.diff(years, prepend=np.nan) == 1
    steps = means - np.vstack([means[:1], means[:-1]])
    told = ask(history, Asked(at, np.vstack([means, steps]), np.zeros((2 * len(years), 2 + 2 * history.waves))))
    value, sigma = (np.reshape(part, (2, -1)) for part in (told.value, told.sigma))
    rows = [value[0], sigma[0], *(np.where(follows, part[1], np.nan) for part in (value, sigma))]
    return np.array(rows)


def _months_of_year(history: History, months: list[int]) -> tuple[list[int], Told]:
    """Mean deviations of calendar months from the twelve months around them, where the series reaches as far."""
    start = np.floor(history.years[0] * 12)
    at = (np.arange(start, np.ceil(history.years[-1] * 12)) + 0.5) / 12
    around = np.r_[0.5, np.ones(11), 0.5] / 12
    rows: dict[int, list[Floats]] = {}
    for middle in range(6, len(at) - 6):
        row = np.zeros(len(at))
        row[middle] = 1
        row[middle - 6 : middle + 7] -= around
        rows.setdefault(int((start + middle) % 12) + 1, []).append(row)
    wanted = [month for month in months if month in rows]
    weights = np.array([np.mean(rows[month], axis=0) for month in wanted]).reshape(len(wanted), len(at))
    # The straight line leaves nothing of such a deviation, since the twelve months lie evenly around it.
    return wanted, ask(history, Asked(at, weights, np.zeros((len(wanted), 2 + 2 * history.waves))))


def _widest_gap(history: History, year: int) -> float:
    """Longest part of a calendar year, in years, without a front in it or at its ends."""
    start = year - 2000.0
    inside = history.years[(history.years >= start) & (history.years < start + 1)]
    return float(np.diff(np.r_[start, inside, start + 1]).max())
