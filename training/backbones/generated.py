"""M2M and HAMUR: parts whose weights another network makes.

Shapes: N rows, S scenarios, T tasks, E experts, h the width of an expert's end.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from training.backbones.experts import Experts, SharedRows, all_rows, by_expert, shared_rows
from training.backbones.scenario_rows import ScenarioRows, each_own
from training.backbones.star import PartitionedNorm

if TYPE_CHECKING:
    from training.backbone_sizes import HAMURSizes, M2MSizes


class MetaUnit(nn.Module):
    """A linear layer whose weights are made of a scenario's vector: [E, N, in] → [E, N, out], rows in the scenarios' order."""

    def __init__(self, scenario_size: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.fan_out = fan_out
        self.weight, self.bias = nn.Linear(scenario_size, fan_in * fan_out), nn.Linear(scenario_size, fan_out)
        nn.init.xavier_uniform_(self.weight.bias.data.view(fan_in, fan_out))
        nn.init.normal_(self.weight.weight, std=0.1 / fan_in**0.5)

    def forward(self, x: torch.Tensor, scenarios: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Apply the layers made of scenarios [S, scenario_size]."""
        weight = self.weight(scenarios).unflatten(1, (1, -1, self.fan_out))
        bias = self.bias(scenarios).unflatten(1, (1, 1, -1))
        experts, rows = x.shape[:2]
        # Of each scenario the rows of all experts: one layer for all of them.
        side_by_side = x.transpose(0, 1).flatten(0, 1).unsqueeze(0)
        out = each_own(side_by_side, weight, bias, [experts * count for count in counts])
        return out[0].unflatten(0, (rows, experts)).transpose(0, 1)


class M2M(nn.Module):
    """M2M (Zhang et al., WSDM 2022, arXiv:2201.06814): experts are weighed for each task by an attention, and read by a residual
    tower, both with weights made of the scenario's vector.
    """

    reads_vectors = False

    def __init__(self, tasks: int, scenarios: int, sizes: M2MSizes, dropout: float) -> None:
        super().__init__()
        self.experts, width = sizes.experts, sizes.expert_sizes[-1]
        self.hidden_width, self.gate_width, self.out_width = sizes.experts * sizes.expert_sizes[0], 0, width
        self.scenario = nn.Parameter(torch.randn(scenarios, sizes.scenario_size))
        self.task = nn.Parameter(torch.randn(tasks, width) * 0.1)
        self.deeper = Experts(sizes.experts, sizes.expert_sizes, dropout)
        self.attention = MetaUnit(sizes.scenario_size, 2 * width, width)
        self.score = nn.Parameter(torch.randn(width) * width**-0.5)
        self.tower = nn.ModuleList(MetaUnit(sizes.scenario_size, width, width) for _ in range(sizes.tower_layers))
        self.last_shared: SharedRows = shared_rows(self.deeper.last_weight(), sizes.experts)

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Weigh the experts for each task, then read them."""
        rows = ScenarioRows(where)
        experts = rows.sort(self.deeper(by_expert(hidden, self.experts)))
        x = torch.stack([self._weigh(experts, task, rows.counts) for task in self.task])
        for unit in self.tower:
            x = functional.leaky_relu(unit(x, self.scenario, rows.counts) + x)
        return rows.unsort(x)

    def _weigh(self, experts: torch.Tensor, task: torch.Tensor, counts: list[int]) -> torch.Tensor:
        asked = torch.cat([experts, task.expand_as(experts)], -1)
        scores = functional.leaky_relu(self.attention(asked, self.scenario, counts)) @ self.score
        return (experts * scores.softmax(0).unsqueeze(-1)).sum(0)


class Adapter(nn.Module):
    """A cell of HAMUR: down, sigmoid, up, normalised and added to the units [N, h].

    Each way is a scenario's U · core · V, and the core [N, k, k] is made of the row. Rows are in the scenarios' order.
    """

    def __init__(self, scenarios: int, width: int, sizes: HAMURSizes) -> None:
        super().__init__()
        small, core = sizes.adapter_size, sizes.core
        ways = [(width, core), (core, small), (small, core), (core, width)]
        self.weights = nn.ParameterList(torch.randn(scenarios, 1, a, b) * a**-0.5 for a, b in ways)
        self.biases = nn.ParameterList(torch.zeros(scenarios, 1, 1, size) for size in (small, width))
        self.norm = PartitionedNorm(scenarios, width)

    def forward(self, x: torch.Tensor, core: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Adapt rows."""
        small = self._way(x, core, 0, counts).sigmoid()
        return x + self.norm(self._way(small, core, 1, counts), counts)

    def _way(self, x: torch.Tensor, core: torch.Tensor, place: int, counts: list[int]) -> torch.Tensor:
        into, out, bias = self.weights[2 * place], self.weights[2 * place + 1], self.biases[place]
        inner = each_own(x.unsqueeze(0), into, None, counts)[0]
        turned = torch.bmm(inner.unsqueeze(1), core).transpose(0, 1)
        return each_own(turned, out, bias, counts)[0]


class HAMUR(nn.Module):
    """HAMUR (Li et al., CIKM 2023, arXiv:2309.06217): one network, with an adapter behind each layer whose cores a network that
    all scenarios share makes of the row.
    """

    reads_vectors = True

    def __init__(self, tasks: int, scenarios: int, sizes: HAMURSizes, dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = sizes.input, 0, sizes.sizes[-1]
        self.tasks, self.core = tasks, sizes.core
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([sizes.input, *sizes.sizes]))
        self.hyper = nn.Sequential(
            nn.Linear(sizes.input, sizes.hyper_size), nn.ReLU(), nn.Linear(sizes.hyper_size, sizes.core**2)
        )
        self.adapters = nn.ModuleList(Adapter(scenarios, width, sizes) for width in sizes.sizes)
        self.dropout = nn.Dropout(dropout)
        self.last_shared: SharedRows = all_rows(self.layers[-1])

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Give every task the same."""
        rows = ScenarioRows(where)
        x = rows.sort(hidden)
        core = self.hyper(x).unflatten(1, (self.core, self.core))
        for layer, adapter in zip(self.layers, self.adapters, strict=True):
            x = adapter(layer(x).relu(), core, rows.counts)
        return self.dropout(rows.unsort(x)).expand(self.tasks, -1, -1)
