"""Labels and attribution, case by case: each user is one case."""

import datetime as dt

import pytest
from pyspark.sql import functions as F

from feature_jobs.attribution import attributed_outcomes
from feature_jobs.impressions import impressions
from feature_jobs.labels import labels
from nightshelf.errors import InputError
from nightshelf.tasks import Task

pytestmark = pytest.mark.spark

NIGHT = dt.date(2026, 2, 10)
MINUTE = 1 / 60


def label_log(shop, frame, log, as_of_date=NIGHT):
    events = frame(shop, "events", log)
    shown = impressions(events, shop)
    attributed = attributed_outcomes(shown, events, shop, hindsight=True)
    rows = labels(shown, events, attributed, shop, as_of_date).collect()
    return {row["impression_id"]: row.asDict() for row in rows}


def test_labels_case_by_case(tiny_shop, frame, event):
    shop = tiny_shop(days=0)
    log = []

    def add(*args, **columns):
        log.append(event(*args, **columns))
        return log[-1]["event_id"]

    ok = add("impression", "in_time", "i", 1, 10)
    add("click", "in_time", "i", 1, 10)  # the same moment counts
    over = add("impression", "too_late", "i", 1, 10)
    add("click", "too_late", "i", 1, 11)  # the window is open at its end
    before = add("impression", "before", "i", 1, 10)
    add("click", "before", "i", 1, 10 - MINUTE)
    first, last = add("impression", "twice", "i", 1, 10), add("impression", "twice", "i", 1, 10.25)
    add("click", "twice", "i", 1, 10.5)
    asked = add("impression", "request", "i", 1, 10, request_id="r1")
    other = add("impression", "request", "i", 1, 10.25, request_id="r2")
    add("click", "request", "i", 1, 10.5, request_id="r1")
    here = add("impression", "scenario", "i", 1, 10, scenario="search")
    there = add("impression", "scenario", "i", 1, 10.25)
    add("click", "scenario", "i", 1, 10.5, scenario="search")
    clicked, seen = add("impression", "buyer", "i", 1, 10), add("impression", "buyer", "i", 1, 12)
    add("click", "buyer", "i", 1, 10.1)
    add("cart", "buyer", "i", 2, 9)
    add("purchase", "buyer", "i", 2, 10, price=5.0, quantity=3)
    add("purchase", "buyer", "i", 2, 11, price=2.5)
    add("purchase", "buyer", "j", 2, 11, price=100.0)
    late = add("impression", "late_click", "i", 1, 10)
    add("click", "late_click", "i", 1, 10.1, as_of_date=dt.date(2026, 2, 4))

    found = label_log(shop, frame, log)
    clicks = {key: row["label_click"] for key, row in found.items()}
    assert clicks == {
        ok: 1, over: 0, before: 0, first: 0, last: 1, asked: 1, other: 0, here: 1, there: 0, clicked: 1, seen: 0, late: 1
    }  # fmt: skip
    bought = found[clicked]
    assert (bought["label_cart"], bought["label_purchase"], bought["label_spend"]) == (1, 1, 17.5)
    assert sum(row["label_cart"] + row["label_purchase"] + row["label_spend"] for row in found.values()) == 19.5
    assert {row[f"mask_{task}"] for row in found.values() for task in shop.tasks} == {1}


def test_of_ratings_the_last_counts(tiny_shop, frame, event):
    stars = {"event": "rate", "value": "rating", "kind": "regression", "label_window": "1d"}
    shop = tiny_shop(days=0)
    shop = shop.model_copy(update={"tasks": {**shop.tasks, "stars": Task(**stars)}})
    log = [event("impression", user, "i", 1, 10) for user in ("unsure", "silent", "nobody")]
    log += [event("rate", "unsure", "i", 1, hour, rating=given) for hour, given in ((12, 4.5), (11, 2.0), (13, None))]
    log += [event("rate", "silent", "i", 1, 12)]
    found = label_log(shop, frame, log).values()
    assert {row["user_key"]: row["label_stars"] for row in found} == {"unsure": 4.5, "silent": 0, "nobody": 0}


