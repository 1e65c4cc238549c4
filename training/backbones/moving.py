"""What moves along with training: moments, which follow the batches, and the count of the steps.

Both are part of the saved model: what is scored uses the moments in place of its own batch's, and the count as it then stood.
"""

import torch
from torch import nn

from training.ranks import sum_of_ranks

_MOMENTUM = 0.9


class MovingMoments(nn.Module):
    """The mean and the mean square of K groups of rows [K, h], as exponential averages over the steps.

    The slices of a batch note what they saw in whatever order they are ready; the order leaves no trace. What the slices of
    other ranks noted comes in, too.
    """

    mean: torch.Tensor
    square: torch.Tensor
    steps: torch.Tensor

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(groups, width))
        self.register_buffer("square", torch.ones(groups, width))
        self.register_buffer("steps", torch.zeros(groups))
        self._noted: list[tuple[int, torch.Tensor]] = []

    def note(self, group: int, rows: torch.Tensor) -> None:
        """Remember rows [n, h] of a group for the end of the step."""
        seen = rows.detach().double()
        count = torch.full_like(seen[0], len(seen))
        self._noted.append((group, torch.stack([count, seen.sum(0), seen.square().sum(0)])))

    def settle(self) -> None:
        """Take in the rows of a step. Groups that it has none of stay as they are."""
        own = torch.zeros(len(self.mean), 3, self.mean.shape[1], dtype=torch.float64, device=self.mean.device)
        for group in {group for group, _ in self._noted}:
            seen = torch.stack([moments for of, moments in self._noted if of == group])
            own[group] = seen.sort(0).values.sum(0)
        self._noted.clear()
        count, total, square = sum_of_ranks(own).unbind(1)
        is_met = count[:, :1] > 0
        self.steps += is_met[:, 0]
        share = (1 / self.steps[:, None].clamp(min=1)).clamp(min=1 - _MOMENTUM) * is_met
        for moving, seen in ((self.mean, total), (self.square, square)):
            moving.lerp_((seen / count.clamp(min=1)).to(moving.dtype), share)

    def forget(self) -> None:
        """Let go of the rows that were noted for a step which was not made."""
        self._noted.clear()

    def variance(self) -> torch.Tensor:
        """Return the variance of each group [K, h]."""
        return (self.square - self.mean.square()).clamp(min=0)


class StepCount(nn.Module):
    """How many steps training has made, up to `most`: what grows with it ends there, and stays where a warm start goes on."""

    steps: torch.Tensor

    def __init__(self, most: int) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))
        self._most = most

    def settle(self) -> None:
        """Count a step."""
        self.steps.add_(1).clamp_(max=self._most)
