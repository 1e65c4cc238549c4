"""What is counted rather than embedded: how often a user turned to, or was shown, things like the target.

Shapes: G users, R targets a user, L events of a history, E entries of an exposure.
"""

import torch
from torch import nn

from nightshelf.features import PRICE_BANDS


class HistoryMatch(nn.Module):
    """How much of the history is like the target: per attribute and event type, a sum that fades with age.

    For attribute a, event type e and memory d: log(1 + Σ over events h of type e with a(h) = a(target) of exp(-age_h / d)).
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
        """Match target attributes [G, R, A] against those of the history [G, L, A]: [G, R, A * events * memories]."""
        seen = torch.where(history == 0, -1, history).transpose(1, 2)
        like = target.unsqueeze(-1) == seen.unsqueeze(1)
        sums = torch.bmm(like.flatten(1, 2).to(memory.dtype), memory)
        return torch.log1p(sums).view(*target.shape[:2], -1)


class ExposureMatch(nn.Module):
    """How often the user was shown the target's category: log(1 + Σ of impressions × exp(-age / d)) per memory d.

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
        """Match target categories [G, R] against those shown [G, E]; an unknown one (0) is like nothing: [G, R, memories]."""
        like = (target.unsqueeze(-1) == shown.unsqueeze(1)) & (target > 0).unsqueeze(-1)
        return torch.log1p(torch.bmm(like.to(memory.dtype), memory))


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


class NextTopic(nn.Module):
    """How likely a user's next request is about the target's category (see training/topics.py, which fits the numbers).

    Until fitted, and in scenarios that answer no request, every share is 1.
    """

    prior: torch.Tensor
    off_topic: torch.Tensor
    event_worth: torch.Tensor
    shown_worth: torch.Tensor
    doubt: torch.Tensor

    def __init__(self, categories: int, scenarios: int, event_memories: int, memories: int) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(categories))  # share of each topic
        self.register_buffer("off_topic", torch.ones(scenarios + 1))  # ρ
        self.register_buffer("event_worth", torch.zeros(event_memories))
        self.register_buffer("shown_worth", torch.zeros(memories))
        self.register_buffer("doubt", torch.ones(()))  # how many counts the shop's shares are worth

    def reset(self) -> None:
        """Forget what was fitted."""
        self.off_topic.fill_(1.0)

    def set_worth(self, logs: torch.Tensor) -> None:
        """Take the fitted logarithms: of event memories, of memories of exposure, of the prior."""
        worth = logs.exp().to(self.doubt.dtype)
        self.event_worth.copy_(worth[: len(self.event_worth)])
        self.shown_worth.copy_(worth[len(self.event_worth) : -1])
        self.doubt.copy_(worth[-1])

    def forward(
        self,
        scenario: torch.Tensor,
        target: torch.Tensor,
        history: tuple[torch.Tensor, torch.Tensor],
        shown: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Return ρ + (1 - ρ) · P(topic | user) of target categories [G, R] in scenarios that broadcast against them.

        Args:
            history: categories [G, L] and their memories [G, L, events x memories].
            shown: categories [G, E] and their memories [G, E, memories].
        """
        off = self.off_topic[scenario]
        if bool((off >= 1).all()):
            return torch.ones_like(target, dtype=self.prior.dtype)
        prior = self.prior[torch.where(target < len(self.prior), target, 0)]  # a new category has no share yet
        mine, total = self.doubt * prior, self.doubt
        for (kinds, memory), worth in zip((history, shown), (self.event_worth, self.shown_worth), strict=True):
            weight = (memory @ worth) * (kinds > 0)
            like = (target.unsqueeze(-1) == kinds.unsqueeze(1)).to(weight.dtype)
            mine = mine + torch.bmm(like, weight.unsqueeze(-1)).squeeze(-1)
            total = total + weight.sum(-1, keepdim=True)
        return off + (1 - off) * torch.where(target > 0, mine / total, 0.0)
