"""From ids to vectors: the embedding table, and the ways in which a target item asks what is known of a user.

Shapes: G users, R targets a user, L events of a history, N distinct items, D the attention size.
"""

import torch
from torch import nn

from nightshelf.features import PRICE_BANDS

# Ages are bucketed by powers of two of six hours: 0-6 h, 6-18 h, … ; the last bucket begins at about half a year.
AGE_BUCKETS = 11


class FieldEmbedding(nn.Module):
    """One table for all categorical fields, each at its own offset. An id beyond a field's size is unknown, as 0 is."""

    sizes: torch.Tensor
    offsets: torch.Tensor

    def __init__(self, sizes: dict[str, int], embedding_size: int) -> None:
        super().__init__()
        counts = torch.tensor(list(sizes.values()))
        self.register_buffer("sizes", counts, persistent=False)
        self.register_buffer("offsets", counts.cumsum(0) - counts, persistent=False)
        self.table = nn.Embedding(int(counts.sum()), embedding_size, sparse=True)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, ids: torch.Tensor, first: int) -> torch.Tensor:
        """Look up ids [..., F] of the fields first .. first + F: [..., F * embedding size]."""
        fields = slice(first, first + ids.shape[-1])
        known = torch.where(ids < self.sizes[fields], ids, 0) + self.offsets[fields]
        return self.table(known).flatten(-2)


def age_bucket(ages: torch.Tensor) -> torch.Tensor:
    """Return the bucket of each age in days."""
    return torch.log2(1 + 4 * ages.clamp(min=0)).long().clamp(max=AGE_BUCKETS - 1)


class TargetAttention(nn.Module):
    """The target asks the history: scaled dot products with an empty answer (Zhou et al. 2018; Vaswani et al. 2017).

    Keys and values are the item's vector plus what happened (event type), where (scenario) and how long ago.
    An event that is padding gets no weight; the empty answer takes all of it where the history is empty.
    """

    def __init__(self, vector_size: int, size: int, events: int, scenarios: int) -> None:
        super().__init__()
        self.query = nn.Linear(vector_size, size)
        self.key = nn.Linear(vector_size, size, bias=False)
        self.value = nn.Linear(vector_size, size, bias=False)
        self.event, self.scenario = nn.Embedding(events + 1, size), nn.Embedding(scenarios + 1, size)
        self.age = nn.Embedding(AGE_BUCKETS, size)
        self.target_scenario = nn.Linear(scenarios + 1, size, bias=False)  # of a one-hot scenario
        for table in (self.event, self.scenario, self.age):
            nn.init.normal_(table.weight, std=0.1)

    def context(self, events: torch.Tensor, scenarios: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Return what surrounds each event of a history: [G, L, D]."""
        scenarios = torch.where(scenarios < self.scenario.num_embeddings, scenarios, 0)
        events = torch.where(events < self.event.num_embeddings, events, 0)
        return self.event(events) + self.scenario(scenarios) + self.age(age_bucket(ages))

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, is_event: torch.Tensor
    ) -> torch.Tensor:
        """Answer queries [G, R, D] from keys and values [G, L, D] where is_event [G, L]: [G, R, D]."""
        scores = torch.bmm(queries, keys.transpose(1, 2)) * keys.shape[-1] ** -0.5
        scores = scores.masked_fill(~is_event.unsqueeze(1), -torch.inf)
        top = scores.detach().amax(-1, keepdim=True).clamp(min=0)
        odds = torch.exp(scores - top)
        weights = odds / (odds.sum(-1, keepdim=True) + torch.exp(-top))
        return torch.bmm(weights, values)


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
