"""What holds for a ranker of any parts; backbones also against plain loops."""

import copy
import dataclasses
import json
import os
import random
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.overrides import TorchFunctionMode

from nightshelf.errors import InputError
from training.artifact import load_model, save_model
from training.backbone_sizes import MMoESizes, PlainSizes
from training.backbones import make_backbone
from training.backbones.scenario_experts import M3oE
from training.base_rates import start_at_base_rates
from training.batches import Dataset
from training.predict import predict
from training.ranking_model import RankingModel
from training.recipe import Balancing, Recipe
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
    "ppnet": {"kind": "ppnet", "input": 24, "sizes": [16, 8]},
    "pepnet": {"kind": "pepnet", "input": 24, "sizes": [16, 8]},
    "m2m": {"kind": "m2m", "expert_sizes": [16, 8]},
    "hinet": {"kind": "hinet", "expert_sizes": [16, 8], "task_sizes": [16, 8]},
    "hamur": {"kind": "hamur", "input": 24, "sizes": [16, 8], "core": 4, "adapter_size": 8},
    "m3oe": {"kind": "m3oe", "input": 24, "entrance_sizes": [24, 16], "expert_sizes": [16, 8]},
}


ENCODERS = {
    "mean_pooling": {"kind": "mean_pooling"},
    "din": {"kind": "din", "units": 8},
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
    "huber": {"losses": {"spend": "huber"}},
    "pairwise": {"losses": {"click": "pairwise", "cart": "pairwise"}},
    "zero_inflated_lognormal": {"losses": {"spend": "zero_inflated_lognormal"}},
    "label_smoothing": {"label_smoothing": 0.02},
    **{name: {"balancing": name} for name in ("dwa", "gradnorm", "famo", "pcgrad", "mgda", "cagrad", "upgrad")},
    "lazy_adam": {"embedding_optimizer": "lazy_adam"},
    "dropout": {"dropout": 0.1},
}
# What a part does to tasks other than the click, which all parts are tried on; those of a shop of click, cart, purchase, spend.
_CONVERSIONS = ("cart", "purchase")
CONCERNS = {
    **dict.fromkeys(("independent", "aitm", "escm2_ipw", "escm2_dr", "dcmt"), _CONVERSIONS),
    "other losses": ("spend",),
    "huber": ("spend",),
    "pairwise": ("cart",),
    "zero_inflated_lognormal": ("spend",),
    **dict.fromkeys(("dwa", "gradnorm", "famo", "pcgrad", "mgda", "cagrad", "upgrad"), (*_CONVERSIONS, "spend")),
}
KNOWN_LOSSES = Path(__file__).with_name("known_losses.json")


@pytest.fixture(params=PARTS)
def part(request):
    return request.param


@pytest.fixture
def parts(part):
    return PARTS[part]


def shake(*modules):
    """Give each parameter values of its own; some begin as zeros, behind which nothing could be seen."""
    torch.manual_seed(1)
    for module in modules:
        for p in module.parameters():
            torch.nn.init.normal_(p, std=0.1)


def first_rows(example_night, spec, count):
    """Return the first rows of the train split, and where they are."""
    chosen = np.zeros(len(example_night), bool)
    chosen[np.flatnonzero(example_night.is_train)[:count]] = True
    return Dataset(example_night, spec).subset(chosen), chosen


def test_overfits_200_rows(build, take_steps, example_night, recipe, part, parts):
    """The click, and each task that the part concerns: what is told of it is nearly right, beside telling its mean."""
    # A spread that begins far off, or takes long strides, ends at its bound, where it hears nothing more.
    of_values = part == "zero_inflated_lognormal"
    fast = {"dense": 0.02, "embedding": 0.03 if "embedding_optimizer" in parts else 0.3}
    rounds = 4  # most have learned them by heart after the first
    if part in ("mgda", "huber", "other losses"):  # whose strides, at such rates, lead astray what was learned already
        fast, rounds = {"dense": 0.005, "embedding": 0.1}, 8 if part == "mgda" else 4
    model, spec = build(recipe(**parts, **({} if of_values else {"learning_rate": fast})))
    dataset, chosen = first_rows(example_night, spec, 200)
    tasks = [task.name for task in spec.tasks]
    places = [tasks.index(name) for name in ("click", *CONCERNS.get(part, ()))]
    label = example_night.labels[chosen][:, places]
    assert (label > 0).any(0).all()
    if of_values:
        start_at_base_rates(model, dataset)
    # What is told of a value that is 0 or lognormal learns its size from the rows alone that have one.
    counts = (label > 0) | (np.array(places) < 3) | (not of_values)
    told = np.full_like(label, 0.5)

    def has_learnt():
        wrong = (np.abs(told - label) * counts).sum(0) / (np.abs(label.mean(0) - label) * counts).sum(0)
        click, clicked = told[:, 0], label[:, 0] == 1
        is_told_apart = wrong[0] < 0.14 and click[clicked].min() > click[~clicked].max()
        return is_told_apart and (wrong < 0.2).all()

    for _ in range(rounds):
        if not has_learnt():
            take_steps(model, dataset, 40)
            told = predict(model, dataset).at_position[chosen][:, places].numpy()
    assert has_learnt()


