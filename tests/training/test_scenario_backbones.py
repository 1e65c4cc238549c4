"""Backbones that know scenarios, against plain loops over rows, and what must hold for all of them."""

import copy

import pytest
import torch
from pydantic import TypeAdapter
from torch.nn.functional import leaky_relu, normalize

from training.backbone_sizes import BackboneSizes
from training.backbones import make_backbone
from training.backbones.moving import MovingMoments
from training.backbones.scenario_rows import ScenarioRows, each_own
from training.backbones.star import PartitionedNorm
from training.towers import ScenarioTowers

S, T, N = 5, 3, 40
SIZES = {
    "single_scenario": {"sizes": [6, 4]},
    "star": {"input": 12, "sizes": [6, 4], "auxiliary_sizes": [8]},
    "adl": {"input": 12, "clusters": 4, "sizes": [6, 4]},
    "sar_net": {"input": 12, "shared_experts": 2, "expert_sizes": [6, 4]},
    "adasparse": {"input": 12, "scenario_size": 8, "sizes": [6, 4]},
    "epnet": {"input": 12, "scenario_size": 8, "gate_size": 8, "sizes": [6, 4]},
    "ppnet": {"input": 12, "scenario_size": 8, "gate_size": 8, "sizes": [6, 4]},
    "pepnet": {"input": 12, "scenario_size": 8, "gate_size": 8, "sizes": [6, 4]},
    "m2m": {"scenario_size": 8, "experts": 2, "expert_sizes": [6, 4]},
    "hinet": {"shared_experts": 2, "expert_sizes": [6, 4], "task_sizes": [6, 4]},
    "hamur": {"input": 12, "sizes": [6, 4], "hyper_size": 8, "core": 2, "adapter_size": 6},
    "m3oe": {"input": 12, "entrance_sizes": [8, 6], "shared_experts": 2, "expert_sizes": [6, 4]},
}
SCENARIO = torch.arange(N) % S


def one_hot(scenario):
    """Return scenarios 0 … S - 1 as the rows that a backbone takes; -1 is one that it does not know."""
    return torch.eye(S + 1)[scenario + 1]


def make(kind):
    """Return a backbone whose parameters and moments all have values of their own, its inputs, and its scenarios."""
    torch.manual_seed(2)
    sizes = TypeAdapter(BackboneSizes).validate_python({"kind": kind, **SIZES[kind]})
    backbone = make_backbone(sizes, T, S, 0)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for part in backbone.modules():
        if isinstance(part, MovingMoments):
            torch.nn.init.normal_(part.mean)
            part.square.copy_(part.mean.square() + 0.5 + torch.rand_like(part.mean))
    return backbone.eval(), torch.randn(N, backbone.hidden_width), torch.randn(N, backbone.gate_width)


def linear(x, layer, *place):
    """Apply one of the layers that stand side by side to a row."""
    return x @ layer.weight[place] + layer.bias[place].flatten()


def mixed(experts, logits):
    return sum(share * expert for share, expert in zip(logits.softmax(0), experts, strict=True))


def normed(x, norm, s):
    moments = norm.moments
    variance = moments.square[s] - moments.mean[s] ** 2
    return (
        (x - moments.mean[s]) / (variance + 1e-5).sqrt() * norm.gain * norm.own_gain[s] + norm.shift + norm.own_shift[s]
    )


def starred(x, layer, group):
    return x @ (layer.weight * layer.own_weight[group]) + layer.bias[0] + layer.own_bias[group, 0]


def single_scenario(b, x, gates, s):
    return [linear(x[s * 6 : s * 6 + 6], b.layers[0], s, 0).relu()] * T


def star(b, x, gates, s):
    own = normed(x, b.norm, s)
    for layer in b.layers:
        own = starred(own, layer, s).relu()
    aside = b.auxiliary[0](torch.cat([x, torch.eye(S)[s]])).relu()
    return [torch.cat([own, aside])] * T


