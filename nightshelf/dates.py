"""The only date arithmetic: as_of_date, windows, durations. No clock is read here."""

import datetime as dt
import re
from zoneinfo import ZoneInfo

from nightshelf.errors import InputError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_as_of_date(text: str) -> dt.date:
    """Turn `YYYY-MM-DD` into a date.

    Raises:
        InputError: the text is no such date.
    """
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError
        return dt.date.fromisoformat(text)
    except ValueError:
        raise InputError(f"as_of_date {text!r} is not a date; write it as YYYY-MM-DD, e.g. 2026-02-14") from None


def parse_duration(text: str) -> dt.timedelta:
    """Turn `30m`, `1h`, `3d` into a timedelta.

    Raises:
        ValueError: the text is no such duration.
    """
    match = re.fullmatch(r"(\d+)([smhd])", str(text).strip())
    if not match or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration; write a number and s, m, h or d, e.g. 30m, 1h, 3d")
    return dt.timedelta(**{_UNITS[match[2]]: int(match[1])})


def days_back(as_of_date: dt.date, days: int) -> list[dt.date]:
    """Return the `days` dates that end with as_of_date, oldest first."""
    return [as_of_date - dt.timedelta(days=back) for back in range(days - 1, -1, -1)]


def last_complete_day(moment: dt.datetime, timezone: str) -> dt.date:
    """Return the last day that was over in `timezone` at `moment` (which must carry its own zone)."""
    return moment.astimezone(ZoneInfo(timezone)).date() - dt.timedelta(days=1)


def day_bounds_utc(day: dt.date, timezone: str) -> tuple[dt.datetime, dt.datetime]:
    """Return the first moment of the shop's day and of the next one, in UTC (23, 24 or 25 hours apart)."""
    zone = ZoneInfo(timezone)
    start = dt.datetime.combine(day, dt.time(), zone)
    end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), zone)
    return start.astimezone(dt.UTC), end.astimezone(dt.UTC)


def unskipped_hour(timezone: str, first: int, since: dt.date) -> int:
    """Return the first hour, from `first` on, that every day of `timezone` has in the ten years from `since` on.

    Where clocks are put forward, one day of the year lacks an hour: 02:00 in New York and Berlin, 03:00 in Athens.
    """
    zone = ZoneInfo(timezone)
    days = [since + dt.timedelta(days=ahead) for ahead in range(3653)]

    def is_there(day: dt.date, hour: int) -> bool:
        local = dt.datetime.combine(day, dt.time(hour), zone)
        return local.astimezone(dt.UTC).astimezone(zone).time() == local.time()

    return next(hour for hour in range(first, 24) if all(is_there(day, hour) for day in days))
