"""Batches: every chunk once an epoch, histories of like length together, and no event lost to a narrow batch."""

import pytest
import torch

from training.artifact import load_spec
from training.batches import Dataset, entries, gather_newest
from training.data import load_examples


@pytest.fixture(scope="module")
def dataset(demo_shop, night, trained):
    return Dataset(load_examples(demo_shop, night.inputs), load_spec(trained.folder))


def test_an_epoch_has_every_chunk_once_and_is_drawn_by_seed_and_epoch_alone(dataset):
    batches = dataset.shuffled_batches(64, seed=1, epoch=1)
    assert torch.cat(batches).sort().values.tolist() == list(range(len(dataset.chunks)))
    again, other = (dataset.shuffled_batches(64, seed=1, epoch=epoch) for epoch in (1, 2))
    assert torch.equal(torch.cat(batches), torch.cat(again))
    assert not torch.equal(torch.cat(batches), torch.cat(other))


def test_batches_run_from_short_histories_to_long_and_are_as_wide_as_their_longest(dataset):
    in_order = dataset.ordered_batches(64)
    assert torch.cat(in_order).sort().values.tolist() == list(range(len(dataset.chunks)))
    longest = [int(dataset.lengths[dataset.history[dataset.chunks[batch, 0]]].max()) for batch in in_order]
    assert longest == sorted(longest)
    assert longest[0] < longest[-1]
    assert [dataset.batch(batch).users.events.shape[1] for batch in in_order] == [max(1, n) for n in longest]


def test_a_history_is_as_long_as_from_its_oldest_entry_on_whatever_is_unknown_in_between():
    padded = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 7], [0, 3, 0, 7], [5, 0, 0, 0]])
    lengths = entries(padded)
    assert lengths.tolist() == [0, 1, 3, 4]
    assert gather_newest([padded], torch.tensor([1, 2]), lengths)[0].tolist() == [[0, 0, 7], [3, 0, 7]]
    assert gather_newest([padded], torch.tensor([0]), lengths)[0].tolist() == [[0]]
