"""The audit of shelves before they are published: every fault is found, and told with its scenario."""

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from scipy.stats import ks_2samp

from nightshelf.errors import GateError, InputError
from pipelines.audit import audit_item_shelves, audit_shelves
from pipelines.shelf_change import shelf_change
from pipelines.stage import Night

DAY = dt.date(2026, 2, 5)


def drafts(**change: Any) -> list[dict[str, Any]]:
    """Return full shelves of three for two users in two scenarios; `change` is laid over the last row."""
    rows = [
        {
            "scenario": scenario,
            "user_key": user,
            "rank": rank,
            "item_id": f"i{rank}",
            "score": 1 / rank,
            "p_click": 0.1,
            "source": "popular",
            "reason": "Bought often.",
            "rank_by_score": rank,
            "placed_by": "score",
            "propensity": 1.0,
        }
        for scenario in ("home_feed", "search")
        for user in ("*", "a", "b")
        for rank in (1, 2, 3)
    ]
    rows[-1].update(change)
    return rows


def popular_in(*scenarios: str, items: tuple[int, ...] = (1, 2, 3, 4)) -> list[dict[str, Any]]:
    """Return candidates: these items are popular in these scenarios."""
    place = {"user_key": "*", "generator": "popular", "generator_score": 1.0}
    return [{**place, "scenario": name, "item_id": f"i{n}"} for name in scenarios for n in items]


def with_checks(night: Night, **limits: Any) -> Night:
    checks = night.shop.checks.model_copy(update=limits)
    return dataclasses.replace(night, shop=night.shop.model_copy(update={"checks": checks}))


def excluding(night: Night, *rules: str) -> Night:
    scenarios = {name: s.model_copy(update={"exclude": list(rules)}) for name, s in night.shop.scenarios.items()}
    return dataclasses.replace(night, shop=night.shop.model_copy(update={"scenarios": scenarios}))


def with_top(night: Night, top_n: int) -> Night:
    scenarios = {name: s.model_copy(update={"top_n": top_n}) for name, s in night.shop.scenarios.items()}
    return dataclasses.replace(night, shop=night.shop.model_copy(update={"scenarios": scenarios}))


def user_shelf_change(night: Night) -> Any:
    return shelf_change(night, night.warehouse.files("shelf_drafts", [DAY]), "recommendations", "user_key")


@pytest.fixture
def audit(publish: Callable[..., None]) -> Callable[[Night, list[dict[str, Any]]], str]:
    def run(night: Night, rows: list[dict[str, Any]]) -> str:
        publish(night, "items", [{"item_id": f"i{n}"} for n in (1, 2, 3, 4)])
        publish(night, "users", [{"user_key": "a"}, {"user_key": "b"}])
        publish(night, "shelf_drafts", rows)
        return audit_shelves(night, night.warehouse.files("shelf_drafts", [DAY]))

    return run


def test_good_shelves_pass_the_audit(night, audit):
    assert audit(night, drafts()).endswith("checks held")


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (drafts(rank=4), "ranks_with_gaps"),
        (drafts(rank=2), "ranks_with_gaps"),
        (drafts(item_id="i1"), "repeated_items"),
        (drafts(score=0.9), "rising_scores"),
        (drafts(score=float("nan")), "odd_scores"),
        (drafts(p_click=1.1), "odd_probabilities"),
        (drafts(reason=" "), "empty_reasons"),
        (drafts(propensity=0.0), "odd_propensities"),
        (drafts(propensity=None), "odd_propensities"),
        (drafts(rank_by_score=None), "no_rank_by_score"),
        (drafts(item_id="gone"), "unknown_items"),
        (drafts()[:-3], "users_without_shelf"),
        ([*drafts(), {**drafts()[-1], "rank": 4, "item_id": "i4", "score": 0.1, "rank_by_score": 4}], "too_long"),
    ],
)
def test_a_faulty_shelf_is_not_published(night, audit, broken, rows, fault):
    with pytest.raises(GateError):
        audit(night, rows)
    assert ("fail", "none", fault) in broken(night)
    observed = [
        r["observed"] for r in night.warehouse.read("data_checks", [DAY]).to_pylist() if r["column_name"] == fault
    ]
    assert observed == [f"{fault}=1 scenario=search"]


