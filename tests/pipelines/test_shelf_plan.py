"""What a plan of shelves knows of its scenarios."""

import datetime as dt
from pathlib import Path

import pytest

from nightshelf.config import load_shop
from pipelines.shelf_plan import _beside, _leaning
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
    """Return a night with examples: six of the home feed, two of the search, three of the cart, none of the others."""
    night = demo
    publish(night, "events", [{"event_id": "e", "event_date": DAY}])
    counts = {"home_feed": 6, "search": 2, "cart": 3}
    rows = [
        {"impression_id": f"{name}{n}", "scenario": name, "event_date": DAY, "feature_date": DAY}
        for name, count in counts.items()
        for n in range(count)
    ]
    publish(night, "training_examples", rows)
    return night


def test_the_fewer_examples_a_scenario_has_the_more_it_leans_on_the_first(shown: Night) -> None:
    """Not where a request is answered: the first scenario does not know what it is about."""
    found = _leaning(shown)
    assert found["cart"] == pytest.approx(6 / 9, abs=1e-6)
    assert found["campaign"] == found["checkout"] == 1.0
    assert not {"home_feed", "search", "product_page"} & set(found)
    object.__setattr__(shown, "scenarios", ("cart", "home_feed"))
    assert _leaning(shown) == {"home_feed": pytest.approx(3 / 9, abs=1e-6)}
    object.__setattr__(shown, "scenarios", ("search", "cart"))
    assert _leaning(shown) == {}


def test_only_scenarios_with_an_anchor_that_no_log_names_have_lifts(demo: Night, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.shelf_plan.nearness_lifts", lambda night, name: (1.0, 2.0, 2.0, 1.5))
    assert set(demo.shop.anchors) == {"product_page", "cart", "checkout"}
    assert _beside(demo) == {"cart": (1.0, 2.0, 2.0, 1.5), "checkout": (1.0, 2.0, 2.0, 1.5)}
