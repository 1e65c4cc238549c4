"""PLE: progressive layered extraction (Tang et al., RecSys 2020): experts that all tasks share, and some of each task's own.

The first layer of every expert and every gate is one matrix that the model splits by who knows what (user, item, pair,
scenario), so that scoring computes a user's and an item's part once. This module takes over behind that layer.
Shapes: N rows, E experts (the shared ones first, then each task's), T tasks.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from training.recipe import PLESizes


class ExpertLayer(nn.Module):
    """One linear layer of each expert, all at once: [E, N, in] → [E, N, out]."""

    def __init__(self, experts: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(experts, 1, fan_out))
        nn.init.uniform_(self.weight, -((6 / (fan_in + fan_out)) ** 0.5), (6 / (fan_in + fan_out)) ** 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply each expert's layer to its own input."""
        return torch.baddbmm(self.bias, x, self.weight)


class Extraction(nn.Module):
    """What follows the first layer of one extraction level: the experts' further layers, and the mixing by gates."""

    def __init__(self, tasks: int, sizes: PLESizes, dropout: float, is_last: bool) -> None:
        super().__init__()
        shared, own = sizes.shared_experts, sizes.task_experts
        self.tasks, self.experts, self.is_last = tasks, shared + tasks * own, is_last
        widths = sizes.expert_sizes
        self.layers = nn.ModuleList(ExpertLayer(self.experts, a, b) for a, b in pairwise(widths))
        self.dropout = nn.Dropout(dropout)
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
        for layer in self.layers:
            hidden = functional.relu(layer(hidden))
        hidden = self.dropout(hidden)
        experts = hidden.unbind(0)
        width = len(self.reach[0])
        split = self.tasks * width
        logits = gates.t()  # a softmax over few columns is ten times as fast along the rows
        by_task = logits[:split].unflatten(0, (self.tasks, width)).softmax(1)
        mixed = torch.stack(
            [_mix([experts[e] for e in own], weight) for own, weight in zip(self.reach, by_task, strict=True)]
        )
        return mixed, None if self.is_last else _mix(list(experts), logits[split:].softmax(0))


def _mix(experts: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """Return the sum of experts [N, h], each times its row of weights [E, N]."""
    shares = weights.unsqueeze(-1).unbind(0)
    mixture = experts[0] * shares[0]
    for expert, share in zip(experts[1:], shares[1:], strict=True):
        mixture = torch.addcmul(mixture, expert, share)
    return mixture


class PLE(nn.Module):
    """Extraction levels one above the other; the first level's first layer is given from outside."""

    def __init__(self, tasks: int, sizes: PLESizes, dropout: float) -> None:
        super().__init__()
        self.sizes, self.tasks = sizes, tasks
        self.levels = nn.ModuleList(
            Extraction(tasks, sizes, dropout, level == sizes.levels - 1) for level in range(sizes.levels)
        )
        self.experts: int = self.levels[0].experts  # type: ignore[assignment]
        width, inner = sizes.expert_sizes[0], sizes.expert_sizes[-1]
        reached = sizes.shared_experts + sizes.task_experts
        self.entrances = nn.ModuleList(ExpertLayer(self.experts, inner, width) for _ in range(1, sizes.levels))
        self.task_gates = nn.ModuleList(ExpertLayer(tasks, inner, reached) for _ in range(1, sizes.levels))
        self.shared_gates = nn.ModuleList(nn.Linear(inner, self.experts) for _ in range(1, sizes.levels - 1))

    @property
    def hidden_width(self) -> int:
        """Return the width of all experts' first layers together."""
        return self.experts * self.sizes.expert_sizes[0]

    @property
    def gate_width(self) -> int:
        """Return the width of the first level's gate logits."""
        return self.levels[0].gate_width  # type: ignore[return-value]

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """Extract from first layers [N, hidden_width] (after activation) and gate logits [N, gate_width]: [T, N, out]."""
        by_expert = hidden.view(hidden.shape[0], self.experts, -1).transpose(0, 1)
        mixed, shared = self.levels[0](by_expert, gates)
        for place, level in enumerate(list(self.levels)[1:]):
            own = mixed.repeat_interleave(self.sizes.task_experts, dim=0)
            inputs = torch.cat([shared.expand(self.sizes.shared_experts, -1, -1), own])
            logits = self.task_gates[place](mixed).transpose(0, 1).flatten(1)
            if place < len(self.shared_gates):
                logits = torch.cat([logits, self.shared_gates[place](shared)], dim=1)
            mixed, shared = level(functional.relu(self.entrances[place](inputs)), logits)
        return mixed
