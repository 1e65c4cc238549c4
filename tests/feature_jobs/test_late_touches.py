"""Late touches: an event that came after impressions were labelled touches those whose label it changes, and no others."""

import datetime as dt

import pytest

from feature_jobs.acts import acts
from feature_jobs.attribution import attributed_outcomes, decisive_time, settling_days
from feature_jobs.impressions import impressions
from feature_jobs.labels import labels
from feature_jobs.late_touches import touched_impressions
from nightshelf.example_window import example_window

SECOND, THIRD, FIFTH, SIXTH, NIGHT = (dt.date(2026, 2, day) for day in (2, 3, 5, 6, 7))
BEFORE = dt.date(2026, 1, 31)
# What a user did in time and what comes late (type, item, day counted from the first of February, hour) → the days
# touched. Each user was shown i on the 2nd, 3rd and 4th at 12.
CASES = {
    "clicks": ([], [("click", "i", 2, 12.1)], [3]),  # not the days beside it
    "clicks before": ([], [("click", "i", 2, 11.9)], []),
    "clicks after": ([], [("click", "i", 2, 13)], []),  # the window of a click is an hour
    "clicks another": ([], [("click", "j", 2, 12.1)], []),
    "clicks again": ([("click", "i", 2, 12.2)], [("click", "i", 2, 12.1)], []),
    "is shown": ([], [("impression", "i", 2, 12.1)], []),  # there is no outcome that it might take
    "is shown between": ([("click", "i", 2, 12.2)], [("impression", "i", 2, 12.1)], [3]),  # and takes the click
    "is shown behind": ([("click", "i", 2, 12.2)], [("impression", "i", 2, 12.3)], []),
    "buys": ([("click", "i", 2, 12.2)], [("purchase", "i", 4, 11)], [3]),  # within two days
    "buys too late": ([("click", "i", 2, 12.2)], [("purchase", "i", 4, 12.5)], []),
    "buys unclicked": ([], [("purchase", "i", 2, 12.5)], []),
    "clicks and buys": ([], [("click", "i", 1, 12.1), ("purchase", "i", 2, 12.5)], [2]),
    "had bought": ([("click", "i", 1, 12.1), ("purchase", "i", 2, 20)], [("click", "i", 2, 12.1)], [2, 3]),
    "views": ([], [("viewed", "i", 2, 12.1)], []),  # no task learns it
}


def touched(shop, events, since, first_date=BEFORE):
    window = example_window(shop, first_date, NIGHT)
    return touched_impressions(impressions(events, shop), acts(events, shop), since, shop, window).collect()


@pytest.mark.spark
def test_what_a_late_event_touches(tiny_shop, frame, event):
    """All partitions knew the sixth; what is late comes on the seventh."""
    shop, log = tiny_shop(days=0), []
    for user, (in_time, late, _) in CASES.items():
        log += [event("impression", user, "i", day) for day in (1, 2, 3)]
        log += [event(kind, user, *rest) for kind, *rest in in_time]
        log += [event(kind, user, *rest, as_of_date=NIGHT) for kind, *rest in late]
    since = {dt.date(2026, 2, day): SIXTH for day in (2, 3, 4)}
    found = {user: [] for user in CASES}
    for row in touched(shop, frame(shop, "events", log), since):
        found[row.user_key] = sorted([*found[row.user_key], row.as_of_date.day])
    assert found == {user: days for user, (_, _, days) in CASES.items()}


@pytest.mark.spark
def test_where_a_task_is_about_any_item_an_event_on_another_touches(tiny_shop, frame, event):
    tasks = {
        "click": {"event": "click", "label_window": "1h"},
        "goes_on": {"event": "click", "on": "any_item", "label_window": "1d"},
    }
    scenarios = {name: {"utility": {"click": 1}} for name in ("home_feed", "search")}
    shop = tiny_shop(days=0, tasks=tasks, scenarios=scenarios)
    log = [event("impression", user, "i", day) for user in ("goes on", "went on") for day in (1, 2)]
    log += [event("click", "went on", "j", 3, 11)]
    log += [event("click", user, "k", 3, 11.5, as_of_date=NIGHT) for user in ("goes on", "went on")]
    found = touched(shop, frame(shop, "events", log), {SECOND: SIXTH, THIRD: SIXTH})
    assert [(row.user_key, row.as_of_date) for row in found] == [("goes on", THIRD)]


@pytest.mark.spark
def test_each_partition_is_told_only_what_it_does_not_know(tiny_shop, frame, event):
    shop = tiny_shop(days=0)
    shown = [event("impression", "u", "i", day) for day in (1, 2)]
    clicks = [event("click", "u", "i", day, 12.1, as_of_date=SIXTH) for day in (1, 2)]
    events = frame(shop, "events", shown + clicks)
    days = lambda *args: sorted(row.as_of_date for row in touched(shop, events, *args))  # noqa: E731
    assert days({SECOND: FIFTH, THIRD: FIFTH}) == [SECOND, THIRD]
    assert days({SECOND: SIXTH, THIRD: FIFTH}) == [THIRD]
    assert days({SECOND: FIFTH, THIRD: FIFTH}, SECOND) == [THIRD]  # what was shown on the second is no example


@pytest.mark.spark
@pytest.mark.histories
@pytest.mark.parametrize("attribution", ["last_touch", "first_touch"])
def test_it_is_what_has_other_labels_whatever_came(tiny_shop, frame, random_log, attribution):
    """Compared with the labels of all impressions, before and after, of logs in which much is late."""
    shop = tiny_shop(days=0, attribution=attribution)
    log = []
    for number, row in enumerate(row for seed in range(4) for row in random_log(seed, days=7)):
        late = dt.timedelta(days=(0, 0, 2, 4)[number % 4])  # … and on few items, so that they meet
        log.append({**row, "as_of_date": row["as_of_date"] + late, "item_id": f"i{number % 3}"})
    log = [row for row in log if row["as_of_date"] <= NIGHT]
    days = [dt.date(2026, 2, day) for day in (1, 2, 3)]
    before, after = (
        labels_of(shop, frame(shop, "events", [row for row in log if row["as_of_date"] <= night]), days)
        for night in (FIFTH, NIGHT)
    )
    changed = {impression for impression, label in before.items() if label != after[impression]}
    found = touched(shop, frame(shop, "events", log), dict.fromkeys(days, FIFTH))
    assert {row.impression_id for row in found} == changed
    assert 0 < len(changed) < len(before)


def labels_of(shop, events, days):
    shown, done = impressions(events, shop), acts(events, shop)
    outcomes = attributed_outcomes(shown, done, shop, hindsight=True)
    rows = labels(shown.where(shown.as_of_date.isin(days)), done, outcomes, shop, NIGHT)
    return {row.impression_id: tuple(row[f"label_{task}"] for task in shop.tasks) for row in rows.collect()}


def test_windows_of_tasks_that_are_given_others_add_up(tiny_shop):
    shop = tiny_shop(days=0)
    assert decisive_time(shop) == dt.timedelta(days=2, hours=1)
    assert settling_days(shop) == 1 + 3
