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
WANDERING = {"step": 2.5, "bend": 15.0, "pair": 30.0}
"""How much more often than the t distribution (of a pair of bends, the F) says a series without breaks shows one.

Its memory and noise are found from itself, and a glacier that wanders slowly looks as if it bent. With these factors
0 to 7 in 100 of most simulated series without a break show any (13 to 150 fronts, memories of a thousandth to a fifth
of their length, with waves of the year and without). Up to 14 do where the noise is a tenth of the wandering and the
memory a fifth of the series or more. Pairs of bends are up to 2 of these.
"""
NEAR = 1.92  # log likelihoods within the 95 % interval of a date


class Places(NamedTuple):
    """Where a break may be: `kind`, `middle` between `earliest` and `latest` in years (c,), and its column (n, c)."""

    kind: list[str]
    middle: Floats
    earliest: Floats
    latest: Floats
    columns: Floats


class Left(NamedTuple):
    """What fixed columns leave of a series, by explanation.

    `products` (e, 1 + c, 1 + c) of its values and of the columns of places with each other; `logs` (e,) of
    determinants; `least` (e,) variance that the errors of fronts ask for; number `n` of values, how many are `free`.
    """

    products: Floats
    logs: Floats
    least: Floats
    n: int
    free: int


Found = tuple[int, float, NDArray[np.intp]]
"""Number of a place, how probable one as clear is by chance, and numbers of the places where it may be as well."""


def break_points(positions: pd.DataFrame) -> pd.DataFrame:
    """Find the break points of every series of at least twelve fronts.

    A break is a step (the ice jumped between two fronts, as in a collapse) or a bend (it began to move at another rate,
    as at the start or end of a surge). One after the other, or two bends at once where none alone is clear, is added to
    the straight line and the waves of the year as long as that makes the series so much likelier that about one in
    twenty series without a break would show it. The
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
    found: list[Found] = []
    while len(found) < MOST_BREAKS:
        left = _left(history, fixed, places.columns)
        # Of a whole surge neither bend tells anything alone: the glacier went on as before.
        new = _clearest(left, places) or _clearest_pair(left, places)
        if not new:
            break
        found += new
        fixed = np.column_stack([fixed, places.columns[:, [place for place, _, _ in new]]])
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


def _left(history: History, fixed: Floats, columns: Floats) -> Left:
    """Take fixed columns from the values and from each other column, over memories and shares of noise."""
    memory, share = tried(history)
    right = np.column_stack([fixed, history.values, columns])
    solved, logs = solve_all(history, memory, share, right[None])
    p, with_waves = fixed.shape[1], 2 + 2 * history.waves
    products = np.moveaxis(np.tensordot(right, solved, (0, 1)), 1, 0)  # a single product: a loop over `e` is slow
    precision, towards = products[:, :p, :p], products[:, :p, p:]
    # The likelihood is that of what waves leave: else what they take up makes memories look short, and breaks clear.
    logs = logs + np.linalg.slogdet(precision[:, :with_waves, :with_waves])[1]
    logs -= np.linalg.slogdet(precision[:, :2, :2])[1]
    products = products[:, p:, p:] - np.swapaxes(towards, 1, 2) @ np.linalg.solve(precision, towards)
    n = len(history.years) - 2 * history.waves
    free = len(history.years) - p - 2  # two for memory and share of noise
    return Left(products, logs, noise_shape(history.sigmas)[1] / share, n, free)


def _clearest(left: Left, places: Places) -> list[Found]:
    """Find the place that explains most of what is left; none where chance often shows one as clear."""
    own, shared = np.diagonal(left.products, axis1=1, axis2=2)[:, 1:], left.products[:, 0, 1:]
    gain = np.divide(shared**2, own, out=np.zeros_like(own), where=own > 1e-9)
    likelihood, gained = _with_columns(left, gain)
    freedom = left.free - 1
    if freedom < 1:
        return []
    squares = np.expm1(2 * gained / left.n) * freedom
    factors = np.array([WANDERING[kind] for kind in places.kind]) * len(places.kind)
    p_values = 2 * stdtr(freedom, -np.sqrt(squares)) * factors
    best = int(np.argmin(p_values))
    if p_values[best] > LEVEL:
        return []
    same = np.array([kind == places.kind[best] for kind in places.kind])
    return [(best, float(p_values[best]), np.flatnonzero(same & (likelihood > likelihood[best] - NEAR)))]


def _clearest_pair(left: Left, places: Places) -> list[Found]:
    """Find the two bends that together explain most of what is left; none where chance often shows two as clear."""
    bends = np.flatnonzero([kind == "bend" for kind in places.kind])
    freedom = left.free - 2
    if freedom < 1 or len(bends) < 2:
        return []
    shared, between = left.products[:, 0, 1 + bends], left.products[:, 1 + bends[:, None], 1 + bends]
    own = np.diagonal(between, axis1=1, axis2=2)
    squares = own[:, :, None] * own[:, None]
    determinant = squares - between**2
    # A bend that was found before leaves nothing but rounding errors of itself.
    is_told = np.minimum(own[:, :, None], own[:, None]) > 1e-9
    crossed = shared[:, :, None] ** 2 * own[:, None] - shared[:, :, None] * shared[:, None] * between
    gain = np.divide(
        crossed + np.swapaxes(crossed, 1, 2),
        determinant,
        out=np.zeros_like(squares),
        where=is_told & (determinant > 1e-6 * squares),
    )
    likelihood, gained = _with_columns(left, gain)
    first, second = (int(place) for place in np.unravel_index(np.argmax(likelihood), likelihood.shape))
    pairs = len(bends) * (len(bends) - 1) / 2
    p_value = float(np.exp(-gained[first, second] * freedom / left.n) * pairs * WANDERING["pair"])
    if p_value > LEVEL:
        return []
    least = likelihood[first, second] - NEAR
    near = [bends[likelihood[:, second] > least], bends[likelihood[first] > least]]
    return [(int(bends[place]), p_value, same) for place, same in zip((first, second), near, strict=True)]


def _with_columns(left: Left, gain: Floats) -> tuple[Floats, Floats]:
    """Log likelihood (...) where columns take so much (e, ...) off the squares, and what it is above that of none."""
    more = (-1, *(1,) * (gain.ndim - 1))
    rest, logs, least = (part.reshape(more) for part in (left.products[:, 0, 0], left.logs, left.least))
    likelihood, without = (
        _likelihood(np.maximum(rest - taken, 1e-9), logs, least, left.n).max(axis=0) for taken in (gain, 0.0)
    )
    return likelihood, np.maximum(likelihood - without, 0.0)


def _likelihood(rest: Floats, logs: Floats, least: Floats, n: int) -> Floats:
    """Log likelihood with the likeliest variance, which is no less than the errors of the fronts ask for."""
    variance = np.maximum(rest / n, least)
    return np.asarray(-0.5 * (n * np.log(variance) + rest / variance + logs))


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


def _row(places: Places, found: Found, value: float, sigma: float) -> dict[str, object]:
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
