import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshelf.dates import (
    day_bounds_utc,
    days_back,
    last_complete_day,
    parse_as_of_date,
    parse_duration,
    unskipped_hour,
)
from nightshelf.errors import InputError

ZONES = st.sampled_from(
    ["UTC", "Asia/Shanghai", "America/Sao_Paulo", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia"]
)


@pytest.mark.parametrize("text", ["2026-2-14", "14.02.2026", "2026-02-30", "20260214", "", "2026-02-14; rm", "../etc"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="YYYY-MM-DD"):
        parse_as_of_date(text)


def test_durations() -> None:
    assert parse_duration("90m") == dt.timedelta(hours=1.5)
    for text in ("0h", "3", "d", "-1d", "1w"):
        with pytest.raises(ValueError, match="not a duration"):
            parse_duration(text)


def test_days_back_end_with_the_date() -> None:
    day = dt.date(2026, 3, 1)
    assert days_back(day, 3) == [dt.date(2026, 2, 27), dt.date(2026, 2, 28), day]


@given(st.dates(dt.date(1990, 1, 2), dt.date(2090, 1, 1)), ZONES)
def test_days_follow_one_another_without_a_gap(day: dt.date, zone: str) -> None:
    start, end = day_bounds_utc(day, zone)
    assert end == day_bounds_utc(day + dt.timedelta(days=1), zone)[0]
    assert dt.timedelta(0) <= end - start <= dt.timedelta(hours=25)


@given(st.datetimes(dt.datetime(1990, 1, 3), dt.datetime(2090, 1, 1)), ZONES)
def test_the_last_complete_day_is_over_and_the_next_is_not(moment: dt.datetime, zone: str) -> None:
    aware = moment.replace(tzinfo=dt.UTC)
    day = last_complete_day(aware, zone)
    local = aware.astimezone(ZoneInfo(zone)).date()
    assert day < local
    assert day + dt.timedelta(days=1) == local


@pytest.mark.parametrize(
    ("zone", "hour"),
    [
        ("Asia/Shanghai", 2),  # no summer time
        ("Europe/London", 2),  # skips 01:00
        ("Europe/Athens", 2),  # skips 03:00
        ("Europe/Berlin", 3),
        ("America/New_York", 3),
        ("Australia/Lord_Howe", 3),  # skips half an hour
        ("Antarctica/Troll", 3),  # skips two
    ],
)
def test_an_hour_that_no_day_skips(zone: str, hour: int) -> None:
    assert unskipped_hour(zone, 2, dt.date(2026, 1, 1)) == hour