def adl(b, x, gates, s):
    near = [normalize(x, dim=0) @ normalize(centre, dim=0) for centre in b.centres.mean]
    for layer in b.layers:
        x = starred(x, layer, near.index(max(near))).relu()
    return [x] * T


def sar_net(b, x, gates, s):
    fitted = x * b.scale[s] + b.shift[s]
    experts = []
    for e in range(2):
        experts.append(linear(linear(fitted, b.shared_layers[0], e).relu(), b.shared_layers[1], e).relu())
    for e in range(2):
        experts.append(linear(linear(fitted, b.own_layers[0], s, e).relu(), b.own_layers[1], s, e).relu())
    return [mixed(experts, logits) for logits in b.gate(fitted).view(T, 4)]


def adasparse(b, x, gates, s):
    scenario = b.scenario.weight[:, s]

    def pruned(x, place):
        weight = 2 * b.pruners[place](torch.cat([x, scenario])).sigmoid()
        return torch.stack([value * w if w > 0.25 else value * 0 for value, w in zip(x, weight, strict=True)])

    x = pruned(x, 0)
    for place, layer in enumerate(b.layers):
        x = pruned(layer(x).relu(), place + 1)
    return [x] * T


def gate(unit, x):
    return 2 * unit.last(unit.first(x).relu()).sigmoid()


def pepnet(b, x, gates, s):
    scenario = b.scenario.weight[:, s]
    if b.vector_gate is not None:
        x = x * gate(b.vector_gate, torch.cat([scenario, x]))
    heard, ends = torch.cat([scenario, gates, x]), []
    for task in range(T):
        own, network = x, task if b.networks > 1 else 0
        for place, layer in enumerate(b.layers):
            own = linear(own, layer, network).relu()
            if len(b.unit_gates):
                own = own * gate(b.unit_gates[place], heard).view(T, -1)[task]
        ends.append(own)
    return ends


def made(unit, x, scenario):
    return x @ unit.weight(scenario).view(len(x), -1) + unit.bias(scenario)


def m2m(b, x, gates, s):
    experts = [linear(x[e * 6 : e * 6 + 6], b.deeper.layers[0], e).relu() for e in range(2)]
    ends = []
    for task in b.task:
        asked = [made(b.attention, torch.cat([expert, task]), b.scenario[s]) for expert in experts]
        own = mixed(experts, torch.stack([leaky_relu(a) @ b.score for a in asked]))
        for unit in b.tower:
            own = leaky_relu(made(unit, own, b.scenario[s]) + own)
        ends.append(own)
    return ends


def hinet(b, x, gates, s):
    experts = [linear(x[e * 6 : e * 6 + 6], b.deeper.layers[0], e).relu() for e in range(2 + S)]
    common, by_scenario = mixed(experts[:2], gates[:2]), experts[2:]
    others = [other for other in range(S) if other != s]
    aside = mixed([by_scenario[other] for other in others], b.attention[s, others])
    found, ends = torch.cat([common, by_scenario[s], aside]), []
    every = [linear(linear(found, b.entrance, e).relu(), b.task_deeper.layers[0], e).relu() for e in range(1 + T)]
    for task, logits in enumerate(b.task_gate(found).view(T, 2)):
        ends.append(mixed([every[0], every[1 + task]], logits))
    return ends


def hamur(b, x, gates, s):
    core = b.hyper(x).view(2, 2)
    for layer, cell in zip(b.layers, b.adapters, strict=True):
        x = layer(x).relu()
        into, out, into_again, out_again = (weight[s, 0] for weight in cell.weights)
        small = (x @ into @ core @ out + cell.biases[0][s].flatten()).sigmoid()
        x = x + normed(small @ into_again @ core @ out_again + cell.biases[1][s].flatten(), cell.norm, s)
    return [x] * T


