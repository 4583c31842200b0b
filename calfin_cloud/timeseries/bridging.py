"""A series of positions between its fronts: straight lines, with an error that grows in gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calfin_cloud.termini import DAYS_A_YEAR
from calfin_cloud.timeseries.processes import Explanations, Floats, History, explain, noise_shape

SERIES = ["glacier_id", "branch"]
LONGEST_GAP = 122 / DAYS_A_YEAR  # years: a third of a year that nobody has ever seen hides a season
TWO_WAVES_GAP = 62 / DAYS_A_YEAR  # and a sixth of a year hides the second wave
LEAST_FOR_WAVES = 12  # fronts of at least two years
ONE_PASS = pd.Timedelta(minutes=5)
"""Fronts so near in time are of one pass of a satellite: neighbouring scenes of it, or one scene of two catalogues."""

UNKNOWN_SIGMA_M = 75.0
"""Error of fronts of which none is known: two authors of TermPicks draw one some 107 m apart (Goliber et al. 2022)."""


def history_of(series: pd.DataFrame, waves: int = 0) -> History:
    """Sort the positions of one series by time, those of one pass averaged.

    Their errors are one error: as fronts of their own they would make every trend look surer than it is.
    """
    ordered = series.dropna(subset="position_m").sort_values("datetime", kind="stable")
    passes = (ordered["datetime"].diff() > ONE_PASS).cumsum()
    known = ordered.groupby(passes).agg({"datetime": "first", "position_m": "mean", "sigma_m": "mean"})
    values, sigmas = known["position_m"].to_numpy(dtype=float), known["sigma_m"].to_numpy(dtype=float)
    return History(years_of(known["datetime"]), values, sigmas, waves)


def years_of(when: pd.Index[Any] | pd.Series) -> Floats:
    """Decimal years since 2000, of 365.25 days each."""
    index = pd.DatetimeIndex(when)
    days = (index - pd.Timestamp("2000-01-01", tz=index.tz)) / pd.Timedelta(days=1)
    return np.asarray(days, dtype=float) / DAYS_A_YEAR


def waves_of(when: pd.Series) -> int:
    """Waves of the year that fronts of these dates tell: 0, 1 or 2."""
    ordered = when.sort_values()
    years = years_of(ordered[~(ordered.diff() <= ONE_PASS)])
    if len(years) < LEAST_FOR_WAVES or np.ptp(years) < 2:
        return 0
    places = np.sort(years % 1)
    gap = np.diff(np.r_[places, places[0] + 1]).max()
    return int(gap <= LONGEST_GAP) + int(gap <= TWO_WAVES_GAP and len(years) >= 2 * LEAST_FOR_WAVES)


def explain_all(histories: Sequence[History]) -> list[Explanations | None]:
    """Explain every series; those that are too short wander as the median of the others. None where no one is known."""
    found = [explain(history) for history in histories]
    told = [_average(explanations) for explanations in found if explanations is not None]
    usual = Explanations(*(np.array([value]) for value in np.median(told, axis=0))) if told else None
    return [usual if explanations is None else explanations for explanations in found]


def follow(history: History, explanations: Explanations | None, years: Floats) -> tuple[Floats, Floats]:
    """Follow a series in straight lines between its fronts: positions (m,) and their standard deviations, in m.

    The error is that of the fronts, and how far the process may have gone astray from the straight line between them.
    It is NaN without explanations. Beyond the series stands its first or last front.
    """
    inside = np.clip(years, history.years[0], history.years[-1])
    values = np.interp(inside, history.years, history.values)
    if explanations is None or len(history.years) < 2:
        return values, np.full(len(years), np.nan)
    before, share = _between(history, inside)
    noise = _noise(history)
    ends = (1 - share) ** 2 * noise[before] + share**2 * noise[before + 1]
    return values, np.sqrt(ends + _astray(history, explanations, inside))


def change_error(
    history: History,
    explanations: Explanations | None,
    years: Floats,
    shares: tuple[Floats, Floats] | None = None,
) -> Floats:
    """Find the standard deviation (m,) in m of all that a glacier changed from its first front until given years.

    Parameters
    ----------
    shares
        Years (d,), and the integral until then of the weight (d,) with which the change counts, where it is not 1
        throughout: the share of the glacier in a mean, which changes as others enter and leave.
    """
    if len(history.years) < 2:
        return np.zeros(len(years))
    if explanations is None:
        return np.full(len(years), np.nan)
    at, total = shares or (history.years[[0, -1]], history.years[[0, -1]])
    inside = np.clip(years, history.years[0], history.years[-1])
    before, part = _between(history, inside)
    noise = _noise(history)
    # The change between two fronts counts with the mean weight of the time between them; so each front counts with the
    # difference of the weights before and after it.
    weights = np.diff(np.interp(history.years, at, total)) / np.diff(history.years)
    earlier = np.r_[0.0, weights]
    passed = np.cumsum(np.r_[0.0, noise[:-1] * (earlier[:-1] - weights) ** 2])
    since = inside - history.years[before]
    gone = np.interp(inside, at, total) - np.interp(history.years[before], at, total)
    weight = np.divide(gone, since, out=np.zeros_like(gone), where=since > 0)
    variance = passed[before] + noise[before] * (earlier[before] - part * weight) ** 2
    variance += noise[before + 1] * (part * weight) ** 2 + weight**2 * _astray(history, explanations, inside)
    return np.asarray(np.sqrt(variance))


def _between(history: History, years: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Find the number of the front before each time within the series, and the share of the way to the next."""
    before = np.clip(np.searchsorted(history.years, years, side="right") - 1, 0, len(history.years) - 2)
    return before, (years - history.years[before]) / (history.years[before + 1] - history.years[before])


def _noise(history: History) -> Floats:
    """Find the variance (n,) of the error of each front."""
    shape, usual = noise_shape(history.sigmas)
    return np.asarray(shape * (usual or UNKNOWN_SIGMA_M**2))


def _astray(history: History, explanations: Explanations, years: Floats) -> Floats:
    """Find the variance (m,) of the glacier about the straight line between two fronts, 0 at the time of a front.

    What is new in every front beyond its error is what the glacier did too fast for the series.
    """
    before, share = _between(history, years)
    passed, left = years - history.years[before], history.years[before + 1] - years
    fast = explanations.probability @ np.maximum(explanations.noise - _noise(history).mean(), 0)
    total = fast * (1 + (1 - share) ** 2 + share**2)
    parts = zip(explanations.probability, explanations.memory, explanations.process, strict=True)
    for probability, memory, process in parts:
        start, end, whole = (np.exp(-lag / memory) for lag in (passed, left, passed + left))
        ends = (1 - share) ** 2 + share**2 + 2 * share * (1 - share) * whole
        total += probability * process * (1 + ends - 2 * (1 - share) * start - 2 * share * end)
    return np.where((passed > 0) & (left > 0), np.maximum(total, 0), 0.0)


def _average(explanations: Explanations) -> list[float]:
    """Probability 1, and the means over all explanations: of the memory that of its logarithm."""
    memory = float(np.exp(explanations.probability @ np.log(explanations.memory)))
    process, noise = (float(explanations.probability @ part) for part in (explanations.process, explanations.noise))
    return [1.0, memory, process, noise]