def item_drafts(**change: Any) -> list[dict[str, Any]]:
    """Return item shelves of two for three items in two scenarios; `change` is laid over the last row."""
    place = {"score": 1.0, "lift": 1.5, "source": "co_click", "reason": "Shoppers of X looked at this too."}
    rows = [
        {**place, "scenario": scenario, "anchor_item_id": f"i{n}", "item_id": item, "rank": rank, "rank_by_score": rank}
        for scenario in ("home_feed", "search")
        for n in (1, 2, 3)
        for rank, item in enumerate([f"i{other}" for other in (1, 2, 3) if other != n], 1)
    ]
    rows[-1].update(change)
    return rows


@pytest.fixture
def audit_items(publish: Callable[..., None]) -> Callable[[Night, list[dict[str, Any]]], str]:
    def run(night: Night, rows: list[dict[str, Any]]) -> str:
        scenarios = {name: s.model_copy(update={"anchor": "click"}) for name, s in night.shop.scenarios.items()}
        night = dataclasses.replace(night, shop=night.shop.model_copy(update={"scenarios": scenarios}))
        publish(night, "items", [{"item_id": f"i{n}"} for n in (1, 2, 3)])
        publish(night, "item_shelf_drafts", rows)
        return audit_item_shelves(night, night.warehouse.files("item_shelf_drafts", [DAY]))

    return run


def test_good_shelves_of_items_pass_the_audit(night, audit_items):
    assert audit_items(night, item_drafts()).endswith("checks held")


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (item_drafts(rank=3), "ranks_with_gaps"),
        (item_drafts(item_id="i1"), "repeated_items"),
        (item_drafts(score=1.1), "rising_scores"),
        (item_drafts(score=float("nan")), "odd_scores"),
        (item_drafts(lift=0.0), "odd_lifts"),
        (item_drafts(lift=None), "odd_lifts"),
        (item_drafts(reason=""), "empty_reasons"),
        (item_drafts(item_id="i3"), "own_anchors"),
        (item_drafts(item_id="gone"), "unknown_items"),
        (item_drafts()[:-2] + [{**row, "anchor_item_id": "gone"} for row in item_drafts()[-2:]], "unknown_anchors"),
    ],
)
def test_a_faulty_shelf_of_an_item_is_not_published(night, audit_items, broken, rows, fault):
    with pytest.raises(GateError):
        audit_items(night, rows)
    assert ("fail", "none", fault) in broken(night)


def test_an_item_without_a_shelf_is_a_warning_and_a_scenario_without_any_is_not_published(night, audit_items, broken):
    audit_items(with_checks(night, shelf_filled_fail=None), item_drafts()[:-2])
    assert broken(night) == {("warn", "none", "items_without_shelf"), ("warn", "full", "filled_share")}
    with pytest.raises(GateError, match="row_count on item_shelf_drafts 2026-02-05: observed 1, expected min 2"):
        audit_items(night, item_drafts()[:6])


def test_what_is_blocked_is_not_published(night, audit, broken):
    (night.shop.home / "blocked.txt").write_text("# recalled\n\n i3 \ngone\n")
    shop = night.shop.model_copy(update={"blocked": "blocked.txt"})
    with pytest.raises(GateError, match="blocked_items"):
        audit(dataclasses.replace(night, shop=shop), drafts())
    with pytest.raises(InputError, match=r"blocked: .*none.txt cannot be read .*an empty one will do"):
        audit(dataclasses.replace(night, shop=shop.model_copy(update={"blocked": "none.txt"})), drafts())


def test_a_place_that_the_rules_gave_is_no_rising_score(night, audit):
    rows = drafts()
    rows[0].update(score=0.4, rank_by_score=2, placed_by="rules")
    rows[1].update(score=1.0, rank_by_score=1, placed_by="rules")
    assert audit(night, rows).endswith("checks held")


def test_a_missing_shelf_for_strangers_is_not_published_where_something_may_be_shown_to_them(
    night, audit, publish, broken
):
    of_users = [row for row in drafts() if row["user_key"] != "*"]
    audit(night, of_users)
    assert broken(night) == {("warn", "none", "nothing_for_strangers")}
    publish(night, "candidates", popular_in("search", items=(4,)))
    audit(excluding(night, "price_over_5"), of_users)  # of which nobody knows what it costs
    assert broken(night) == {("warn", "none", "nothing_for_strangers")}
    with pytest.raises(GateError, match=r"none on shelf_drafts.no_shelf_for_strangers"):
        audit(night, of_users)
    assert ("fail", "none", "no_shelf_for_strangers") in broken(night)
    assert ("warn", "none", "nothing_for_strangers") in broken(night)  # of home_feed


