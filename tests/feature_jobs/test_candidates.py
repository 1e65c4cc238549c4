"""Candidates: each generator proposes what it should, of the catalogue only, with what ties it to the user."""

import datetime as dt
import hashlib
import math

import pytest

from feature_jobs.acts import acts
from feature_jobs.candidates import EVERYBODY, EVERYWHERE, FRESH_ITEMS, CandidateInputs, candidates, fresh
from feature_jobs.item_quality import item_quality
from feature_jobs.own_items import own_items
from nightshelf.rebuy import Rebuy

pytestmark = pytest.mark.spark

NIGHT = dt.date(2026, 2, 10)


@pytest.fixture
def found(tiny_shop, frame, event):
    shop = tiny_shop(days=0)
    items = [("a", "c/x", "B1"), ("b", "c/x", "B2"), ("c", "c/y", "B2"), ("d", "c/y", None), ("e", None, None)]
    catalogue = [{"as_of_date": NIGHT, "item_id": i, "category_3": c, "brand": b} for i, c, b in items]
    rate = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.05, "gone": 0.9}
    features = [
        {"item_id": i, "item_click_rate_30d": r, "item_age_days": age}
        for (i, r), age in zip(rate.items(), (1.0, 30.0, 0.0, 31.0, 365.0, 0.0), strict=True)
    ]
    there = [{"scenario": "search", "item_id": "a", "item_scenario_click_rate_30d": 0.8}]
    graph = [
        ("a", "co_click", "e", 0.5),
        ("a", "co_cart", "e", 0.25),
        ("b", "co_click", "c", 0.3),
        ("a", "co_click", "gone", 1.0),
        ("a", "of_brand", "d", 1.0),  # what an item is, be it called like an item
        ("e", "goes_with", "d", 0.5),  # a and e and d: two steps
        ("e", "co_click", "a", 0.5),  # … and back again
        ("c", "co_click", "b", 0.3),
        ("c", "co_click", "e", 0.1),
    ]
    edges = [dict(zip(("head", "relation", "tail", "weight"), edge, strict=True)) for edge in graph]
    log = [event("click", "u", "a", 9), event("purchase", "u", "b", 8), event("click", "u", "gone", 9)]
    log += [event("impression", "v", "c", 9, query="q", position=1)]
    for user in "xy":  # two do the same: that is a step
        log += [event("click", user, item, 9, hour) for hour, item in ((8, "a"), (8, "a"), (9, "d"), (10, "c"))]
    log += [event("click", "z", item, 9, hour) for hour, item in ((8, "d"), (9, "e"), (10, "a"))]  # one alone is none
    done = acts(frame(shop, "events", [*log, event("purchase", "u", "gone", 9)]), shop)
    inputs = CandidateInputs(
        done,
        frame(shop, "items", catalogue),
        frame(shop, "item_features", features),
        frame(shop, "item_scenario_features", there),
        frame(shop, "item_graph", edges),
        own_items(done, Rebuy(event="purchase"), [NIGHT]),
    )
    return [row.asDict() for row in candidates(inputs, shop, NIGHT).collect()]


def _of(rows, generator, user="u"):
    mine = [row for row in rows if (row["generator"], row["user_key"]) == (generator, user)]
    return sorted(mine, key=lambda row: (row["scenario"], -row["generator_score"], row["item_id"]))


def test_each_generator_proposes_what_it_should(found):
    shown = _of(found, "popular", EVERYBODY)  # by the utility of each scenario
    assert [row["item_id"] for row in shown if row["scenario"] == "home_feed"] == ["d", "c", "b", "a", "e"]
    assert [row["item_id"] for row in shown if row["scenario"] == "search"] == ["a", "d", "c", "b", "e"]
    newest = _of(found, "fresh", EVERYBODY)
    assert [row["item_id"] for row in newest] == ["c", "a", "b"]  # no older ones, to fill up
    assert {row["scenario"] for row in newest} == {EVERYWHERE}
    assert [row["item_id"] for row in _of(found, "rebuy")] == ["b"]  # of what is still in the catalogue
    assert [row["item_id"] for row in _of(found, "own_history")] == ["b", "a"]  # the purchase weighs more
    assert _of(found, "own_history", "v") == []  # a search is no outcome
    liked = [(row["item_id"], row["because"]) for row in _of(found, "affinity")]
    assert liked == [("b", "c/x"), ("a", "c/x")]
    assert [(row["item_id"], row["because"]) for row in _of(found, "affinity", "v")] == [("d", "c/y"), ("c", "c/y")]
    assert {row["because"] for row in _of(found, "brand")} == {"B1", "B2"}
    assert {(row["item_id"], row["because"]) for row in _of(found, "related")} == {("e", "a"), ("c", "b")}
    walks = {(row["item_id"], row["because"]): row["generator_score"] for row in _of(found, "graph_walk")}
    weight = {"a": 2.0 ** (-0.5 / 7), "b": math.log2(6) * 2.0 ** (-1.5 / 7)}  # by age and by what the act is worth
    # a, e, d: .75 × .5; b, c, e: .3 × .1. Not back to a or b, and not to what an edge ties to the item itself.
    expected = {("d", "a"): weight["a"] * 0.375, ("e", "b"): weight["b"] * 0.03}
    assert walks == {key: pytest.approx(value, rel=1e-3) for key, value in expected.items()}
    # After a came d twice, and c twice over d; u's last item is a, for "gone" is not in the catalogue. b led nowhere.
    step, far = 2 * 2.0 ** (-16 / 24 / 7), 2 * 0.5 * 2.0 ** (-16 / 24 / 7)
    onwards = 2 * 2.0 ** (-15 / 24 / 7)  # from d to c
    after_a = step + far
    chain = {row["item_id"]: (row["because"], row["generator_score"]) for row in _of(found, "next_item")}
    assert chain == {
        "d": ("a", pytest.approx(step / (after_a * step) ** 0.5, rel=1e-3)),
        "c": ("a", pytest.approx(far / (after_a * (far + onwards)) ** 0.5, rel=1e-3)),
    }
    assert _of(found, "next_item", "v") == []
    # Only the catalogue is proposed, and nothing twice.
    assert {row["item_id"] for row in found} == set("abcde")
    keys = [tuple(row[k] for k in ("user_key", "scenario", "item_id", "generator")) for row in found]
    assert len(keys) == len(set(keys))
    assert {row["as_of_date"] for row in found} == {NIGHT}


