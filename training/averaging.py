"""The mean of the weights over the last steps: less noisy than any single step (Polyak & Juditsky 1992)."""

from typing import Any

import torch
from torch import nn


class WeightAverage:
    """An exponential moving average of a module's parameters, which begins as a plain mean over the first steps.

    Args:
        module: whose parameters are followed.
        decay: how much of the average a step keeps once that many steps have passed, in [0, 1); 0 = the last step alone.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay, self._steps = module, decay, 0
        self._mean = {name: weight.detach().clone() for name, weight in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters after a step."""
        self._steps += 1
        share = max(1 - self._decay, 1 / (1 + self._steps / 2))  # the first steps soon count less than the later ones
        for name, weight in self._module.named_parameters():
            self._mean[name].lerp_(weight, share)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average into the module."""
        for name, weight in self._module.named_parameters():
            weight.copy_(self._mean[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the average so far."""
        return {"steps": self._steps, "mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the average of a module with the same parameters."""
        self._steps = state["steps"]
        self._mean = {name: mean.to(self._mean[name].device) for name, mean in state["mean"].items()}
