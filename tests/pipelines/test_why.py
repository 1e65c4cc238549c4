"""What a shelf's explanation says, over tables of two nights written by hand."""

import datetime as dt
import json

import pytest

from nightshelf.errors import InputError
from nightshelf.identity import ensure_key, user_key
from nightshelf.scenarios import Rerank
from pipelines.rollback import rollback
from pipelines.warehouse import Warehouse
from pipelines.why import explain, print_why

EVE, DAY = dt.date(2026, 2, 4), dt.date(2026, 2, 5)
# Of the shelf of each night: item → click, purchase; home_feed is ranked by click + 10 purchase
SHELVES = {
    EVE: {"i1": (0.5, 0.05), "i2": (0.4, 0.04), "i3": (0.3, 0.03), "i4": (0.2, 0.02)},
    DAY: {"i2": (0.5, 0.05), "i5": (0.4, 0.04), "i6": (0.3, 0.03), "i7": (0.1, 0.01)},
}
# Of each night: item → who proposed it to whom
PROPOSED = {
    EVE: [
        *[("i1", "popular", "*"), ("i2", "popular", "*"), ("i6", "fresh", "*")],
        *[("i3", "affinity", "u1"), ("i4", "affinity", "u1")],
    ],
    DAY: [
        *[("i1", "popular", "*"), ("i2", "popular", "*"), ("i2", "related", "u1"), ("i3", "affinity", "u1")],
        *[("i5", "related", "u1"), ("i6", "popular", "*"), ("i7", "fresh", "*"), ("i9", "affinity", "u2")],
    ],
}  # fmt: skip


@pytest.fixture
def shop(night, publish):
    """Return the shop after two nights: since the first, i1 was bought, i3 sold out, and nobody proposes i4 any more."""
    shop = night.shop
    key = user_key("u1", ensure_key(shop).read_bytes())
    keys = {"u1": key, "*": "*", "u2": "f" * 32}
    exclude = {**shop.scenarios, "home_feed": shop.scenarios["home_feed"].model_copy(update={"exclude": _RULES})}
    for day, shelf in SHELVES.items():
        items = [
            {"item_id": f"i{n}", "title": f"item {n}", "stock": 0 if (n, day) in _SOLD_OUT else 3} for n in range(1, 9)
        ]
        publish(night, "items", items, day)
        rows = [
            {"user_key": keys[user], "scenario": "*", "item_id": item, "generator": generator}
            for item, generator, user in PROPOSED[day]
        ]
        publish(night, "candidates", rows[::2], day)
        publish(night, "retrieved_candidates", rows[1::2], day)
        places = [
            {"rank": rank, "item_id": item, "p_click": click, "p_purchase": buys, "score": click + 10 * buys}
            | {"scenario": "home_feed", "source": "popular", "reason": "Popular", "model_version": str(day.day)}
            | {"rank_by_score": rank, "placed_by": "score", "propensity": 1.0}
            for rank, (item, (click, buys)) in enumerate(shelf.items(), 1)
        ]
        publish(night, "recommendations", [{**row, "user_key": user} for row in places for user in (key, "*")], day)
    bought = {"user_key": key, "item_id": "i1", "event_type": "purchase", "event_date": DAY}
    publish(night, "events", [bought], DAY)
    return shop.model_copy(update={"scenarios": exclude})


_RULES = ["purchased_30d", "out_of_stock"]
_SOLD_OUT = {(3, DAY), (5, EVE)}


def test_each_place_shows_what_makes_its_score_and_who_proposed_it(shop):
    found = explain(shop, "u1", "home_feed")
    assert (found.as_of_date, found.model_version) == (DAY, "5")
    assert [row["item_id"] for row in found.places] == ["i2", "i5", "i6", "i7"]
    for row in found.places:
        assert row["score"] == pytest.approx(row["from_click"] + row["from_purchase"])
        assert row["from_purchase"] == pytest.approx(10 * row["purchase"])
    assert found.places[0]["also_proposed_by"] == ["related"]
    proposed = {row["generator"]: (row["items"], row["alone"]) for row in found.proposed}
    assert proposed == {"popular": (3, 2), "related": (2, 1), "affinity": (1, 1), "fresh": (1, 1)}
    assert [(row["item_id"], row["title"], row["rule"]) for row in found.excluded] == [
        ("i1", "item 1", "bought on 2026-02-05"),
        ("i3", "item 3", "out of stock"),
    ]


