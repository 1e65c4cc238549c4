"""Experts of scenarios: a network for each scenario (the control), SAR-Net, HiNet and M3oE.

Shapes: N rows, S scenarios, T tasks, E experts, h the width of an expert's end.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from training.backbones.experts import (
    ExpertLayer,
    Experts,
    SharedRows,
    all_rows,
    by_expert,
    gate_shares,
    mix,
    shared_rows,
)
from training.backbones.scenario_rows import ScenarioLayer, ScenarioRows
from training.backbones.star import StarLayer

if TYPE_CHECKING:
    from training.backbone_sizes import HiNetSizes, M3oESizes, SARNetSizes


class SingleScenario(nn.Module):
    """A network for each scenario, which its tasks share: only the first vectors are shared. The control of the others."""

    reads_vectors = False

    def __init__(self, tasks: int, scenarios: int, sizes: list[int], dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = scenarios * sizes[0], 0, sizes[-1]
        self.tasks, self.scenarios = tasks, scenarios
        self.layers = nn.ModuleList(ScenarioLayer(scenarios, 1, a, b) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)
        self.last_shared: SharedRows = all_rows(self.layers[-1]) if len(self.layers) else None

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Give every task its scenario's."""
        rows = ScenarioRows(where)
        own = (by_expert(hidden, self.scenarios) * rows.shares.t().unsqueeze(-1)).sum(0)
        x = rows.sort(own).unsqueeze(0)
        for layer in self.layers:
            x = layer(x, rows.counts).relu()
        return self.dropout(rows.unsort(x[0])).expand(self.tasks, -1, -1)


