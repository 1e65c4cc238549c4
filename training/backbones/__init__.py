"""Backbones: what tasks and scenarios share between the first layer and the towers.

The first layer of every network and every gate is one matrix that the model splits by who knows what (user, item, pair,
scenario), so that scoring computes a user's and an item's part once. A backbone takes over behind that layer: from hidden
[N, hidden_width], gate logits [N, gate_width] and the scenarios, one-hot [N, S + 1] with the first column for an unknown one, to
what each task's tower reads, [T, N, out_width]. `reads_vectors` says that hidden is a vector of features, without an
activation, which the backbone's own first layers read.
Its last_shared is the weight of the last layer that tasks share, and how many of its first rows they share. What it would add
to the loss of a row, it adds to the penalties while it computes (penalties.py).
Shapes: N rows, S scenarios that the model knows, T tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from training.backbones.experts import SharedRows
from training.backbones.gated import AdaSparse, PEPNet
from training.backbones.generated import HAMUR, M2M
from training.backbones.plain import CrossStitch, MMoE, SharedBottom, SingleTask
from training.backbones.ple import PLE
from training.backbones.scenario_experts import HiNet, M3oE, SARNet, SingleScenario
from training.backbones.star import ADL, Star

if TYPE_CHECKING:
    from training.backbone_sizes import BackboneSizes


class Backbone(Protocol):
    """What every backbone has."""

    reads_vectors: bool
    hidden_width: int
    gate_width: int
    out_width: int
    last_shared: SharedRows

    def __call__(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Return what each task's tower reads."""
        ...


def make_backbone(sizes: BackboneSizes, tasks: int, scenarios: int, dropout: float) -> Backbone:
    """Return the backbone of a recipe for so many tasks and scenarios."""
    from training import backbone_sizes as kinds  # parts of a model need torch alone

    match sizes:
        case kinds.PLESizes():
            return PLE(tasks, sizes, dropout)
        case kinds.MMoESizes():
            return MMoE(tasks, sizes, dropout)
        case kinds.StarSizes():
            return Star(tasks, scenarios, sizes, dropout)
        case kinds.ADLSizes():
            return ADL(tasks, sizes, dropout)
        case kinds.SARNetSizes():
            return SARNet(tasks, scenarios, sizes, dropout)
        case kinds.AdaSparseSizes():
            return AdaSparse(tasks, scenarios, sizes, dropout)
        case kinds.PEPNetSizes():
            return PEPNet(tasks, scenarios, sizes, dropout)
        case kinds.M2MSizes():
            return M2M(tasks, scenarios, sizes, dropout)
        case kinds.HiNetSizes():
            return HiNet(tasks, scenarios, sizes, dropout)
        case kinds.HAMURSizes():
            return HAMUR(tasks, scenarios, sizes, dropout)
        case kinds.M3oESizes():
            return M3oE(tasks, scenarios, sizes, dropout)
        case kinds.PlainSizes(kind="shared_bottom"):
            return SharedBottom(tasks, sizes.sizes, dropout)
        case kinds.PlainSizes(kind="single_task"):
            return SingleTask(tasks, sizes.sizes, dropout)
        case kinds.PlainSizes(kind="cross_stitch"):
            return CrossStitch(tasks, sizes.sizes, dropout)
        case kinds.PlainSizes():
            return SingleScenario(tasks, scenarios, sizes.sizes, dropout)