def test_an_open_window_is_masked(tiny_shop, frame, event):
    shop = tiny_shop(days=0)
    night = 9  # 2026-02-10
    moments = {"whole": (7, 23.9), "cart_open": (9, 0), "day_open": (8, 0.5), "click_open": (night, 23.5)}
    log = [event("impression", user, "i", day, hour) for user, (day, hour) in moments.items()]
    log += [event("click", "click_open", "i", night, 23.6), event("click", "cart_open", "i", night, 0.1)]
    found = {row["user_key"]: row for row in label_log(shop, frame, log).values()}
    masks = {user: tuple(row[f"mask_{task}"] for task in ("click", "cart", "purchase")) for user, row in found.items()}
    assert masks == {"whole": (1, 1, 1), "cart_open": (1, 1, 0), "day_open": (1, 1, 0), "click_open": (0, 0, 0)}
    assert found["click_open"]["label_click"] == 0  # immature: not told yet
    assert found["cart_open"]["label_click"] == 1


def test_a_task_on_any_item_asks_for_the_next_event(tiny_shop, frame, event):
    tasks = {
        "click": {"event": "click", "label_window": "1m"},
        "goes_on": {"event": "click", "given": "click", "on": "any_item", "label_window": "30m"},
        "stays": {"event": "click", "given": "click", "on": "any_item", "not_before": "2m", "label_window": "30m"},
    }
    scenarios = {name: {"utility": {"click": 1}} for name in ("home_feed", "search")}
    shop = tiny_shop(days=0, negatives={"sampled": 2}, tasks=tasks, scenarios=scenarios)
    log = [event("click", "quick", "i", 1, 10), event("click", "quick", "j", 1, 10 + MINUTE)]
    log += [event("click", "slow", "i", 1, 10), event("click", "slow", "k", 1, 10 + 10 * MINUTE)]
    log += [event("click", "gone", "j", 1, 10), event("click", "gone", "k", 1, 11)]
    found = label_log(shop, frame, log)
    keys = ("label_goes_on", "label_stays", "mask_goes_on")
    assert [tuple(found[row["event_id"]][key] for key in keys) for row in log] == [
        (1, 0, 1), (0, 0, 1), (1, 1, 1), (0, 0, 1), (0, 0, 1), (0, 0, 1)
    ]  # fmt: skip
    drawn = [row for key, row in found.items() if "-" in key]
    assert drawn
    assert {(row["label_click"], row["mask_click"], row["mask_goes_on"], row["mask_stays"]) for row in drawn} == {
        (0, 1, 0, 0)
    }


def test_without_hindsight_an_outcome_knows_only_what_had_arrived(tiny_shop, frame, event):
    shop = tiny_shop(days=0)
    early = event("impression", "u", "i", 1, 10)
    late = event("impression", "u", "i", 1, 10.25, as_of_date=dt.date(2026, 2, 3))
    events = frame(shop, "events", [early, late, event("click", "u", "i", 1, 10.5)])
    shown = impressions(events, shop)
    for hindsight, expected in ((True, late), (False, early)):
        rows = attributed_outcomes(shown, events, shop, hindsight).select(F.col("impression_id")).collect()
        assert [row[0] for row in rows] == [expected["event_id"]]


def test_a_task_given_one_on_any_item_is_refused(tiny_shop, frame):
    tasks = {
        "next": {"event": "click", "on": "any_item", "label_window": "30m"},
        "cart": {"event": "cart", "given": "next", "label_window": "1d"},
    }
    scenarios = {name: {"utility": {"next": 1}} for name in ("home_feed", "search")}
    shop = tiny_shop(days=0, tasks=tasks, scenarios=scenarios)
    empty = frame(shop, "events", [])
    with pytest.raises(InputError, match="name a task on the item itself"):
        attributed_outcomes(impressions(empty, shop), empty, shop, hindsight=True)
