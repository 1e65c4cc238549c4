"""Backbones that know tasks alone: one network of all, one of each, experts mixed by gates, networks stitched together.

Shapes: N rows, T tasks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from training.backbones.experts import ExpertLayer, Experts, SharedRows, by_expert, gate_shares, mix, shared_rows

if TYPE_CHECKING:
    from training.backbone_sizes import MMoESizes


class SharedBottom(nn.Module):
    """One network that all tasks read (Caruana 1997)."""

    reads_vectors = False

    def __init__(self, tasks: int, sizes: list[int], dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = sizes[0], 0, sizes[-1]
        self.tasks, self.deeper = tasks, Experts(1, sizes, dropout)
        self.last_shared = shared_rows(self.deeper.last_weight(), 1)

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Give every task the same."""
        return self.deeper(hidden.unsqueeze(0)).expand(self.tasks, -1, -1)


class SingleTask(nn.Module):
    """A network for each task: nothing but the first vectors is shared. The control of the others."""

    reads_vectors = False

    def __init__(self, tasks: int, sizes: list[int], dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = tasks * sizes[0], 0, sizes[-1]
        self.tasks, self.deeper = tasks, Experts(tasks, sizes, dropout)
        self.last_shared: SharedRows = None

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Give each task its own."""
        return self.deeper(by_expert(hidden, self.tasks))


class MMoE(nn.Module):
    """Experts that all tasks share, mixed by a gate for each task (Ma et al., KDD 2018)."""

    reads_vectors = False

    def __init__(self, tasks: int, sizes: MMoESizes, dropout: float) -> None:
        super().__init__()
        self.tasks, self.experts = tasks, sizes.experts
        self.hidden_width, self.out_width = sizes.experts * sizes.expert_sizes[0], sizes.expert_sizes[-1]
        self.gate_width = tasks * sizes.experts
        self.deeper = Experts(sizes.experts, sizes.expert_sizes, dropout)
        self.last_shared = shared_rows(self.deeper.last_weight(), sizes.experts)

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Mix the experts for each task."""
        experts = self.deeper(by_expert(hidden, self.experts))
        return mix(experts, gate_shares(gates, self.tasks), [list(range(self.experts))] * self.tasks)


class CrossStitch(nn.Module):
    """A network for each task, whose layers are mixed by a learned matrix of tasks (Misra et al., CVPR 2016).

    Each matrix begins near the identity, as the paper has it: .9 of a task's own, the rest of the others in equal parts.
    """

    reads_vectors = False
    undecayed = ("stitches",)

    def __init__(self, tasks: int, sizes: list[int], dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = tasks * sizes[0], 0, sizes[-1]
        self.tasks = tasks
        self.layers = nn.ModuleList(ExpertLayer(tasks, a, b) for a, b in pairwise(sizes))
        others = 0.1 / max(tasks - 1, 1)
        start = torch.full((tasks, tasks), others) + torch.eye(tasks) * (0.9 - others)
        self.stitches = nn.ParameterList(start.clone() for _ in sizes)
        self.last_shared = shared_rows(self.stitches[-1], tasks)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Mix the tasks after each layer."""
        tasks = self._stitch(0, by_expert(hidden, self.tasks))
        for place, layer in enumerate(self.layers, 1):
            tasks = self._stitch(place, layer(tasks).relu())
        return self.dropout(tasks)

    def _stitch(self, place: int, tasks: torch.Tensor) -> torch.Tensor:
        return torch.einsum("st,tnh->snh", self.stitches[place], tasks)
