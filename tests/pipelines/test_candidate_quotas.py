"""What a night learns of its candidates from the days before, in tables written by hand, and what it must never cut."""

import dataclasses
import datetime as dt

import numpy as np
import pytest

from nightshelf.generators import GENERATOR_ORDER
from nightshelf.scenarios import Scenario
from pipelines.candidate_quotas import ALL, TABLE, candidate_quotas, check_candidate_quotas, quotas_of
from pipelines.judged_candidates import judged_candidates
from pipelines.popular_places import popular_places
from pipelines.report_sections import candidate_quotas as section
from pipelines.sql import connect

DAY, EVE = dt.date(2026, 2, 5), dt.date(2026, 2, 4)
USERS, POPULAR, FRESH = 300, 60, 10
OWN = {"related": 20, "affinity": 20}


def proposals(users=USERS):
    """Return what each user is proposed, best first: items of their own, and 70 that everybody sees."""
    rows = [
        (f"u{user}", "*", f"{generator}{rank:02}of{user}", generator, -rank)
        for user in range(users)
        for generator, length in OWN.items()
        for rank in range(1, length + 1)
    ]
    rows += [
        ("*", name, f"p{rank:02}", "popular", -rank)
        for name in ("home_feed", "search")
        for rank in range(1, POPULAR + 1)
    ]
    rows += [("*", "*", f"f{rank:02}", "fresh", -rank) for rank in range(1, FRESH + 1)]
    keys = ("user_key", "scenario", "item_id", "generator", "generator_score")
    return [dict(zip(keys, row, strict=True)) for row in rows]


def acts(scenario, generator, ranks, users=USERS, event="click"):
    """Return what each user did with the items that a generator had proposed to them at some ranks."""
    act = {"event_type": event, "scenario": scenario, "price": 5.0, "quantity": 1}
    return [
        {**act, "user_key": f"u{u}", "item_id": f"{generator}{rank:02}of{u}"} for u in range(users) for rank in ranks
    ]


@pytest.fixture
def judged(night, publish):
    """Return judge(acts, day=DAY, users=USERS): the night, after a day of these acts on what the night before had proposed."""

    def judge(rows, day=DAY, users=USERS):
        publish(night, "candidates", proposals(users), day - dt.timedelta(days=1))
        publish(night, "candidates", proposals(users), day)
        publish(
            night,
            "items",
            [{"item_id": f"p{n:02}", "stock": 0 if n == 3 else None} for n in range(1, POPULAR + 1)],
            day,
        )
        events = [{**row, "event_id": f"e{n}", "event_date": day} for n, row in enumerate(rows)]
        publish(night, "acts", events, day)
        publish(night, "events", [row for row in events if row["event_type"] == "purchase"], day)
        return night

    return judge


def with_scenario(night, name, **changes):
    scenarios = night.shop.scenarios
    changed = Scenario.model_validate(scenarios[name].model_dump() | changes)
    return dataclasses.replace(night, shop=night.shop.model_copy(update={"scenarios": {**scenarios, name: changed}}))


def quotas(night, scenario):
    return {row["generator"]: row["quota"] for row in candidate_quotas(night) if row["scenario"] == scenario}


def test_what_was_done_in_a_scenario_that_is_gone_tells_of_all_scenarios_alone(judged):
    night = judged(acts("home_feed", "related", [1, 2]) + acts("search", "affinity", [1]))
    search = {"search": night.shop.scenarios["search"]}
    found = judged_candidates(dataclasses.replace(night, shop=night.shop.model_copy(update={"scenarios": search})))
    assert {number: int(found.outcomes[found.scenarios == number].sum()) for number in (-1, 0)} == {-1: 600, 0: 300}


