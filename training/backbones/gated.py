"""AdaSparse and PEPNet: one network whose units scenarios and tasks turn up and down.

Shapes: N rows, S scenarios, T tasks.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from training.backbones.experts import ExpertLayer, SharedRows, all_rows
from training.backbones.moving import StepCount
from training.backbones.penalties import add_penalty, are_wanted
from training.backbones.scenario_rows import ScenarioRows

if TYPE_CHECKING:
    from training.backbone_sizes import AdaSparseSizes, PEPNetSizes

_PRUNED_BELOW = 0.25
_LARGEST = 2.0
# The logit of the weight below which a unit is pruned.
_EDGE = math.log(_PRUNED_BELOW / (_LARGEST - _PRUNED_BELOW))
# How steep the weights' sigmoid and how heavy the penalty is at first; by how much both grow with a step, and for how many.
_FIRST_STEEPNESS, _FIRST_WEIGHT, _GROWTH, _GROWING_STEPS = 1.0, 0.01, 1e-4, 10_000


class AdaSparse(nn.Module):
    """AdaSparse (Yang et al., CIKM 2022, arXiv:2206.13108): before each layer a pruner, which hears the scenario and the units,
    weighs each unit by 0 … 2 and drops those below a quarter (the paper's fusion, with an α that grows from 1).

    Its regulariser, R = (1/L) Σ λ (s_l - s)² over the L pruners, holds s_l, the share of a layer's units that is dropped, between
    two bounds whose middle is s: λ is 0 where s_l lies between them; elsewhere it grows with the steps, so that the
    outcomes are learned first. s_l is counted for each row, as pruners hear the row: R is a mean over rows, and the same however
    a batch is cut into slices.
    """

    reads_vectors = True

    def __init__(self, tasks: int, scenarios: int, sizes: AdaSparseSizes, dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = sizes.input, 0, sizes.sizes[-1]
        self.tasks, self.scenario = tasks, nn.Linear(scenarios, sizes.scenario_size, bias=False)
        widths = [sizes.input, *sizes.sizes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.pruners = nn.ModuleList(nn.Linear(width + sizes.scenario_size, width) for width in widths)
        self.bounds, self.grown = (sizes.least_pruned, sizes.most_pruned), StepCount(_GROWING_STEPS)
        self.dropout = nn.Dropout(dropout)
        self.last_shared: SharedRows = all_rows(self.layers[-1])

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Give every task the same."""
        scenario = self.scenario(ScenarioRows(where).shares)
        x = self._prune(0, hidden, scenario)
        for place, layer in enumerate(self.layers, 1):
            x = self._prune(place, layer(x).relu(), scenario)
        return self.dropout(x).expand(self.tasks, -1, -1)

    def _prune(self, place: int, x: torch.Tensor, scenario: torch.Tensor) -> torch.Tensor:
        steepness = _FIRST_STEEPNESS + _GROWTH * self.grown.steps
        logit = steepness * self.pruners[place](torch.cat([x, scenario], 1))
        if are_wanted():
            add_penalty(self._penalty(logit.float()) / len(self.pruners))
        weight = _LARGEST * logit.sigmoid()
        return x * weight * (weight > _PRUNED_BELOW)

    def _penalty(self, logit: torch.Tensor) -> torch.Tensor:
        """Return λ (s_l - s)² of each row [N] from the logits of a layer's weights [N, width]."""
        # Counted by the step at the edge, whose gradient is that of a sigmoid as steep as the weights'.
        soft = (_EDGE - logit).sigmoid()
        pruned = ((logit <= _EDGE).float() + (soft - soft.detach())).mean(1)
        least, most = self.bounds
        outside = (pruned < least) | (pruned > most)
        return (_FIRST_WEIGHT + _GROWTH * self.grown.steps) * outside * (pruned - (least + most) / 2).square()


class GateUnit(nn.Module):
    """Gate NU of PEPNet: two layers that give each of `out` units a weight of 0 … 2."""

    def __init__(self, fan_in: int, size: int, out: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(fan_in, size), nn.Linear(size, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return weights [N, out] from [N, in]."""
        return _LARGEST * self.last(self.first(x).relu()).sigmoid()


class PEPNet(nn.Module):
    """PEPNet (Chang et al., KDD 2023, arXiv:2302.01115): a gate that knows the scenario weighs the vector (EPNet), and gates
    weigh the units of each task's layers (PPNet). Gates also hear the vector, but send it no gradient.

    PPNet's gates hear a prior beside it, by weights of its own: a linear layer of all that is known of user, item and pair,
    ids among it where the recipe reads them. Without PPNet all tasks share one network.
    """

    reads_vectors = True

    def __init__(self, tasks: int, scenarios: int, sizes: PEPNetSizes, dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.out_width, self.tasks = sizes.input, sizes.sizes[-1], tasks
        self.gate_width = sizes.prior_size if sizes.kind != "epnet" else 0
        heard = sizes.scenario_size + sizes.input
        self.scenario = nn.Linear(scenarios, sizes.scenario_size, bias=False)
        self.vector_gate = GateUnit(heard, sizes.gate_size, sizes.input) if sizes.kind != "ppnet" else None
        self.networks = 1 if sizes.kind == "epnet" else tasks
        widths = [sizes.input, *sizes.sizes]
        self.layers = nn.ModuleList(ExpertLayer(self.networks, a, b) for a, b in pairwise(widths))
        personal = sizes.sizes if sizes.kind != "epnet" else []
        self.unit_gates = nn.ModuleList(
            GateUnit(heard + sizes.prior_size, sizes.gate_size, tasks * width) for width in personal
        )
        self.dropout = nn.Dropout(dropout)
        self.last_shared: SharedRows = all_rows(self.layers[-1]) if self.networks == 1 else None

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Give each task its own network's end, or all the one network's."""
        scenario = self.scenario(ScenarioRows(where).shares)
        if self.vector_gate is not None:
            hidden = hidden * self.vector_gate(torch.cat([scenario, hidden.detach()], 1))
        heard = torch.cat([scenario, gates, hidden.detach()], 1)
        x = hidden.expand(self.networks, -1, -1)
        for place, layer in enumerate(self.layers):
            x = layer(x).relu()
            if len(self.unit_gates):
                x = x * self.unit_gates[place](heard).unflatten(1, (self.tasks, -1)).transpose(0, 1)
        return self.dropout(x).expand(self.tasks, -1, -1)
