"""Events of items that no catalogue knew when their logs came: they wait, and are taken back on the first day that knows them."""

import datetime as dt
import shutil

import pytest

from nightshelf.identity import ensure_key, user_key
from pipelines.stage import run_stage
from pipelines.warehouse import Warehouse

pytestmark = [pytest.mark.spark, pytest.mark.histories]
DAYS = [dt.date(2026, 2, n) for n in (1, 2, 3, 4)]
D1, D2, D3, D4 = DAYS
HEADER = ["sku", "title", "category", "brand", "price", "stock", "colour"]
# Which days' catalogues have an item: late_by_days is 1.
LISTED = {"old": DAYS, "tomorrow": [D2, D3], "too late": [D3, D4], "gone": [D2]}


def at(day, hour=12):
    """Return the epoch milliseconds of a local time in Shanghai."""
    zone = dt.timezone(dt.timedelta(hours=8))
    return int(dt.datetime.combine(day, dt.time(hour), zone).timestamp() * 1000)


def show(day, item, user="u1", **changes):
    return {"uid": user, "sku": item, "action": "show", "ts": at(day), "rid": "r1", "pos": 1, **changes}


HOME = {
    D1: [
        show(D1, "old"),
        show(D1, "tomorrow"),
        show(D1, "tomorrow", action="clk", ts=at(D1, 13)),
        show(D1, "tomorrow", user="forger", action="clk", rid="never shown"),
        show(D1, "too late"),
        show(D1, "never"),
        *(show(D1, "gone", user="robot", action="clk", rid=f"b{n}") for n in range(4)),
    ],
    D2: [show(D2, "old"), show(D1, "tomorrow"), show(D2, "too late", user="u2"), show(D1, "never", user="u4")],
    D3: [show(D3, "tomorrow", user="u3"), show(D2, "never", user="u5")],
    D4: [show(D4, "old")],
}
RULES = {"bots": {"max_clicks_per_day": 3}, "orphans": {"click": "2h"}, "max_share": 0.99}


def catalogue(day):
    return [HEADER, *([item, item, "a", "x", 5, 3, ""] for item, listed in LISTED.items() if day in listed)]


@pytest.fixture
def make_shop(tiny_shop):
    """Return make_shop(items): a shop with one log, without rows."""

    def make(path):
        base = tiny_shop(days=0)
        source = base.sources[0].model_dump(mode="json") | {"late_by_days": 1}
        items = base.items.model_dump(mode="json") | {"path": path}
        tasks = {"click": {"event": "click", "label_window": "30m"}}
        scenarios = {"home_feed": {"top_n": 5, "utility": {"click": 1}}}
        return tiny_shop(
            days=0, sources=[source], items=items, users=None, quarantine=RULES, tasks=tasks, scenarios=scenarios
        )

    return make


@pytest.fixture
def logged(make_shop, write_log):
    """Return logged(path): the shop with the logs of all days, and a catalogue of each where the path is dated."""

    def log(path):
        shop = make_shop(path)
        for day, rows in HOME.items():
            write_log(shop.home / f"raw/home/{day}/a.jsonl.gz", rows)
            if "{event_date}" in path:
                write_log(shop.home / f"raw/items/{day}.csv", catalogue(day))
        return shop

    return log


def events(shop):
    """Return what became events of items that had to wait: day of arrival, user, item, kind, day."""
    key = ensure_key(shop).read_bytes()
    names = {user_key(user, key): user for user in ("u1", "u2", "u3", "u4", "u5", "robot", "forger")}
    return sorted(
        (row["as_of_date"].day, names[row["user_key"]], row["item_id"], row["event_type"], row["event_date"].day)
        for row in Warehouse(shop).read("events").to_pylist()
        if row["item_id"] != "old"
    )


def counts(shop):
    names = ("rows_read", "taken_back", "kept", "quarantined", "duplicates")
    rows = Warehouse(shop).read("source_counts").to_pylist()
    return {row["as_of_date"].day: tuple(row[name] for name in names) for row in rows}


EVENTS = [
    (2, "u1", "tomorrow", "click", 1),
    (2, "u1", "tomorrow", "impression", 1),
    (3, "u2", "too late", "impression", 2),
    (3, "u3", "tomorrow", "impression", 3),
]
# On the second day one of the three taken back is an orphan, and a row of the log repeats another one of them
COUNTS = {1: (10, 0, 1, 9, 0), 2: (4, 3, 3, 3, 1), 3: (2, 1, 2, 1, 0), 4: (1, 0, 1, 0, 0)}


def test_they_are_taken_back_once_on_the_first_day_that_knows_the_item(spark, logged):
    shop = logged("raw/items/{event_date}.csv")
    for day in DAYS:
        run_stage("clean", shop, day)
    assert events(shop) == EVENTS
    assert counts(shop) == COUNTS
    warehouse = Warehouse(shop)
    aside = [(row["as_of_date"].day, row["reason"]) for row in warehouse.read("quarantine").to_pylist()]
    assert sorted(aside) == sorted(
        [
            *[(1, "bot")] * 4,
            *[(1, "unknown_item")] * 5,
            *[(2, "unknown_item")] * 2,
            (2, "orphan_outcome"),
            (3, "unknown_item"),
        ]
    )
    (orphan,) = [row for row in warehouse.read("quarantine", [D2]).to_pylist() if row["reason"] == "orphan_outcome"]
    assert orphan["file"] == "waiting_events 2026-02-01"
    waiting = [row["item_id"] for row in warehouse.read("waiting_events", [D1]).to_pylist()]
    assert sorted(waiting) == ["never", "tomorrow", "tomorrow", "tomorrow", "too late"]
    told = [row["message"] for row in warehouse.read("stage_runs", [D2]).to_pylist()]
    assert told == ["1 days, 1 duplicates, 3 events taken back whose item is known now"]
    run_stage("validate_events", shop, D2)
    run_stage("clean", shop, D2)  # again: the same
    assert (events(shop), counts(shop)) == (EVENTS, COUNTS)


def test_days_all_at_once_are_the_days_one_by_one(spark, logged, tmp_path):
    shop = logged("raw/items/{event_date}.csv")
    run_stage("clean", shop, D4)
    assert (events(shop), counts(shop)) == (EVENTS, COUNTS)
    shutil.rmtree(shop.home / "warehouse")
    run_stage("clean", shop, D2)
    run_stage("clean", shop, D4)
    assert (events(shop), counts(shop)) == (EVENTS, COUNTS)


def test_a_catalogue_of_all_days_may_grow_from_night_to_night(spark, logged, write_log):
    shop = logged("raw/items.csv")
    for day in DAYS:
        write_log(shop.home / "raw/items.csv", catalogue(day))
        run_stage("clean", shop, day)
    assert events(shop) == EVENTS
    assert counts(shop) == COUNTS


def test_what_waits_for_a_scenario_that_was_renamed_is_not_taken_back(spark, logged):
    shop = logged("raw/items/{event_date}.csv")
    run_stage("clean", shop, D1)
    sources = [shop.sources[0].model_copy(update={"scenario": "front"})]
    scenarios = {"front": shop.scenarios["home_feed"]}
    renamed = shop.model_copy(update={"sources": sources, "scenarios": scenarios})
    run_stage("clean", renamed, D2)
    assert {row["scenario"] for row in Warehouse(renamed).read("events", [D2]).to_pylist()} == {"front"}
    assert counts(renamed)[2] == (4, 0, 2, 2, 0)  # the row that another one of them would repeat is the first now
    run_stage("validate_events", renamed, D2)