def test_ranks_and_worth_are_counted_by_hand(night, publish):
    keys = ("user_key", "scenario", "item_id", "generator", "generator_score")
    proposed = [
        *[("u1", "*", "i3", "related", 9.0), ("u1", "*", "i2", "related", 5.0), ("u1", "*", "i1", "related", 5.0)],
        *[("u1", "*", "i2", "affinity", 1.0), ("u2", "*", "i1", "related", 1.0)],
        *[("*", "search", "i2", "popular", 2.0), ("*", "home_feed", "i1", "popular", 2.0)],
        ("*", "home_feed", "i2", "popular", 1.0),
    ]  # fmt: skip
    publish(night, "candidates", [dict(zip(keys, row, strict=True)) for row in proposed], EVE)
    done = [
        *[("click", "u1", "search", "i2")] * 2,  # once
        *[("click", "u1", "home_feed", "i2"), ("purchase", "u1", "home_feed", "i2")],
        *[("click", "u9", "home_feed", "i2"), ("click", "u2", "search", "i3"), ("searched", "u2", "search", "i1")],
    ]  # fmt: skip
    act = {"event_date": DAY, "price": 4.0, "quantity": 2}
    rows = [dict(zip(("event_type", "user_key", "scenario", "item_id"), row, strict=True)) | act for row in done]
    rows.append({**rows[0], "item_id": "i1", "event_date": EVE})  # came late: no outcome of this day
    publish(night, "acts", [{**row, "event_id": f"e{n}"} for n, row in enumerate(rows)])
    found = judged_candidates(night)
    names = list(night.shop.scenarios)
    asked = [GENERATOR_ORDER.index(name) for name in ("related", "affinity", "popular")]
    assert not np.delete(found.ranks, asked, axis=1).any()
    told = {
        (names[place], *ranks[asked].tolist()): (int(count), *worth.tolist())
        for place, ranks, count, worth in zip(found.scenarios, found.ranks, found.outcomes, found.worth, strict=True)
    }
    # The ranks of related, affinity and popular; outcomes, worth in home_feed (a purchase 10) and search
    assert told == {
        ("search", 3, 1, 1): (1, 1.0, 1.0),
        ("home_feed", 3, 1, 2): (1, 11.0, 1.0),
        ("home_feed", 0, 0, 2): (1, 1.0, 1.0),
        ("search", 0, 0, 0): (1, 1.0, 1.0),
    }
    assert found.proposed[asked].tolist() == [3, 1, 2]
    assert found.proposed.sum() == 6
    assert found.costs[asked[0]].tolist() == [
        1.0,
        0.5,
        0.5,
    ]  # two users have a first related item, one a second and a third
    assert found.costs[asked[2]].tolist() == [1.0, 1.0, 0.0]  # everybody has the popular ones
    money = with_scenario(night, "search", utility={"spend": 0.5})
    assert sorted(judged_candidates(money).worth[:, 1].tolist()) == [0, 0, 0, 0.5 * 4 * 2]


def test_each_scenario_keeps_the_ranks_that_reached_something(judged):
    night = judged(
        [*acts("search", "related", range(1, 5), event="click"), *acts("home_feed", "affinity", range(1, 8))]
    )
    rows = {(row["scenario"], row["generator"]): row for row in candidate_quotas(night)}
    # In both the other's outcomes count for something. Popular: a shelf chooses from 40, one of the first is out of stock
    for name in ("search", "home_feed"):
        assert quotas(night, name) == {
            ALL: None, "own_history": None, "related": 5, "affinity": 10, "brand": None, "fresh": 0, "popular": 40,
            "next_item": None, "graph_walk": None,
        }  # fmt: skip
    row = rows["search", ALL]
    assert (row["quota_from"], row["outcomes"], row["worth"], row["worth_found"], row["worth_kept"]) == (
        "learned", 1200, 1200, 1200, 1200
    )  # fmt: skip
    assert (row["proposed_per_user"], row["ranked_per_user"]) == (20 + 20 + POPULAR + FRESH, 5 + 10 + 40)
    assert row["own_weight"] == pytest.approx(1200 / 2200, abs=1e-6)
    related = rows["search", "related"]
    assert (related["proposed"], related["worth_found"], related["worth_kept"]) == (20, 1200, 1200)
    assert (rows["search", "affinity"]["worth_found"], rows["search", "brand"]["quota_from"]) == (0, "all")
    check_candidate_quotas(night)
    told = {name: {"related": 5, "affinity": 10, "fresh": 0, "popular": 40} for name in night.shop.scenarios}
    assert quotas_of(night) == told
    assert (
        quotas_of(dataclasses.replace(night, scenarios=("search",))) == told
    )  # one shelf is the same alone and among all


