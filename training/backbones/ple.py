"""PLE: progressive layered extraction (Tang et al., RecSys 2020): experts that all tasks share, and some of each task's own.

With one level it is CGC, customised gate control, of the same paper. Shapes: N rows, E experts (the shared ones first, then
each task's), T tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from training.backbones.experts import ExpertLayer, Experts, by_expert, gate_shares, mix, shared_rows

if TYPE_CHECKING:
    from training.backbone_sizes import PLESizes


class Extraction(nn.Module):
    """What follows the first layer of one extraction level: the experts' further layers, and the mixing by gates."""

    def __init__(self, tasks: int, sizes: PLESizes, dropout: float, is_last: bool) -> None:
        super().__init__()
        shared, own = sizes.shared_experts, sizes.task_experts
        self.tasks, self.experts, self.is_last = tasks, shared + tasks * own, is_last
        self.deeper = Experts(self.experts, sizes.expert_sizes, dropout)
        self.reach = [[*range(shared), *range(shared + t * own, shared + (t + 1) * own)] for t in range(tasks)]
        self.gate_width = tasks * (shared + own) + (0 if is_last else self.experts)

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mix experts.

        Args:
            hidden: the experts' first layers after their activation [E, N, expert_sizes[0]].
            gates: gate logits [N, gate_width]: each task's over the experts in its reach, then the shared gate's over all.

        Returns:
            the tasks' mixtures [T, N, expert_sizes[-1]], and the shared mixture [N, …] (None at the last level).
        """
        experts = self.deeper(hidden)
        split = self.tasks * len(self.reach[0])
        mixed = mix(experts, gate_shares(gates[:, :split], self.tasks), self.reach)
        if self.is_last:
            return mixed, None
        return mixed, mix(experts, gate_shares(gates[:, split:], 1), [list(range(self.experts))])[0]


class PLE(nn.Module):
    """Extraction levels one above the other; the first level's first layer is given from outside."""

    reads_vectors = False

    def __init__(self, tasks: int, sizes: PLESizes, dropout: float) -> None:
        super().__init__()
        self.sizes, self.tasks = sizes, tasks
        self.levels = nn.ModuleList(
            Extraction(tasks, sizes, dropout, level == sizes.levels - 1) for level in range(sizes.levels)
        )
        self.experts: int = self.levels[0].experts  # type: ignore[assignment]
        width, inner = sizes.expert_sizes[0], sizes.expert_sizes[-1]
        reached = sizes.shared_experts + sizes.task_experts
        self.hidden_width, self.out_width = self.experts * width, inner
        self.gate_width: int = self.levels[0].gate_width  # type: ignore[assignment]
        deepest: Extraction = self.levels[-1]  # type: ignore[assignment]
        self.last_shared = shared_rows(deepest.deeper.last_weight(), sizes.shared_experts)
        self.entrances = nn.ModuleList(ExpertLayer(self.experts, inner, width) for _ in range(1, sizes.levels))
        self.task_gates = nn.ModuleList(ExpertLayer(tasks, inner, reached) for _ in range(1, sizes.levels))
        self.shared_gates = nn.ModuleList(nn.Linear(inner, self.experts) for _ in range(1, sizes.levels - 1))

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Extract from first layers [N, hidden_width] (after activation) and gate logits [N, gate_width]: [T, N, out]."""
        mixed, shared = self.levels[0](by_expert(hidden, self.experts), gates)
        for place, level in enumerate(list(self.levels)[1:]):
            own = mixed.repeat_interleave(self.sizes.task_experts, dim=0)
            inputs = torch.cat([shared.expand(self.sizes.shared_experts, -1, -1), own])
            logits = self.task_gates[place](mixed).transpose(0, 1).flatten(1)
            if place < len(self.shared_gates):
                logits = torch.cat([logits, self.shared_gates[place](shared)], dim=1)
            mixed, shared = level(functional.relu(self.entrances[place](inputs)), logits)
        return mixed