def test_scores_of_other_weights_than_todays_are_told(shop, capsys):
    assert explain(shop, "u1", "home_feed").adds_up
    weighed = shop.scenarios["home_feed"].model_copy(update={"utility": {"click": 1.0, "purchase": 12.0}})
    found = explain(shop.model_copy(update={"scenarios": {**shop.scenarios, "home_feed": weighed}}), "u1", "home_feed")
    assert not found.adds_up
    print_why(found, "table")
    assert "it weighed them otherwise" in capsys.readouterr().out


def test_another_nights_shelf_differs_for_reasons(shop):
    found = explain(shop, "u1", "home_feed", against="2026-02-04")
    assert found.against_model == "4"
    assert [(row["item_id"], row["rank"], row["rank_then"], row["why"]) for row in found.changes] == [
        ("i5", 2, None, "not on 2026-02-04: out of stock"),
        ("i6", 3, None, "not on 2026-02-04: others ranked higher"),
        ("i7", 4, None, "not on 2026-02-04: nobody proposed it"),
        ("i1", None, 1, "not on 2026-02-05: bought on 2026-02-05"),
        ("i3", None, 3, "not on 2026-02-05: out of stock"),
        ("i4", None, 4, "not on 2026-02-05: nobody proposed it"),
        ("i2", 1, 2, "moved"),
    ]
    assert explain(shop, "u1", "home_feed", "2026-02-04", "2026-02-04").changes == []


def test_what_a_quota_left_unranked_is_told(shop, night, publish):
    quotas = [
        ("home_feed", "fresh", 0),
        ("home_feed", "popular", 1),
        ("home_feed", "affinity", None),
        ("search", "affinity", 0),
    ]
    keys = ("scenario", "generator", "quota")
    publish(night, "candidate_quotas", [dict(zip(keys, row, strict=True)) for row in quotas], EVE)
    found = explain(shop, "u1", "home_feed", against="2026-02-04")
    why = {row["item_id"]: row["why"] for row in found.changes}
    assert why["i6"] == "not on 2026-02-04: beyond the quota of whoever proposed it"  # it was the only fresh one
    assert why["i7"] == "not on 2026-02-04: nobody proposed it"
    publish(night, "candidate_quotas", [dict(zip(keys, row, strict=True)) for row in quotas[2:]], EVE)
    found = explain(shop, "u1", "home_feed", against="2026-02-04")
    assert {row["item_id"]: row["why"] for row in found.changes}["i6"] == "not on 2026-02-04: others ranked higher"


def test_the_night_before_a_rollback_can_be_explained_and_compared(shop, night, publish):
    """The bad night, against the one that is served again; that one against it; and the bad one against its second attempt."""
    bad, bad_state = explain(shop, "u1", "home_feed", against=str(EVE)), Warehouse(shop).snapshot_id("recommendations")
    rollback(shop, str(EVE))
    assert explain(shop, "u1", "home_feed").as_of_date == EVE
    with pytest.raises(InputError, match=r"--as-of-date 2026-02-05: no shelves .* what was rolled back, .* --as-of"):
        explain(shop, "u1", "home_feed", str(DAY))
    for state in (str(DAY), str(bad_state)):
        assert explain(shop, "u1", "home_feed", against=str(EVE), as_of=state) == bad
        served = explain(shop, "u1", "home_feed", against_as_of=state)
        assert (served.as_of_date, served.against) == (EVE, DAY)
        mirrored = {(row["item_id"], row["rank_then"], row["rank"], row["why"]) for row in served.changes}
        assert mirrored == {(row["item_id"], row["rank"], row["rank_then"], row["why"]) for row in bad.changes}

    again = [{"user_key": bad.user_key, "scenario": "home_feed", "p_click": 0.1, "p_purchase": 0.0, **bad.places[0]}]
    publish(night, "recommendations", again, DAY)
    assert len(explain(shop, "u1", "home_feed").places) == 1
    both = explain(shop, "u1", "home_feed", as_of=str(bad_state), against=str(DAY))
    assert (both.places, both.against) == (bad.places, DAY)
    assert [row["item_id"] for row in both.changes] == ["i5", "i6", "i7"]


