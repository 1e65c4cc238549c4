"""What is counted rather than embedded: how often a user turned to, or was shown, things like the target.

Shapes: G users, R targets a user, L events of a history, E entries of an exposure.
"""

import torch
from torch import nn

from nightshelf.features import PRICE_BANDS

# So large that log(1 + x) of a count, and of a share, is near to their logs.
_OWN_COUNTS, _OWN_SHARES = 20.0, 1000.0


class HistoryMatch(nn.Module):
    """How much of the history is like the target: per attribute and event type, a sum that fades with age.

    For attribute a, event type e and memory d: Σ over events h of type e with a(h) = a(target) of exp(-age_h / d).
    Unknown attributes (0) are like nothing. Nothing is learned here.
    """

    decay_days: torch.Tensor

    def __init__(self, events: int, decay_days: list[float]) -> None:
        super().__init__()
        self.events = events
        self.register_buffer("decay_days", torch.tensor(decay_days), persistent=False)

    def width(self, attributes: int) -> int:
        """Return the number of features."""
        return attributes * self.events * len(self.decay_days)

    def memory(self, events: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Return the weight of each event in each (event type, memory): [G, L, events * memories]."""
        kinds = torch.arange(1, self.events + 1, device=events.device)
        is_kind = (events.unsqueeze(-1) == kinds).to(ages.dtype)
        fading = torch.exp(-ages.clamp(min=0).unsqueeze(-1) / self.decay_days)
        return (is_kind.unsqueeze(-1) * fading.unsqueeze(-2)).flatten(-2)

    def forward(self, target: torch.Tensor, history: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Match target attributes [G, R, A] against those of the history [G, L, A]: [G, R, A, events * memories]."""
        return _sum_of_like(target, history, memory)


class ExposureMatch(nn.Module):
    """How often the user was shown the target's category, or one above it: Σ of impressions × exp(-age / d) per memory d.

    What an older recommender shows a user says what it takes the user for; with the clicks of the history beside it,
    a category often shown and never clicked is told from one never tried. Nothing is learned here.
    """

    decay_days: torch.Tensor

    def __init__(self, decay_days: list[float]) -> None:
        super().__init__()
        self.register_buffer("decay_days", torch.tensor(decay_days), persistent=False)

    def memory(self, counts: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Return the weight of each entry in each memory: [G, E, memories]."""
        return counts.unsqueeze(-1) * torch.exp(-ages.unsqueeze(-1) / self.decay_days)

    def forward(self, target: torch.Tensor, shown: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Match target categories [G, R, N] against those shown [G, E, N], at each level: [G, R, N, memories]."""
        return _sum_of_like(target, shown, memory)


class OwnMatch(nn.Module):
    """Whether the user chose the target before: on how many days, weighed, what share of all such days, and how long ago.

    Log odds of another choice rise with the log of the share: who chooses much repeats each thing more often, and is no likelier
    to choose this one next. It reaches as far back as the shop's `rebuy` says, where a history holds the newest events alone.
    Nothing is learned here.
    """

    decay_days: torch.Tensor

    def __init__(self, decay_days: list[float]) -> None:
        super().__init__()
        self.width = 2 + len(decay_days)
        self.register_buffer("decay_days", torch.tensor(decay_days), persistent=False)

    def memory(self, counts: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Return what each entry of the list [G, O] tells: [G, O, 2 + memories]; exp(-age / d) per memory d."""
        share = counts / counts.sum(-1, keepdim=True).clamp(min=1e-6)
        fading = torch.exp(-ages.unsqueeze(-1) / self.decay_days)
        return torch.cat([_OWN_COUNTS * counts.unsqueeze(-1), _OWN_SHARES * share.unsqueeze(-1), fading], -1)

    def forward(self, target: torch.Tensor, own: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Match target items [G, R] against the user's own [G, O]: log(1 + x) of what is told [G, R, 2 + memories]; else 0."""
        return torch.log1p(_sum_of_like(target.unsqueeze(-1), own.unsqueeze(-1), memory).squeeze(2))


class PriceFit(nn.Module):
    """How well the target's price band suits the bands of what the user turned to.

    A user's level is the mean distance from the middle band over the history, shrunk towards the middle; how much an event
    of each type tells, and how strong the shrinkage is, are learned.
    """

    def __init__(self, events: int) -> None:
        super().__init__()
        self.middle = (1 + PRICE_BANDS) / 2
        self.log_worth = nn.Parameter(torch.zeros(events + 1))
        self.log_doubt = nn.Parameter(torch.tensor(1.0))

    def level(self, bands: torch.Tensor, events: torch.Tensor) -> torch.Tensor:
        """Return the users' levels [G] of histories with bands [G, L], 0 = unknown, and event types [G, L], 0 = padding."""
        worth = torch.where((bands > 0) & (events > 0), self.log_worth.exp()[events], 0.0)
        return (worth * self.distance(bands)).sum(-1) / (worth.sum(-1) + self.log_doubt.exp())

    def distance(self, bands: torch.Tensor) -> torch.Tensor:
        """Return how far bands lie from the middle, about -1 … 1; 0 if unknown."""
        return torch.where(bands > 0, (bands - self.middle) / self.middle, 0.0)

    def forward(self, target: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Compare target bands [G, R] with levels [G]: squared distance, product [G, R, 2]."""
        distance, level = self.distance(target), level.unsqueeze(-1)
        apart = torch.where(target > 0, distance - level, 0.0)
        return torch.stack([apart.square(), distance * level], dim=-1)


def _sum_of_like(target: torch.Tensor, other: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Sum up the weights [G, L, W] of what is like targets [G, R, A] among others [G, L, A]: [G, R, A, W]; 0 is like nothing."""
    there = torch.where(other == 0, -1, other).transpose(1, 2)
    like = target.unsqueeze(-1) == there.unsqueeze(1)
    return torch.bmm(like.flatten(1, 2).to(weight.dtype), weight).view(*target.shape, -1)
