"""STAR and ADL: networks whose weights are the product of what all share and what a scenario, or a cluster, has of its own.

Shapes: N rows, S scenarios, K groups (scenarios or clusters).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from training.backbones.experts import SharedRows, all_rows
from training.backbones.moving import MovingMoments
from training.backbones.scenario_rows import ScenarioRows, each_own

if TYPE_CHECKING:
    from training.backbone_sizes import ADLSizes, StarSizes

_EPSILON = 1e-5
# Of fewer rows than this a batch's own moments say too little.
_LEAST_ROWS = 16


class PartitionedNorm(nn.Module):
    """Normalises each scenario's rows by its own moments: those of the rows while training, the moving ones when scoring.

    Sheng et al., CIKM 2021, section 3.3. Rows come and go in the scenarios' order; while training they are a slice of a batch,
    and where that has few of a scenario, the moving moments stand in.
    """

    undecayed = ("own_gain", "own_shift")

    def __init__(self, scenarios: int, width: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.own_gain = nn.Parameter(torch.ones(scenarios, width))
        self.own_shift = nn.Parameter(torch.zeros(scenarios, width))
        self.moments = MovingMoments(scenarios, width)

    def forward(self, x: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Normalise rows [N, h]; those of no known scenario by the mean of all scenarios' numbers."""
        gains, shifts = self.gain * self.own_gain, self.shift + self.own_shift
        moving = [self.moments.mean, self.moments.variance(), gains, shifts]
        by_group = list(zip(*([part.mean(0), *part.unbind(0)] for part in moving), strict=True))
        pieces = []
        for place, rows in enumerate(x.split(counts)):
            mean, variance, gain, shift = by_group[place]
            if self.training and place and len(rows):
                if torch.is_grad_enabled():
                    self.moments.note(place - 1, rows)
                if len(rows) >= _LEAST_ROWS:
                    mean, variance = rows.mean(0), rows.var(0, unbiased=False)
            pieces.append((rows - mean) * torch.rsqrt(variance + _EPSILON) * gain + shift)
        return torch.cat(pieces)


class StarLayer(nn.Module):
    """A linear layer of each group: the shared weights times its own, the shared bias plus its own [N, in] → [N, out]."""

    undecayed = ("own_weight",)

    def __init__(self, groups: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(fan_in, fan_out)), nn.Parameter(torch.zeros(1, fan_out))
        self.own_weight = nn.Parameter(torch.ones(groups, fan_in, fan_out))
        self.own_bias = nn.Parameter(torch.zeros(groups, 1, fan_out))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Apply each group's layer to its rows, which stand one group after the other."""
        weight, bias = self.weight * self.own_weight, self.bias + self.own_bias
        return each_own(x.unsqueeze(0), weight.unsqueeze(1), bias.unsqueeze(1), counts)[0]


class Star(nn.Module):
    """STAR (Sheng et al., CIKM 2021, arXiv:2101.11427): star topology layers behind a partitioned normalisation.

    The auxiliary network hears the scenario and the vector directly; a tower adds what it makes of both.
    """

    reads_vectors = True

    def __init__(self, tasks: int, scenarios: int, sizes: StarSizes, dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width = sizes.input, 0
        self.out_width = sizes.sizes[-1] + sizes.auxiliary_sizes[-1]
        self.tasks, self.norm = tasks, PartitionedNorm(scenarios, sizes.input)
        self.layers = nn.ModuleList(StarLayer(scenarios, a, b) for a, b in pairwise([sizes.input, *sizes.sizes]))
        self.auxiliary = nn.ModuleList(
            nn.Linear(a, b) for a, b in pairwise([sizes.input + scenarios, *sizes.auxiliary_sizes])
        )
        self.dropout = nn.Dropout(dropout)
        self.last_shared: SharedRows = all_rows(self.layers[-1])

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Give every task the same: the star's end and the auxiliary network's, side by side."""
        rows = ScenarioRows(where)
        star = self.norm(rows.sort(hidden), rows.counts)
        for layer in self.layers:
            star = layer(star, rows.counts).relu()
        aside = torch.cat([hidden, rows.shares], 1)
        for layer in self.auxiliary:
            aside = layer(aside).relu()
        return self.dropout(torch.cat([rows.unsort(star), aside], 1)).expand(self.tasks, -1, -1)


class ADL(nn.Module):
    """ADL (Li et al., SIGIR 2023): rows are told apart by the distribution that they seem to come from, whatever their scenario.

    Each is routed to the nearest of K centres on the unit sphere, which follow the rows routed to them, and goes through that
    cluster's network, whose weights are a product with shared ones (as in AdaptDHM, Li et al. 2022, arXiv:2211.12105).
    """

    reads_vectors = True

    def __init__(self, tasks: int, sizes: ADLSizes, dropout: float) -> None:
        super().__init__()
        self.hidden_width, self.gate_width, self.out_width = sizes.input, 0, sizes.sizes[-1]
        self.tasks, self.clusters = tasks, sizes.clusters
        self.layers = nn.ModuleList(StarLayer(sizes.clusters, a, b) for a, b in pairwise([sizes.input, *sizes.sizes]))
        self.centres = MovingMoments(sizes.clusters, sizes.input)
        nn.init.orthogonal_(self.centres.mean)
        self.centres.steps.fill_(100)  # the first rows shall not take a centre with them at once
        self.dropout = nn.Dropout(dropout)
        self.last_shared: SharedRows = all_rows(self.layers[-1])

    def forward(self, hidden: torch.Tensor, gates: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Send each row through its cluster's network."""
        with torch.no_grad():
            direction = functional.normalize(hidden, dim=1)
            cluster = (direction @ functional.normalize(self.centres.mean, dim=1).t()).argmax(1)
        rows = ScenarioRows(functional.one_hot(cluster + 1, self.clusters + 1).to(hidden.dtype))
        if self.training and torch.is_grad_enabled():
            for place, own in enumerate(rows.sort(direction).split(rows.counts)[1:]):
                if len(own):
                    self.centres.note(place, own)
        x = rows.sort(hidden)
        for layer in self.layers:
            x = layer(x, rows.counts).relu()
        return self.dropout(rows.unsort(x)).expand(self.tasks, -1, -1)