def test_a_state_that_is_none_of_the_shelves_is_refused(shop):
    other = Warehouse(shop).snapshot_id("candidates")
    with pytest.raises(InputError, match=f"--as-of {other}: that is no state of recommendations"):
        explain(shop, "u1", "home_feed", as_of=str(other))
    with pytest.raises(InputError, match="--as-of '1999-01-01' is neither a snapshot id nor a night"):
        explain(shop, "u1", "home_feed", against_as_of="1999-01-01")


@pytest.fixture
def reranked(shop, night, publish):
    """Return reranked(by_score, placed_by, **rules): why i1, i4 and i8 were not on the newest shelf of i2, i5 and i6.

    Everything was proposed; i1 and i5 share a brand, i8 stands on the user's shelf of home_feed, whose shelf i4 is on nowhere.
    """
    key = explain(shop, "u1", "home_feed").user_key

    def find(by_score, placed_by="rules", **rules):
        items = [{"item_id": f"i{n}", "brand": "acme" if n in (1, 5) else f"b{n}", "stock": 3} for n in range(1, 9)]
        publish(night, "items", items, DAY)
        proposals = [{"user_key": "*", "scenario": "*", **item, "generator": "popular"} for item in items]
        publish(night, "candidates", proposals, DAY)
        row = {
            "user_key": key,
            "scenario": "search",
            "p_click": 0.5,
            "score": 0.5,
            "source": "popular",
            "placed_by": placed_by,
        }
        places = [
            {**row, "rank": rank, "item_id": item, "rank_by_score": place}
            for rank, (item, place) in enumerate(zip(("i2", "i5", "i6"), by_score, strict=True), 1)
        ]
        places[0]["placed_by"] = "score"
        before = [{**row, "rank": rank, "item_id": item} for rank, item in enumerate(("i1", "i4", "i8"), 1)]
        publish(night, "recommendations", [*places, {**row, "scenario": "home_feed", "rank": 1, "item_id": "i8"}], DAY)
        publish(night, "recommendations", before, EVE)
        scenario = shop.scenarios["search"].model_copy(update={"rerank": Rerank(**rules)})
        changed = shop.model_copy(update={"scenarios": {**shop.scenarios, "search": scenario}})
        found = explain(changed, "u1", "search", against=str(EVE)).changes
        return {row["item_id"]: row["why"].removeprefix("not on 2026-02-05: ") for row in found if row["rank"] is None}

    return find


OTHERS = "others ranked higher"


def test_a_rule_that_can_have_left_an_item_out_is_named(reranked):
    assert reranked((1, 2, 4), diversity=0.2) == dict.fromkeys(
        ("i1", "i4", "i8"), f"{OTHERS}, or a rule left it out: diversity"
    )
    both = reranked((1, 2, 4), repeats=0.5, fresh={"days": 9, "boost": 0.1})
    assert both["i4"] == f"{OTHERS}, or a rule left it out: fresh"
    assert both["i8"] == f"{OTHERS}, or a rule left it out: repeats (it is on home_feed), fresh"
    assert reranked((1, 2, 4), "explore", explore=0.5)["i1"] == f"{OTHERS}, or a rule left it out: explore"


def test_a_cap_that_is_reached_is_named_for_its_group_alone(reranked):
    found = reranked((1, 2, 4), most_per={"brand": 1})
    assert found == {"i1": "most_per: the shelf has 1 of brand acme already", "i4": OTHERS, "i8": OTHERS}
    assert reranked((1, 2, 4), most_per={"brand": 2})["i1"] == OTHERS
    assert reranked((1, 2, 4), "explore", most_per={"brand": 1}, explore=0.5)["i1"].endswith("left it out: explore")


