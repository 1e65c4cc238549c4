"""A model meets another shop file than the one that it was trained with."""

import pytest

from training.artifact import load_spec
from training.shop_fit import why_not_measured, why_not_ranking


@pytest.fixture(scope="module")
def spec(trained):
    return load_spec(trained.folder)


def test_a_model_fits_its_own_shop(demo_shop, spec):
    assert (why_not_measured(spec, demo_shop), why_not_ranking(spec, demo_shop)) == ("", "")


def test_in_a_scenario_that_was_renamed_a_model_can_neither_be_measured_nor_rank(demo_shop, spec):
    scenarios = {f"new_{name}" if name == "cart" else name: of for name, of in demo_shop.scenarios.items()}
    shop = demo_shop.model_copy(update={"scenarios": scenarios})
    assert why_not_measured(spec, shop) == "it was trained for other scenarios"
    assert "'user_in_cart_impression_count_30d', which this shop file no longer makes" in why_not_ranking(spec, shop)


def test_a_model_ranks_in_a_scenario_that_it_does_not_know(demo_shop, spec):
    shop = demo_shop.model_copy(update={"scenarios": {**demo_shop.scenarios, "outlet": demo_shop.scenarios["cart"]}})
    assert why_not_measured(spec, shop) == "it was trained for other scenarios"
    assert why_not_ranking(spec, shop) == ""


def test_a_model_of_other_tasks_or_attributes_does_not_rank(demo_shop, spec):
    fewer = demo_shop.model_copy(update={"tasks": {"click": demo_shop.tasks["click"]}})
    assert why_not_ranking(spec, fewer) == why_not_measured(spec, fewer) == "it was trained for other tasks"
    items = demo_shop.items.model_copy(update={"attributes": []})
    other = demo_shop.model_copy(update={"items": items})
    assert why_not_ranking(spec, other) == "it was trained for other categorical features"
