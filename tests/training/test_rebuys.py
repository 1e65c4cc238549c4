"""A ranker of a shop whose users want the same things again: it reads what each one chose before, in training and on shelves."""

import numpy as np
import pytest
import torch

from nightshelf.rebuy import Rebuy
from nightshelf.tasks import Sampled
from training.batches import Dataset
from training.data import dense_names, load_examples
from training.matching import OwnMatch
from training.normalization import load_normalization
from training.predict import predict
from training.ranking_model import RankingModel
from training.score import Ranker
from training.shelf_features import ShelfFeatures
from training.spec import model_spec
from training.transfer import why_incompatible


@pytest.fixture(scope="module")
def grocer(demo_shop):
    return demo_shop.model_copy(update={"rebuy": Rebuy(event="purchase")})


@pytest.fixture(scope="module")
def grocers_night(grocer, make_night, tmp_path_factory):
    return make_night(tmp_path_factory.mktemp("grocer"), shop=grocer)


@pytest.fixture(scope="module")
def make(grocers_night, recipe):
    """Return make(shop) → a ranker with random weights, and the examples that it reads."""

    def of(shop):
        examples, small = load_examples(shop, grocers_night.inputs), recipe(bucketize=[])
        names = [*dense_names(shop)[0], *dense_names(shop)[1]]
        scales = load_normalization(grocers_night.inputs.normalization, names, [])
        torch.manual_seed(0)
        model = RankingModel(model_spec(shop, small, examples.vocabularies, scales, "2026-02-14"))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        return model.eval(), examples

    return of


def test_shelves_are_scored_as_training_predicts(grocer, grocers_night, make):
    model, examples = make(grocer)
    expected = predict(model, Dataset(examples, model.spec)).at_first
    tables = ("user_features", "item_features", "item_scenario_features", "user_sequences", "vocabularies")
    paths = (grocers_night.paths[table] for table in tables)
    shelf = ShelfFeatures.load(grocer, grocers_night.feature_date, *paths)
    last = examples.day == examples.day.max()
    rows = np.flatnonzero(last & (examples.scenario == 1))
    users, items = examples.user_fields[rows, 0], examples.item[rows] - 1
    found = Ranker(model).score(shelf, next(iter(grocer.scenarios)), torch.from_numpy(users), torch.from_numpy(items))
    for place, task in enumerate(task.name for task in model.spec.tasks):
        assert torch.allclose(found[task], expected[rows, place], rtol=1e-4, atol=1e-5), task


def test_what_a_user_chose_before_moves_the_scores_of_those_items_alone(grocer, make):
    model, examples = make(grocer)
    dataset = Dataset(examples, model.spec)
    batch = dataset.batch(torch.arange(len(dataset.chunks)))
    before, _ = model(batch)
    is_own = (batch.users.own.unsqueeze(1) == dataset.item[batch.rows.clamp(min=0)].unsqueeze(-1)).any(
        -1
    ) & batch.is_row
    assert 0 < int(is_own.sum()) < int(batch.is_row.sum())
    batch.users.own_counts.mul_(2)
    after, _ = model(batch)
    moved = (after - before).abs().amax(-1) > 1e-6
    assert (moved == is_own)[batch.is_row].all()


def test_a_shop_without_it_has_a_model_without_it(demo_shop, grocer, make):
    """Its weights have the shapes of before, and none is passed on to a model that reads more."""
    plain, _ = make(demo_shop)
    reads, _ = make(grocer)
    assert reads.pair_layer.weight.shape[1] - plain.pair_layer.weight.shape[1] == reads.own.width
    assert why_incompatible(plain.spec, reads.spec) == "the shop's rebuys have changed"


def test_counts_shares_and_ages_are_those_of_the_item():
    match = OwnMatch([2.0])
    own, counts, ages = torch.tensor([[0, 4, 7]]), torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    found = match(torch.tensor([[7, 4, 9, 0]]), own, match.memory(counts, ages))
    told = [[60, 750, 1], [20, 250, np.exp(-1)], [0, 0, 0], [0, 0, 0]]
    assert found[0].numpy() == pytest.approx(np.log1p(told))


def test_where_negatives_are_drawn_some_of_training_are_what_the_user_chose_before(grocer, grocers_night):
    """Their features are those that a row of the same item had last; all else of the examples stays."""
    drawing = grocer.model_copy(update={"negatives": Sampled(sampled=4)})
    as_drawn, found = (load_examples(shop, grocers_night.inputs) for shop in (grocer, drawing))
    moved = np.flatnonzero(as_drawn.item != found.item)
    assert 20 < len(moved) < 0.25 * len(found) and found.is_train[moved].all()
    assert (found.labels[moved, 0] == 0).all() and np.array_equal(as_drawn.labels, found.labels)
    assert (found.histories.own[found.history[moved]] == found.item[moved, None]).any(axis=1).all()
    for row in moved:
        like = (as_drawn.item == found.item[row]) & (as_drawn.scenario == found.scenario[row])
        before = as_drawn.day <= found.day[row]
        lends = like & before & (as_drawn.day == as_drawn.day[like & before].max())
        assert (as_drawn.target_dense[lends] == found.target_dense[row]).all(axis=1).any()
    assert (as_drawn.drawn == 0).all()
    likely = np.exp(-found.drawn)
    assert likely[moved].mean() > 2 * likely[found.is_train & ~np.isin(np.arange(len(found)), moved)].mean()