def test_a_scenario_with_few_outcomes_follows_all_scenarios(judged):
    few = acts("search", "related", [20], users=3)  # by chance far down
    night = judged([*few, *acts("home_feed", "affinity", range(1, 10))])
    rows = [row for row in candidate_quotas(night) if row["scenario"] == "search"]
    assert {row["generator"]: row["quota"] for row in rows if row["generator"] in OWN} == {"related": 0, "affinity": 10}
    assert {row["own_weight"] for row in rows} == {round(3 / 1003, 6)}
    alone = judged(acts("search", "related", [20], users=3))
    assert quotas(alone, "search")["related"] is None  # three outcomes cut nearly nothing


def test_a_shop_that_has_judged_little_cuts_little(judged):
    little = judged(acts("search", "related", [1], users=10), users=20)
    rows = [row for row in candidate_quotas(little) if row["scenario"] == "search" and row["generator"] == ALL]
    assert rows[0]["ranked_per_user"] > 0.95 * rows[0]["proposed_per_user"]


def test_a_budget_is_kept_and_the_loss_is_told(judged):
    night = judged([*acts("search", "related", range(1, 11)), *acts("search", "affinity", range(1, 11))])
    poor = with_scenario(night, "search", candidates={"at_most": 50})
    found = quotas(poor, "search")
    assert sum(quota or 0 for name, quota in found.items() if name in OWN) == 10  # beside the 40 popular ones
    broken = [row for row in check_candidate_quotas(poor) if not row["success"]]
    assert [(row["expectation"], row["column_name"], row["severity"]) for row in broken] == [
        ("worth_kept", "search", "warn")
    ]
    assert all(row["success"] for row in check_candidate_quotas(night))


def test_they_are_shown(judged):
    night = with_scenario(judged([]), "search", candidates={"quotas": {"related": 3}})
    check_candidate_quotas(night)
    shown = section(connect(night.warehouse), DAY)
    assert [(row["scenario"], row["quotas"]["related"], row["quotas"]["fresh"], row["kept"]) for row in shown] == [
        ("search", 3, None, None)  # home_feed cuts nothing
    ]
    judged(acts("search", "related", range(1, 7)))
    check_candidate_quotas(night)
    home_feed, search = section(connect(night.warehouse), DAY)
    assert (search["quotas"]["related"], search["quotas"]["affinity"], search["kept"]) == (3, 0, 0.5)
    assert (home_feed["ranked"], home_feed["proposed"]) == (10 + 40, 20 + 20 + POPULAR + FRESH)


def test_the_shop_file_goes_before_what_was_learned(judged):
    night = judged(acts("search", "related", range(1, 8)))
    told = with_scenario(night, "search", candidates={"quotas": {"related": 3, "own_history": 7, "popular": 3}})
    rows = {row["generator"]: row for row in candidate_quotas(told) if row["scenario"] == "search"}
    assert {name: (row["quota"], row["quota_from"]) for name, row in rows.items()} == {
        ALL: (None, "learned"), "own_history": (7, "shop file"), "related": (3, "shop file"), "affinity": (0, "learned"),
        "brand": (None, "all"), "fresh": (0, "learned"), "popular": (40, "shop file"),
        "next_item": (None, "all"), "graph_walk": (None, "all"),
    }  # fmt: skip
    assert rows["related"]["worth_kept"] == rows["related"]["worth_found"] * 3 / 7
    assert quotas(told, "home_feed")["related"] == 10  # as the other scenario teaches


