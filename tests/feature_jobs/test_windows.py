"""Windows: each daily total counts in exactly the days whose window holds it."""

import datetime as dt

import pytest
from pyspark.sql import functions as F

from feature_jobs.statistics import decayed_counts, window_counts
from feature_jobs.windows import carry_forward, spread_over_dates

pytestmark = pytest.mark.spark

DAY = dt.date(2026, 2, 28)


def _days_later(days: int) -> dt.date:
    return DAY + dt.timedelta(days=days)


def test_a_total_counts_in_each_window_that_holds_its_day(spark):
    daily = spark.createDataFrame([(DAY, 5)], "day date, click_count long")
    dates = [_days_later(n) for n in (-1, 0, 1, 6, 7, 29, 30)]
    rows = (
        spread_over_dates(daily, dates)
        .groupBy("as_of_date")
        .agg(*window_counts({"click": "click_count"}))
        .orderBy("as_of_date")
    )
    found = {row[0]: tuple(row[1:]) for row in rows.collect()}
    assert found == {
        _days_later(0): (5, 5, 5),
        _days_later(1): (0, 5, 5),
        _days_later(6): (0, 5, 5),
        _days_later(7): (0, 0, 5),
        _days_later(29): (0, 0, 5),
    }
    for date in dates:  # a night that writes one day takes a shorter way
        alone = (
            spread_over_dates(daily, [date])
            .groupBy("as_of_date")
            .agg(*window_counts({"click": "click_count"}))
            .collect()
        )
        assert [tuple(row) for row in alone] == [(date, *found[date]) for date in [date] if date in found]


def test_a_day_weighs_half_as_much_a_half_life_later(spark):
    daily = spark.createDataFrame([(DAY, 4), (_days_later(3), 1)], "day date, click_count long")
    dates = [_days_later(n) for n in (0, 7, 30)]
    rows = (
        spread_over_dates(daily, dates).groupBy("as_of_date").agg(*decayed_counts({"click": "click_count"})).collect()
    )
    found = {row["as_of_date"]: row["click_decayed"] for row in rows}
    assert found == pytest.approx({dates[0]: 4, dates[1]: 2 + 0.5 ** (4 / 7), dates[2]: 0.5 ** (27 / 7)}, rel=1e-8)


def test_a_day_without_a_snapshot_takes_the_one_before(spark):
    known = [_days_later(0), _days_later(2)]
    snapshots = spark.createDataFrame([(day, f"of {day.day}") for day in known], "as_of_date date, name string")
    carried = carry_forward(snapshots, known, [_days_later(n) for n in (-1, 0, 1, 2, 4)])
    found = {row["as_of_date"]: row["name"] for row in carried.collect()}
    first, second = f"of {known[0].day}", f"of {known[1].day}"
    assert found == {_days_later(0): first, _days_later(1): first, _days_later(2): second, _days_later(4): second}
    assert carry_forward(snapshots, known, [_days_later(-1)]).agg(F.count("*")).head()[0] == 0
