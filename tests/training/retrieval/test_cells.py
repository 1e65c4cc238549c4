"""Search in cells beside the exact search: recall as asked for, what was seen left out, and exact where cells do not do."""

import logging

import numpy as np
import pytest
import torch

from training.retrieval import cells
from training.retrieval.cells import NearestInCells, item_search
from training.retrieval.nearest import NearestItems


@pytest.fixture(scope="module")
def learnt():
    """Return vectors as a two-tower model has them: users and items around directions; the last number is an item's bias."""
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(60, 16))

    def draw(count):
        drawn = directions[rng.integers(0, 60, count)] + 0.5 * rng.normal(size=(count, 16))
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    users = np.hstack([10 * draw(600), np.ones((600, 1))]).astype(np.float32)
    items = np.hstack([draw(20_000), rng.exponential(size=(20_000, 1))]).astype(np.float32)
    return torch.from_numpy(users), torch.from_numpy(items)


def recall(found, wanted):
    shared = [len(np.intersect1d(row, other)) for row, other in zip(found.numpy(), wanted.numpy(), strict=True)]
    return sum(shared) / wanted.numel()


@pytest.fixture(scope="module")
def search(learnt):
    users, items = learnt
    return item_search(items, 20, users[:300], 0.95)


def test_it_finds_the_share_that_was_asked_for_in_few_cells(learnt, search):
    users, items = learnt
    assert isinstance(search, NearestInCells)
    assert search.searched < 60  # of 283
    asked = users[300:]
    wanted = NearestItems(items, 20).of(asked)[0]
    assert 0.93 < recall(search.of(asked)[0], wanted) < 1
    assert recall(item_search(items, 20, users[:300], 0.995).of(asked)[0], wanted) > 0.985


def test_scores_are_true_and_fall_and_what_was_seen_is_left_out(learnt, search):
    users, items = learnt
    asked = users[300:400]
    seen = torch.arange(100).repeat_interleave(5), search.of(asked)[0][:, ::4].flatten()
    numbers, scores = search.of(asked, seen)
    assert (scores.diff(dim=1) <= 0).all()
    torch.testing.assert_close(scores, (items[numbers] * asked[:, None]).sum(2), rtol=1e-4, atol=1e-4)
    for user, item in zip(*(part.tolist() for part in seen), strict=True):
        assert item not in numbers[user].tolist()
    assert all(len(row.unique()) == 20 for row in numbers)


def test_users_for_whom_cells_do_not_do_are_searched_for_exactly(monkeypatch, learnt, search):
    users, items = learnt
    asked, exact = users[300:303], NearestItems(items, 20)
    monkeypatch.setattr(cells, "_MORE", 3)
    best = exact.of(asked)[0]
    seen = torch.tensor([0, 2, 2, 2, 2]), torch.cat([best[0, :1], best[2, :4].sort().values])
    found = search.of(asked, seen)
    assert found[0][2].tolist() == exact.of(asked, seen)[0][2].tolist()
    assert found[0][1].tolist() == search.of(asked[1:2])[0][0].tolist()
    few = NearestInCells(items, NearestItems(items, 500), 500, 283, users[:300])
    assert recall(few.of(asked)[0], NearestItems(items, 500).of(asked)[0]) == 1  # one cell holds fewer than 500


@pytest.mark.parametrize(("count", "least_recall"), [(20_000, 1.0), (70, 0.9)])
def test_the_whole_is_searched_for_all_items_and_where_there_are_few(learnt, count, least_recall):
    users, items = learnt
    assert isinstance(item_search(items[:count], 20, users, least_recall), NearestItems)


def test_vectors_without_order_are_searched_exactly_and_that_is_told(caplog):
    generator = torch.Generator().manual_seed(1)
    users, items = (torch.randn(n, 48, generator=generator) for n in (50, 3000))
    with caplog.at_level(logging.WARNING, "nightshelf"):
        search = item_search(items, 20, users, 0.98)
    assert isinstance(search, NearestItems)
    assert "the search is exact" in caplog.text


def test_equal_vectors_are_no_trouble():
    users, items = torch.ones(3, 8), torch.ones(4000, 8)
    numbers, scores = item_search(items, 10, users, 0.9).of(users)
    assert (numbers >= 0).all()
    assert torch.equal(scores, torch.full((3, 10), 8.0))
