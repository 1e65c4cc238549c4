"""What a plan of shelves knows of its scenarios."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from nightshelf.config import load_shop
from nightshelf.errors import InputError
from nightshelf.scenarios import Rerank
from pipelines.shelf_plan import ShelfPlan, _beside, _leaning, plan_shelves
from pipelines.stage import Night

DAY = dt.date(2026, 2, 5)


@pytest.fixture
def demo(night):
    """Return a night with the scenarios and logs of the demo shop."""
    shop = load_shop(Path("conf/shops/demo.yaml")).model_copy(update={"home": night.shop.home})
    object.__setattr__(night, "shop", shop)
    return night


@pytest.fixture
def shown(demo, publish):
    """Return a night with examples: of three users in the home feed, of two of them in the cart, of one in the search, and of a
    stranger to the home feed in the campaign.
    """
    publish(demo, "events", [{"event_id": "e", "event_date": DAY}])
    counts = {
        "home_feed": {"a": 6, "b": 3, "c": 1}, "cart": {"a": 2, "c": 1}, "search": {"a": 9}, "campaign": {"d": 5},
    }  # fmt: skip
    rows = [
        {
            "impression_id": f"{name}{user}{n}",
            "scenario": name,
            "user_key": user,
            "event_date": DAY,
            "feature_date": DAY,
        }
        for name, users in counts.items()
        for user, count in users.items()
        for n in range(count)
    ]
    publish(demo, "training_examples", rows)
    return demo


def test_the_fewer_examples_a_scenario_has_the_more_it_leans_on_the_first(shown: Night) -> None:
    """By what the first one knows of its users; not where a request is answered, which the first knows nothing of."""
    found = _leaning(shown)
    assert found == {"cart": pytest.approx(7 / 10, abs=1e-6), "campaign": 0.0, "checkout": 1.0}  # where nobody came yet


@pytest.mark.parametrize("asked", [("cart",), ("cart", "home_feed"), ("search", "cart")])
def test_a_scenario_leans_on_the_first_of_the_shop_whichever_are_asked_for(
    shown: Night, asked: tuple[str, ...]
) -> None:
    assert _leaning(replace(shown, scenarios=asked)) == _leaning(shown) != {}


@pytest.mark.parametrize(
    ("asked", "counting", "ranked"),
    [
        (("cart",), (), ("home_feed", "cart")),
        (("home_feed",), ("home_feed", "cart"), ("home_feed",)),
        (("product_page",), ("product_page", "cart"), ("home_feed", "search", "product_page")),
        (("product_page", "checkout"), ("search",), ("home_feed", "product_page", "checkout")),
    ],
)
def test_with_what_is_asked_for_goes_what_its_shelves_hang_on(
    demo: Night, asked: tuple[str, ...], counting: tuple[str, ...], ranked: tuple[str, ...]
) -> None:
    """The first scenario has the first look; where `repeats` counts earlier shelves, they have to be known."""
    scenarios = {
        name: scenario.model_copy(update={"rerank": Rerank(repeats=0.5 if name in counting else 0)})
        for name, scenario in demo.shop.scenarios.items()
    }
    shop = demo.shop.model_copy(update={"scenarios": scenarios})
    assert ShelfPlan(shop, DAY, asked, None, None, {}, {}, frozenset(), {}, {}, {}, ()).ranked == ranked


def test_without_examples_nothing_leans_and_nothing_is_expected(demo: Night, publish) -> None:
    publish(demo, "events", [{"event_id": "e", "event_date": DAY}])
    publish(demo, "items", [{"item_id": "i"}])
    assert _leaning(demo) == {}
    assert _beside(demo) == dict.fromkeys(("cart", "checkout"), (1.0, 1.0, 1.0, 1.0))


def test_only_scenarios_with_an_anchor_that_no_log_names_have_lifts(demo: Night, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.shelf_plan.nearness_lifts", lambda night, name: (1.0, 2.0, 2.0, 1.5))
    assert set(demo.shop.anchors) == {"product_page", "cart", "checkout"}
    assert _beside(demo) == {"cart": (1.0, 2.0, 2.0, 1.5), "checkout": (1.0, 2.0, 2.0, 1.5)}


def test_candidates_that_were_made_for_other_scenarios_are_told(night: Night, publish) -> None:  # type: ignore[no-untyped-def]
    """As where one was renamed after `features`."""
    row = {"user_key": "*", "item_id": "i1", "generator": "popular", "generator_score": 1.0}
    publish(night, "candidates", [{**row, "scenario": "home_feed"}, {**row, "scenario": "*", "generator": "fresh"}])
    with pytest.raises(
        InputError, match=r"scenario 'search' has no candidates of 2026-02-05.*run the features stage again"
    ):
        plan_shelves(night)
    with pytest.raises(InputError, match="table user_features"):  # the next thing that it wants
        plan_shelves(replace(night, scenarios=("home_feed",)))
