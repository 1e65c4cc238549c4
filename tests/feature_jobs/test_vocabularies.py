"""Vocabularies: ids stay while a value is seen, rare values share buckets, and old ids go to new values in time."""

import datetime as dt
import hashlib

import duckdb
import pytest

from feature_jobs.vocabularies import add_index, vocabularies
from nightshelf.errors import InputError
from nightshelf.feature_tables import OOV_BUCKETS

pytestmark = pytest.mark.spark

DAY = dt.date(2026, 2, 2)
NEXT = OOV_BUCKETS + 1


@pytest.fixture
def night(frame):
    """Return make(shop, previous, users, items=(), members=(), queries=(), day=DAY) → rows of the night by (feature, value).

    users: each stands for one click on the item i1 on that day. items: (item, brand) of its catalogue.
    """

    def make(shop, previous, users, items=(), members=(), queries=(), day=DAY):
        clicks = {"as_of_date": day, "click_count": 1}
        rows = vocabularies(
            frame(shop, "vocabularies", [{**row, "feature": f, "value": v} for (f, v), row in previous.items()]),
            frame(shop, "user_days", [{**clicks, "user_key": user} for user in users]),
            frame(shop, "item_days", [{**clicks, "item_id": "i1"} for _ in users]),
            frame(shop, "acts", [{"as_of_date": day, "event_type": "searched", "query": query} for query in queries]),
            frame(shop, "items", [{"as_of_date": day, "item_id": i, "brand": b} for i, b in items]),
            frame(shop, "users", [{"as_of_date": day, "user_key": u, "user_age_band": a} for u, a in members]),
            shop,
            day,
        ).collect()
        found = {(row["feature"], row["value"]): row.asDict() for row in rows}
        assert len(found) == len({(row["feature"], row["index"]) for row in rows}) == len(rows)
        return found

    return make


def ids_of(found, feature="user"):
    """Return value → id of those that have one."""
    return {v: row["index"] for (f, v), row in found.items() if f == feature and row["evicted_on"] is None}


def test_ids_stay_and_new_values_get_the_next_in_alphabetical_order(tiny_shop, night):
    shop = tiny_shop(days=0)
    first = night(shop, {}, ["c", "b", "c"], [("i2", "B")], [("never_seen", "old"), ("c", "old")])
    assert ids_of(first) == {"b": NEXT, "c": NEXT + 1}
    assert ids_of(first, "item") == {"i1": NEXT, "i2": NEXT + 1}
    assert (ids_of(first, "brand"), ids_of(first, "user_age_band")) == ({"B": NEXT}, {"old": NEXT})
    row = first["user", "c"]
    assert (row["count"], row["since"], row["last_seen"], row["as_of_date"]) == (2, DAY, DAY, DAY)
    assert first["user_age_band", "old"]["count"] == 2
    later = DAY + dt.timedelta(days=1)
    second = night(shop, first, ["c", "a"], day=later)
    assert ids_of(second) == {"b": NEXT, "c": NEXT + 1, "a": NEXT + 2}
    gone, back, new = (second["user", user] for user in "bca")
    assert [row["since"] for row in (gone, back, new)] == [DAY, DAY, later]
    assert [row["last_seen"] for row in (gone, back, new)] == [DAY, later, later]
    assert gone["count"] == 0
    assert night(shop, first, ["a", "c"], day=later) == second  # the same night again


def test_an_id_rests_before_another_value_gets_it(tiny_shop, night):
    limits = {"evict_after_days": 10, "reuse_after_days": 5, "min_count": {"user": 2}}
    shop = tiny_shop(days=0, history_days=2, vocabularies=limits)
    found, ids = night(shop, {}, ["a", "b", "c", "x"] * 2), []
    a, b, c, x = range(NEXT, NEXT + 4)
    assert ids_of(found) == {"a": a, "b": b, "c": c, "x": x}
    for after, users in ((9, "cc"), (10, "ccaa"), (14, "bcdxxgg"), (15, "cdd"), (16, "ffeebb")):
        found = night(shop, found, list(users), day=DAY + dt.timedelta(days=after))
        ids.append(ids_of(found))
    assert ids[0] == {"a": a, "b": b, "c": c, "x": x}  # nine days unseen: still there
    assert ids[1] == {"a": a, "c": c}  # a came in time, b and x are evicted
    # x is back; one event keeps an id, as c's, but gives none to b and d; b's id still rests, and g gets another
    assert ids[2] == {"a": a, "c": c, "x": x, "g": x + 1}
    assert ids[3] == ids[2] | {"d": b}  # five days after the eviction of b
    assert ids[4] == ids[3] | {"b": x + 2, "e": x + 3, "f": x + 4}
    since = {user: (found["user", user]["since"] - DAY).days for user in "cxdb"}
    assert since == {"c": 0, "x": 0, "d": 15, "b": 16}


def test_values_without_an_id_share_the_bucket_that_their_hash_names(spark, frame, tiny_shop, night):
    shop = tiny_shop(days=0, vocabularies={"min_count": {"brand": 2}, "evict_after_days": 1})
    found = night(shop, {}, ["u"], [("i1", "rare"), ("i2", "often"), ("i3", "often"), ("i4", "gone"), ("i5", "gone")])
    assert set(ids_of(found, "brand")) == {"often", "gone"}
    found = night(shop, found, ["u"], [("i2", "often")], day=DAY + dt.timedelta(days=1))
    words = frame(shop, "vocabularies", list(found.values()))
    named = spark.createDataFrame([("often",), ("rare",), ("gone",), ("größer",), (None,)], "brand string")
    rows = add_index(named, words, "brand", "brand", "index").collect()
    expected = {
        v: 1 + int(hashlib.sha256(v.encode()).hexdigest()[:8], 16) % OOV_BUCKETS for v in ("rare", "gone", "größer")
    }
    assert {row["brand"]: row["index"] for row in rows} == {
        **expected,
        "often": ids_of(found, "brand")["often"],
        None: 0,
    }
    assert found["brand", "gone"]["bucket"] == expected["gone"]
    same = f"select 1 + ('0x' || substr(sha256('größer'), 1, 8))::bigint % {OOV_BUCKETS}"
    assert duckdb.sql(same).fetchall() == [(expected["größer"],)]


@pytest.mark.parametrize(
    ("name", "said"), [("item", "needs its own"), ("brnd", "no vocabulary; known: user, user_age")]
)
def test_a_cut_that_cannot_be_is_told(tiny_shop, name, said):
    with pytest.raises(InputError, match=said):
        tiny_shop(days=0, vocabularies={"min_count": {name: 2}})


def test_words_of_queries_get_ids_once_three_queries_hold_them(tiny_shop, night):
    queries = ["red shoe", "Red, shoe!", "red", "shoe shoe", "Über 2"]
    assert ids_of(night(tiny_shop(days=0), {}, ["u"], queries=queries), "query_token") == {
        "red": NEXT,
        "shoe": NEXT + 1,
    }
    two = tiny_shop(days=0, vocabularies={"min_count": {"query_token": 1}})
    assert set(ids_of(night(two, {}, ["u"], queries=queries), "query_token")) == {"red", "shoe", "über", "2"}
