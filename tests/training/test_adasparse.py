"""AdaSparse's regulariser: what it costs, whom it moves, and that it neither hangs on slices nor on who computes beside it."""

import pytest
import torch
from pydantic import ValidationError

from training.backbone_sizes import AdaSparseSizes
from training.backbones import make_backbone
from training.backbones.moving import StepCount
from training.backbones.penalties import collect_penalties
from training.batches import Dataset
from training.steps import Steps, batch_losses

PRUNED, KEPT = -5.0, 0.0
WHERE = torch.eye(3)[[1, 1, 2, 0]]


def make(biases, **sizes):
    """Return a backbone whose pruners say the same of every row: a bias for each unit of the input and of one layer."""
    torch.manual_seed(1)
    widths = [len(of_layer) for of_layer in biases]
    sizes = AdaSparseSizes(kind="adasparse", input=widths[0], scenario_size=3, sizes=widths[1:], **sizes)
    backbone = make_backbone(sizes, 2, 2, 0)
    for pruner, bias in zip(backbone.pruners, biases, strict=True):
        torch.nn.init.zeros_(pruner.weight)
        pruner.bias.data = torch.tensor(bias)
    return backbone


def penalty(backbone, rows=4):
    """Return the penalty of each row."""
    with collect_penalties() as penalties:
        backbone(torch.randn(rows, backbone.hidden_width), torch.empty(rows, 0), WHERE[:rows])
    return torch.stack(penalties).sum(0)


def test_the_penalty_by_hand():
    backbone = make([[PRUNED, PRUNED, KEPT, KEPT], [PRUNED, KEPT, KEPT, KEPT, KEPT]])
    # Two of four are too many, one of five lies between the bounds; the mean over two layers.
    expected = torch.full((4,), (0.5 - 0.2) ** 2 / 2)
    torch.testing.assert_close(penalty(backbone), 0.01 * expected)
    for _ in range(100):
        backbone.grown.settle()
    torch.testing.assert_close(penalty(backbone), 0.02 * expected)


def test_the_penalty_is_nothing_between_the_bounds_of_the_recipe():
    biases = [[PRUNED, PRUNED, KEPT, KEPT], [KEPT] * 5]
    assert torch.equal(penalty(make(biases, least_pruned=0, most_pruned=0.5)), torch.zeros(4))
    assert (penalty(make(biases, least_pruned=0.1, most_pruned=0.5)) > 0).all()


def test_too_many_pruned_units_are_raised_and_too_few_are_lowered_and_others_left_alone():
    backbone = make([[PRUNED, PRUNED, KEPT, KEPT], [PRUNED, KEPT, KEPT, KEPT, KEPT], [KEPT, KEPT, KEPT]])
    penalty(backbone).sum().backward()
    too_many, enough, too_few = (pruner.bias.grad for pruner in backbone.pruners)
    assert (too_many < 0).all() and (too_few > 0).all()
    assert torch.equal(enough, torch.zeros(5))


def test_the_penalty_reaches_the_scenarios_vectors():
    backbone = make([[PRUNED, PRUNED, KEPT, KEPT], [KEPT] * 5])
    torch.nn.init.normal_(backbone.pruners[0].weight, std=0.1)
    penalty(backbone).sum().backward()
    assert (backbone.scenario.weight.grad != 0).any(0).all()


def pruned_shares(backbone, hidden, where):
    """Return the share of pruned units in each known scenario and layer."""
    steepness, found = 1 + 1e-4 * backbone.grown.steps, []
    hooks = [p.register_forward_hook(lambda _, __, logit: found.append(logit)) for p in backbone.pruners]
    with torch.no_grad():
        backbone(hidden, torch.empty(len(hidden), 0), where)
    for hook in hooks:
        hook.remove()
    pruned = [(2 * (steepness * logit).sigmoid() <= 0.25).float().mean(1) for logit in found]
    return torch.stack([rows[where[:, k] > 0].mean() for rows in pruned for k in (1, 2)])


