"""Experts mixed by gates on a CPU, in one pass forwards and one back: no product of an expert with its weight is ever written.

Shapes: E experts, T tasks, K experts that a task's gate weighs, N rows, h the width of an expert's end.
"""

from typing import Any

import numpy as np
import torch

from training.kernels.numbers import array, kernel_of_sums, read, write


def mix(experts: torch.Tensor, shares: torch.Tensor, reach: torch.Tensor) -> torch.Tensor:
    """Return the sums [T, N, h] of experts [E, N, h], each times its row of shares [T, K, N], as precise as the experts are.

    Args:
        experts: float32 or bfloat16.
        shares: float32 or bfloat16.
        reach: int64 [T, K], the experts that each task's shares are of.
    """
    mixed: torch.Tensor = _Mix.apply(experts.contiguous(), shares.contiguous(), reach)
    return mixed


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, experts: torch.Tensor, shares: torch.Tensor, reach: torch.Tensor) -> torch.Tensor:
        """Return the sums [T, N, h], and keep for the gradient what they were made of."""
        ctx.save_for_backward(experts, shares, reach)
        mixed = experts.new_empty(len(shares), *experts.shape[1:])
        _mix(*map(array, (experts, shares, reach, mixed)))
        return mixed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:  # type: ignore[override]
        """Return the gradients of experts and shares, in their own precision, for that of the sums [T, N, h]."""
        experts, shares, reach = ctx.saved_tensors
        of_experts, of_shares = torch.empty_like(experts), torch.empty_like(shares)
        _unmix(*map(array, (experts, shares, reach, gradient.contiguous(), of_experts, of_shares)))
        return of_experts, of_shares, None


@kernel_of_sums
def _mix(experts, shares, reach, mixed):
    width = experts.shape[2]
    total = np.empty(width, np.float32)
    for task in range(reach.shape[0]):
        for row in range(experts.shape[1]):
            total[:] = 0
            for place in range(reach.shape[1]):
                expert, share = reach[task, place], read(shares[task, place, row])
                for j in range(width):
                    total[j] += share * read(experts[expert, row, j])
            for j in range(width):
                mixed[task, row, j] = write(mixed, total[j])


@kernel_of_sums
def _unmix(experts, shares, reach, gradient, of_experts, of_shares):
    """Write the gradients of what `_mix` read."""
    width = experts.shape[2]
    pull, sums = np.empty(width, np.float32), np.empty((len(experts), width), np.float32)
    for row in range(experts.shape[1]):
        sums[:] = 0
        for task in range(reach.shape[0]):
            for j in range(width):
                pull[j] = read(gradient[task, row, j])
            for place in range(reach.shape[1]):
                expert, share, product = reach[task, place], read(shares[task, place, row]), np.float32(0)
                for j in range(width):
                    sums[expert, j] += share * pull[j]
                    product += pull[j] * read(experts[expert, row, j])
                of_shares[task, place, row] = write(of_shares, product)
        for expert in range(len(experts)):
            for j in range(width):
                of_experts[expert, row, j] = write(of_experts, sums[expert, j])
