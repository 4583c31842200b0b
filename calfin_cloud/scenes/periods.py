"""A period in words in, its first and last instant out."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from calfin_cloud.sensors import in_utc

RELATIVE = re.compile(r"(?P<since>last|newest)-(?P<days>\d{1,5})-days")
Period = tuple[datetime | None, datetime | None]


def period_bounds(period: str) -> Period:
    """First and last instant (UTC) of a period such as `2019`, `2019-06/2019-09`, `2019-06-15/..`; None is an open end.

    Both ends are included to the last microsecond: `2019-06/2019-09` ends with September.
    """
    first, *rest = [part.strip() for part in str(period).split("/")]
    if len(rest) > 1 or not (first or rest):
        raise ValueError(f"a period is DATE or DATE/DATE, got {period!r}; for example 2019-06/2019-09 or 2019/..")
    last = rest[0] if rest else first
    start = None if first in ("", "..") else date_range(first, period)[0]
    end = None if last in ("", "..") else date_range(last, period)[1]
    if start and end and start > end:
        raise ValueError(f"the period {period!r} ends before it starts; write it as {last}/{first}")
    return start, end


def absolute_period(period: str, newest: Callable[[], datetime | None] = lambda: None) -> str:
    """Turn a relative period into one with a date: `last-30-days`, or `newest-30-days`, before what `newest` returns.

    Raises `ValueError` where there is no newest scene yet.

    >>> absolute_period("newest-30-days", lambda: datetime(2024, 3, 31, tzinfo=UTC)), absolute_period("2019")
    ('2024-03-01/..', '2019')
    """
    found = RELATIVE.fullmatch(period.strip())
    if found is None:
        return period
    end = datetime.now(UTC) if found["since"] == "last" else newest()
    if end is None:
        raise ValueError(
            f"the period {period!r} begins before the newest scene of a store, which has none: map one with dates first"
        )
    return f"{end - timedelta(days=int(found['days'])):%Y-%m-%d}/.."


def date_range(text: str, period: str) -> tuple[datetime, datetime]:
    """First and last microsecond of a year, month, day or instant; `period` is what errors show.

    Raises
    ------
    ValueError
        The text is no date.
    """
    try:
        if re.fullmatch(r"\d{4}", text):
            return _span(datetime(int(text), 1, 1), 366 if calendar.isleap(int(text)) else 365)
        if re.fullmatch(r"\d{4}-\d{2}", text):
            year, month = int(text[:4]), int(text[5:])
            return _span(datetime(year, month, 1), calendar.monthrange(year, month)[1])
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return _span(datetime.fromisoformat(text), 1)
        if not re.match(r"\d{4}-\d{2}-\d{2}[T ]", text):
            raise ValueError(f"{text!r} is no date")
        moment = in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"cannot read the period {period!r}: {error}; write years, months, days or ISO times, as 2019-06/2019-09"
        ) from error
    return moment, moment


def rfc3339(moment: datetime | None) -> str:
    """Write a time in UTC as STAC does; `..` for an open end."""
    return moment.isoformat().replace("+00:00", "Z") if moment else ".."


def _span(first: datetime, n_days: int) -> tuple[datetime, datetime]:
    first = first.replace(tzinfo=UTC)
    return first, first + timedelta(days=n_days, microseconds=-1)
