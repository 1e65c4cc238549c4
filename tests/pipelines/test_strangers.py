"""Users whom no feature knows any more: what they bought long ago, rules that look back so far keep off their shelves."""

import dataclasses
import datetime as dt
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import shelf_rows
from pipelines.recommend import run
from pipelines.segments import Segments
from pipelines.shelf_rows import for_all
from pipelines.strangers import strangers_of

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


def test_each_who_acted_has_a_number_below_those_of_the_segments_and_is_scored_as_one_of_theirs(tmp_path):
    """Of `d` rules exclude nothing that may be shown, and all of the second segment acted."""
    acts = [("c", "i1"), ("c", "i3"), ("d", "i4"), ("f", "i2"), ("g", "i1"), ("b", "i2"), ("known", "i1")]
    rows = {"user_key": [user for user, _ in acts], "item_id": [item for _, item in acts]}
    pq.write_table(pa.table(rows | {"event_type": ["purchase"] * len(acts)}), tmp_path / "events.parquet")
    files = (str(tmp_path / "events.parquet"),)
    plan = SimpleNamespace(acted={"purchase_90d": ("purchase", files), "purchase_30d": ("purchase", files)})
    segments = Segments(np.zeros((2, 1), np.int32), [["c", "d", "e"], ["f", "g"]], ["a", "b"])
    found = strangers_of(plan, segments, pa.array(["i1", "i2", "i3", "i4"]), np.array([0, 1, 2]))
    assert found.members == {-1: ["*", "a"], -2: ["d", "e"], -4: ["b"], -5: ["c"], -6: ["f"], -7: ["g"]}
    assert {number: some.tolist() for number, some in found.numbers.items()} == {
        -1: [-4, -1],
        -2: [-5, -2],
        -3: [-7, -6],
    }
    pairs = {(-4, 1), (-5, 0), (-5, 2), (-6, 1), (-7, 0)}
    assert {name: [divmod(pair, 4) for pair in of.tolist()] for name, of in found.acted_on.items()} == {
        "purchase_90d": sorted(pairs)
    }


def test_every_member_gets_each_row_of_the_shelf_some_of_them_at_a_time(monkeypatch):
    monkeypatch.setattr(shelf_rows, "_USERS_AT_ONCE", 2)
    rows = pa.table({"rank": [1, 2, 1, 1, 2, 3], "user_key": [""] * 6, "item_id": ["a", "b", "c", "d", "e", "f"]})
    members = {-5: ["u", "v", "w"], -3: ["x"], -1: ["y", "*"]}
    parts = list(for_all(rows, np.array([-5, -5, -3, -1, -1, -1]), members))
    got = [(row["user_key"], row["rank"], row["item_id"]) for part in parts for row in part.to_pylist()]
    assert len(parts) == 3
    assert got == [
        *((user, rank, item) for user in "uvw" for rank, item in ((1, "a"), (2, "b"))),
        ("x", 1, "c"),
        *((user, rank, item) for user in "y*" for rank, item in ((1, "d"), (2, "e"), (3, "f"))),
    ]
