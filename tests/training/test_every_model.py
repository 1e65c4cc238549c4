"""What holds for a ranker of any parts; backbones also against plain loops."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.overrides import TorchFunctionMode

from nightshelf.errors import InputError
from training.artifact import load_model, save_model
from training.backbone_sizes import MMoESizes, PlainSizes
from training.backbones import make_backbone
from training.batches import Dataset
from training.predict import predict
from training.recipe import Recipe
from training.steps import Steps, batch_losses

SCENARIOS = 3
ANYWHERE = torch.eye(SCENARIOS + 1)[[1, 2, 3, 1, 2, 3, 0]]
BACKBONES = {
    "ple of three levels": {"kind": "ple", "levels": 3, "task_experts": 2, "expert_sizes": [16, 8]},
    "mmoe": {"kind": "mmoe", "experts": 3, "expert_sizes": [16, 8]},
    "shared_bottom": {"kind": "shared_bottom", "sizes": [32, 16, 8]},
    "single_task": {"kind": "single_task", "sizes": [16, 8]},
    "cross_stitch": {"kind": "cross_stitch", "sizes": [16, 8]},
    "single_scenario": {"kind": "single_scenario", "sizes": [16, 8]},
    "star": {"kind": "star", "input": 24, "sizes": [16, 8], "auxiliary_sizes": [8]},
    "adl": {"kind": "adl", "input": 24, "sizes": [16, 8]},
    "sar_net": {"kind": "sar_net", "input": 24, "expert_sizes": [16, 8]},
    "adasparse": {"kind": "adasparse", "input": 24, "sizes": [16, 8]},
    "epnet": {"kind": "epnet", "input": 24, "sizes": [16, 8]},
    "pepnet": {"kind": "pepnet", "input": 24, "sizes": [16, 8]},
    "m2m": {"kind": "m2m", "expert_sizes": [16, 8]},
    "hinet": {"kind": "hinet", "expert_sizes": [16, 8], "task_sizes": [16, 8]},
    "hamur": {"kind": "hamur", "input": 24, "sizes": [16, 8], "core": 4, "adapter_size": 8},
    "m3oe": {"kind": "m3oe", "input": 24, "entrance_sizes": [24, 16], "expert_sizes": [16, 8]},
}


ENCODERS = {
    "mean_pooling": {"kind": "mean_pooling"},
    "gru": {"kind": "gru"},
    "convolution": {"kind": "convolution"},
    "transformer": {"kind": "transformer", "blocks": 2},
    "hstu": {"kind": "hstu", "blocks": 2},
}
PARTS = {
    "ple and target_attention": {},
    **{name: {"backbone": sizes} for name, sizes in BACKBONES.items()},
    **{name: {"sequence_encoder": sizes} for name, sizes in ENCODERS.items()},
    "a tower for each scenario": {"towers": "scenario"},
    **{name: {"task_relation": name} for name in ("independent", "aitm", "escm2_ipw", "escm2_dr", "dcmt")},
    "other losses": {"losses": {"click": "focal", "spend": "squared_error"}},
    "pairwise": {"losses": {"click": "pairwise", "cart": "pairwise"}},
    "zero_inflated_lognormal": {"losses": {"spend": "zero_inflated_lognormal"}},
    "label_smoothing": {"label_smoothing": 0.02},
    **{name: {"balancing": name} for name in ("dwa", "gradnorm", "famo", "upgrad")},
}


@pytest.fixture(params=PARTS)
def parts(request):
    return PARTS[request.param]


def shake(*modules):
    """Give each parameter values of its own; some begin as zeros, behind which nothing could be seen."""
    torch.manual_seed(1)
    for module in modules:
        for p in module.parameters():
            torch.nn.init.normal_(p, std=0.1)


def test_overfits_200_rows(build, take_steps, example_night, recipe, parts):
    model, spec = build(recipe(**parts, learning_rate={"dense": 0.02, "embedding": 0.3}))
    chosen = np.zeros(len(example_night), bool)
    chosen[np.flatnonzero(example_night.is_train)[:200]] = True
    dataset = Dataset(example_night, spec).subset(chosen)
    label, click = example_night.labels[chosen, 0], np.full(200, 0.5)
    for _ in range(4):  # most have learned them by heart after the first forty steps
        if np.abs(click - label).mean() >= 0.05 or click[label == 1].min() <= click[label == 0].max():
            take_steps(model, dataset, 40)
            click = predict(model, dataset).at_position[chosen, 0].numpy()
    assert np.abs(click - label).mean() < 0.05
    assert click[label == 1].min() > click[label == 0].max()


def test_gradient_reaches_every_parameter(build, example_night, recipe, parts):
    model, spec = build(recipe(**{"balancing": "uncertainty", **parts}))
    steps, dataset = Steps(model, torch.ones(4)), Dataset(example_night, spec)
    shake(model, steps.balance)
    steps.gradient(dataset, torch.arange(100), torch.ones(4))
    for name, p in [*model.named_parameters(), *steps.balance.named_parameters()]:
        grad = p.grad.coalesce().values() if p.grad is not None and p.grad.is_sparse else p.grad
        assert grad is not None and grad.abs().sum() > 0, name


def gradients(model, dataset):
    """Return a batch's losses and the gradient of their sum for the dense weights."""
    losses = batch_losses(model, dataset.batch(torch.arange(64)), torch.ones(4))
    losses.sum().backward()
    return losses.detach(), torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None and not p.grad.is_sparse]
    )


