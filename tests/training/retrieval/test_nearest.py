"""Exact search beside a sort of everything: values, order, ties, what was seen, and blocks that change nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.retrieval import nearest
from training.retrieval.nearest import NearestItems


def nearest_items(users, items, k, seen=None):
    return NearestItems(items, k).of(users, seen)


def sorted_whole(users, items, k, seen):
    """Return what a sort of all scores gives: by score, then by number."""
    scores = users.astype(np.float64) @ items.T.astype(np.float64)
    scores[seen] = -np.inf
    order = np.lexsort((np.broadcast_to(np.arange(scores.shape[1]), scores.shape), -scores), axis=1)[:, :k]
    values = np.take_along_axis(scores, order, 1)
    order = np.where(np.isfinite(values), order, -1)
    missing = max(0, k - order.shape[1])
    end = ((0, 0), (0, missing))
    return np.pad(order, end, constant_values=-1), np.pad(values, end, constant_values=-np.inf)


# How the search goes about it: scores kept or made again, in chunks, some users at once, rows with many equals apart
WAYS = {
    "kept": {},
    "in chunks": {"_CHUNK": 48, "_KEPT_USERS": 2},
    "made again": {"_CHUNK": 48, "_KEPT_BYTES": 0, "_USERS": 3},
    "many equals": {"_MANY_GROUPS": 2, "_CHUNK": 64, "_KEPT_BYTES": 0},
}


def on_device(users, items, k, seen):
    """Search as on an accelerator."""
    found = torch.full((len(users), k), -1), torch.full((len(users), k), -torch.inf)
    nearest._on_device(users, items, k, seen, found)
    return found


@pytest.mark.parametrize("way", [*WAYS, "on a device"])
def test_it_finds_what_a_sort_of_everything_finds(monkeypatch, way):
    """Vectors are small whole numbers, so that many scores are equal and every sum is exact."""
    for name, value in WAYS.get(way, {}).items():
        monkeypatch.setattr(nearest, name, value)
    search = on_device if way == "on a device" else nearest_items

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def find(data):
        count = data.draw(st.integers(1, 400), "items")
        k = data.draw(st.integers(1, 30), "k")
        rng = np.random.default_rng(data.draw(st.integers(0, 10_000), "seed"))
        spread = data.draw(st.sampled_from([1, 2, 50]), "spread")
        users, items = (rng.integers(-spread, spread + 1, (n, 3)).astype(np.float32) for n in (5, count))
        is_seen = rng.random((5, count)) < data.draw(st.sampled_from([0.0, 0.1, 0.97, 1.0]), "share seen")
        seen = tuple(torch.from_numpy(part) for part in np.nonzero(is_seen))
        found, values = search(torch.from_numpy(users), torch.from_numpy(items), k, seen)
        expected, scores = sorted_whole(users, items, k, is_seen)
        assert found.numpy().tolist() == expected.tolist()
        assert values.numpy().tolist() == scores.tolist()

    find()


@pytest.mark.parametrize("way", ["in chunks", "made again"])
def test_blocks_change_nothing(monkeypatch, way):
    generator = torch.Generator().manual_seed(1)
    users, items = (torch.randn(n, 16, generator=generator) for n in (40, 3000))
    seen = (torch.arange(40), torch.arange(40) * 7)
    whole = nearest_items(users, items, 50, seen)
    for name, value in WAYS[way].items():
        monkeypatch.setattr(nearest, name, value)
    in_blocks = nearest_items(users, items, 50, seen)
    assert torch.equal(whole[0], in_blocks[0])
    torch.testing.assert_close(whole[1], in_blocks[1], rtol=1e-6, atol=1e-6)


def test_no_users_and_no_items_are_no_fault():
    assert nearest_items(torch.zeros(0, 4), torch.zeros(3, 4), 2)[0].shape == (0, 2)
    assert nearest_items(torch.zeros(2, 4), torch.zeros(0, 4), 2)[0].tolist() == [[-1, -1]] * 2
