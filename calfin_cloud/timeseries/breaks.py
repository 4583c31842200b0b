"""Break points of a series: days on which a glacier jumped, or began to move at another rate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr  # Student's t; scipy.stats takes half a second to import

from calfin_cloud.termini import DAYS_A_YEAR
from calfin_cloud.timeseries.bridging import SERIES, history_of, waves_of
from calfin_cloud.timeseries.processes import Floats, History, design, noise_shape, solve_all, tried

BREAK_COLUMNS = (
    *("glacier_id", "branch", "kind", "date", "earliest", "latest"),
    *("step_m", "step_sigma_m", "bend_m_a", "bend_sigma_m_a", "p_value"),
)
LEAST_FRONTS = 12  # fewer cannot tell a break from wandering
LEAST_ASIDE = 3  # fronts before and after a break
MOST_PLACES = 150  # in a series of more fronts, breaks are looked for at every second, third, ... one
MOST_BREAKS = 6
LEVEL = 0.05  # how often a series without a break may show one
WANDERING = {"step": 2.5, "bend": 15.0}
"""How much more often than the t distribution says a series without breaks shows one.

Its memory and noise are found from itself, and a glacier that wanders slowly looks as if it bent. With these factors
0 to 7 in 100 of simulated series without a break show any (13 to 150 fronts, memories of a thousandth to a fifth of
their length, with waves of the year and without), and up to 9 where the memory is as long as the series.
"""
NEAR = 1.92  # log likelihoods within the 95 % interval of a date


class Places(NamedTuple):
    """Where a break may be: `kind`, `middle` between `earliest` and `latest` in years (c,), and its column (n, c)."""

    kind: list[str]
    middle: Floats
    earliest: Floats
    latest: Floats
    columns: Floats


class Fit(NamedTuple):
    """How well each place explains a series (c,), and how well none does."""

    likelihood: Floats
    without: float


def break_points(positions: pd.DataFrame) -> pd.DataFrame:
    """Find the break points of every series of at least twelve fronts.

    A break is a step (the ice jumped between two fronts, as in a collapse) or a bend (it began to move at another rate,
    as at the start or end of a surge). One after the other is added to the straight line and the waves of the year as
    long as it makes the series so much likelier that about one in twenty series without a break would show it. The
    rest is a process whose correlation fades with time, and the errors of fronts (`processes`), found anew for every
    break: what a glacier does by wandering about is no break.

    Returns
    -------
    DataFrame
        `BREAK_COLUMNS`: `kind`, `date` and the 95 % interval `earliest` to `latest`; the height of a step and the
        change of rate at a bend with their standard deviations, NaN of the other kind; `p_value`, how probable it is
        that a series without this break shows one as clear anywhere.
    """
    rows = []
    for (glacier, branch), part in positions.dropna(subset="position_m").groupby(SERIES):
        history = history_of(part, waves_of(part["datetime"]))
        rows += [{"glacier_id": glacier, "branch": branch} | row for row in breaks_of(history)]
    return pd.DataFrame(rows, columns=list(BREAK_COLUMNS))


def breaks_of(history: History) -> list[dict[str, object]]:
    """Break points of one series by time, as rows without the names of the series."""
    if len(history.years) < LEAST_FRONTS:
        return []
    places, fixed = _places(history), design(history, history.years)
    found: list[tuple[int, float, NDArray[np.intp]]] = []
    for _ in range(MOST_BREAKS):
        fit = _fit(history, fixed, places.columns)
        p_values = _p_values(fit, places, *(size - 2 * history.waves for size in fixed.shape))
        best = int(np.argmin(p_values))
        if p_values[best] > LEVEL:
            break
        same = np.array([kind == places.kind[best] for kind in places.kind])
        found.append(
            (best, float(p_values[best]), np.flatnonzero(same & (fit.likelihood > fit.likelihood[best] - NEAR)))
        )
        fixed = np.column_stack([fixed, places.columns[:, best]])
    values, sigmas = _coefficients(history, fixed) if found else (np.empty(0), np.empty(0))
    rows = [_row(places, one, values[k - len(found)], sigmas[k - len(found)]) for k, one in enumerate(found)]
    return sorted(rows, key=lambda row: str(row["date"]))


def _places(history: History) -> Places:
    """All steps between fronts that follow each other, and all bends at fronts."""
    years, n = history.years, len(history.years)
    every = max(1, int(np.ceil((n - 2 * LEAST_ASIDE) / MOST_PLACES)))
    steps = np.arange(LEAST_ASIDE, n - LEAST_ASIDE + 1, every)
    bends = np.arange(LEAST_ASIDE, n - LEAST_ASIDE, every)
    columns = [years[:, None] >= years[steps], np.maximum(years[:, None] - years[bends], 0)]
    earliest = np.r_[years[steps - 1], years[bends - 1]]
    latest = np.r_[years[steps], years[np.minimum(bends + 1, n - 1)]]
    kinds = ["step"] * len(steps) + ["bend"] * len(bends)
    middle = np.r_[(years[steps - 1] + years[steps]) / 2, years[bends]]
    return Places(kinds, middle, earliest, latest, np.concatenate(columns, axis=1).astype(float))


def _fit(history: History, fixed: Floats, columns: Floats) -> Fit:
    """Find the log likelihood with each column beside the fixed ones, over memories and shares of noise."""
    memory, share = tried(history)
    right = np.column_stack([fixed, history.values, columns])
    solved, logs = solve_all(history, memory, share, right[None])
    p, with_waves = fixed.shape[1], 2 + 2 * history.waves
    precision = fixed.T @ solved[..., :p]
    # The likelihood is that of what waves leave: else what they take up makes memories look short, and breaks clear.
    logs = logs + np.linalg.slogdet(precision[:, :with_waves, :with_waves])[1]
    logs -= np.linalg.slogdet(precision[:, :2, :2])[1]
    n = len(history.years) - 2 * history.waves
    to_value = fixed.T @ solved[..., p : p + 1]
    to_columns = fixed.T @ solved[..., p + 1 :]
    half = np.linalg.solve(precision, to_value)
    rest = solved[..., p] @ history.values - (half * to_value).sum(axis=(1, 2))
    own = np.einsum("nc,enc->ec", columns, solved[..., p + 1 :])
    own -= (to_columns * np.linalg.solve(precision, to_columns)).sum(axis=1)
    shared = np.einsum("n,enc->ec", history.values, solved[..., p + 1 :]) - (half * to_columns).sum(axis=1)
    gain = np.divide(shared**2, own, out=np.zeros_like(own), where=own > 1e-9)
    least = (noise_shape(history.sigmas)[1] / share)[:, None]
    with_one = _likelihood(np.maximum(rest[:, None] - gain, 1e-9), logs[:, None], least, n)
    without = _likelihood(np.maximum(rest[:, None], 1e-9), logs[:, None], least, n)
    return Fit(with_one.max(axis=0), float(without.max()))


def _likelihood(rest: Floats, logs: Floats, least: Floats, n: int) -> Floats:
    """Log likelihood with the likeliest variance, which is no less than the errors of the fronts ask for."""
    variance = np.maximum(rest / n, least)
    return np.asarray(-0.5 * (n * np.log(variance) + rest / variance + logs))


def _p_values(fit: Fit, places: Places, n: int, fixed: int) -> Floats:
    """How probable it is that the likeliest of all places gains as much as each where there is no break."""
    freedom = n - fixed - 1 - 2  # two for memory and share of noise
    if freedom < 1:
        return np.ones_like(fit.likelihood)
    squares = np.expm1(2 * np.maximum(fit.likelihood - fit.without, 0.0) / n) * freedom
    factors = np.array([WANDERING[kind] for kind in places.kind]) * len(places.kind)
    return np.asarray(np.minimum(1.0, 2 * stdtr(freedom, -np.sqrt(squares)) * factors))


def _coefficients(history: History, fixed: Floats) -> tuple[Floats, Floats]:
    """Coefficients of the columns with their standard deviations, in the likeliest explanation."""
    memory, share = tried(history)
    n, p = fixed.shape
    solved, logs = solve_all(history, memory, share, np.column_stack([fixed, history.values])[None])
    precision, right = fixed.T @ solved[..., :p], fixed.T @ solved[..., p:]
    values = np.linalg.solve(precision, right)[..., 0]
    rest = np.maximum(solved[..., p] @ history.values - (values * right[..., 0]).sum(axis=1), 1e-9)
    least = noise_shape(history.sigmas)[1] / share
    best = int(np.argmax(_likelihood(rest, logs, least, n)))
    variance = max(rest[best] / (n - p), least[best])
    return values[best], np.sqrt(variance * np.diag(np.linalg.inv(precision[best])))


def _row(places: Places, found: tuple[int, float, NDArray[np.intp]], value: float, sigma: float) -> dict[str, object]:
    best, p_value, near = found
    names = ("step_m", "step_sigma_m") if places.kind[best] == "step" else ("bend_m_a", "bend_sigma_m_a")
    dates = {"date": places.middle[best], "earliest": places.earliest[near].min(), "latest": places.latest[near].max()}
    row: dict[str, object] = {"kind": places.kind[best]}
    row |= {name: _date(float(year)) for name, year in dates.items()}
    return row | dict(zip(names, (value, sigma), strict=True)) | {"p_value": p_value}


def _date(year: float) -> pd.Timestamp:
    """UTC day of decimal years since 2000."""
    when = pd.Timestamp("2000-01-01", tz="UTC") + pd.Timedelta(days=year * DAYS_A_YEAR)
    return when.round("s").floor("D")  # decimal years of a midnight may lie just before it
