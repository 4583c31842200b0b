"""Positions of many glaciers -> how regions changed: means over glaciers, and sums of area."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calfin_cloud.timeseries.bridging import change_error, explain_all, history_of, years_of
from calfin_cloud.timeseries.processes import Explanations, Floats, History

REGION_COLUMNS = (
    *("region", "month", "n", "change_m", "sigma_m", "spread_m"),
    *("area_change_m2", "area_sigma_m2"),
)


class Steps(NamedTuple):
    """What glaciers (g) did from day to day (d).

    `years` (d + 1,) are the edges of days, `months` (d,) the first day of the month of each; `change_m` (d, g), and
    `seen` (d, g), the share of the day between the first and last front of a glacier; `width_m` (g,) makes a change an
    area, 0 where there is no box.
    """

    glaciers: list[str]
    histories: list[History]
    explanations: list[Explanations | None]
    years: Floats
    months: pd.DatetimeIndex
    change_m: Floats
    seen: Floats
    width_m: Floats


def regional_change(
    positions: pd.DataFrame, region_of: Mapping[str, str], *, whole: str | None = "all"
) -> pd.DataFrame:
    """Change of regions since their first front, on the first of every month, and of all together as `whole`.

    What a glacier did between two of its fronts is spread evenly over the time between them, however long that is. So
    glaciers enter and leave without a jump, and nothing of what they did is lost.

    Parameters
    ----------
    positions
        Of one branch, as `measure_positions` makes them.
    region_of
        Glacier id -> region; glaciers without one are part of `whole` only.

    Returns
    -------
    DataFrame
        `region`, `month` (UTC): the first day of one, for which the row holds; `n` glaciers between fronts of theirs in
        the month before it. `change_m`: mean over the glaciers that are seen, day by day, summed; NaN after months that
        see none, and what happened in those is not in the rows after. `area_change_m2`: sum over glaciers of what each
        is known to have changed in its box so far. `sigma_m`, `area_sigma_m2`: standard deviations of these for these
        glaciers, from the errors of their fronts and from what may have happened in gaps. `spread_m`: standard error of
        the mean for a region of many more glaciers, of which these are a sample.
    """
    known = positions.dropna(subset="position_m")
    if known.empty:
        return pd.DataFrame(columns=list(REGION_COLUMNS))
    steps = _steps(known)
    of = np.array([region_of.get(glacier, "") for glacier in steps.glaciers])
    groups = [(str(name), of == name) for name in sorted(set(of) - {""})]
    groups += [] if whole is None else [(whole, np.full(len(of), True))]
    # A region whose glaciers have one front each is between no two of them.
    rows = [_region(steps, m).assign(region=name) for name, m in groups if (steps.seen[:, m] > 0).any()]
    if not rows:
        return pd.DataFrame(columns=list(REGION_COLUMNS))
    return pd.concat(rows, ignore_index=True)[list(REGION_COLUMNS)]


def _steps(known: pd.DataFrame) -> Steps:
    """Cut the course of every glacier into days."""
    by_glacier = [(str(name), part) for name, part in known.groupby("glacier_id", sort=True)]
    histories = [history_of(part) for _, part in by_glacier]
    first, last = known["datetime"].min().floor("D"), known["datetime"].max().floor("D")
    edges = pd.date_range(first, last + pd.Timedelta(days=1)).tz_localize(None)
    years = years_of(edges)
    change = np.array([np.diff(np.interp(years, h.years, h.values)) for h in histories]).T
    reached = np.array([np.diff(np.clip(years, h.years[0], h.years[-1])) for h in histories]).T
    return Steps(
        [name for name, _ in by_glacier],
        histories,
        explain_all(histories),
        years,
        edges[:-1].to_period("M").to_timestamp(),
        change,
        reached / np.diff(years)[:, None],
        np.array([_width(part) for _, part in by_glacier]),
    )


def _region(steps: Steps, members: NDArray[np.bool_]) -> pd.DataFrame:
    """Table of one region, from its first month to its last."""
    change, seen, width = steps.change_m[:, members], steps.seen[:, members], steps.width_m[members]
    shares = seen.sum(axis=1)
    # Where a glacier enters within a day it counts in part; where all do, this is the plain mean of what they did.
    weight = np.divide(seen.max(axis=1), shares, out=np.zeros_like(shares), where=shares > 0)
    months = steps.months
    by_month = pd.DataFrame(change * weight[:, None], index=months).groupby(level=0).sum()
    is_seen = pd.DataFrame(seen > 0, index=months).groupby(level=0).any()
    n = is_seen.sum(axis=1)
    ends = steps.years[1:][np.r_[months[1:] != months[:-1], True]]
    total = (steps.years, np.r_[0.0, np.cumsum(weight * np.diff(steps.years))])
    own = [(h, e) for h, e, m in zip(steps.histories, steps.explanations, members, strict=True) if m]
    of_mean = np.array([change_error(h, e, ends, total) for h, e in own])
    of_area = np.array([change_error(h, e, ends) for h, e in own]) * width[:, None]
    table = pd.DataFrame(
        {
            "n": n,
            "change_m": by_month.sum(axis=1).cumsum().where(n > 0),
            "sigma_m": np.sqrt((of_mean**2).sum(axis=0)),
            "spread_m": _clustered_error(by_month.mul(n, axis=0).where(is_seen)),
            "area_change_m2": pd.Series(change @ width, index=months).groupby(level=0).sum().cumsum(),
            "area_sigma_m2": np.sqrt((of_area**2).sum(axis=0)),
        }
    )
    seen_in = np.flatnonzero(n.to_numpy())  # none where each glacier has one front
    made = table.iloc[seen_in.min(initial=len(n)) : seen_in.max(initial=-1) + 1].rename_axis("month").reset_index()
    return made.assign(month=(made["month"] + pd.offsets.MonthBegin(1)).dt.tz_localize("UTC"))


def _clustered_error(steps: pd.DataFrame) -> pd.Series:
    """Compute the standard error of the cumulated mean of steps (month, glacier), each glacier being one draw."""
    n = steps.notna().sum(axis=1)
    shares = steps.sub(steps.mean(axis=1), axis=0).div(n, axis=0).fillna(0.0).cumsum()
    seen = (steps.notna().cumsum() > 0).sum(axis=1)
    error = ((shares**2).sum(axis=1) * seen / (seen - 1)) ** 0.5
    return error.where(n > 1)


def _width(series: pd.DataFrame) -> float:
    """Width that makes a position an area; 0 where no area was measured."""
    if "area_m2" not in series:
        return 0.0
    known = series[series["position_m"] > 0]
    return float(np.nan_to_num((known["area_m2"] / known["position_m"]).median()))