def test_the_share_of_pruned_units_moves_between_the_bounds_in_each_scenario():
    backbone = make([[KEPT] * 20, [PRUNED] * 10 + [KEPT] * 10])
    for pruner in backbone.pruners:
        torch.nn.init.normal_(pruner.weight, std=0.05)
    hidden, where = torch.randn(200, 20), torch.eye(3)[torch.arange(200) % 2 + 1]
    target = hidden[:, 0] * (where[:, 1] - where[:, 2])
    before = pruned_shares(backbone, hidden, where)
    assert ((before < 0.1) | (before > 0.4)).all()
    backbone.grown.steps.fill_(10_000)  # as heavy as it becomes
    optimizer = torch.optim.Adam(backbone.parameters(), 0.01)
    for _ in range(400):
        with collect_penalties() as penalties:
            out = backbone(hidden, torch.empty(200, 0), where)[0].sum(1)
        optimizer.zero_grad()
        ((out - target).square().mean() + sum(penalties).mean()).backward()
        optimizer.step()
    after = pruned_shares(backbone, hidden, where)
    assert ((after > 0.13) & (after < 0.27)).all()


def test_nothing_is_collected_where_nobody_trains():
    backbone = make([[PRUNED, PRUNED, KEPT, KEPT], [KEPT] * 5])
    hidden, gates = torch.randn(4, 4), torch.empty(4, 0)
    alone = backbone(hidden, gates, WHERE)
    with collect_penalties() as penalties:
        assert torch.equal(backbone(hidden, gates, WHERE), alone)
    collected = len(penalties)
    backbone(hidden, gates, WHERE)
    assert len(penalties) == collected == 2


SIZES = {"kind": "adasparse", "input": 24, "sizes": [16, 8]}


def test_a_row_is_penalised_once_however_many_tasks_there_are(build, example_night, recipe):
    losses = []
    for bounds in ({}, {"least_pruned": 0, "most_pruned": 1}):
        model, spec = build(recipe(backbone={**SIZES, **bounds}))
        for pruner in model.backbone.pruners:
            torch.nn.init.zeros_(pruner.weight)
            torch.nn.init.zeros_(pruner.bias)
        batch = Dataset(example_night, spec).batch(torch.arange(64))
        losses.append(batch_losses(model, batch, torch.ones(4)))
    # Nothing is pruned: .01 times .2 squared for each row in each of three pruners, whose mean counts.
    expected = 0.01 * 0.2**2 * batch.weights.sum((0, 1)) / len(spec.tasks)
    torch.testing.assert_close((losses[0] - losses[1]) / expected, torch.ones(4), rtol=0.05, atol=0)


@pytest.mark.parametrize("size", [1, 2, 101])
def test_the_penalty_of_a_batch_does_not_hang_on_its_slices(build, example_night, recipe, size):
    model, spec = build(recipe(backbone=SIZES))
    for pruner in model.backbone.pruners:
        torch.nn.init.normal_(pruner.bias, mean=-2, std=1)
    model.backbone.grown.steps.fill_(5000)  # a penalty that weighs as much as a task
    dataset, chunks, ones = Dataset(example_night, spec), torch.arange(size), torch.ones(4)
    batch = dataset.batch(chunks)
    loss = batch_losses(model, batch, ones).sum() / batch.is_row.sum()
    loss.backward()
    whole = {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}
    steps = Steps(model, ones)
    assert steps.gradient(dataset, chunks, ones) == pytest.approx(loss.item(), rel=1e-6)
    for name, p in model.named_parameters():
        if name in whole:
            torch.testing.assert_close(p.grad.to_dense(), whole[name], rtol=1e-4, atol=1e-6)


def test_steps_are_counted_up_to_the_last_that_lets_anything_grow(build, take_steps, example_night, recipe):
    model, spec = build(recipe(backbone=SIZES))
    take_steps(model, Dataset(example_night, spec), 3)
    assert model.backbone.grown.steps == 3
    count = StepCount(2)
    for _ in range(3):
        count.settle()
    assert count.steps == 2


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(ValidationError, match=r"least_pruned 0\.3 lies above most_pruned 0\.25"):
        AdaSparseSizes(kind="adasparse", least_pruned=0.3)
