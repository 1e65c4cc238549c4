"""AdaSparse and PEPNet: one network whose units scenarios and tasks turn up and down.

Shapes: N rows, S scenarios, T tasks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from training.backbones.experts import ExpertLayer, SharedRows, all_rows
from training.backbones.scenario_rows import ScenarioRows

if TYPE_CHECKING:
    from training.backbone_sizes import AdaSparseSizes, PEPNetSizes

_PRUNED_BELOW = 0.25
_LARGEST = 2.0


class AdaSparse(nn.Module):
    """AdaSparse (Yang et al., CIKM 2022, arXiv:2206.13108): before each layer a pruner, which hears the scenario and the units,
    weighs each unit by 0 … 2 and drops those below a quarter (the paper's fusion, with α = 1 and no regulariser of sparsity).
    """

    reads_vectors = True

    def __init__(self, tasks: int, scenarios: int, sizes: AdaSparseSizes, dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = sizes.input, 0, sizes.sizes[-1]
        self.tasks, self.scenario = tasks, nn.Linear(scenarios, sizes.scenario_size, bias=False)
        widths = [sizes.input, *sizes.sizes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.pruners = nn.ModuleList(nn.Linear(width + sizes.scenario_size, width) for width in widths)
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
        weight = _LARGEST * self.pruners[place](torch.cat([x, scenario], 1)).sigmoid()
        return x * weight * (weight > _PRUNED_BELOW)


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

    Here the vector is all that PPNet's gates know of user and item. Without PPNet all tasks share one network.
    """

    reads_vectors = True

    def __init__(self, tasks: int, scenarios: int, sizes: PEPNetSizes, dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = sizes.input, 0, sizes.sizes[-1]
        self.tasks, heard = tasks, sizes.scenario_size + sizes.input
        self.scenario = nn.Linear(scenarios, sizes.scenario_size, bias=False)
        self.vector_gate = GateUnit(heard, sizes.gate_size, sizes.input) if sizes.kind != "ppnet" else None
        self.networks = 1 if sizes.kind == "epnet" else tasks
        widths = [sizes.input, *sizes.sizes]
        self.layers = nn.ModuleList(ExpertLayer(self.networks, a, b) for a, b in pairwise(widths))
        personal = sizes.sizes if sizes.kind != "epnet" else []
        self.unit_gates = nn.ModuleList(GateUnit(heard, sizes.gate_size, tasks * width) for width in personal)
        self.dropout = nn.Dropout(dropout)
        self.last_shared: SharedRows = all_rows(self.layers[-1]) if self.networks == 1 else None

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Give each task its own network's end, or all the one network's."""
        scenario = self.scenario(ScenarioRows(where).shares)
        if self.vector_gate is not None:
            hidden = hidden * self.vector_gate(torch.cat([scenario, hidden.detach()], 1))
        heard = torch.cat([scenario, hidden.detach()], 1)
        x = hidden.expand(self.networks, -1, -1)
        for place, layer in enumerate(self.layers):
            x = layer(x).relu()
            if len(self.unit_gates):
                x = x * self.unit_gates[place](heard).unflatten(1, (self.tasks, -1)).transpose(0, 1)
        return self.dropout(x).expand(self.tasks, -1, -1)
