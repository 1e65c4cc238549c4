"""The mean of the weights over the last steps: less noisy than any single step (Polyak & Juditsky 1992).

A step moves few rows of a sparse table. The average of a row that k steps leave alone goes on towards the weight that stays:
what is left of the way is the product of what each of them keeps. So a row is brought up to date when a step moves it, and
the others in the end.
"""

import math
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """An exponential moving average of a module's parameters, which begins as a plain mean over the first steps.

    Args:
        module: whose parameters are followed. Its embeddings with sparse gradients may move in the rows of the gradient alone.
        decay: how much of the average a step keeps once that many steps have passed, in [0, 1); 0 = the last step alone, which
            costs nothing.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay, self._steps = decay, 0
        self._weights = dict(module.named_parameters()) if decay else {}
        self._mean = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._log_kept = 0.0  # the log of what all steps together have kept of the first weights
        sparse = {part.weight for part in module.modules() if isinstance(part, nn.Embedding) and part.sparse}
        # What _log_kept was when a row was brought up to date; in a float64, which counts a step among millions.
        self._since = {
            name: torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
            for name, weight in self._weights.items()
            if weight in sparse
        }
        self._moving: dict[
            str, torch.Tensor
        ] = {}  # rows of sparse tables that the step moves, some of them more than once

    @torch.no_grad()
    def before_step(self) -> None:
        """Bring the rows of sparse tables up to date that the step will move by the gradients that are there."""
        for name, since in self._since.items():
            weight = self._weights[name]
            assert weight.grad is not None
            self._moving[name] = rows = weight.grad._indices()[0]
            _catch_up(self._mean[name], weight, since, rows, self._log_kept)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters after a step."""
        if not self._decay:
            return
        self._steps += 1
        share = max(1 - self._decay, 1 / (1 + self._steps / 2))  # the first steps soon count less than the later ones
        self._log_kept += math.log1p(-share)
        dense = [name for name in self._mean if name not in self._since]
        if dense:
            torch._foreach_lerp_([self._mean[name] for name in dense], [self._weights[name] for name in dense], share)
        for name, rows in self._moving.items():
            _take_in(self._mean[name], self._weights[name], self._since[name], rows, share, self._log_kept)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average into the module."""
        for name, weight in self._weights.items():
            if name in self._since:
                weight.lerp_(self._mean[name], _left(self._since[name], self._log_kept))
            else:
                weight.copy_(self._mean[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the average so far."""
        return {"steps": self._steps, "mean": self._mean, "log_kept": self._log_kept, "since": self._since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the average of a module with the same parameters."""
        self._steps, self._log_kept = state["steps"], state["log_kept"]
        for name, mean in state["mean"].items():
            self._mean[name].copy_(mean)
        for name, since in state["since"].items():
            self._since[name].copy_(since)


def _catch_up(
    mean: torch.Tensor, weight: torch.Tensor, since: torch.Tensor, rows: torch.Tensor, log_kept: float
) -> None:
    """Let the averages of rows [n] of a table [R, D] go on to where they are now, since [R] when they had been left alone."""
    if mean.device.type == "cpu":
        from training.kernels.table import catch_up

        catch_up(mean, weight, since, rows, log_kept)
        return
    left = _left(since.index_select(0, rows), log_kept)
    mean.index_copy_(0, rows, weight.index_select(0, rows).lerp_(mean.index_select(0, rows), left))
    since.index_fill_(0, rows, log_kept)


def _take_in(
    mean: torch.Tensor, weight: torch.Tensor, since: torch.Tensor, rows: torch.Tensor, share: float, log_kept: float
) -> None:
    """Take a share of what rows [n] of a table [R, D] are now into their averages."""
    if mean.device.type == "cpu":
        from training.kernels.table import take_in

        take_in(mean, weight, since, rows, share, log_kept)
        return
    mean.index_copy_(0, rows, mean.index_select(0, rows).lerp_(weight.index_select(0, rows), share))
    since.index_fill_(0, rows, log_kept)


def _left(since: torch.Tensor, log_kept: float) -> torch.Tensor:
    """Return how much [n, 1] is left of the way from rows, which stayed as they were `since` [n], to their averages."""
    return (log_kept - since).exp_().float().unsqueeze(1)
