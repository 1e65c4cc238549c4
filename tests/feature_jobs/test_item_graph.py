"""Item graph: cosine of user sets, no edge of one user alone, hubs capped, the shop's own triples kept."""

import datetime as dt
from math import sqrt

import pytest

from feature_jobs import item_graph as room
from feature_jobs.item_graph import item_graph

pytestmark = pytest.mark.spark

NIGHT = dt.date(2026, 2, 10)


def edges_of(spark, shop, frame, log, triples=()):
    items = sorted({row["item_id"] for row in log})
    words = frame(shop, "vocabularies", [{"feature": "item", "value": v, "index": n + 1} for n, v in enumerate(items)])
    own = spark.createDataFrame(list(triples), "head string, relation string, tail string")
    rows = item_graph(frame(shop, "events", log), own, words, shop, NIGHT).collect()
    return {(row["head"], row["relation"], row["tail"]): row["weight"] for row in rows}


def test_the_weight_is_the_cosine_of_the_user_sets(spark, tiny_shop, frame, event):
    baskets = {"u1": "abc", "u2": "ab", "u3": "ac", "u4": "a", "u5": "bd"}
    log = [event("click", user, item, 1) for user, items in baskets.items() for item in items]
    log += [event("click", "u1", "a", 2), event("impression", "u4", "d", 1), event("purchase", "u4", "d", 1)]
    found = edges_of(spark, tiny_shop(days=0), frame, log, [("a", "goes_with", "z"), ("a", "goes_with", "z")])
    ab, ac = 2 / sqrt(4 * 3), 2 / sqrt(4 * 2)
    expected = {("a", "co_click", "b"): ab, ("a", "co_click", "c"): ac, ("a", "goes_with", "z"): 1.0}
    expected |= {("b", "co_click", "a"): ab, ("c", "co_click", "a"): ac}
    assert found == pytest.approx(expected)


def test_heads_keep_their_strongest_edges(spark, tiny_shop, frame, event, monkeypatch):
    monkeypatch.setattr(room, "EDGES_PER_HEAD", 2)
    monkeypatch.setattr(room, "ITEMS_PER_USER", 4)
    log = [event("click", user, item, 1, n) for user in ("u1", "u2", "u3") for n, item in enumerate("abcd")]
    log += [event("click", user, "e", 1, 9) for user in ("u2", "u3")]  # pushes a out of u2's and u3's last four
    found = edges_of(spark, tiny_shop(days=0), frame, log)
    assert {tail for head, _, tail in found if head == "d"} == {"b", "c"}
    assert {key for key in found if key[0] == "a"} == set()
