"""Item graph: weight and lift as SQL counts them, no edge of one user alone, hubs capped, triples kept."""

import datetime as dt
import random
from math import sqrt

import duckdb
import pandas as pd
import pytest

from feature_jobs import item_graph as room
from feature_jobs.acts import acts
from feature_jobs.item_graph import item_graph
from feature_jobs.triples import item_triples

pytestmark = pytest.mark.spark

NIGHT = dt.date(2026, 2, 10)


@pytest.fixture
def edges_of(spark, tiny_shop, frame):
    """Return make(log, triples=()) → (head, relation, tail) → (weight, lift)."""

    def make(log, triples=()):
        shop = tiny_shop(days=0)
        items = sorted({row["item_id"] for row in log} | {row.get("anchor_item_id") for row in log} - {None})
        ids = [{"feature": "item", "value": v, "index": n + 1} for n, v in enumerate(items)]
        own = spark.createDataFrame(list(triples), "head string, relation string, tail string")
        rows = item_graph(
            acts(frame(shop, "events", log), shop), own, frame(shop, "vocabularies", ids), shop, NIGHT
        ).collect()
        return {(row["head"], row["relation"], row["tail"]): (row["weight"], row["lift"]) for row in rows}

    return make


def test_what_all_did_on_one_day_weighs_the_cosine_of_the_user_sets(edges_of, event):
    baskets = {"u1": "abc", "u2": "ab", "u3": "ac", "u4": "a", "u5": "bd"}
    log = [event("click", user, item, 2) for user, items in baskets.items() for item in items]
    log += [event("click", "u1", "a", 1), event("impression", "u4", "d", 2), event("purchase", "u4", "d", 2)]
    found = edges_of(log, [("a", "goes_with", "z"), ("a", "goes_with", "z"), ("a", "co_click", "b")])
    ab, ac = (2 / sqrt(4 * 3), 2 * 5 / (4 * 3)), (2 / sqrt(4 * 2), 2 * 5 / (4 * 2))
    expected = {("b", "co_click", "a"): ab, ("c", "co_click", "a"): ac, ("a", "co_click", "c"): ac}
    expected |= {("a", "goes_with", "z"): (1, None), ("a", "co_click", "b"): (1, ab[1])}  # said by the shop, too
    assert set(found) == set(expected)
    for edge, (weight, lift) in expected.items():
        assert found[edge] == (pytest.approx(weight), lift and pytest.approx(lift)), edge


def _random_log(seed, event):
    chance, log = random.Random(seed), []
    for _ in range(400):
        kind = chance.choice(["click", "click", "cart", "purchase", "page", "impression"])
        user, item = f"u{chance.randrange(25)}", f"i{min(chance.randrange(12), chance.randrange(12))}"
        row = event("impression" if kind == "page" else kind, user, item, chance.randrange(10), chance.random() * 24)
        if kind == "page":
            row |= {"anchor_item_id": f"i{chance.randrange(6)}", "position": chance.choice([1, 1, 2])}
        elif kind == "impression":
            row |= {"query": "thing", "position": 1}
        log.append(row)
    return log


@pytest.mark.parametrize("seed", [1, 2])
def test_weights_and_lifts_of_a_random_shop_agree_with_sql(edges_of, event, monkeypatch, seed):
    monkeypatch.setattr(room, "ITEMS_PER_USER", 4)
    rows = _random_log(seed, event)
    found, log = edges_of(rows), pd.DataFrame(rows)  # noqa: F841 (DuckDB reads it by name)
    expected = duckdb.sql("""
        with acts as (
            select if(event_type = 'impression', 'view', event_type) kind, user_key,
                   if(event_type = 'impression', anchor_item_id, item_id) item, max(event_ts) ts
            from log where event_type <> 'impression' or (anchor_item_id is not null and position = 1) group by all),
        latest as (
            select *, 0.5 ** (epoch(timestamptz '2026-02-10 16:00:00+00' - ts) / 86400 / 14) worth from acts
            qualify row_number() over (partition by kind, user_key order by ts desc, item) <= 4),
        item as (select kind, item, count(*) users, sum(worth) worth from latest group by all),
        everybody as (select kind, count(distinct user_key) users from latest group by all)
        select a.item head, 'co_' || a.kind relation, b.item tail,
               sum(sqrt(a.worth * b.worth)) / sqrt(any_value(x.worth * y.worth)) weight,
               count(*) * any_value(e.users) / any_value(x.users * y.users) lift
        from latest a join latest b on a.kind = b.kind and a.user_key = b.user_key and a.item <> b.item
        join item x on x.kind = a.kind and x.item = a.item join item y on y.kind = b.kind and y.item = b.item
        join everybody e on e.kind = a.kind group by all having count(*) > 1""").fetchall()
    assert {relation for _, relation, *_ in expected} == {"co_click", "co_cart", "co_purchase", "co_view"}
    assert set(found) == {row[:3] for row in expected} and len(expected) > 100
    for *edge, weight, lift in expected:
        assert found[tuple(edge)] == pytest.approx((weight, lift), rel=1e-5), edge


def test_heads_keep_their_strongest_edges(edges_of, event, monkeypatch):
    monkeypatch.setattr(room, "EDGES_PER_HEAD", 2)
    monkeypatch.setattr(room, "ITEMS_PER_USER", 4)
    log = [event("click", user, item, 1, n) for user in ("u1", "u2", "u3") for n, item in enumerate("abcd")]
    log += [event("click", user, "e", 1, 9) for user in ("u2", "u3")]  # pushes a out of u2's and u3's last four
    found = edges_of(log)
    assert {tail for head, _, tail in found if head == "d"} == {"b", "c"}
    assert {key for key in found if key[0] == "a"} == set()


def test_neither_a_busy_user_nor_a_busy_item_fills_the_graph(edges_of, event, monkeypatch):
    """Two users with 300 items, and an item that every one of 80 others clicked beside one of 40."""
    monkeypatch.setattr(room, "EDGES_PER_TAIL", 15)
    log = [event("click", user, f"many{n:03d}", 1, n / 20) for user in ("u1", "u2") for n in range(300)]
    log += [event("click", f"v{n}", item, 1) for n in range(80) for item in ("hot", f"cold{n // 2}")]
    found = edges_of(log)
    of_busy = [head for head, _, _ in found if head.startswith("many")]
    assert set(of_busy) == {f"many{n}" for n in range(200, 300)}  # the latest, and at most so many edges each
    assert max(of_busy.count(head) for head in set(of_busy)) <= room.EDGES_PER_HEAD
    assert sum(tail == "hot" for _, _, tail in found) == 15
    assert sum(head == "hot" for head, _, _ in found) == room.EDGES_PER_HEAD


def test_what_an_item_is_becomes_triples(tiny_shop, frame):
    shop = tiny_shop(days=0)
    items = [{"item_id": "i1", "category_1": "c", "category_2": "c/d", "brand": "red", "attribute_colour": "red"}]
    features = [{"item_id": "i1", "price_band": 7}, {"item_id": "i2", "price_band": 0}, {"item_id": "gone"}]
    rows = item_triples(frame(shop, "items", [*items, {"item_id": "i2"}]), frame(shop, "item_features", features), shop)
    assert {tuple(row) for row in rows.collect()} == {
        ("i1", "in_category_1", "category_1:c"), ("i1", "in_category_2", "category_2:c/d"),
        ("i1", "of_brand", "brand:red"), ("i1", "has_colour", "attribute_colour:red"),
        ("i1", "in_price_band", "price_band:7"),
    }  # fmt: skip