def test_shelves_that_lost_their_tails_are_not_published(night, audit, publish, broken):
    publish(night, "candidates", popular_in("home_feed", "search"))
    night = with_top(night, 3)
    audit(night, drafts())
    assert broken(night) == set()
    with pytest.raises(GateError, match=r"roughly_full on shelf_drafts.filled_share 2026-02-05: observed .*search"):
        audit(night, [row for row in drafts() if row["scenario"] == "home_feed" or row["rank"] < 3])
    audit(night, drafts()[:-1])
    assert broken(night) == {("warn", "full", "filled_share")}
    (told,) = {r["observed"] for r in night.warehouse.read("data_checks", [DAY]).to_pylist() if not r["success"]}
    assert told == f"filled_share={8 / 9} scenario=search"
    audit(with_checks(night, shelf_filled_warn=None), drafts()[:-1])
    assert broken(night) == set()


@pytest.mark.parametrize("why", ["few are popular", "blocked", "bought", "of another scenario"])
def test_shelves_are_as_full_as_can_be_asked_of_them(night, audit, publish, broken, why):
    short = [row for row in drafts() if row["rank"] < 2]
    publish(
        night, "candidates", popular_in("home_feed", "search", items=(1,) if why == "few are popular" else (1, 2, 3))
    )
    asked = with_top(night, 3)
    if why == "blocked":
        (night.shop.home / "blocked.txt").write_text("i2\ni3\n")
        asked = dataclasses.replace(asked, shop=asked.shop.model_copy(update={"blocked": "blocked.txt"}))
    if why == "bought":
        bought = [{"event_id": f"e{n}", "user_key": "a", "event_type": "purchase", "item_id": f"i{n}"} for n in (2, 3)]
        publish(night, "events", bought)
        asked = excluding(asked, "purchase_30d")
    if why == "of another scenario":
        asked, short = dataclasses.replace(asked, scenarios=("search",)), [*short[:3], *drafts()[9:]]
    audit(asked, short)
    assert broken(night) == set()
    publish(night, "candidates", popular_in("home_feed", "search", items=(1, 2, 3)))
    with pytest.raises(GateError, match="filled_share"):
        audit(with_top(night, 3), short)


def test_shelves_of_items_that_lost_their_tails_are_not_published(night, audit_items, broken):
    short = [row for row in item_drafts() if row["rank"] == 1]
    with pytest.raises(GateError, match=r"roughly_full on item_shelf_drafts.filled_share"):
        audit_items(night, short)
    audit_items(with_top(night, 1), short)
    assert broken(night) == set()


def test_shelves_much_shorter_than_the_night_before_are_not_published(night, audit, publish, broken):
    publish(night, "recommendations", drafts(), DAY - dt.timedelta(days=1))
    quiet = with_checks(night, shelf_kept_warn=None, shelf_scores_warn=None, shelf_items_warn=None)
    with pytest.raises(GateError, match=r"roughly_as_before on shelf_drafts.change.places_ratio .* expected min 0.6"):
        audit(quiet, [row for row in drafts() if row["rank"] == 1])
    audit(quiet, [row for row in drafts() if row["rank"] < 3])
    assert broken(night) == {("warn", "as_before", "places_ratio")}
    audit(with_top(quiet, 2), [row for row in drafts() if row["rank"] < 3])  # the shop wants no more
    assert broken(night) == set()


def test_a_scenario_without_shelves_is_not_published(night, audit):
    with pytest.raises(GateError, match="row_count on shelf_drafts 2026-02-05: observed 1, expected min 2"):
        audit(night, drafts()[:9])


def test_the_night_before_is_compared_user_by_user(night, audit, publish, broken):
    before = [row | {"item_id": f"i{row['rank'] + 1}", "score": row["score"] + 5} for row in drafts()]
    publish(night, "recommendations", before, DAY - dt.timedelta(days=2))
    audit(night, drafts())
    change = user_shelf_change(night).to_dict("records")
    assert [row["scenario"] for row in change] == ["home_feed", "search"]
    assert all(row["kept_share"] == pytest.approx(2 / 3) and row["items_ratio"] == 1 for row in change)
    assert [row["score_distance"] for row in change] == [1, 1]
    assert broken(night) == {("warn", "as_before", "score_distance")}


