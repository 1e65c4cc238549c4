"""The example window: which impressions a night learns from, split by time."""

import datetime as dt

from nightshelf.example_window import example_window

NIGHT = dt.date(2026, 2, 10)
FIRST = dt.date(2026, 2, 1)


def test_validation_starts_where_every_task_is_mature(tiny_shop):
    shop = tiny_shop(days=0)

    def start(shop, first=FIRST):
        return example_window(shop, first, NIGHT).validation_start

    assert start(shop) == dt.date(2026, 2, 8)
    short = {"click": {"event": "click", "label_window": "1h"}}
    scenarios = {name: {"utility": {"click": 1}} for name in ("home_feed", "search")}
    assert start(tiny_shop(days=0, tasks=short, scenarios=scenarios)) == NIGHT
    long = {"click": {"event": "click", "label_window": "30d"}}
    assert start(tiny_shop(days=0, tasks=long, scenarios=scenarios)) == dt.date(2026, 2, 6)
    assert start(shop, dt.date(2026, 2, 8)) == NIGHT
    closed_on_the_day = tiny_shop(days=0, closed={"weekdays": ["sunday"]})  # nothing was shown on that day
    assert start(closed_on_the_day) == dt.date(2026, 2, 7)


def test_the_days_of_arrival_follow_the_first_day(tiny_shop):
    window = example_window(tiny_shop(days=0), FIRST, dt.date(2026, 2, 4))
    assert window.days == [dt.date(2026, 2, day) for day in (2, 3, 4)]
    assert example_window(tiny_shop(days=0), FIRST, FIRST).days == []
