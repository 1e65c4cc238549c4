"""Users whom no feature knows any more: what they bought long ago, rules that look back so far keep off their shelves."""

import dataclasses
import datetime as dt

import duckdb
import pytest

from pipelines.recommend import run

NIGHT = dt.date(2026, 2, 5)
ITEMS = [f"i{n}" for n in range(1, 10)]


@pytest.fixture
def asked(night, publish, publish_good, good_rows):
    """Return a night whose first scenario excludes what was bought in 90 days: by u8 60 days ago, and u9 95 days ago."""
    shop = night.shop
    scenario = shop.scenarios["home_feed"].model_copy(update={"top_n": 5, "exclude": ["purchase_90d"]})
    asked = dataclasses.replace(
        night, shop=shop.model_copy(update={"scenarios": {**shop.scenarios, "home_feed": scenario}})
    )
    publish_good(asked)
    for table in ("items", "item_features"):
        publish(asked, table, [{**good_rows(shop, table)[0], "item_id": item} for item in ITEMS])
    publish(asked, "users", [{"user_key": f"u{n}"} for n in range(1, 10)])
    for user, ago in (("u8", 60), ("u9", 95)):
        bought = [
            {"event_id": f"{user}{item}", "user_key": user, "item_id": item, "event_type": "purchase"}
            for item in ("i2", "i9")
        ]
        publish(asked, "events", bought, NIGHT - dt.timedelta(days=ago))
    popular = {"user_key": "*", "generator": "popular"}
    rows = [{**popular, "scenario": name, "item_id": item} for name in shop.scenarios for item in ITEMS[:8]]
    publish(asked, "candidates", [{**row, "generator_score": 1.0} for row in rows])
    return asked


def test_what_a_silent_user_bought_long_ago_is_not_shown_again(asked):
    run(asked)
    files = asked.warehouse.files("shelf_drafts", [NIGHT])
    rows = duckdb.execute(
        "SELECT user_key, scenario, rank, item_id FROM read_parquet($1) ORDER BY ALL", [files]
    ).fetchall()
    shelves = {(user, name): [item for u, n, _, item in rows if (u, n) == (user, name)] for user, name, _, _ in rows}
    assert [rank for user, name, rank, _ in rows if (user, name) == ("u8", "home_feed")] == [1, 2, 3, 4, 5]
    assert {user for user, _ in shelves} == {"*", *(f"u{n}" for n in range(1, 10))}
    assert shelves["*", "home_feed"] == shelves["u9", "home_feed"] == ["i1", "i2", "i3", "i4", "i5"]
    assert shelves["u8", "home_feed"] == ["i1", "i3", "i4", "i5", "i6"]
    assert shelves["u8", "search"] == shelves["*", "search"]  # where no rule asks for it
