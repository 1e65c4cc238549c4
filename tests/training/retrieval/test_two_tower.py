"""The two-tower model: its loss beside a whole softmax, towers that see no future, and patterns that it must find."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nightshelf.errors import InputError
from training.retrieval.recipe import RetrievalRecipe, load_retrieval_recipe
from training.retrieval.retrieve import retrieve_items
from training.retrieval.train_two_tower import ranges, read_windows, train_two_tower
from training.retrieval.two_tower import TwoTower, sampled_softmax

ROOT = Path(__file__).parents[3]
WORTH = np.array([0.0, 1.0, 1.0])
NOW = 1_770_000_000.0
MIDNIGHTS = NOW - 86_400.0 * np.arange(25, -1, -1)


def test_with_all_items_in_the_pool_it_is_the_cross_entropy():
    generator = torch.Generator().manual_seed(3)
    users, items = (torch.randn(n, 6, generator=generator) for n in (9, 20))
    positive = torch.arange(9) * 2
    loss = sampled_softmax(users @ items.T, torch.zeros(20), positive)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(users @ items.T, positive, reduction="none"))


def test_a_sampled_pool_estimates_the_sum_over_all_items():
    generator = np.random.default_rng(4)
    users, items = torch.from_numpy(generator.normal(size=(1, 4))), torch.from_numpy(generator.normal(size=(200, 4)))
    chance = generator.uniform(0.05, 0.6, 200)  # each item with a chance of its own
    positive = 7
    sums = []
    for _ in range(4000):
        drawn = np.flatnonzero((generator.random(200) < chance) | (np.arange(200) == positive))
        place = torch.tensor([int(np.flatnonzero(drawn == positive)[0])])
        loss = sampled_softmax(users @ items[drawn].T, torch.from_numpy(np.log(chance[drawn])), place)
        sums.append(float((loss + users @ items[positive]).exp()))  # loss = log sum - own logit
    assert np.mean(sums) == pytest.approx(float((users @ items.T).exp().sum()), rel=0.02)


def _model(recipe, catalogue):
    torch.manual_seed(0)
    return TwoTower(recipe, catalogue.sizes, 2, 2).eval()


@pytest.mark.parametrize("kind", ["hstu", "transformer"])
def test_a_state_knows_neither_later_acts_nor_the_width_of_the_batch(small_recipe, journeys_of, catalogue, kind):
    items = catalogue(9)
    model = _model(small_recipe(sequence_encoder={"kind": kind}), items)
    walked = journeys_of([[1, 2, 3, 4, 5], [6, 7]])
    fields = torch.from_numpy(items.fields)

    def states(windows):
        read = read_windows(walked, np.array(windows), torch.device("cpu"))
        hidden, _ = model.items(fields)
        return model.states(hidden[read.item], read.event, read.scenario, read.seconds, read.is_act)

    whole = states([[0, 5], [5, 7]])
    torch.testing.assert_close(states([[0, 3]])[0, -1], whole[0, 2])  # without the acts after the third
    torch.testing.assert_close(states([[5, 7]])[0, -1], whole[1, -1])  # without three places of padding
    assert not torch.allclose(states([[0, 4]])[0, -1], whole[0, 2])


def test_a_gradient_reaches_every_weight(small_recipe, journeys_of, catalogue):
    items = catalogue(9)
    model = _model(small_recipe(), items).train()
    read = read_windows(journeys_of([[1, 2, 3, 4]]), np.array([[0, 4]]), torch.device("cpu"))
    hidden, vectors = model.items(torch.from_numpy(items.fields))
    states = model.states(hidden[read.item], read.event, read.scenario, read.seconds, read.is_act)
    users = model.users(states[0], torch.tensor([60.0, 600.0, 6000.0, 60_000.0]))
    logits = users @ vectors.T + torch.rand(9, 3) @ model.trend
    sampled_softmax(logits, torch.zeros(9), torch.arange(4)).sum().backward()
    gradients = {name: weight.grad.to_dense() for name, weight in model.named_parameters() if weight.grad is not None}
    without = [name for name, _ in model.named_parameters() if name not in gradients or not gradients[name].abs().sum()]
    assert without == []


def _recall(model, recipe, walked, items, wanted):
    found = dict[int, list[int]]()
    for users, numbers, _ in retrieve_items(model, recipe, walked, items, MIDNIGHTS):
        found |= dict(enumerate(numbers.tolist(), users.start))
    return np.mean([item in found[user] for user, item in enumerate(wanted)])


def test_it_learns_what_follows_what_beyond_what_is_popular(small_recipe, journeys_of, catalogue):
    """Item n + 1 follows item n in a circle of 40, but one in five acts is on any item."""
    rng = np.random.default_rng(5)
    walks, wanted = [], []
    for _ in range(600):
        first, length = rng.integers(40), rng.integers(3, 9)
        walk = (first + np.arange(length)) % 40
        noisy = np.where(rng.random(length) < 0.2, rng.integers(0, 40, length), walk)
        noisy[-1] = walk[-1]
        walks.append(noisy)
        wanted.append((walk[-1] + 1) % 40)
    items, recipe, walked = catalogue(40), small_recipe(), journeys_of(walks, days=3)
    model = train_two_tower(recipe, walked, items, WORTH, 2, MIDNIGHTS)
    assert _recall(model, recipe, walked, items, wanted) > 0.8  # five of some 33: .15 by chance


def test_without_a_pattern_it_learns_what_is_popular(small_recipe, journeys_of, catalogue):
    """Drawn negatives are mostly popular items; the correction keeps that from pushing them down."""
    rng = np.random.default_rng(6)
    share = 1 / np.arange(1, 41) / (1 / np.arange(1, 41)).sum()
    walked = journeys_of([rng.choice(40, 4, replace=False, p=share) for _ in range(1500)])
    items, recipe = catalogue(40), small_recipe(epochs=20, candidates=40)
    model = train_two_tower(recipe, walked, items, WORTH, 2, MIDNIGHTS)
    scores = np.full((len(walked.user_keys), 40), np.nan)
    for users, numbers, values in retrieve_items(model, recipe, walked, items, MIDNIGHTS):
        kept = numbers >= 0
        scores[users.start + np.nonzero(kept)[0], numbers[kept]] = values[kept]
    mean, count = np.nanmean(scores, axis=0), np.bincount(walked.item, minlength=40)
    slope = np.polyfit(np.log(count), mean, 1)[0]
    assert np.corrcoef(np.log(count), mean)[0, 1] > 0.9
    assert 0.7 < slope < 1.4  # a logit of its own for each item: the logarithm of how often it is turned to


def test_nobody_gets_what_he_turned_to_and_the_same_seed_gives_the_same(small_recipe, journeys_of, catalogue):
    rng = np.random.default_rng(7)
    walked = journeys_of([rng.integers(0, 20, rng.integers(1, 9)) for _ in range(80)])
    items, recipe = catalogue(20), small_recipe(epochs=2, candidates=18)
    first, again = (
        list(
            retrieve_items(
                train_two_tower(recipe, walked, items, WORTH, 2, MIDNIGHTS), recipe, walked, items, MIDNIGHTS
            )
        )
        for _ in range(2)
    )
    for (_, numbers, scores), (_, same, values) in zip(first, again, strict=True):
        assert (numbers == same).all()
        assert (scores == values).all()
        for user, row in enumerate(numbers.tolist()):
            own = set(walked.item[walked.starts[user] : walked.starts[user + 1]].tolist())
            proposed = [item for item in row if item >= 0]
            assert not own & set(proposed)
            assert len(set(proposed)) == len(proposed) == min(18, 20 - len(own))


def test_ranges():
    assert ranges(np.array([3, 7, 7]), np.array([5, 7, 10])).tolist() == [3, 4, 7, 8, 9]


@pytest.mark.parametrize("file", sorted((ROOT / "conf" / "retrieval").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_recipes_that_come_along_can_be_read(file):
    assert load_retrieval_recipe(file).name == file.stem


def test_a_recipe_says_what_is_wrong_with_it(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("name: r\nvector_size: 33\n")
    with pytest.raises(InputError, match=r"no multiple of sequence_encoder\.heads 2"):
        load_retrieval_recipe(file)
    file.write_text("name: r\nvectorsize: 32\n")
    with pytest.raises(InputError, match="vector_size"):
        load_retrieval_recipe(file)
    assert RetrievalRecipe(name="r").candidates == 100


def test_what_rose_of_late_is_proposed(small_recipe, journeys_of, catalogue):
    """Every four days another item of 40 is in fashion, and one act in two is on it; half_life_days says nothing of that."""
    rng = np.random.default_rng(8)
    days = [np.sort(rng.choice(20, 6, replace=False)) for _ in range(400)]
    walks = [np.where(rng.random(6) < 0.5, 30 + of_user // 4, rng.integers(0, 30, 6)) for of_user in days]
    seconds = np.concatenate([MIDNIGHTS[5:-1][of_user] + rng.uniform(0, 86_000, 6) for of_user in days])
    walked, items = replace(journeys_of(walks), seconds=seconds), catalogue(40)
    recipe = small_recipe(trend_half_lives_days=[1.0, 5.0], epochs=10)
    model = train_two_tower(recipe, walked, items, WORTH, 2, MIDNIGHTS)
    without = [34 not in walk for walk in walks]
    proposed = np.concatenate([numbers for _, numbers, _ in retrieve_items(model, recipe, walked, items, MIDNIGHTS)])
    assert (proposed[without] == 34).any(axis=1).mean() > 0.9
    assert (proposed == 30).any(axis=1).mean() < 0.3  # as many acts in all, but long ago


def test_what_rises_and_falls_within_hours_takes_trends_of_each_hour(small_recipe, journeys_of, catalogue):
    """Every six hours another item of 42 is in fashion, so that what a midnight knew is out of fashion on its day."""
    rng = np.random.default_rng(9)
    hours = [np.sort(rng.uniform(0, 72, 6)) for _ in range(400)]
    walks = [np.where(rng.random(6) < 0.5, 30 + of_user.astype(int) // 6, rng.integers(0, 30, 6)) for of_user in hours]
    seconds = MIDNIGHTS[-4] + 3600 * np.concatenate(hours)
    walked, items = replace(journeys_of(walks), seconds=seconds), catalogue(42)
    rates = {"dense": 0.01, "trend": 0.05, "embedding": 0.1}
    recipe = small_recipe(trend_half_lives_days=[0.04], trends_per_day=24, epochs=10, learning_rate=rates)
    model = train_two_tower(recipe, walked, items, WORTH, 2, MIDNIGHTS)
    without = [41 not in walk for walk in walks]
    proposed = np.concatenate([numbers for _, numbers, _ in retrieve_items(model, recipe, walked, items, MIDNIGHTS)])
    assert (proposed[without] == 41).any(axis=1).mean() > 0.9
    assert (proposed == 40).any(axis=1).mean() < 0.3  # .8 and more, and 41 .6, where training knows midnights alone
