import dataclasses

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from nightshelf.errors import EngineError, InputError
from nightshelf.features import request_scenarios
from training.artifact import load_model
from training.batches import Dataset
from training.data import load_examples
from training.predict import predict
from training.score import PreparedShelf, Ranker
from training.shelf_features import ShelfFeatures
from training.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def ranker(trained):
    return Ranker.load(trained.folder)


def test_scores_equal_what_training_predicts_for_the_same_features(demo_shop, night, shelf, ranker, trained):
    examples = load_examples(demo_shop, night.inputs, split="test")
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


def test_users_encoded_once_have_in_each_scenario_what_each_has_alone(demo_shop, night, shelf, ranker):
    users = torch.arange(night.users + 1).flip(0)
    items = torch.randint(-1, night.items, (len(users), 300))  # several batches of each part
    encoded = ranker.encode(shelf, users)
    for scenario in demo_shop.scenarios:
        found = encoded.score(scenario, items)
        for one in range(0, len(users), 17):
            alone = ranker.score_users(shelf, scenario, users[one : one + 1], items[one : one + 1])
            for task in ranker.tasks:
                assert torch.allclose(found[task][one], alone[task][0], rtol=1e-5, atol=1e-6, equal_nan=True)


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


def test_what_was_never_seen_has_what_the_examples_have(demo_shop, night, tmp_path):
    """An item that no scenario has shown has its own rates there; an unknown user did nothing for thirty days."""
    there = pq.read_table(night.paths["item_scenario_features"][0])
    pq.write_table(there.filter(pc.equal(there["item_id"], "i000002")), tmp_path / "there.parquet")
    paths = night.paths | {"item_scenario_features": [tmp_path / "there.parquet"]}
    tables = ("user_features", "item_features", "item_scenario_features", "user_sequences", "vocabularies")
    shelf = ShelfFeatures.load(demo_shop, night.feature_date, *(paths[table] for table in tables))

    def column(name):
        return shelf.target_dense["search"][:, shelf.target_names.index(name)]

    unseen = np.arange(night.items) != 2
    own, in_scenario = column("item_click_rate_30d"), column("item_scenario_click_rate_30d")
    assert np.array_equal(in_scenario[unseen], own[unseen]) and in_scenario[2] != own[2]
    assert set(column("item_scenario_recency_days")[unseen]) == {30}
    assert set(column("item_scenario_click_count_7d")[unseen]) == {0}
    assert shelf.user_dense[0, shelf.user_names.index("user_recency_days")] == 30
    assert np.count_nonzero(shelf.user_dense[0]) == 1


def test_what_came_after_the_model_is_read_as_its_bucket_but_stays_itself(demo_shop, shelf, trained):
    """An id that is another value's tonight, and a category that is new, are strangers to the model; matches still see them."""
    names, model = list(load_model(trained.folder).spec.item_fields), load_model(trained.folder)
    brand, category = names.index("brand_index"), names.index("category_3_index")
    size = len(shelf.vocabularies["category_3_index"])
    fields, catalogue = shelf.item_fields.copy(), shelf.catalogue.copy()
    catalogue[1, [brand, category]] = fields[0, [brand, category]] = 5, size
    since = np.zeros(size + 1, np.int32)
    since[[5, size]] = 2**31 - 1
    bucket = np.where(since > 0, 7, np.arange(size + 1)).astype(np.int32)
    words = Vocabulary(since, bucket)
    later = dataclasses.replace(
        shelf, item_fields=fields, catalogue=catalogue,
        vocabularies=shelf.vocabularies | {"brand_index": words, "category_3_index": words},
    )  # fmt: skip
    prepared = PreparedShelf(model, later, torch.device("cpu"))
    assert prepared.item_side.match[1, [brand, category]].tolist() == [5, size]
    as_bucket = catalogue.copy()
    as_bucket[1, [brand, category]] = 7
    as_bucket = PreparedShelf(
        load_model(trained.folder), dataclasses.replace(later, catalogue=as_bucket), torch.device("cpu")
    )
    assert torch.equal(prepared.item_side.queries[1], as_bucket.item_side.queries[1])
    model.topics.off_topic.fill_(0.5)  # the request's topic counts, and nobody asked for the new category yet
    scores = Ranker(model).score_users(later, "search", torch.tensor([0, 1]), torch.tensor([[0, 1], [0, 1]]))
    assert all(torch.isfinite(values).all() for values in scores.values())


def test_beside_an_anchor_shelves_expect_what_the_user_is_likely_to_turn_to(shelf, trained):
    """An unknown scenario changes nothing."""
    plain, beside = (Ranker(load_model(trained.folder)) for _ in range(2))
    beside.stand_beside({"cart": (0.2, 3.0, 2.0, 1.5), "nowhere": (5.0, 5.0, 5.0, 5.0)})
    users, items = torch.arange(6), torch.arange(20).expand(6, -1)
    for scenario in ("cart", "search"):
        one, other = (ranker.score_users(shelf, scenario, users, items) for ranker in (plain, beside))
        ratios = torch.stack([other[task] / one[task] for task in one])
        if scenario == "search":
            assert bool((ratios == 1).all())
        else:
            torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))  # all outcomes hang on the same
            assert 0 < ratios[0].min() < 0.99 and ratios[0].max() > 1.01


def test_what_the_night_lacks_is_told(demo_shop, night, shelf, ranker):
    with pytest.raises(InputError, match="'tv' is not in the shop file"):
        ranker.score_users(shelf, "tv", torch.tensor([0]), torch.tensor([[0]]))
    poorer = dataclasses.replace(shelf, user_names=["renamed", *shelf.user_names[1:]])
    with pytest.raises(EngineError, match="no longer makes"):
        ranker.score_users(poorer, "search", torch.tensor([0]), torch.tensor([[0]]))
    tables = ("user_features", "item_features", "item_scenario_features", "user_sequences", "vocabularies")
    with pytest.raises(InputError, match="table user_features: no rows of 2020-01-01"):
        ShelfFeatures.load(
            demo_shop, night.feature_date.replace(year=2020, month=1, day=1), *(night.paths[t] for t in tables)
        )
