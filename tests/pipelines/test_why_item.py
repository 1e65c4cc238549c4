"""What the explanation of an item's shelf says, over tables of one night written by hand."""

import datetime as dt
import json

import pytest

from nightshelf.errors import InputError
from pipelines.stage import Night
from pipelines.why_item import explain_item, print_why_item

DAY = dt.date(2026, 2, 5)


@pytest.fixture
def shop(night: Night, publish):
    scenarios = {**night.shop.scenarios}
    scenarios["search"] = scenarios["search"].model_copy(update={"anchor": "click"})
    paths = {1: "a/b/c", 2: "a/b/c", 3: None}
    items = [
        {"item_id": f"i{n}", "title": f"item {n}", "category_1": "a", "category_3": path} for n, path in paths.items()
    ]
    publish(night, "items", items)
    tie = {"head": "i1", "tail": "i2", "weight": 0.5}
    publish(night, "item_graph", [{**tie, "relation": relation} for relation in ("goes_with", "co_click")])
    lift = {"scenario": "search", "anchor_category": "a/b/c", "category": "a/b/c", "shown": 100.0}
    publish(night, "anchor_lifts", [{**lift, "outcomes": 30.0, "expected": 10.0, "lift": 2.0}])
    place = {"scenario": "search", "anchor_item_id": "i1", "model_version": "7"}
    places = [
        {"rank": 1, "item_id": "i2", "score": 0.6, "lift": 3.0, "source": "goes_with", "reason": "Goes with item 1"},
        {"rank": 2, "item_id": "i3", "score": -0.4, "lift": 0.5, "source": "popular", "reason": "Popular in search"},
    ]
    publish(night, "item_recommendations", [{**place, **row, "rank_by_score": row["rank"]} for row in places])
    return night.shop.model_copy(update={"scenarios": scenarios})


def test_a_place_is_told_with_its_worth_its_lift_and_the_evidence(shop, capsys):
    found = explain_item(shop, "i1", "search")
    assert (found.title, found.anchor, found.as_of_date, found.model_version) == ("item 1", "click", "2026-02-05", "7")
    first, second = found.places
    assert (first["worth"], first["outcomes"], first["expected"]) == pytest.approx((0.2, 30, 10))
    assert first["relations"] == ["co_click", "goes_with"]
    assert (second["worth"], second["relations"], second["outcomes"]) == (pytest.approx(-0.2), [], None)
    print_why_item(found, "table")
    text = capsys.readouterr().out
    assert "search beside i1 item 1 (its latest act: click), ranked by model 7" in text
    assert "0.6000  │ 0.2000  │ 3.0000 │ 30.0     │ 10.0     │ co_click, goes_with │ Goes with item 1" in text
    print_why_item(found, "json")
    assert json.loads(capsys.readouterr().out)["places"][1]["item_id"] == "i3"


def test_the_night_before_a_rollback_can_be_explained(shop, night, publish):
    warehouse, eve = night.warehouse, DAY - dt.timedelta(days=1)
    bad, bad_state = explain_item(shop, "i1", "search"), warehouse.snapshot_id("item_recommendations")
    before = warehouse.read("item_recommendations", [DAY]).slice(0, 1).to_pylist()
    publish(night, "item_recommendations", [], DAY)
    publish(night, "item_recommendations", before, eve)
    assert explain_item(shop, "i1", "search").as_of_date == str(eve)
    assert explain_item(shop, "i1", "search", as_of=str(bad_state)) == bad
    other = warehouse.snapshot_id("items")
    with pytest.raises(InputError, match=f"--as-of {other}: that is no state of item_recommendations; give a date"):
        explain_item(shop, "i1", "search", as_of=str(other))


@pytest.mark.parametrize(
    ("item", "scenario", "day", "message"),
    [
        ("i9", "search", "", "--item i9: no shelf in search on 2026-02-05; is it in the catalogue"),
        ("i1", "home_feed", "", "--scenario 'home_feed' has no shelves of items; those with an `anchor`: search"),
        ("i1", "search", "2026-02-04", "--as-of-date 2026-02-04: no shelves of that night are published"),
    ],
)
def test_what_cannot_be_explained_is_told(shop, item, scenario, day, message):
    with pytest.raises(InputError, match=message):
        explain_item(shop, item, scenario, day)
    with pytest.raises(InputError, match="--format 'xml' is unknown"):
        print_why_item(explain_item(shop, "i1", "search"), "xml")