def m3oe(b, x, gates, s):
    vector = b.behind(starred(x, b.star, s).relu()).relu() + b.around(x).relu()
    every = [linear(linear(vector, b.entrance, e).relu(), b.deeper.layers[0], e).relu() for e in range(2 + S + T)]
    balance, weight, task_balance, task_weight = b.fusion.sigmoid()

    def balanced(experts, own, share):
        others = sum(expert for place, expert in enumerate(experts) if place != own)
        return share * experts[own] + (1 - share) * others / (len(experts) - 1)

    scenario = weight * balanced(every[2 : 2 + S], s, balance)
    return [
        mixed(every[:2], logits) + scenario + task_weight * balanced(every[2 + S :], task, task_balance)
        for task, logits in enumerate(b.gate(vector).view(T, 2))
    ]


LOOPS = {
    "single_scenario": single_scenario,
    "star": star,
    "adl": adl,
    "sar_net": sar_net,
    "adasparse": adasparse,
    "epnet": pepnet,
    "ppnet": pepnet,
    "pepnet": pepnet,
    "m2m": m2m,
    "hinet": hinet,
    "hamur": hamur,
    "m3oe": m3oe,
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_backbone_is_what_its_paper_says_row_by_row(kind):
    backbone, hidden, gates = make(kind)
    with torch.no_grad():
        found = backbone(hidden, gates, one_hot(SCENARIO))
        expected = [LOOPS[kind](backbone, x, g, int(s)) for x, g, s in zip(hidden, gates, SCENARIO, strict=True)]
    assert found.shape == (T, N, backbone.out_width)
    for row, ends in enumerate(expected):
        torch.testing.assert_close(found[:, row], torch.stack(ends), atol=1e-5, rtol=1e-5)


# Axes along which scenarios lie, by their length: alone, behind two shared experts, between these and three tasks, and as
# blocks of six numbers.
ORDER = torch.tensor([3, 0, 4, 1, 2])
AXES = {
    S: ORDER,
    2 + S: torch.cat([torch.arange(2), 2 + ORDER]),
    2 + S + T: torch.cat([torch.arange(2), 2 + ORDER, torch.arange(2 + S, 2 + S + T)]),
    6 * S: (6 * ORDER.unsqueeze(1) + torch.arange(6)).flatten(),
    6 * (2 + S): torch.cat([torch.arange(12), (12 + 6 * ORDER.unsqueeze(1) + torch.arange(6)).flatten()]),
    12 + S: torch.cat([torch.arange(12), 12 + ORDER]),
}


def reordered(x, axes=None):
    """Let scenario ORDER[i] take the place of scenario i along every axis."""
    for axis in range(x.ndim) if axes is None else axes:
        if x.shape[axis] in AXES:
            x = x.index_select(axis, AXES[x.shape[axis]])
    return x


@pytest.mark.parametrize("kind", SIZES)
def test_permuting_scenarios_permutes_the_outputs(kind):
    backbone, hidden, gates = make(kind)
    other = copy.deepcopy(backbone)
    for tensor in [*other.parameters(), *other.buffers()]:
        tensor.data = reordered(tensor.data)
    place = ORDER.argsort()
    with torch.no_grad():
        found = other(reordered(hidden, [1]), reordered(gates, [1]), one_hot(place[SCENARIO]))
        torch.testing.assert_close(found, backbone(hidden, gates, one_hot(SCENARIO)), atol=1e-6, rtol=1e-5)
        unmoved = other(reordered(hidden, [1]), reordered(gates, [1]), one_hot(SCENARIO))
    if kind != "adl":  # which tells rows apart by themselves
        assert (unmoved - found).abs().max() > 0.01


@pytest.mark.parametrize("kind", SIZES)
def test_an_unknown_scenario_hangs_on_all_known_ones_alike(kind):
    backbone, hidden, gates = make(kind)
    other = copy.deepcopy(backbone)
    for tensor in [*other.parameters(), *other.buffers()]:
        tensor.data = reordered(tensor.data)
    nowhere = one_hot(torch.full((N,), -1))
    with torch.no_grad():
        found = backbone(hidden, gates, nowhere)
        again = other(reordered(hidden, [1]), reordered(gates, [1]), nowhere)
    assert found.isfinite().all()
    torch.testing.assert_close(found, again, atol=1e-5, rtol=1e-5)


def test_rows_go_to_their_scenarios_layers_and_come_back():
    torch.manual_seed(1)
    scenario = torch.tensor([2, -1, 0, 4, 2, 0, -1])
    rows, x = ScenarioRows(one_hot(scenario)), torch.randn(2, 7, 3)
    weight, bias = torch.randn(S, 2, 3, 4), torch.randn(S, 2, 1, 4)
    assert rows.counts == [2, 2, 0, 2, 0, 1]
    assert torch.equal(rows.unsort(rows.sort(x)), x)
    found = rows.unsort(each_own(rows.sort(x), weight, bias, rows.counts))
    for row, s in enumerate(scenario.tolist()):
        for e in range(2):
            own = (weight.mean(0), bias.mean(0)) if s < 0 else (weight[s], bias[s])
            torch.testing.assert_close(found[e, row], x[e, row] @ own[0][e] + own[1][e, 0])


def test_towers_of_scenarios_against_loops():
    torch.manual_seed(1)
    towers, x = ScenarioTowers(T, S, 6, [4]), torch.randn(T, N, 6)
    found = towers(x, one_hot(SCENARIO))
    for row, s in enumerate(SCENARIO.tolist()):
        for task in range(T):
            hidden = linear(x[task, row], towers.layers[0], s, task).relu()
            torch.testing.assert_close(found[row, task], linear(hidden, towers.layers[1], s, task)[0])


def test_each_scenario_is_normalised_by_its_own_rows_in_training_and_by_its_moving_moments_in_scoring():
    torch.manual_seed(1)
    norm = PartitionedNorm(2, 3)
    x = torch.cat([5 + 2 * torch.randn(60, 3), torch.randn(40, 3) - 3])
    found = norm(x, [0, 60, 40])
    for part in found.split([60, 40]):
        torch.testing.assert_close(part.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(part.std(0, unbiased=False), torch.ones(3), atol=1e-4, rtol=0)
    norm.moments.settle()
    torch.testing.assert_close(norm.moments.mean[0], x[:60].mean(0))
    torch.testing.assert_close(norm.moments.variance()[1], x[60:].var(0, unbiased=False), atol=1e-4, rtol=1e-4)
    norm.eval()
    torch.testing.assert_close(norm(x, [0, 60, 40]), found, atol=1e-4, rtol=1e-4)
    alone = torch.cat([norm(x[k : k + 1], [0, 1, 0]) for k in range(60)])
    torch.testing.assert_close(alone, found[:60], atol=1e-4, rtol=1e-4)


def test_moving_moments_do_not_hang_on_the_order_of_a_batchs_slices():
    torch.manual_seed(1)
    parts, moments = [torch.randn(n, 3) for n in (50, 31, 47)], []
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        moving = MovingMoments(2, 3)
        for _ in range(3):
            for place in order:
                moving.note(1, parts[place])
            moving.settle()
        moments.append(moving)
    for other in moments[1:]:
        assert torch.equal(moments[0].mean, other.mean) and torch.equal(moments[0].square, other.square)
    torch.testing.assert_close(moments[0].mean[1], torch.cat(parts).mean(0))
    assert moments[0].mean[0].abs().sum() == 0


def test_centres_follow_the_rows_that_are_routed_to_them():
    backbone, hidden, gates = make("adl")
    backbone.train()
    before = backbone.centres.mean.clone()
    for _ in range(60):
        backbone(hidden, gates, one_hot(SCENARIO))
        backbone.centres.settle()
    directions = normalize(hidden, dim=1)
    nearest = (directions @ normalize(backbone.centres.mean, dim=1).t()).argmax(1)
    for cluster in nearest.unique():
        torch.testing.assert_close(
            backbone.centres.mean[cluster], directions[nearest == cluster].mean(0), atol=0.1, rtol=0
        )
    assert not torch.allclose(before, backbone.centres.mean, atol=0.1)