def test_nothing_of_the_future_is_known(judged, publish):
    night = judged([*acts("search", "related", range(1, 4)), *acts("home_feed", "affinity", [2])])
    before = candidate_quotas(night)
    for later in (1, 2):
        day = DAY + dt.timedelta(days=later)
        rows = [{**row, "event_id": f"e{n}"} for n, row in enumerate(acts("search", "affinity", range(9, 20)))]
        for event_date in (day, DAY):  # … nor what comes late for this day
            publish(night, "acts", [{**row, "event_date": event_date} for row in rows], day)
            publish(night, "events", [{**row, "event_type": "purchase", "event_date": event_date} for row in rows], day)
        publish(night, "candidates", proposals(), day)
        publish(night, "items", [{"item_id": "p01", "stock": 0}], day)
    assert candidate_quotas(night) == before
    tomorrow = dataclasses.replace(night, as_of_date=DAY + dt.timedelta(days=1))
    assert candidate_quotas(tomorrow) != before


def test_a_first_night_ranks_everything_but_what_the_shop_file_cuts(night, publish):
    publish(night, "candidates", proposals(2))
    night = with_scenario(night, "search", candidates={"quotas": {"related": 3}})
    rows = candidate_quotas(night)
    assert {row["quota_from"] for row in rows if row["scenario"] == "home_feed"} == {"all"}
    assert {
        row["generator"]: row["quota"] for row in rows if row["scenario"] == "search" and row["quota"] is not None
    } == {"related": 3}
    assert check_candidate_quotas(night)
    assert quotas_of(night) == {"home_feed": {}, "search": {"related": 3}}
    night.warehouse.publish_arrow(TABLE, night.warehouse.read(TABLE).slice(0, 0), [DAY], "gone")
    assert quotas_of(night) == {"home_feed": {}, "search": {}}


def test_a_shop_with_one_scenario_learns_from_it_alone(judged):
    night = judged(acts("search", "related", range(1, 5)))
    shop = night.shop.model_copy(update={"scenarios": {"search": night.shop.scenarios["search"]}})
    assert quotas(dataclasses.replace(night, shop=shop), "search")["related"] == 5


def test_what_a_scenario_explores_stays(judged):
    night = judged(acts("search", "related", range(1, 5)))
    assert quotas(night, "search")["fresh"] == 0
    assert quotas(with_scenario(night, "search", rerank={"explore": 0.1}), "search")["fresh"] is None


def test_popular_items_fill_a_shelf_for_whoever_bought_most_of_them(judged):
    bought = [
        {**row, "item_id": f"p{n:02}"} for n in (1, 2, 3, 5, 8) for row in acts("home_feed", "x", [1], 1, "purchase")
    ]
    night = judged([*bought, *acts("search", "related", range(1, 5))])
    assert popular_places(night) == {"home_feed": 40, "search": 40}
    assert popular_places(with_scenario(night, "search", exclude=["out_of_stock"])) == {"home_feed": 40, "search": 41}
    assert popular_places(with_scenario(night, "search", top_n=25))["search"] == 50
    long = {"top_n": 50, "exclude": ["purchase_7d", "out_of_stock"]}
    assert popular_places(with_scenario(night, "search", **long)) == {"home_feed": 40}  # 2 × 50 are more than there are
    blocked = night.shop.home / "blocked.txt"
    blocked.write_text("p01\np02\n")
    barred = dataclasses.replace(night, shop=night.shop.model_copy(update={"blocked": str(blocked)}))
    assert popular_places(barred) == {"home_feed": 42, "search": 42}
    assert quotas(with_scenario(night, "search", **long), "search")["related"] is None  # so nothing is cut there