def test_where_the_highest_scores_are_all_there_no_rule_is_blamed(reranked):
    found = reranked((1, 3, 2), diversity=0.2, repeats=0.5, most_per={"brand": 1})
    assert found == dict.fromkeys(("i1", "i4", "i8"), OTHERS)


def test_a_night_without_a_shelf_for_the_user_is_told_as_such(shop, night, publish):
    publish(night, "recommendations", [{"user_key": "*", "scenario": "home_feed", "rank": 1, "item_id": "i1"}], EVE)
    found = explain(shop, "u1", "home_feed", against=str(EVE))
    assert {row["why"] for row in found.changes} == {"not on 2026-02-04: there was no shelf"}


def test_a_blocked_item_is_told(shop):
    (shop.home / "blocked.txt").write_text("i1\n")
    found = explain(shop.model_copy(update={"blocked": "blocked.txt"}), "*", "home_feed")
    assert [(row["item_id"], row["rule"]) for row in found.excluded] == [("i1", "blocked")]


def test_what_is_blocked_since_the_night_was_not_left_out_of_its_shelf(shop, capsys):
    (shop.home / "blocked.txt").write_text("i2\ni1\n")
    found = explain(shop.model_copy(update={"blocked": "blocked.txt"}), "*", "home_feed")
    assert "i2" in {row["item_id"] for row in found.places}
    assert [row["item_id"] for row in found.excluded] == ["i1"]
    print_why(found, "table")
    assert "Left out, by the rules as they are today:\n  i1 item 1: blocked\n" in capsys.readouterr().out


def test_a_user_whose_id_looks_like_a_key_is_found_by_it(shop, night, publish):
    user_id = "0123456789abcdef" * 2
    key = user_key(user_id, ensure_key(shop).read_bytes())
    place = {"scenario": "home_feed", "rank": 1, "item_id": "i1", "p_click": 0.1, "p_purchase": 0.0, "score": 0.1}
    publish(night, "recommendations", [{**place, "user_key": user} for user in (key, "f" * 32)], DAY)
    assert explain(shop, user_id, "home_feed").user_key == key
    assert explain(shop, key, "home_feed").user_key == key
    assert explain(shop, "f" * 32, "home_feed").user_key == "f" * 32


def test_a_stranger_has_bought_nothing(shop):
    found = explain(shop, "*", "home_feed", against="2026-02-04")
    assert [row["item_id"] for row in found.excluded] == []
    assert {row["item_id"]: row["why"] for row in found.changes}["i1"] == "not on 2026-02-05: others ranked higher"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("nobody", "home_feed"), r"no shelf in home_feed on 2026-02-05; whoever is unknown is shown --user '\*'"),
        (("*", "search"), "no shelf in search on 2026-02-05; the night made none for whoever is not known"),
        (("u1", "moon"), r"--scenario 'moon' is unknown; shop tiny has home_feed, search"),
        (
            ("u1", "home_feed", "2026-01-01"),
            r"--as-of-date 2026-01-01: no shelves .* newest are of 2026-02-04, 2026-02-05",
        ),
        (("u1", "home_feed", "", "2026-01-01"), r"--against 2026-01-01: no shelves of that night"),
    ],
)
def test_what_is_not_there_is_told(shop, asked, message):
    with pytest.raises(InputError, match=message):
        explain(shop, *asked)


def test_it_is_printed_as_text_and_as_json(shop, capsys):
    found = explain(shop, "u1", "home_feed", against="2026-02-04")
    print_why(found, "table")
    text = capsys.readouterr().out
    for told in (
        "score = 1 × click + 10 × purchase",
        "  i3 item 3: out of stock",
        "Against 2026-02-04 (model 4): 7 places",
    ):
        assert told in text
    print_why(found, "json")
    assert json.loads(capsys.readouterr().out)["places"][0]["item_id"] == "i2"
    with pytest.raises(InputError, match="'xml' is unknown"):
        print_why(found, "xml")