class SARNet(nn.Module):
    """SAR-Net (Shen et al., CIKM 2021, arXiv:2110.06475): each scenario scales and shifts the vector, and a gate for each
    task mixes experts of all scenarios with those of its own. Its attention over histories is the sequence encoder's part.
    """

    reads_vectors = True
    undecayed = ("scale", "shift")

    def __init__(self, tasks: int, scenarios: int, sizes: SARNetSizes, dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = sizes.input, 0, sizes.expert_sizes[-1]
        shared, own = sizes.shared_experts, sizes.scenario_experts
        self.tasks, self.shared = tasks, shared
        self.scale = nn.Parameter(torch.ones(scenarios, sizes.input))
        self.shift = nn.Parameter(torch.zeros(scenarios, sizes.input))
        widths = list(pairwise([sizes.input, *sizes.expert_sizes]))
        self.shared_layers = nn.ModuleList(ExpertLayer(shared, a, b) for a, b in widths)
        self.own_layers = nn.ModuleList(ScenarioLayer(scenarios, own, a, b) for a, b in widths)
        self.gate = nn.Linear(sizes.input, tasks * (shared + own))
        self.dropout = nn.Dropout(dropout)
        self.last_shared = shared_rows(self.shared_layers[-1].weight, shared)  # type: ignore[arg-type]

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Mix the experts for each task."""
        rows = ScenarioRows(where)
        fitted = rows.sort(hidden * (rows.shares @ self.scale) + rows.shares @ self.shift)
        shared, own = fitted.expand(self.shared, -1, -1), fitted.unsqueeze(0)
        for shared_layer, own_layer in zip(self.shared_layers, self.own_layers, strict=True):
            shared, own = shared_layer(shared).relu(), own_layer(own, rows.counts).relu()
        experts = self.dropout(torch.cat([shared, own]))
        every = [list(range(len(experts)))] * self.tasks
        return rows.unsort(mix(experts, gate_shares(self.gate(fitted), self.tasks), every))


class HiNet(nn.Module):
    """HiNet (Zhou et al., ICDE 2023, arXiv:2303.06095): first scenarios, then tasks.

    The scenarios' layer gives what experts of all scenarios say, what the row's own say, and what the others' say, weighed by a
    scenario-aware attention; of these three the tasks' layer, customised gate control (CGC), makes what each tower reads.
    """

    reads_vectors = False

    def __init__(self, tasks: int, scenarios: int, sizes: HiNetSizes, dropout: float) -> None:
        super().__init__()
        self.sizes, self.tasks, self.scenarios = sizes, tasks, scenarios
        experts = sizes.shared_experts + scenarios * sizes.scenario_experts
        self.hidden_width, self.out_width = experts * sizes.expert_sizes[0], sizes.task_sizes[-1]
        self.gate_width = experts
        self.deeper = Experts(experts, sizes.expert_sizes, 0)
        self.attention = nn.Parameter(torch.zeros(scenarios, scenarios))  # of a scenario for the others
        width, shared, own = 3 * sizes.expert_sizes[-1], sizes.task_shared_experts, sizes.task_experts
        self.reach = [[*range(shared), *range(shared + t * own, shared + (t + 1) * own)] for t in range(tasks)]
        self.entrance = ExpertLayer(shared + tasks * own, width, sizes.task_sizes[0])
        self.task_deeper = Experts(shared + tasks * own, sizes.task_sizes, dropout)
        self.task_gate = nn.Linear(width, tasks * (shared + own))
        last = self.task_deeper.last_weight() if len(sizes.task_sizes) > 1 else self.entrance.weight
        self.last_shared = shared_rows(last, shared)

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Extract for scenarios, then for tasks."""
        found = self._of_scenarios(hidden, gates, ScenarioRows(where).shares)
        every = self.entrance(found.expand(len(self.entrance.weight), -1, -1)).relu()
        experts = self.task_deeper(every)
        return mix(experts, gate_shares(self.task_gate(found), self.tasks), self.reach)

    def _of_scenarios(self, hidden: torch.Tensor, gates: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        shared = self.sizes.shared_experts
        experts = self.deeper(by_expert(hidden, self.gate_width))
        common = mix(experts, gate_shares(gates[:, :shared], 1), [list(range(shared))])[0]
        own_shares = gate_shares(gates[:, shared:], self.scenarios).flatten(0, 1)
        weighed = experts.narrow(0, shared, len(own_shares)) * own_shares.unsqueeze(-1)
        by_scenario = weighed.unflatten(0, (self.scenarios, -1)).sum(1)  # [S, N, h]
        mine = (by_scenario * shares.t().unsqueeze(-1)).sum(0)
        others = self.attention.masked_fill(
            torch.eye(self.scenarios, dtype=torch.bool, device=hidden.device), -1e9
        ).softmax(1)
        if self.scenarios == 1:
            others = torch.zeros_like(others)
        aside = (by_scenario * (shares @ others).t().unsqueeze(-1)).sum(0)
        return torch.cat([common, mine, aside], 1)


class M3oE(nn.Module):
    """M3oE (Zhang et al., SIGIR 2024, arXiv:2404.18465): experts of all, of scenarios and of tasks, fused by learned weights.

    A star-shaped layer of each scenario (and a way around it) makes the vector that all experts read. A scenario's experts are
    heard as a balance between its own and the others'; a task's likewise; both are added to the gated shared ones. The paper
    learns the four fusing weights on held-back rows in turns with the rest; here they learn with the rest.
    """

    reads_vectors = True

    def __init__(self, tasks: int, scenarios: int, sizes: M3oESizes, dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = sizes.input, 0, sizes.expert_sizes[-1]
        self.tasks, self.scenarios, self.shared = tasks, scenarios, sizes.shared_experts
        first, width = sizes.entrance_sizes
        self.star, self.behind = StarLayer(scenarios, sizes.input, first), nn.Linear(first, width)
        self.around = nn.Linear(sizes.input, width)
        experts = sizes.shared_experts + scenarios + tasks
        self.entrance = ExpertLayer(experts, width, sizes.expert_sizes[0])
        self.deeper = Experts(experts, sizes.expert_sizes, dropout)
        self.gate = nn.Linear(width, tasks * sizes.shared_experts)
        self.fusion = nn.Parameter(
            torch.zeros(4)
        )  # logits: balance and weight of scenarios, balance and weight of tasks
        last = self.deeper.last_weight() if len(sizes.expert_sizes) > 1 else self.entrance.weight
        self.last_shared = shared_rows(last, sizes.shared_experts)

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Fuse the experts for each task."""
        rows = ScenarioRows(where)
        star = rows.unsort(self.star(rows.sort(hidden), rows.counts)).relu()
        vector = self.behind(star).relu() + self.around(hidden).relu()
        experts = self.deeper(self.entrance(vector.expand(len(self.entrance.weight), -1, -1)).relu())
        shared, of_scenario, of_task = experts.split([self.shared, self.scenarios, self.tasks])
        balance, weight, task_balance, task_weight = self.fusion.sigmoid().unbind(0)
        heard = _balance(rows.shares, balance)
        scenario = weight * (of_scenario * heard.t().unsqueeze(-1)).sum(0)
        each = _balance(torch.eye(self.tasks, dtype=hidden.dtype, device=hidden.device), task_balance)
        task = task_weight * torch.einsum("ts,snh->tnh", each, of_task)
        every = [list(range(self.shared))] * self.tasks
        return mix(shared, gate_shares(self.gate(vector), self.tasks), every) + scenario + task


def _balance(own: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return shares [..., K] of which `share` goes to the own ones [..., K], and the rest to the others in equal parts."""
    others = own.shape[-1] - 1
    return own * share + (1 - own) * (1 - share) / others if others else own
