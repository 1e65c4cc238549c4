"""From logits to outcomes: the bias of the position, and how tasks build on each other.

Whatever the relation of the tasks (training/outputs.py), the outcome of a binary task is its probability after an
impression. In most relations that of a task with `given` is the product of the chain (ESMM, Ma et al. 2018): for cart given
click, p_cart = p(click) · p(cart | click). A regression is the expected value after an impression, exp(z) times the
probability of what it is given; its gradient stops at that probability, so that a few large values do not bend the click.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from training.lognormal import ZeroInflatedLognormal, spread_of
from training.outputs import Output, factors, outputs_of

if TYPE_CHECKING:
    from training.recipe import TaskRelation
    from training.spec import TaskSpec

# 0 unknown, 1 … 10 as they are, then 11-15, 16-20, 21-30, beyond.
_POSITION_EDGES = [*range(1, 12), 16, 21, 31]
POSITION_BUCKETS = len(_POSITION_EDGES) + 1


class PositionBias(nn.Module):
    """What a place in the list adds to the outputs that hear it, by scenario, against the first place; dropped at scoring."""

    hears: torch.Tensor
    free: torch.Tensor
    edges: torch.Tensor

    def __init__(self, scenarios: int, outputs: list[Output]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(scenarios + 1, POSITION_BUCKETS, len(outputs)))
        has_bias = torch.tensor([float(output.hears_position) for output in outputs])
        self.register_buffer("hears", has_bias, persistent=False)
        free = torch.ones(POSITION_BUCKETS, 1)
        free[:2] = 0  # unknown and first place are the reference
        self.register_buffer("free", free * has_bias, persistent=False)
        self.register_buffer("edges", torch.tensor(_POSITION_EDGES), persistent=False)

    def forward(self, scenario: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Return the bias [..., O] of positions [...] in scenarios [...]."""
        bucket = torch.bucketize(position, self.edges, right=True)
        return (self.table * self.free)[scenario, bucket]


class OutcomeChain(nn.Module):
    """From logits [..., O] to the log of each outcome: a probability, or the expected value of a regression."""

    log_scale: torch.Tensor

    def __init__(self, tasks: list[TaskSpec], relation: TaskRelation = "esmm") -> None:
        super().__init__()
        self.factors = factors(tasks, relation)
        self.is_regression = [task.kind == "regression" for task in tasks]
        places = {(output.task, output.role): place for place, output in enumerate(outputs_of(tasks, relation))}
        self._mixed = {
            task: (place, places[task, "spread"]) for (task, role), place in places.items() if role == "positive"
        }
        self.register_buffer("log_scale", torch.zeros(len(tasks)))  # log of a regression's mean on the train split

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Return log outcomes [..., T]; tasks stand behind those that they are given."""
        logs: list[torch.Tensor] = []
        for place, (factor, is_regression) in enumerate(zip(self.factors, self.is_regression, strict=True)):
            z = logits[..., place]
            if place in self._mixed:
                logs.append(self.distribution(logits, logs, place).log_mean() + self.log_scale[place])
            elif is_regression:
                before = logs[factor].detach() if factor is not None else 0.0
                logs.append(before + z.clamp(-15, 15) + self.log_scale[place])
            else:
                log_p = functional.logsigmoid(z)
                logs.append(log_p if factor is None else logs[factor] + log_p)
        return torch.stack(logs, dim=-1)

    def distribution(self, logits: torch.Tensor, logs: Sequence[torch.Tensor], task: int) -> ZeroInflatedLognormal:
        """Return how the values of a task are distributed after an impression, in units of their mean.

        Args:
            logits: [..., O].
            logs: the log outcomes of the tasks before it.
            task: the place of a task with the loss zero_inflated_lognormal.
        """
        (positive, spread), factor = self._mixed[task], self.factors[task]
        log_positive = functional.logsigmoid(logits[..., positive])
        if factor is not None:
            log_positive = logs[factor].detach() + log_positive
        return ZeroInflatedLognormal(log_positive, logits[..., task].clamp(-15, 15), spread_of(logits[..., spread]))