def test_half_the_bits_pull_the_same_way(build, example_night, recipe, parts):
    found = []
    for precision in ("float32", "bfloat16"):
        model, spec = build(recipe(**parts, precision=precision))
        shake(model)
        found.append(gradients(model, Dataset(example_night, spec)))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    (losses, whole), (half_losses, half) = found
    assert not torch.equal(losses, half_losses)
    torch.testing.assert_close(half_losses, losses, rtol=0.03, atol=0.05)
    assert torch.cosine_similarity(whole, half, dim=0) > 0.98


class IndexedParameters(TorchFunctionMode):
    """Notes the shapes of parameters that are indexed."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__ and isinstance(args[0], torch.nn.Parameter):
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def test_no_parameter_is_indexed_where_threads_compute_side_by_side(build, example_night, recipe, parts):
    """Two threads lock each other out for good if one of them does (training/workers.py)."""
    model, spec = build(recipe(**parts))
    with IndexedParameters() as indexed:
        batch_losses(model, Dataset(example_night, spec).batch(torch.arange(32)), torch.ones(4))
    assert indexed.shapes == []


def test_a_prediction_does_not_depend_on_its_batch_mates(build, example_night, recipe, parts):
    model, spec = build(recipe(**parts))
    shake(model)
    dataset = Dataset(example_night, spec)
    with torch.inference_mode():
        together, _ = model.eval()(dataset.batch(torch.arange(64)))
        alone = torch.cat([model(dataset.batch(torch.tensor([k])))[0] for k in range(8)])
    assert together.std() > 0.01
    assert torch.allclose(together[:8], alone, atol=1e-5)


def test_a_reloaded_model_predicts_the_same(build, example_night, recipe, parts, tmp_path):
    model, spec = build(recipe(**parts))
    shake(model)
    save_model(model, tmp_path)
    dataset = Dataset(example_night, spec)
    assert torch.equal(predict(model, dataset).at_position, predict(load_model(tmp_path), dataset).at_position)


def network(layer, expert, x):
    return x @ layer.weight[expert] + layer.bias[expert]


def test_mmoe_against_loops():
    torch.manual_seed(0)
    mmoe = make_backbone(MMoESizes(kind="mmoe", experts=3, expert_sizes=[5, 4]), 2, SCENARIOS, 0)
    hidden, gates = torch.rand(7, 15), torch.randn(7, 6)
    shake(mmoe)
    found = mmoe(hidden, gates, ANYWHERE)
    for row in range(7):
        outs = [network(mmoe.deeper.layers[0], e, hidden[row, e * 5 : e * 5 + 5]).relu()[0] for e in range(3)]
        for task in range(2):
            shares = gates[row, task * 3 : task * 3 + 3].softmax(0)
            expected = sum(share * out for share, out in zip(shares, outs, strict=True))
            torch.testing.assert_close(found[task, row], expected)


def test_cross_stitch_against_loops():
    torch.manual_seed(0)
    stitch, hidden = make_backbone(PlainSizes(kind="cross_stitch", sizes=[5, 4]), 3, SCENARIOS, 0), torch.rand(7, 15)
    assert stitch.stitches[0].sum(1).tolist() == pytest.approx([1, 1, 1])
    shake(stitch)
    found = stitch(hidden, torch.empty(7, 0), ANYWHERE)
    first, second = stitch.stitches
    for row in range(7):
        own = [hidden[row, t * 5 : t * 5 + 5] for t in range(3)]
        mixed = [sum(first[t, s] * own[s] for s in range(3)) for t in range(3)]
        deeper = [network(stitch.layers[0], t, mixed[t]).relu()[0] for t in range(3)]
        for t in range(3):
            torch.testing.assert_close(found[t, row], sum(second[t, s] * deeper[s] for s in range(3)))


def test_single_task_shares_no_network():
    single = make_backbone(PlainSizes(kind="single_task", sizes=[5, 4]), 3, SCENARIOS, 0)
    shake(single)
    hidden = torch.rand(7, 15, requires_grad=True)
    (grad,) = torch.autograd.grad(single(hidden, torch.empty(7, 0), ANYWHERE)[1].sum(), hidden)
    assert grad[:, 5:10].abs().sum() > 0
    assert grad[:, :5].abs().sum() + grad[:, 10:].abs().sum() == 0


@pytest.mark.parametrize(
    ("backbone", "told"),
    [
        ({"kind": "mmoa"}, "does not match any of the expected tags: 'ple', 'mmoe'"),
        ({"kind": "mmoe", "levels": 2}, "Extra inputs are not permitted"),
        ({"kind": "single_task", "sizes": []}, "at least 1 item"),
        ({"expert_sizes": [16, 8]}, "Unable to extract tag using discriminator 'kind'"),
    ],
)
def test_a_backbone_that_makes_no_sense_is_refused(recipe, backbone, told):
    with pytest.raises(ValidationError, match=told):
        Recipe.model_validate({**recipe().model_dump(), "backbone": backbone})


def test_heads_that_do_not_fit_the_width_are_refused(recipe):
    with pytest.raises(ValidationError, match=r"attention_size 8 is no multiple of sequence_encoder.heads 3"):
        recipe(sequence_encoder={"kind": "transformer", "heads": 3})


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ({"buy": "focal"}, r"losses: 'buy' is no task of this shop; known: click, cart"),
        ({"spend": "focal"}, r"losses.spend = 'focal' is none of a regression task; known: tweedie, huber"),
    ],
)
def test_a_loss_that_fits_no_task_is_refused(build, recipe, losses, told):
    with pytest.raises(InputError, match=told):
        build(recipe(losses=losses))
