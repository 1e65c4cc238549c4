"""Our backbones, towers and relations of tasks with the weights of deepctr-torch's and torch-rechub's: the same forward pass.

Theirs put a task's own experts before the shared ones, ours behind; theirs begin with their own first layers, whose rows
ours takes as one matrix.
"""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn import functional

from training.backbone_sizes import MMoESizes, PlainSizes, PLESizes
from training.backbones import make_backbone
from training.heads import OutcomeChain
from training.outputs import conversions, outputs_of
from training.spec import TaskSpec
from training.tower_inputs import TowerInputs
from training.towers import Towers

pytestmark = pytest.mark.peers
FEATURES, TASKS, SCENARIOS, ROWS = 6, 2, 3, 50
ANYWHERE = torch.eye(SCENARIOS + 1)[torch.arange(ROWS) % SCENARIOS + 1]
DIMS = [7, 5, 4]
Layer = tuple[torch.Tensor, torch.Tensor]  # weight [out, in] and bias [out]


@dataclass
class Level:
    """One level of a peer's model: the shared experts, each task's own, each task's gate and the shared gate if there is one."""

    shared: list[list[Layer]]
    own: list[list[list[Layer]]] = field(default_factory=lambda: [[] for _ in range(TASKS)])
    gates: list[Layer] = field(default_factory=list)

    @property
    def experts(self) -> list[list[Layer]]:
        return [*self.shared, *(expert for of_task in self.own for expert in of_task)]


@pytest.fixture
def inputs():
    torch.manual_seed(3)
    return torch.randn(ROWS, FEATURES)


def layers_of(module: nn.Module) -> list[Layer]:
    """Return the linear layers of a network, its batch norms (with their running means) folded in."""
    found: list[Layer] = []
    for part in module.modules():
        if isinstance(part, nn.Linear):
            found.append((part.weight, torch.zeros(part.out_features) if part.bias is None else part.bias))
        elif isinstance(part, nn.BatchNorm1d):
            weight, bias = found[-1]
            scale = part.weight / (part.running_var + part.eps).sqrt()
            found[-1] = (weight * scale[:, None], (bias - part.running_mean) * scale + part.bias)
    return found


def wild(model: nn.Module) -> nn.Module:
    """Give every weight and running mean a value of its own, so that no part can be left out unseen."""
    torch.manual_seed(5)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.6)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return model.eval()


def deepctr_features():
    from deepctr_torch.inputs import DenseFeat

    return [DenseFeat("x", FEATURES)]


def rechub_features():
    from torch_rechub.basic.features import DenseFeature

    return [DenseFeature(f"x{n}") for n in range(FEATURES)]


def rechub_input(inputs):
    return {f"x{n}": inputs[:, n] for n in range(FEATURES)}


def fill(layer, given: list[Layer]) -> None:
    """Set one ExpertLayer from the layers of as many experts."""
    layer.weight.data = torch.stack([weight.detach().t() for weight, _ in given])
    layer.bias.data = torch.stack([bias.detach()[None] for _, bias in given])


