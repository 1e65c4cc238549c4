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
ACT_KEYS = ("event_type", "user_key", "scenario", "item_id", "event_date")
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
    publish(night, "acts", [dict(zip(ACT_KEYS, row, strict=True)) for row in ACTS], DAY)
    return night


def test_an_outcome_is_reached_by_who_proposed_it_to_that_user_there(reached):
    rows = candidate_recall(reached)
    assert {row["candidates_of"] for row in rows} == {EVE}
    clicks = {row["generator"]: (row["outcomes"], row["found"]) for row in rows if row["event_type"] == "click"}
    assert clicks == {
        ALL: (6, 4), "own_history": (6, 1), "related": (6, 1), "affinity": (6, 1), "brand": (6, 0), "fresh": (6, 1),
        "next_item": (6, 0), "graph_walk": (6, 0),
        "popular": (6, 1),
    }  # fmt: skip
    # u1 searched and was at home with three items of his own, u9 had everybody's two in search and one elsewhere
    sizes = {row["generator"]: row["candidates_per_user"] for row in rows if row["event_type"] == "click"}
    assert sizes == {
        ALL: (5 + 4 + 2 + 1) / 4, "own_history": 2 / 4, "related": 2 / 4, "affinity": 2 / 4, "brand": 0, "fresh": 1,
        "next_item": 0, "graph_walk": 0,
        "popular": 2 / 4,
    }  # fmt: skip
    bought = {row["generator"]: row["recall"] for row in rows if row["event_type"] == "purchase"}
    assert (bought[ALL], bought["related"], bought["popular"]) == (0.5, 0.5, 0)
    assert {row["event_type"] for row in rows} == {"click", "purchase"}  # of carts there were none


def test_of_all_together_the_best_of_every_generator_come_first(reached, publish, monkeypatch):
    keys = ("user_key", "scenario", "item_id", "generator", "generator_score")
    rows = [("u", "*", f"o{n}", "own_history", 9.0 - n) for n in range(3)] + [("u", "*", "o1", "affinity", 5.0)]
    rows += [("u", "*", f"a{n}", "affinity", 1.0 - n) for n in range(2)]
    rows += [("*", "search", f"p{n}", "popular", 0.5 - n) for n in range(3)]
    publish(reached, "candidates", [dict(zip(keys, row, strict=True)) for row in rows], EVE)
    # own_history, affinity, popular; of o1 the better place counts
    order = ["o0", "o1", "p0", None, "a0", "p1", "o2", "a1", "p2"]
    for most in range(1, 10):
        monkeypatch.setattr("pipelines.candidate_recall.CANDIDATES", most)
        bought = [("purchase", "u", "search", item, DAY) for item in order if item]
        publish(reached, "acts", [dict(zip(ACT_KEYS, row, strict=True)) for row in bought], DAY)
        found = {row["generator"]: row for row in candidate_recall(reached)}
        assert found[ALL]["found"] == sum(item is not None for item in order[:most])
        assert [found[name]["candidates_per_user"] for name in (ALL, "affinity")] == [most, 3]  # of one nothing is cut


def test_it_is_published_and_shown(reached):
    assert all(row["success"] for row in check_candidate_recall(reached))
    shown = section(connect(reached.warehouse), DAY)
    assert (shown[0]["generator"], shown[0]["recalls"]) == (ALL, {"click": pytest.approx(4 / 6), "purchase": 0.5})
    assert {row["generator"] for row in shown} == {ALL, *reached.shop.generators}
    assert shown[0]["candidates"] == pytest.approx((3 + 5) / 2)


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


def test_a_generator_that_falls_silent_is_a_warning(reached, publish):
    usual = {"fresh": 0.5, "brand": 0.5, "affinity": 0.01, "popular": 0.0}
    for n in (1, 2, 3):
        past = [
            {
                "candidates_of": EVE,
                "outcomes": 9,
                "found": 9,
                "event_type": "click",
                "generator": name,
                "recall": recall,
            }
            for name, recall in usual.items()
        ]
        publish(reached, "candidate_recall", past, EVE - dt.timedelta(days=n))

    def told():
        rows = [row for row in check_candidate_recall(reached) if row["expectation"].startswith("generator_")]
        assert {row["severity"] for row in rows} == {"warn"}
        return {(row["expectation"], row["column_name"]): row["success"] for row in rows}

    proposing = {("generator_proposes", name): True for name in ("fresh", "affinity")}
    assert told() == {**proposing, ("generator_proposes", "brand"): False}  # of six clicks chance may miss all
    clicks = [("click", f"v{n}", "home_feed", "i9", DAY) for n in range(30)]
    publish(reached, "acts", [dict(zip(ACT_KEYS, row, strict=True)) for row in [*clicks, *ACTS[2:3]]], DAY)
    reaching = {("generator_reaches", name): False for name in ("fresh", "brand")}
    assert told() == {**proposing, ("generator_proposes", "brand"): False, **reaching}


def test_a_first_night_has_none(night, publish):
    assert candidate_recall(night) == []
    assert check_candidate_recall(night) == []
