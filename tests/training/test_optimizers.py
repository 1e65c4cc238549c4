import re

import numpy as np
import pytest
import torch
from torch import nn

from training.optimizers import LazyAdam, RowwiseAdagrad, make_optimizers, sum_rows

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


def names_of(model, recipe, group):
    """Return the names of the dense parameters in a group of AdamW, those of one list of modules as one name."""
    names = {id(p): re.sub(r"\.\d+(?=\.|$)", "", name) for name, p in model.named_parameters()}
    dense, _ = make_optimizers(model, nn.Module(), recipe)
    assert [of["weight_decay"] for of in dense.param_groups] == [0.3, 0]
    return {names[id(p)] for p in dense.param_groups[group]["params"]}


DECAYED = {
    "ple": "entrances.weight levels.deeper.layers.weight shared_gates.weight task_gates.weight",
    "mmoe": "deeper.layers.weight",
    "shared_bottom": "deeper.layers.weight",
    "single_task": "deeper.layers.weight",
    "cross_stitch": "layers.weight",
    "single_scenario": "layers.weight",
    "star": "auxiliary.weight layers.weight",
    "adl": "layers.weight",
    "sar_net": "gate.weight own_layers.weight shared_layers.weight",
    "adasparse": "layers.weight pruners.weight scenario.weight",
    "epnet": "layers.weight scenario.weight vector_gate.first.weight vector_gate.last.weight",
    "ppnet": "layers.weight scenario.weight unit_gates.first.weight unit_gates.last.weight",
    "pepnet": "layers.weight scenario.weight unit_gates.first.weight unit_gates.last.weight vector_gate.first.weight "
    "vector_gate.last.weight",
    "m2m": "attention.weight.weight deeper.layers.weight scenario task tower.weight.weight",
    "hinet": "attention deeper.layers.weight entrance.weight task_deeper.layers.weight task_gate.weight",
    "hamur": "adapters.weights hyper.weight layers.weight",
    "m3oe": "around.weight behind.weight deeper.layers.weight entrance.weight gate.weight star.weight",
}
DECAYED_ENCODER = {
    "target_attention": "key.weight",
    "din": "key.weight unit.key.weight unit.product.weight unit.query.weight unit.score.weight",
    "mean_pooling": "",
    "gru": "sequence.cells.weight_hh_l0 sequence.cells.weight_ih_l0",
    "convolution": "sequence.filters.weight sequence.merge.weight",
    "transformer": "sequence.blocks.feed.weight sequence.blocks.merge.weight sequence.blocks.project.weight",
    "hstu": "sequence.blocks.merge.weight sequence.blocks.project.weight",
}
OF_ALL_ENCODERS = "age.weight event.weight query.weight scenario.weight target_scenario.weight value.weight"
OF_ALL = (
    "again.weight dense_layer.weight item_layer.weight item_vector.weight pair_layer.weight scenario_layer.weight "
    "scenario_scale.weight taste.weight tower_inputs.transfers.key.weight tower_inputs.transfers.query.weight "
    "tower_inputs.transfers.tell.weight tower_inputs.transfers.value.weight towers.layers.weight user_layer.weight "
    "wide_dense.weight wide_pair.weight"
)


@pytest.mark.parametrize(
    ("backbone", "encoder"),
    [(kind, "target_attention") for kind in DECAYED] + [("ple", kind) for kind in DECAYED_ENCODER],
)
def test_matrices_decay_whose_neutral_value_is_0(build, recipe, backbone, encoder):
    """A factor stays near 1, a slope near .25, a matrix of stitches near the identity; and biases are free."""
    asked = recipe(
        backbone={"kind": backbone, **({"levels": 3} if backbone == "ple" else {})},
        sequence_encoder={"kind": encoder},
        task_relation="aitm",
        towers="scenario",
        weight_decay=0.3,
    )
    model, _ = build(asked)
    encoders = [*OF_ALL_ENCODERS.split(), *DECAYED_ENCODER[encoder].split()]
    expected = {f"history.{name}" for name in encoders} | {f"backbone.{name}" for name in DECAYED[backbone].split()}
    assert names_of(model, asked, 0) == expected | set(OF_ALL.split())
    every = {re.sub(r"\.\d+(?=\.|$)", "", name) for name, _ in model.named_parameters()} - {"fields.table.weight"}
    assert names_of(model, asked, 1) == every - names_of(model, asked, 0)
