"""Vocabularies: ids stay, new values get the next ones in alphabetical order."""

import datetime as dt

import pytest

from feature_jobs.vocabularies import vocabularies

pytestmark = pytest.mark.spark

DAY = dt.date(2026, 2, 2)


def test_ids_stay_and_new_values_get_the_next(spark, tiny_shop, frame, event):
    shop = tiny_shop(days=0)
    seen = frame(shop, "events", [event("click", u, i, 1) for u, i in [("b", "i9"), ("c", "i1"), ("a", "i1")]])
    items = frame(shop, "items", [{"as_of_date": DAY, "item_id": "i2", "category_3": "c", "attribute_colour": "red"}])
    users = frame(shop, "users", [{"as_of_date": DAY, "user_key": "never_seen", "user_age_band": "old"}])
    previous = frame(
        shop,
        "vocabularies",
        [{"as_of_date": DAY, "feature": "user", "value": v, "index": n} for v, n in [("c", 1), ("gone", 2)]],
    )
    rows = vocabularies(previous, seen, items, users, shop, DAY).collect()
    ids = {(row["feature"], row["value"]): row["index"] for row in rows}
    assert ids == {
        ("user", "c"): 1, ("user", "gone"): 2, ("user", "a"): 3, ("user", "b"): 4,
        ("item", "i1"): 1, ("item", "i2"): 2, ("item", "i9"): 3,
        ("category_3", "c"): 1, ("attribute_colour", "red"): 1, ("user_age_band", "old"): 1,
    }  # fmt: skip
    assert {row["as_of_date"] for row in rows} == {DAY}