def test_scores_are_compared_as_scipy_compares_them_ties_too(night, audit, publish):
    before, now = ([row | {"score": float(of[row["rank"] - 1])} for row in drafts()] for of in ((3, 3, 1), (4, 3, 3)))
    publish(night, "recommendations", before, DAY - dt.timedelta(days=1))
    audit(night, now)
    for row in user_shelf_change(night).to_dict("records"):
        of_nights = (
            [place["score"] for place in rows if place["scenario"] == row["scenario"]] for rows in (before, now)
        )
        assert row["score_distance"] == pytest.approx(ks_2samp(*of_nights).statistic)


@pytest.mark.parametrize(
    ("before", "limits", "column"),
    [
        (drafts(), {}, "kept_share"),  # nothing has changed
        ([row | {"item_id": f"x{row['rank']}"} for row in drafts()], {}, "kept_share"),  # nothing has stayed
        ([row | {"item_id": f"x{n}"} for n, row in enumerate(drafts())], {"shelf_kept_warn": None}, "items_ratio"),
    ],
)
def test_what_changed_too_little_or_too_much_is_told(night, audit, publish, broken, before, limits, column):
    night = with_checks(night, **{"shelf_scores_warn": None, **limits})
    publish(night, "recommendations", before, DAY - dt.timedelta(days=1))
    audit(night, drafts())
    assert broken(night) == {("warn", "as_before", column)}


def test_a_catalogue_that_vanished_from_the_shelves_is_not_published(night, audit, publish, broken):
    before = [row | {"user_key": f"u{n}", "item_id": f"x{n}{row['rank']}"} for n in range(40) for row in drafts()]
    publish(night, "recommendations", before, DAY - dt.timedelta(days=1))
    with pytest.raises(GateError, match=r"roughly_as_before on shelf_drafts.change.items_ratio"):
        audit(night, drafts())
    assert ("fail", "roughly_as_before", "items_ratio") in broken(night)


def test_a_night_of_long_ago_is_compared_with_nothing(night, audit, publish):
    publish(night, "recommendations", drafts(), DAY - dt.timedelta(days=8))
    audit(night, drafts())
    assert user_shelf_change(night) is None


def test_shelves_of_items_are_compared_anchor_by_anchor(night, audit_items, publish, broken):
    before = [
        row | {"score": row["score"] + 5, "item_id": "i4" if row["rank"] == 2 else row["item_id"]}
        for row in item_drafts()
    ]
    publish(night, "item_recommendations", before, DAY - dt.timedelta(days=1))
    audit_items(night, item_drafts())
    change = shelf_change(
        night, night.warehouse.files("item_shelf_drafts", [DAY]), "item_recommendations", "anchor_item_id"
    ).to_dict("records")
    assert [(row["scenario"], row["kept_share"], row["score_distance"]) for row in change] == [
        ("home_feed", 0.5, 1),
        ("search", 0.5, 1),
    ]
    assert [row["items_ratio"] for row in change] == [3 / 3] * 2
    assert broken(night) == {("warn", "as_before", "score_distance")}


def test_items_that_vanished_from_the_shelves_of_items_are_not_published(night, audit_items, publish):
    before = [
        row | {"anchor_item_id": f"a{n}", "item_id": f"x{n}{row['rank']}"} for n in range(40) for row in item_drafts()
    ]
    publish(night, "item_recommendations", before, DAY - dt.timedelta(days=1))
    with pytest.raises(GateError, match=r"roughly_as_before on item_shelf_drafts.change.items_ratio"):
        audit_items(night, item_drafts())


def test_a_group_that_has_fewer_places_than_its_least_share_is_told(night, audit, publish, broken):
    def with_share(name, share):
        rerank = night.shop.scenarios[name].rerank.model_copy(update={"least": {"brand": {"small": share}}})
        return night.shop.scenarios[name].model_copy(update={"rerank": rerank})

    scenarios = {"home_feed": with_share("home_feed", 0.34), "search": with_share("search", 0.7)}
    night = dataclasses.replace(night, shop=night.shop.model_copy(update={"scenarios": scenarios}))
    rows = drafts()  # of three places a third is 1.02, and 0.7 is 2.1
    rows[-1]["placed_by"] = "explore"  # of two places, 0.7 is 1.4
    audit(night, rows)
    publish(night, "items", [{"item_id": f"i{n}", "brand": "small" if n == 2 else "large"} for n in (1, 2, 3, 4)])
    audit_shelves(night, night.warehouse.files("shelf_drafts", [DAY]))
    assert broken(night) == {("warn", "none", "below_least_share")}
    (told,) = {r["observed"] for r in night.warehouse.read("data_checks", [DAY]).to_pylist() if not r["success"]}
    assert told == "below_least_share=2 scenario=search"
