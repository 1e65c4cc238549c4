"""The regression of items on items: beside a plain solver, and what it adds to inner products."""

import numpy as np
import pytest
import torch

from nightshelf.errors import InputError
from training.retrieval.item_regression import MOST_ITEMS, fit_blend
from training.retrieval.recipe import ItemRegression
from training.retrieval.retrieve import retrieve_items
from training.retrieval.train_two_tower import train_two_tower


def drawn_pairs(users=700, items=9):
    """Return what users have; more users than a block has."""
    return np.stack(np.nonzero(np.random.default_rng(2).random((users, items)) < 0.4))


def test_each_column_is_a_ridge_regression_on_the_other_items():
    own = drawn_pairs()
    blend = fit_blend(ItemRegression(ridge=5), own, 700, 9)
    has = np.zeros((700, 9))
    has[tuple(own)] = 1
    for item in range(9):
        others = np.delete(has, item, axis=1)
        expected = np.linalg.solve(others.T @ others + 5 * np.eye(8), others.T @ has[:, item])
        np.testing.assert_allclose(np.delete(blend.weights[:, item], item), expected, atol=1e-6)
    assert not np.diag(blend.weights).any()


def test_it_adds_to_inner_products_and_leaves_out_what_the_user_has():
    own = drawn_pairs()
    generator = torch.Generator().manual_seed(1)
    users, items = (torch.randn(n, 4, generator=generator) for n in (700, 9))
    blend = fit_blend(ItemRegression(weight=0.5), own, 700, 9)
    away = np.unique(np.hstack([own, [[0, 1], [8, 8]]]), axis=1)
    numbers, scores = blend.of(users, items, own, away, 9)
    has = np.zeros((700, 9), np.float32)
    has[tuple(own)] = 1
    regressed = has @ blend.weights
    whole = (users @ items.T).numpy() + 0.5 * regressed / (regressed.std(1, keepdims=True) + 1e-9)
    has[tuple(away)] = 1
    whole[has > 0] = -np.inf
    np.testing.assert_allclose(scores.numpy(), -np.sort(-whole, axis=1), rtol=1e-4, atol=1e-5)
    assert (numbers.numpy() >= 0).sum() == (has == 0).sum()


def test_a_large_catalogue_is_refused():
    with pytest.raises(InputError, match="item_regression: 10,001 items"):
        fit_blend(ItemRegression(), drawn_pairs(), 700, MOST_ITEMS + 1)


def test_candidates_follow_it_where_it_weighs_most(small_recipe, journeys_of, catalogue):
    walked = journeys_of([[1, 2], [1, 2], [1, 2], [3, 4], [3, 4], [3, 4], [1], [3]])
    recipe, items = small_recipe(epochs=1, candidates=1, item_regression={"weight": 100, "ridge": 1}), catalogue(6)
    midnights = 1_770_000_000.0 - 86_400.0 * np.arange(25, -1, -1)
    model = train_two_tower(recipe, walked, items, np.array([0.0, 1.0, 1.0]), 2, midnights)
    ((_, found, _),) = retrieve_items(model, recipe, walked, items, midnights)
    assert found[6:, 0].tolist() == [2, 4]
    may_stand = np.array([True, True, False, True, True, True])
    ((_, found, _),) = retrieve_items(model, recipe, walked, items, midnights, may_stand)
    assert found[7, 0] == 4 and 2 not in found


@pytest.mark.parametrize("regression", [None, {"weight": 100, "ridge": 1}])
def test_what_is_barred_makes_room_for_the_next_best(small_recipe, journeys_of, catalogue, regression):
    walked = journeys_of([[1, 2], [1, 2], [3, 4], [3, 4], [1], [3]])
    recipe, items = small_recipe(epochs=1, candidates=2, item_regression=regression), catalogue(6)
    midnights = 1_770_000_000.0 - 86_400.0 * np.arange(25, -1, -1)
    model = train_two_tower(recipe, walked, items, np.array([0.0, 1.0, 1.0]), 2, midnights)
    may_stand = np.array([True, False, True, True, True, True])
    everything = retrieve_items(model, recipe.model_copy(update={"candidates": 6}), walked, items, midnights, may_stand)
    ((_, ranking, _),) = everything
    barred = np.array([[0, 4, 4], [1, 2, 3]])
    ((_, found, _),) = retrieve_items(model, recipe, walked, items, midnights, may_stand, barred)
    for user, row in enumerate(found.tolist()):
        kept = [item for item in ranking[user] if item >= 0 and not (user == 4 and item in (2, 3))]
        assert row == kept[:2]