def first_layer(level: Level, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the first layers of all experts, and all gates, make of the inputs, side by side."""
    hidden = [functional.linear(inputs, *expert[0]).relu() for expert in level.experts]
    gates = [functional.linear(inputs, *gate) for gate in level.gates]
    return torch.cat(hidden, 1), torch.cat(gates, 1) if gates else torch.empty(len(inputs), 0)


def shared_first(gate: Layer, own: int) -> Layer:
    """Put the shared experts' rows of a gate before the `own` ones that it begins with."""
    weight, bias = gate
    return torch.cat([weight[own:], weight[:own]]), torch.cat([bias[own:], bias[:own]])


def outcomes(backbone, levels: list[Level], towers: list[list[Layer]], inputs: torch.Tensor) -> torch.Tensor:
    """Return our probabilities [rows, tasks] with a peer's weights."""
    for place, layer in enumerate(backbone.deeper.layers if hasattr(backbone, "deeper") else []):
        fill(layer, [expert[place + 1] for expert in levels[0].experts])
    for n, level in enumerate(levels) if hasattr(backbone, "levels") else []:
        for place, layer in enumerate(backbone.levels[n].deeper.layers):
            fill(layer, [expert[place + 1] for expert in level.experts])
        if n:
            fill(backbone.entrances[n - 1], [expert[0] for expert in level.experts])
            fill(backbone.task_gates[n - 1], level.gates[:TASKS])
            if len(level.gates) > TASKS:
                weight, bias = level.gates[TASKS]
                backbone.shared_gates[n - 1].weight.data, backbone.shared_gates[n - 1].bias.data = weight, bias
    own = Towers(TASKS, towers[0][0][0].shape[1], [len(weight) for weight, _ in towers[0][:-1]])
    for place, layer in enumerate(own.layers):
        fill(layer, [tower[place] for tower in towers])
    with torch.no_grad():
        return own(backbone(*first_layer(levels[0], inputs), ANYWHERE), ANYWHERE).sigmoid()


def deepctr_towers(model):
    ends = [[(last.weight, out.bias)] for last, out in zip(model.tower_dnn_final_layer, model.out, strict=True)]
    return [layers_of(tower) + end for tower, end in zip(model.tower_dnn, ends, strict=True)]


DEEPCTR = {"tower_dnn_hidden_units": (3,), "task_names": ("a", "b"), "task_types": ("binary", "binary")}
RECHUB_TOWERS = [{"dims": [3]}] * TASKS


def test_shared_bottom_of_deepctr(inputs):
    from deepctr_torch.models import SharedBottom

    peer = wild(SharedBottom(deepctr_features(), bottom_dnn_hidden_units=DIMS, **DEEPCTR))
    backbone = make_backbone(PlainSizes(kind="shared_bottom", sizes=DIMS), TASKS, SCENARIOS, 0)
    found = outcomes(backbone, [Level([layers_of(peer.bottom_dnn)])], deepctr_towers(peer), inputs)
    torch.testing.assert_close(found, peer(inputs).detach(), atol=1e-5, rtol=1e-5)


def test_mmoe_of_deepctr(inputs):
    from deepctr_torch.models import MMOE

    peer = wild(MMOE(deepctr_features(), 3, DIMS, gate_dnn_hidden_units=(), **DEEPCTR))
    gates = [layers_of(gate)[0] for gate in peer.gate_dnn_final_layer]
    level = Level([layers_of(expert) for expert in peer.expert_dnn], gates=gates)
    backbone = make_backbone(MMoESizes(kind="mmoe", experts=3, expert_sizes=DIMS), TASKS, SCENARIOS, 0)
    found = outcomes(backbone, [level], deepctr_towers(peer), inputs)
    torch.testing.assert_close(found, peer(inputs).detach(), atol=1e-5, rtol=1e-5)


def test_mmoe_of_rechub(inputs):
    from torch_rechub.models.multi_task import MMOE

    peer = wild(MMOE(rechub_features(), ["classification"] * TASKS, 3, {"dims": DIMS}, RECHUB_TOWERS))
    gates = [layers_of(gate)[0] for gate in peer.gates]
    level = Level([layers_of(expert) for expert in peer.experts], gates=gates)
    backbone = make_backbone(MMoESizes(kind="mmoe", experts=3, expert_sizes=DIMS), TASKS, SCENARIOS, 0)
    found = outcomes(backbone, [level], [layers_of(tower) for tower in peer.towers], inputs)
    torch.testing.assert_close(found, peer(rechub_input(inputs)).detach(), atol=1e-5, rtol=1e-5)


def test_single_task_is_ple_of_rechub_with_an_expert_for_each_task(inputs):
    from torch_rechub.models.multi_task import PLE

    peer = wild(PLE(rechub_features(), ["classification"] * TASKS, 1, 1, 0, {"dims": DIMS}, RECHUB_TOWERS))
    own = [[layers_of(expert)] for expert in peer.cgc_layers[0].experts_specific]
    backbone = make_backbone(PlainSizes(kind="single_task", sizes=DIMS), TASKS, SCENARIOS, 0)
    found = outcomes(backbone, [Level([], own)], [layers_of(tower) for tower in peer.towers], inputs)
    torch.testing.assert_close(found, peer(rechub_input(inputs)).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_ple_of_rechub(inputs, levels):
    from torch_rechub.models.multi_task import PLE

    shared, own = 3, 2
    kinds_of_tasks = ["classification"] * TASKS
    peer = wild(PLE(rechub_features(), kinds_of_tasks, levels, own, shared, {"dims": DIMS}, RECHUB_TOWERS))
    found_levels = []
    for n, layer in enumerate(peer.cgc_layers):
        experts = [layers_of(expert) for expert in layer.experts_specific]
        gates = [shared_first(layers_of(gate)[0], own) for gate in layer.gates_specific]
        if n < levels - 1:
            gates.append(shared_first(layers_of(layer.gate_shared)[0], own * TASKS))
        of_tasks = [experts[t * own : (t + 1) * own] for t in range(TASKS)]
        found_levels.append(Level([layers_of(expert) for expert in layer.experts_shared], of_tasks, gates))
    sizes = PLESizes(levels=levels, shared_experts=shared, task_experts=own, expert_sizes=DIMS)
    found = outcomes(
        make_backbone(sizes, TASKS, SCENARIOS, 0), found_levels, [layers_of(tower) for tower in peer.towers], inputs
    )
    torch.testing.assert_close(found, peer(rechub_input(inputs)).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("levels", [1, 2])
def test_ple_of_deepctr(inputs, levels):
    from deepctr_torch.models import PLE

    experts = 2  # it makes as many shared ones as each task has
    model = PLE(deepctr_features(), experts, experts, levels, DIMS, gate_dnn_hidden_units=(), **DEEPCTR)
    peer = wild(model)
    found_levels = []
    for n in range(levels):
        gates = [shared_first(layers_of(gate)[0], experts) for gate in peer.specific_gate_dnn_final_layer[n]]
        if n < levels - 1:
            gates.append(shared_first(layers_of(peer.shared_gate_dnn_final_layer[n])[0], experts * TASKS))
        own = [[layers_of(expert) for expert in of_task] for of_task in peer.specific_experts[n]]
        found_levels.append(Level([layers_of(expert) for expert in peer.shared_experts[n][0]], own, gates))
    sizes = PLESizes(levels=levels, shared_experts=experts, task_experts=experts, expert_sizes=DIMS)
    found = outcomes(make_backbone(sizes, TASKS, SCENARIOS, 0), found_levels, deepctr_towers(peer), inputs)
    torch.testing.assert_close(found, peer(inputs).detach(), atol=1e-5, rtol=1e-5)


def esmm_outcomes(networks: list[list[Layer]], ends: list[Layer], inputs: torch.Tensor) -> torch.Tensor:
    """Return our probabilities of a click and of a purchase after it with the weights of two networks of a peer's ESMM."""
    backbone = make_backbone(PlainSizes(kind="single_task", sizes=DIMS), TASKS, SCENARIOS, 0)
    for place, layer in enumerate(backbone.deeper.layers):
        fill(layer, [network[place + 1] for network in networks])
    towers = Towers(TASKS, DIMS[-1], [])
    fill(towers.layers[0], ends)
    chain = OutcomeChain([TaskSpec(name="click", kind="binary"), TaskSpec(name="buy", kind="binary", given="click")])
    level = Level([], [[network] for network in networks])
    with torch.no_grad():
        return chain(towers(backbone(*first_layer(level, inputs), ANYWHERE), ANYWHERE)).exp()


def test_esmm_of_deepctr(inputs):
    """Two networks, and the second outcome is the product of both."""
    from deepctr_torch.models import ESMM

    peer = wild(ESMM(deepctr_features(), tower_dnn_hidden_units=DIMS))
    networks = [layers_of(peer.ctr_dnn), layers_of(peer.cvr_dnn)]
    ends = [(last.weight, peer.out.bias) for last in (peer.ctr_dnn_final_layer, peer.cvr_dnn_final_layer)]
    torch.testing.assert_close(esmm_outcomes(networks, ends, inputs), peer(inputs).detach(), atol=1e-5, rtol=1e-5)


def test_esmm_of_rechub():
    """It reads embeddings, and tells the purchase given the click before the click and their product."""
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.multi_task import ESMM

    user, item = [SparseFeature("user", 9, embed_dim=3)], [SparseFeature("item", 7, embed_dim=3)]
    peer = wild(ESMM(user, item, {"dims": DIMS}, {"dims": DIMS}))
    ids = {"user": torch.arange(ROWS) % 9, "item": torch.arange(ROWS) % 7}
    tables = peer.embedding.embed_dict
    inputs = torch.cat([tables[name](ids[name]).detach() for name in ("user", "item")], 1)
    towers = [layers_of(peer.tower_ctr), layers_of(peer.tower_cvr)]
    found = esmm_outcomes([tower[:-1] for tower in towers], [tower[-1] for tower in towers], inputs)
    torch.testing.assert_close(found, peer(ids)[:, 1:].detach(), atol=1e-5, rtol=1e-5)


def test_aitm_of_rechub(inputs):
    """Two networks, and the second tower reads what attention makes of both."""
    from torch_rechub.models.multi_task import AITM

    peer = wild(AITM(rechub_features(), TASKS, {"dims": DIMS}, RECHUB_TOWERS))
    networks = [layers_of(bottom) for bottom in peer.bottoms]
    backbone = make_backbone(PlainSizes(kind="single_task", sizes=DIMS), TASKS, SCENARIOS, 0)
    for place, layer in enumerate(backbone.deeper.layers):
        fill(layer, [network[place + 1] for network in networks])
    tasks = [TaskSpec(name="click", kind="binary"), TaskSpec(name="buy", kind="binary", given="click")]
    tower_inputs = TowerInputs(outputs_of(tasks, "aitm"), conversions(tasks), DIMS[-1])
    transfer, attention = tower_inputs.transfers["1"], peer.aits[0]
    (told,) = layers_of(peer.info_gates[0])
    transfer.tell.weight.data, transfer.tell.bias.data = told
    for own, theirs in ("value", "v_layer"), ("query", "q_layer"), ("key", "k_layer"):
        getattr(transfer, own).weight.data = getattr(attention, theirs).weight.data
    towers = Towers(TASKS, DIMS[-1], [3])
    for place, layer in enumerate(towers.layers):
        fill(layer, [layers_of(tower)[place] for tower in peer.towers])
    with torch.no_grad():
        mixed = backbone(*first_layer(Level([], [[n] for n in networks]), inputs), ANYWHERE)
        found = OutcomeChain(tasks, "aitm")(towers(tower_inputs(mixed), ANYWHERE)).exp()
    torch.testing.assert_close(found, peer(rechub_input(inputs)).detach(), atol=1e-5, rtol=1e-5)
