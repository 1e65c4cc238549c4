"""What knows a task's outcome is told, and what only knows the scenario is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nightshelf.config import Shop, load_shop
from nightshelf.features import dense_features, index_features
from pipelines.leaks import leak_facts

DEMO = Path(__file__).resolve().parents[2] / "conf/shops/demo.yaml"
ROWS = 4000


@pytest.fixture
def shop() -> Shop:
    return load_shop(DEMO)


def examples(shop: Shop) -> pd.DataFrame:
    """Return clicks in one scenario alone, nearly all of what is shown there, and features that know nothing."""
    chance = np.random.default_rng(3)
    scenario = np.where(chance.random(ROWS) < 0.2, "cart", "home_feed")
    names = [feature.name for feature in dense_features(shop)]
    columns = {name: chance.random(ROWS) for name in names}
    columns |= {feature.name: chance.integers(1, 9, ROWS) for feature in index_features(shop)}
    for name in shop.tasks:
        columns |= {f"mask_{name}": np.ones(ROWS), f"label_{name}": np.zeros(ROWS)}
    columns["label_click"] = (scenario == "cart") & (chance.random(ROWS) < 0.8)
    return pd.DataFrame({"scenario": scenario, **columns}).astype({"label_click": float})


def told(shop: Shop, rows: pd.DataFrame) -> list[tuple[str, str]]:
    facts = leak_facts(shop, rows, 0.95)
    return [(row.feature, row.task) for row in facts[facts["knows_the_label"] == 1].itertuples()]


def test_a_feature_that_tells_the_only_scenario_with_an_outcome_is_no_leak(shop: Shop) -> None:
    rows = examples(shop)
    name = dense_features(shop)[0].name
    rows[name] = (rows["scenario"] == "cart") * 10.0 + rows[name]
    assert told(shop, rows) == []


def test_a_feature_that_tells_the_outcome_there_is_one(shop: Shop) -> None:
    rows = examples(shop)
    name = dense_features(shop)[0].name
    rows[name] = rows["label_click"]
    assert told(shop, rows) == [(name, "click")]