def test_ten_steps_have_the_losses_that_they_had(build, take_steps, example_night, recipe, part, parts):
    """A change of the numbers by which a part learns shows here; if it is meant, NIGHTSHELF_WRITE_LOSSES=1 writes them anew.

    The tolerance is for the orders in which processors add up.
    """
    model, spec = build(recipe(**parts))
    dataset, _ = first_rows(example_night, spec, 200)
    torch.manual_seed(0)  # a balance's draws
    losses, known = take_steps(model, dataset, 10), json.loads(KNOWN_LOSSES.read_text())
    if "NIGHTSHELF_WRITE_LOSSES" in os.environ:
        known[part] = [round(loss, 5) for loss in losses]
        KNOWN_LOSSES.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n")
    assert losses == pytest.approx(known[part], rel=1e-3)


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


def tensors(model):
    """Return the parameters of a model, and what moves or is fitted beside them, by their names."""
    fitted = {
        name: b for name, b in model.named_buffers() if "moments" in name or "centres" in name or "off_topic" in name
    }
    return {**dict(model.named_parameters()), **fitted}


def reordered(model, longer, order):
    """Let scenario order[i] take the place of scenario i in every tensor of a model.

    Where scenarios lie, the same model with one scenario more tells: an axis that is longer there holds so many numbers more for
    each scenario, behind what is nobody's (an unknown scenario's, shared experts'). M3oE's experts of tasks lie behind those,
    and the first layer holds gates behind the hidden units.
    """
    first = ("user_layer", "item_layer", "dense_layer", "pair_layer", "scenario_layer")
    others = {name: tensor.shape for name, tensor in tensors(longer).items()}

    def places(size, more, behind=0):
        each = more - size
        start = size - behind - len(order) * each
        own = (start + each * order.unsqueeze(1) + torch.arange(each)).flatten()
        return torch.cat([torch.arange(start), own, torch.arange(size - behind, size)])

    for name, tensor in tensors(model).items():
        for axis, (size, more) in enumerate(zip(tensor.shape, others[name], strict=True)):
            if name.split(".")[0] in first and axis == 0:
                hidden, gates = model.backbone.hidden_width, model.backbone.gate_width
                of_gates = hidden + places(gates, longer.backbone.gate_width)
                place = torch.cat([places(hidden, longer.backbone.hidden_width), of_gates])
            elif size == more:
                continue
            elif isinstance(model.backbone, M3oE) and name.startswith(("backbone.entrance", "backbone.deeper")):
                place = places(size, more, behind=len(model.spec.tasks))
            else:
                place = places(size, more)
            tensor.data = tensor.data.index_select(axis, place)


def test_permuting_scenarios_permutes_the_outputs(build, example_night, recipe, parts):
    model, spec = build(recipe(**parts))
    shake(model)
    for name, tensor in tensors(model).items():
        if not isinstance(tensor, torch.nn.Parameter):
            tensor.copy_(torch.rand_like(tensor) + ("square" in name))
    other, count = copy.deepcopy(model), len(spec.scenarios)
    longer = RankingModel(spec.model_copy(update={"scenarios": [*spec.scenarios, "one_more"]}))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2))
    reordered(other, longer, order)
    renamed = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + order.argsort()])
    batch = Dataset(example_night, spec).batch(torch.arange(64))
    users = dataclasses.replace(batch.users, scenarios=renamed[batch.users.scenarios])
    turned = dataclasses.replace(batch, users=users, scenario=renamed[batch.scenario])
    with torch.inference_mode():
        expected, bias = model.eval()(batch)
        found, found_bias = other.eval()(turned)
        unmoved, _ = other(batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found_bias, bias)
    assert (unmoved - expected).abs().max() > 0.01


# The slots of a recipe, of which combinations are drawn.
SLOTS = {
    "backbone": [*BACKBONES.values()],
    "sequence_encoder": [{"kind": "target_attention"}, *ENCODERS.values()],
    "towers": ["task", "scenario"],
    "task_relation": ["esmm", "independent", "aitm", "escm2_ipw", "escm2_dr", "dcmt"],
    "losses": [{}, {"click": "focal", "spend": "huber"}, {"cart": "pairwise", "spend": "zero_inflated_lognormal"}],
    "balancing": [*get_args(Balancing)],
    "precision": ["float32", "bfloat16"],
    "embedding_optimizer": ["rowwise_adagrad", "lazy_adam"],
    "dropout": [0.0, 0.2],
    "label_smoothing": [0.0, 0.05],
    "bucketize": [[], ["item_age_days"]],
    "unread": [[], ["user_index", "item_index"]],
}


@pytest.mark.parametrize("seed", range(15))
def test_parts_go_together(build, take_steps, example_night, recipe, seed):
    draw = random.Random(seed)
    drawn = {slot: draw.choice(choices) for slot, choices in SLOTS.items()}
    if drawn["balancing"] == "gradnorm" and drawn["backbone"]["kind"] in ("single_task", "ppnet", "pepnet"):
        drawn["balancing"] = "famo"  # their tasks share no layer
    model, spec = build(recipe(**drawn))
    before = copy.deepcopy(model.state_dict())
    dataset, chosen = first_rows(example_night, spec, 200)
    assert np.isfinite(take_steps(model, dataset, 2)).all(), drawn
    after = model.state_dict()
    assert all(weight.isfinite().all() for weight in after.values()), drawn
    still = [name for name, weight in model.named_parameters() if torch.equal(before[name], after[name])]
    assert still == [], drawn
    assert predict(model, dataset).at_position[chosen].isfinite().all(), drawn


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
