"""The CPU's kernels beside torch's own operations for the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from training.encoders import FieldEmbedding
from training.kernels.gates import mix
from training.kernels.table import look_up, move_rows, rows_of_ids, sum_rows

PRECISIONS = [torch.float32, torch.bfloat16]


def rounding(precision):
    return {"rtol": 1e-5, "atol": 1e-5} if precision == torch.float32 else {"rtol": 2**-7, "atol": 2**-7}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(50, 7), (3, 5, 2), (1, 1), (0, 4)])
def test_a_look_up_and_its_gradient_are_those_of_an_embedding(precision, shape):
    torch.manual_seed(0)
    table = torch.randn(30, 16, requires_grad=True)
    rows, beside = torch.randint(0, 30, shape), torch.randn(*shape[:-1], 3)
    found = look_up(table, rows, beside, precision)
    expected = torch.cat([functional.embedding(rows, table).flatten(-2), beside], -1).to(precision)
    assert torch.equal(found, expected)
    pull = torch.randn_like(found)
    (mine,), (theirs,) = (torch.autograd.grad(out, table, pull) for out in (found, expected))
    assert mine._indices().unique().numel() == mine._nnz()
    torch.testing.assert_close(mine.to_dense(), theirs, rtol=1e-5, atol=1e-5)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_any_bits_are_rounded_as_torch_rounds_them(bits):
    table = torch.from_numpy(np.array(bits, np.uint32).view(np.float32)).unsqueeze(1)
    found = look_up(table, torch.arange(len(bits)).unsqueeze(1), None, torch.bfloat16)
    assert torch.equal(found.nan_to_num(7), table.to(torch.bfloat16).nan_to_num(7))


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_an_id_that_is_none_is_unknown(kind):
    ids = torch.tensor([[0, 1], [2, 3], [3, 4], [-1, -7], [2**31 - 1, 0]], dtype=kind)
    limits, starts = torch.tensor([3, 4]), torch.tensor([0, 3])
    found = rows_of_ids(ids, limits, starts, torch.arange(7) * 10)
    assert found.tolist() == [[0, 40], [20, 60], [0, 30], [0, 30], [0, 30]]


def test_fields_are_looked_up_as_precisely_as_autocast_asks():
    fields = FieldEmbedding({"a": 3, "b": 4}, 2)
    ids, beside = torch.tensor([[1, 9]]), torch.tensor([[0.3]])
    plain = fields(ids, 0, beside)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = fields(ids, 0, beside)
    assert plain.dtype == torch.float32 and torch.equal(rounded, plain.bfloat16())
    assert torch.equal(plain[0, :2], fields.table.weight[1]) and torch.equal(plain[0, 2:4], fields.table.weight[3])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**62), max_size=60), st.sampled_from(PRECISIONS))
def test_each_row_comes_once_with_the_sum_of_its_values(rows, precision):
    values = torch.arange(float(2 * len(rows))).view(-1, 2).to(precision)
    distinct, sums = sum_rows(torch.tensor(rows, dtype=torch.int64).view(-1, 1), values, 2)
    assert distinct.tolist() == list(dict.fromkeys(rows))
    expected = {}
    for row, value in zip(rows, values.float(), strict=True):
        expected[row] = expected.get(row, 0) + value
    torch.testing.assert_close(sums, torch.stack(list(expected.values())) if rows else torch.empty(0, 2))


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("width", [1, 16, 20])
def test_rows_move_as_by_torch(l2, width):
    torch.manual_seed(0)
    table, sums, rows, pull = torch.randn(90, width), torch.rand(90), torch.randperm(90)[:40], torch.randn(40, width)
    expected, total = table.clone(), sums.clone()
    pulled = pull + l2 * table[rows]
    total[rows] += pulled.square().mean(1)
    expected[rows] -= 0.05 * pulled / (total[rows].sqrt() + 1e-10).unsqueeze(1)
    move_rows(table, sums, rows, pull, 0.05, l2)
    torch.testing.assert_close(table, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sums, total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("reach", [[[0, 1, 2], [0, 1, 2]], [[0, 2], [1, 2], [0, 1]], [[1]]])
def test_gates_mix_the_experts_in_their_reach(precision, reach):
    torch.manual_seed(0)
    experts = torch.randn(3, 50, 20).to(precision).requires_grad_()
    shares = torch.rand(len(reach), len(reach[0]), 50).to(precision).requires_grad_()
    found = mix(experts, shares, torch.tensor(reach))
    expected = torch.einsum("tknh,tkn->tnh", experts.float()[torch.tensor(reach)], shares.float())
    assert found.dtype == precision
    torch.testing.assert_close(found.float(), expected, **rounding(precision))
    pull = torch.randn_like(found)
    mine = torch.autograd.grad(found, (experts, shares), pull)
    theirs = torch.autograd.grad(expected, (experts, shares), pull.float())
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, **({} if precision == torch.float32 else {"rtol": 0.02, "atol": 0.05}))