def test_of_the_new_items_that_a_shelf_may_show_each_night_draws_others(tiny_shop, frame, tmp_path):
    shop = tiny_shop(days=0, blocked=str(tmp_path / "blocked.txt"))
    (tmp_path / "blocked.txt").write_text("i010\ni011\n")
    search = shop.scenarios["search"].model_copy(update={"exclude": ["out_of_stock", "price_over_20"]})
    shop = shop.model_copy(update={"scenarios": dict.fromkeys(shop.scenarios, search)})
    # The lowest ids are blocked, out of stock, or too dear; ten are of today, 100 of the day before
    items = [f"i{n:03}" for n in range(10, 130)]
    away = {"i010", "i011", "i012", "i013"}
    catalogue = [
        {"item_id": item, "stock": 0 if item == "i012" else None, "price": 20.5 if item == "i013" else 5.0}
        for item in items
    ]
    age = {item: float(n < 110) for n, item in enumerate(items)}
    features = [{"item_id": item, "item_age_days": age[item]} for item in items]
    quality = item_quality(frame(shop, "items", catalogue), frame(shop, "item_features", features), shop)
    seen = set()
    for night in (NIGHT + dt.timedelta(days=n) for n in range(3)):
        found = sorted(fresh(quality, night).collect(), key=lambda row: -row.generator_score)
        drawn = {i: int(hashlib.sha256(f"{night} {i}".encode()).hexdigest()[:4], 16) / 2**16 for i in items}
        expected = sorted(set(items) - away, key=lambda item: (age[item] - drawn[item], item))[:FRESH_ITEMS]
        assert [row.item_id for row in found] == expected
        assert [row.generator_score for row in found] == [drawn[item] - age[item] for item in expected]
        assert {item for item in items if age[item] == 0} < set(expected)
        seen |= set(expected)
    assert len(seen) > 2 * FRESH_ITEMS - 10


def test_without_impressions_the_popular_are_those_that_are_chosen_most(tiny_shop, frame):
    shop = tiny_shop(days=0, negatives={"sampled": 4})
    # What was chosen once has the better rate: the few items that were drawn beside it
    chosen = {"often": (40, 0.2), "now and then": (25, 0.25), "once": (1, 0.5), "never": (0, 0.2)}
    catalogue = [{"as_of_date": NIGHT, "item_id": item, "category_3": "c", "brand": "b"} for item in chosen]
    features = [
        {"item_id": item, "item_click_count_30d": count, "item_click_rate_30d": rate, "item_age_days": 99.0}
        for item, (count, rate) in chosen.items()
    ]
    there = [
        {"scenario": "search", "item_id": item, "item_scenario_click_count_30d": count}
        | {"item_scenario_click_rate_30d": chosen[item][1]}
        for item, count in (("now and then", 9), ("once", 1))
    ]
    frames = {"items": catalogue, "item_features": features, "item_scenario_features": there, "item_graph": []}
    inputs = CandidateInputs(
        acts(frame(shop, "events", []), shop), *(frame(shop, table, rows) for table, rows in frames.items())
    )
    rows = [row.asDict() for row in candidates(inputs, shop, NIGHT).collect()]
    best = {
        name: [row["item_id"] for row in _of(rows, "popular", EVERYBODY) if row["scenario"] == name]
        for name in shop.scenarios
    }
    assert best["home_feed"] == ["often", "now and then", "once", "never"]  # nobody has come yet: as everywhere
    assert best["search"] == ["now and then", "often", "once", "never"]  # ten choices do not hide what all others say
