"""What the generators reached, counted by hand; and the warning when they reach much less than usual."""

import datetime as dt

import pytest

from pipelines.candidate_recall import ALL, candidate_recall, check_candidate_recall
from pipelines.report_sections import candidate_recall as section
from pipelines.sql import connect

DAY, EVE = dt.date(2026, 2, 5), dt.date(2026, 2, 4)
# user, scenario, item, generator of the night before
CANDIDATES = [
    *[("u1", "*", "i1", "related"), ("u1", "*", "i1", "own_history"), ("u1", "*", "i2", "affinity")],
    *[("u2", "*", "i3", "related"), ("*", "search", "i4", "popular"), ("*", "*", "i5", "fresh")],
]  # fmt: skip
# event, user, scenario, item, day
ACTS = [
    *[("click", "u1", "search", "i1", DAY)] * 2,  # once a day
    ("click", "u1", "home_feed", "i2", DAY),
    ("click", "u1", "search", "i3", DAY),  # another user's candidate
    ("click", "u9", "search", "i4", DAY),  # a stranger, but everybody's in search
    ("click", "u9", "home_feed", "i4", DAY),  # … and not here
    ("click", "u9", "home_feed", "i5", DAY),
    ("click", "u2", "search", "i3", EVE),  # came late: no outcome of this day
    ("purchase", "u1", "search", "i1", DAY),
    ("purchase", "u1", "search", "i6", DAY),
    ("searched", "u1", "search", "i1", DAY),
]


@pytest.fixture
def reached(night, publish):
    keys = ("user_key", "scenario", "item_id", "generator")
    publish(night, "candidates", [dict(zip(keys, row, strict=True)) for row in CANDIDATES], EVE)
    keys = ("event_type", "user_key", "scenario", "item_id", "event_date")
    publish(night, "acts", [dict(zip(keys, row, strict=True)) for row in ACTS], DAY)
    return night


def test_an_outcome_is_reached_by_who_proposed_it_to_that_user_there(reached):
    rows = candidate_recall(reached)
    assert {row["candidates_of"] for row in rows} == {EVE}
    clicks = {row["generator"]: (row["outcomes"], row["found"]) for row in rows if row["event_type"] == "click"}
    assert clicks == {
        ALL: (6, 4), "own_history": (6, 1), "related": (6, 1), "affinity": (6, 1), "brand": (6, 0), "fresh": (6, 1),
        "popular": (6, 1),
    }  # fmt: skip
    bought = {row["generator"]: row["recall"] for row in rows if row["event_type"] == "purchase"}
    assert (bought[ALL], bought["related"], bought["popular"]) == (0.5, 0.5, 0)
    assert {row["event_type"] for row in rows} == {"click", "purchase"}  # of carts there were none


def test_it_is_published_and_shown(reached):
    assert all(row["success"] for row in check_candidate_recall(reached))
    shown = section(connect(reached.warehouse), DAY)
    assert (shown[0]["generator"], shown[0]["recalls"]) == (ALL, {"click": pytest.approx(4 / 6), "purchase": 0.5})
    assert len(shown) == 7


def test_a_fall_far_below_the_usual_is_a_warning(reached, publish):
    for n in (1, 2, 3):
        day = {"candidates_of": EVE, "outcomes": 9, "found": 9}
        past = [{**day, "event_type": event, "generator": ALL, "recall": 1.0} for event in ("click", "purchase")]
        publish(reached, "candidate_recall", past, EVE - dt.timedelta(days=n))
    found = {
        row["column_name"]: row for row in check_candidate_recall(reached) if row["expectation"] == "recall_as_usual"
    }
    assert {event: (row["success"], row["severity"]) for event, row in found.items()} == {
        "click": (True, "warn"), "purchase": (True, "warn")
    }  # fmt: skip
    publish(reached, "candidates", [{"user_key": "u1", "scenario": "*", "item_id": "i1", "generator": "related"}], EVE)
    found = {
        row["column_name"]: row for row in check_candidate_recall(reached) if row["expectation"] == "recall_as_usual"
    }
    assert not found["click"]["success"]
    assert found["click"]["expected"] == "at least 0.5000, 0.5 times the 1.0000 of the last nights"
    assert found["purchase"]["success"]


def test_a_first_night_has_none(night, publish):
    assert candidate_recall(night) == []
    assert check_candidate_recall(night) == []
