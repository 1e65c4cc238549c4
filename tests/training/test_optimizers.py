import numpy as np
import pytest
import torch
from torch import nn

from training.optimizers import LazyAdam, RowwiseAdagrad, sum_rows

OURS = {"rowwise_adagrad": RowwiseAdagrad, "lazy_adam": LazyAdam}


def table():
    torch.manual_seed(0)
    return nn.Embedding(20, 4, sparse=True)


def walk(embedding, optimizer, steps, first=0):
    """Move along gradients of a few rows, some of them twice in a batch."""
    for step in range(first, first + steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        (embedding(torch.randint(0, 10, (6,))) * torch.randn(6, 4)).sum().backward()
        optimizer.step()


def test_lazy_adam_is_torchs_sparse_adam():
    ours, torchs = table(), table()
    walk(ours, LazyAdam(ours.weight, lr=0.01, l2=0.0), 30)
    walk(torchs, torch.optim.SparseAdam(torchs.parameters(), lr=0.01), 30)
    torch.testing.assert_close(ours.weight, torchs.weight, rtol=1e-5, atol=1e-7)
    assert (ours.weight != table().weight).any(1).sum() == 10


def test_rowwise_adagrad_is_adagrad_with_one_sum_a_row():
    ours, torchs = table(), nn.Embedding(20, 1, sparse=True)
    narrow = nn.Embedding(20, 1, sparse=True)
    narrow.load_state_dict(torchs.state_dict())
    for embedding, optimizer in (
        (narrow, RowwiseAdagrad(narrow.weight, lr=0.1, l2=0.0)),
        (torchs, torch.optim.Adagrad(torchs.parameters(), lr=0.1)),
    ):
        walk(embedding, optimizer, 30)
    torch.testing.assert_close(narrow.weight, torchs.weight)
    optimizer = RowwiseAdagrad(ours.weight, lr=0.1, l2=0.0)
    ours(torch.tensor([3])).mul(torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    before = ours.weight[3].detach().clone()
    optimizer.step()
    expected = 0.1 * torch.tensor([1.0, 2.0, 3.0, 4.0]) / (30 / 4) ** 0.5
    torch.testing.assert_close(before - ours.weight[3], expected)


@pytest.mark.parametrize("kind", OURS)
def test_a_pull_takes_touched_rows_towards_zero(kind):
    embedding = table()
    before = embedding.weight.detach().clone()
    optimizer = OURS[kind](embedding.weight, lr=0.01, l2=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        (0 * embedding(torch.tensor([1, 2]))).sum().backward()
        optimizer.step()
    assert (embedding.weight[1:3].abs() < before[1:3].abs()).all()
    assert torch.equal(embedding.weight[3:], before[3:])


@pytest.mark.parametrize("kind", OURS)
def test_a_state_that_was_taken_up_again_moves_alike(kind):
    through, broken = table(), table()
    walk(through, OURS[kind](through.weight, 0.1, 1e-3), 10)
    first = OURS[kind](broken.weight, 0.1, 1e-3)
    walk(broken, first, 4)
    second = OURS[kind](broken.weight, 0.1, 1e-3)
    second.load_state_dict(first.state_dict())
    walk(broken, second, 6, first=4)
    assert torch.equal(through.weight, broken.weight)


def sparse(rows, values, size=9):
    return torch.sparse_coo_tensor(torch.tensor([rows], dtype=torch.int64), values, (size, values.shape[1]))


@pytest.mark.parametrize("entries", [10, 300, 4000, 50_000])
def test_rows_are_summed_as_they_come(entries):
    torch.manual_seed(0)
    one, two = (sparse(torch.randint(0, 300, (entries,)).tolist(), torch.randn(entries, 8), 300) for _ in range(2))
    for gradient in (one, one + two):
        expected, (rows, sums) = gradient.coalesce(), sum_rows(gradient)
        rows, order = rows.sort()
        assert torch.equal(rows, expected.indices()[0])
        torch.testing.assert_close(sums[order], expected.values(), rtol=1e-5, atol=1e-4)
        one_by_one = np.zeros((300, 8), np.float32)
        np.add.at(one_by_one, gradient._indices()[0].numpy(), gradient._values().numpy())
        assert np.array_equal(sums[order].numpy(), one_by_one[rows.numpy()])


def test_no_rows_sum_to_no_rows():
    rows, sums = sum_rows(sparse([], torch.empty(0, 2)))
    assert rows.shape == (0,) and sums.shape == (0, 2)


def test_adagrad_moves_the_rows_of_its_batches_and_no_others():
    """By hand: row 4 twice in one batch; the second batch finds what the first has summed."""
    table = nn.Parameter(torch.ones(9, 2))
    optimizer = RowwiseAdagrad(table, lr=0.1, l2=0.5)
    table.grad = sparse([4, 1, 4], torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.5, -2.0]]))
    optimizer.step()
    total = (3.0**2 + 0.5**2) / 2
    after = torch.tensor([1 - 0.1 * 3.0 / total**0.5, 1 - 0.1 * 0.5 / total**0.5])
    torch.testing.assert_close(table[4].detach(), after)
    torch.testing.assert_close(table[1].detach(), torch.full((2,), 0.9))
    assert (table[[0, 2, 3, 5, 6, 7, 8]] == 1).all()

    table.grad = sparse([4], torch.tensor([[1.0, 0.0]]))
    optimizer.step()
    pull = torch.tensor([1.0, 0.0]) + 0.5 * after
    total += float(pull.square().mean())
    torch.testing.assert_close(table[4].detach(), after - 0.1 * pull / total**0.5)
