"""The example window: which impressions a night learns from, split by time."""

import datetime as dt

import duckdb

from nightshelf.example_window import example_window

NIGHT = dt.date(2026, 2, 10)
FIRST = dt.date(2026, 2, 1)
SCENARIOS = {name: {"utility": {"click": 1}} for name in ("home_feed", "search")}


def test_the_test_starts_where_every_task_is_mature(tiny_shop):
    shop = tiny_shop(days=0)

    def starts(shop, first=FIRST):
        window = example_window(shop, first, NIGHT)
        return window.validation_start.day, window.test_start.day

    assert starts(shop) == (7, 8)
    short = {"click": {"event": "click", "label_window": "1h"}}
    assert starts(tiny_shop(days=0, tasks=short, scenarios=SCENARIOS)) == (9, 10)
    long = {"click": {"event": "click", "label_window": "30d"}}
    assert starts(tiny_shop(days=0, tasks=long, scenarios=SCENARIOS)) == (5, 6)
    closed_on_the_day = tiny_shop(days=0, closed={"weekdays": ["sunday"]})  # nothing was shown on that day
    assert starts(closed_on_the_day) == (6, 7)
    closed_before = tiny_shop(days=0, closed={"weekdays": ["saturday"]})
    assert starts(closed_before) == (6, 8)


def test_a_short_history_keeps_a_day_for_training_before_one_for_validation(tiny_shop):
    short = {"click": {"event": "click", "label_window": "1h"}}
    shop = tiny_shop(days=0, tasks=short, scenarios=SCENARIOS)
    windows = [example_window(shop, NIGHT - dt.timedelta(days=n), NIGHT) for n in (1, 2, 3)]
    assert [(w.validation_start.day, w.test_start.day) for w in windows] == [(10, 10), (10, 10), (9, 10)]
    assert [w.bounds("train")[0].day for w in windows] == [10, 9, 8]


def test_every_day_of_the_window_is_in_one_split(tiny_shop):
    window = example_window(tiny_shop(days=0), FIRST, NIGHT)
    assert window.bounds("train") == (dt.date(2026, 2, 2), window.validation_start)
    assert window.bounds("validation") == (window.validation_start, window.test_start)
    assert window.bounds("test") == (window.test_start, dt.date(2026, 2, 11))


def test_the_days_of_arrival_follow_the_first_day(tiny_shop):
    window = example_window(tiny_shop(days=0), FIRST, dt.date(2026, 2, 4))
    assert window.days == [dt.date(2026, 2, day) for day in (2, 3, 4)]
    assert example_window(tiny_shop(days=0), FIRST, FIRST).days == []


def test_examples_of_scenarios_that_the_shop_file_has_no_more_are_left_out_and_counted(tiny_shop):
    window = example_window(tiny_shop(days=0), FIRST, NIGHT)
    connection = duckdb.connect()
    days = {"home_feed": [1, 9], "news": [1, 9, 10], "cart": [2]}
    rows = ", ".join(f"('{name}', DATE '2026-02-{day:02}')" for name, of in days.items() for day in of)
    connection.execute(f"CREATE TABLE examples AS FROM (VALUES {rows}) AS rows(scenario, event_date)")
    assert connection.sql(window.select("examples")).fetchall() == [("home_feed", dt.date(2026, 2, 9), "test")]
    assert connection.sql(window.left_out("examples")).fetchall() == [("cart", 1), ("news", 2)]
