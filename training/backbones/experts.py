"""Experts: several networks of one shape computed at once, and their mixing by gates.

Shapes: E experts, N rows, T tasks, K experts that a task's gate weighs, h the width of an expert's last layer.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional


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


class Experts(nn.Module):
    """The layers of each expert behind its first one, with ReLU: [E, N, sizes[0]] → [E, N, sizes[-1]]."""

    def __init__(self, experts: int, sizes: list[int], dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ExpertLayer(experts, a, b) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)

    def last_weight(self) -> nn.Parameter | None:
        """Return the weight [E, in, out] of the last layer; None if there is none behind the first."""
        return self.layers[-1].weight if len(self.layers) else None  # type: ignore[return-value]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the layers."""
        for layer in self.layers:
            hidden = functional.relu(layer(hidden))
        return self.dropout(hidden)


SharedRows = tuple[nn.Parameter, int] | None


def shared_rows(weight: nn.Parameter | None, rows: int) -> SharedRows:
    """Return a weight with how many of its first rows tasks share; None if they share none."""
    return None if weight is None or not rows else (weight, rows)


def all_rows(layer: nn.Module) -> SharedRows:
    """Return the weight of a layer that all tasks share."""
    weight: nn.Parameter = layer.weight  # type: ignore[assignment]
    return weight, len(weight)


def by_expert(hidden: torch.Tensor, experts: int) -> torch.Tensor:
    """Cut what stands side by side [N, E x h] into experts [E, N, h]."""
    # Copied once: matrices with holes between their rows would be copied by every product with them, forwards and back.
    return hidden.unflatten(-1, (experts, -1)).transpose(0, 1).contiguous()


def gate_shares(logits: torch.Tensor, tasks: int) -> torch.Tensor:
    """Return the shares of each task's gate from logits [N, T x E]: [T, E, N]."""
    # A softmax over few columns is ten times as fast along the rows.
    return logits.t().unflatten(0, (tasks, -1)).softmax(1)


def mix(experts: torch.Tensor, shares: torch.Tensor, reach: list[list[int]]) -> torch.Tensor:
    """Return the sums [T, N, h] of experts [E, N, h], each times its row of shares [T, K, N], in the experts' precision.

    Args:
        experts: what is mixed.
        shares: of each task's K experts.
        reach: the T tasks' K experts.
    """
    if experts.device.type == "cpu":
        from training.kernels import gates

        return gates.mix(experts, shares, torch.tensor(reach))
    every = experts.unbind(0)
    return torch.stack([_add_up([every[e] for e in own], of_task) for own, of_task in zip(reach, shares, strict=True)])


def _add_up(experts: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """Return the sum of experts [N, h], each times its row of weights [K, N]."""
    shares = weights.unsqueeze(-1).unbind(0)
    mixture = experts[0] * shares[0]
    for expert, share in zip(experts[1:], shares[1:], strict=True):
        mixture = torch.addcmul(mixture, expert, share)
    return mixture.to(experts[0].dtype)
