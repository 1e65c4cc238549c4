"""What drawing negatives hides is added in training and left out at scoring, so that shelves rank by how likely a choice is."""

import dataclasses

import numpy as np
import pytest
import torch

from nightshelf.rebuy import Rebuy
from nightshelf.tasks import Sampled
from training.batches import Dataset
from training.data import load_examples
from training.drawn import corrects_draws, drawn_logit
from training.predict import predict
from training.spec import dense_names

COUNT = "item_scenario_click_count_30d"


@pytest.fixture
def drawing(demo_shop):
    return demo_shop.model_copy(update={"negatives": Sampled(sampled=4), "rebuy": Rebuy(event="purchase")})


def test_what_is_chosen_on_few_days_is_drawn_as_seldom(drawing):
    """The chance of a choice in a day by Poisson's law, simulated: items of 300, 30, 3 and 0 choices in 30 days."""
    counts = np.array([300.0, 30.0, 3.0, 0.0])
    found = np.exp(-drawn_logit(drawing, np.stack([np.zeros(4), counts], 1), ["other", COUNT]))
    days = np.random.default_rng(0).poisson((counts + 0.5) / 30, (200_000, 4))
    assert found == pytest.approx((days > 0).mean(0), abs=0.004)


@pytest.mark.parametrize("choice", [{"negatives": "impressions"}, {"rebuy": None}])
def test_impressions_and_what_nobody_buys_again_are_as_they_were_shown(drawing, choice):
    shop = drawing.model_copy(update=choice)
    assert drawn_logit(shop, np.full((2, 1), 7.0), [COUNT]).tolist() == [0, 0]
    assert not corrects_draws(shop) and corrects_draws(drawing)


def test_a_shop_without_impressions_reads_it_of_the_item_in_the_scenario(drawing, night):
    examples = load_examples(drawing, night.inputs)
    raw = examples.target_dense[:, dense_names(drawing)[1].index(COUNT)]
    assert np.corrcoef(np.argsort(np.argsort(-raw)), np.argsort(np.argsort(examples.drawn)))[0, 1] > 0.99
    assert examples.drawn.min() >= 0


def test_a_model_that_makes_up_for_it_keeps_it_from_what_shelves_are_ranked_by(build, recipe, example_night):
    """Two rows of one pair differ by it as examples; a model that does not make up for it takes no notice."""
    model, spec = build(recipe())
    drawn = np.linspace(0, 3, len(example_night)).astype(np.float32)
    plain, shifted = (Dataset(dataclasses.replace(example_night, drawn=d), spec) for d in (0 * drawn, drawn))
    assert torch.equal(predict(model, plain).at_first, predict(model, shifted).at_first)
    model.spec = spec.model_copy(update={"corrects_draws": True})
    click = [task.name for task in spec.tasks].index("click")
    log_odds = [predict(model, dataset).at_first[:, click].logit() for dataset in (plain, shifted)]
    assert torch.allclose(log_odds[1] - log_odds[0], torch.from_numpy(drawn), atol=1e-3)
