import dataclasses

import numpy as np
import pytest
import torch

from nightshelf.errors import EngineError, InputError
from nightshelf.features import request_scenarios
from training.artifact import load_model
from training.batches import Dataset
from training.data import load_examples
from training.predict import predict
from training.score import Ranker
from training.shelf_features import ShelfFeatures


@pytest.fixture(scope="module")
def shelf(demo_shop, night):
    tables = ("user_features", "item_features", "item_scenario_features", "user_sequences")
    return ShelfFeatures.load(demo_shop, night.feature_date, *(night.paths[table] for table in tables))


@pytest.fixture(scope="module")
def ranker(trained):
    return Ranker.load(trained.folder)


def test_scores_equal_what_training_predicts_for_the_same_features(demo_shop, night, shelf, ranker, trained):
    examples = load_examples(demo_shop, night.inputs, split="validation")
    expected = predict(load_model(trained.folder), Dataset(examples, ranker.spec)).at_first
    for place, scenario in enumerate(demo_shop.scenarios):
        rows = np.flatnonzero(examples.scenario == place + 1)
        users, items = examples.user_fields[rows, 0], examples.item[rows] - 1  # user row 0 is the unknown user
        found = ranker.score(shelf, scenario, torch.from_numpy(users), torch.from_numpy(items))
        for t, task in enumerate(ranker.tasks):
            if scenario in request_scenarios(demo_shop):  # what will be asked for is not known yet
                assert (found[task] <= expected[rows, t] + 1e-5).all()
            else:
                assert torch.allclose(found[task], expected[rows, t], rtol=1e-4, atol=1e-5), (scenario, task)


def test_users_and_pairs_give_the_same_scores(night, shelf, ranker):
    users, items = torch.arange(night.users + 1), torch.randint(0, night.items, (night.users + 1, 9))
    grid = ranker.score_users(shelf, "search", users, items)
    pairs = ranker.score(shelf, "search", users.repeat_interleave(9), items.reshape(-1))
    for task in ranker.tasks:
        assert grid[task].dtype == torch.float32
        assert torch.allclose(grid[task].reshape(-1), pairs[task], atol=1e-5)
    assert 0 < float(grid["purchase"].max()) < 1
    assert (grid["cart"] <= grid["click"]).all()


def test_padding_is_nan_and_changes_no_other_score(night, shelf, ranker):
    users, items = torch.tensor([1, 2]), torch.tensor([[0, 1, 2], [3, -1, -1]])
    found = ranker.score_users(shelf, "cart", users, items)["click"]
    assert torch.isnan(found).tolist() == [[False] * 3, [False, True, True]]
    assert torch.allclose(
        found[1, :1], ranker.score_users(shelf, "cart", users[1:], items[1:, :1])["click"][0], atol=1e-6
    )


def test_unknown_users_and_items_beyond_the_vocabulary_are_scored(demo_shop, shelf, ranker):
    assert shelf.user_rows(["u000003", "nobody"]).tolist() == [4, 0]
    assert shelf.item_rows(["i000002", "nothing"]).tolist() == [2, -1]
    grown = shelf.catalogue.copy()
    fields = shelf.item_fields.copy()
    fields[0, 0] = len(grown)  # an item that came after the model was trained
    grown = np.concatenate([grown, fields[:1]])
    newer = dataclasses.replace(shelf, item_fields=fields, catalogue=grown)
    found = ranker.score_users(newer, "search", torch.tensor([0, 1]), torch.tensor([[0, 1], [0, 1]]))
    assert all(torch.isfinite(values).all() for values in found.values())


def test_what_the_night_lacks_is_told(demo_shop, night, shelf, ranker):
    with pytest.raises(InputError, match="'tv' is not in the shop file"):
        ranker.score_users(shelf, "tv", torch.tensor([0]), torch.tensor([[0]]))
    poorer = dataclasses.replace(shelf, user_names=["renamed", *shelf.user_names[1:]])
    with pytest.raises(EngineError, match="no longer makes"):
        ranker.score_users(poorer, "search", torch.tensor([0]), torch.tensor([[0]]))
    tables = ("user_features", "item_features", "item_scenario_features", "user_sequences")
    with pytest.raises(InputError, match="table user_features: no rows of 2020-01-01"):
        ShelfFeatures.load(
            demo_shop, night.feature_date.replace(year=2020, month=1, day=1), *(night.paths[t] for t in tables)
        )
