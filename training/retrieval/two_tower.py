"""A two-tower model: users and items as vectors, whose inner product says how likely an item is the next new one.

Shapes: G users, L acts of a window, N items, M moments of users, D the size of a vector, F item fields.
"""

import torch
from torch import nn
from torch.nn import functional

from training.encoders import FieldEmbedding
from training.retrieval.recipe import RetrievalRecipe
from training.sequences import Blocks, minute_bucket

# Buckets of pauses, by powers of two of a minute: up to one, 1-3, … ; the last begins at about three months.
_PAUSES = 18
_SCALE = 10.0


def pause_bucket(seconds: torch.Tensor) -> torch.Tensor:
    """Return the bucket of each pause in seconds."""
    return minute_bucket(seconds / 60, _PAUSES)


class TwoTower(nn.Module):
    """The towers of users and of items.

    The item tower reads the item's id and attributes; its last number is a bias, what the item is worth to anybody; how much it
    is turned to of late, as the night before knew it, adds to that. The user
    tower reads the user's acts one after the other (HSTU, Zhai et al. 2024, or SASRec, Kang and McAuley 2018), each an item
    with what was done, where, and how long after the act before it; and at last, how much later it is asked. Directions are of
    unit length, times a learned scale (Yi et al. 2019 divide by a temperature), so that rare items are no shorter than others.
    """

    def __init__(self, recipe: RetrievalRecipe, fields: dict[str, int], events: int, scenarios: int) -> None:
        super().__init__()
        size, read = recipe.vector_size, len(fields) * recipe.embedding_size
        self.fields = FieldEmbedding(fields, recipe.embedding_size)
        self.item, self.bias = nn.Linear(read, size), nn.Linear(read, 1)
        # Together the logarithm of how often an item is turned to: what is known without any taste
        memories = len(recipe.trend_half_lives_days)
        self.trend = nn.Parameter(torch.full((memories,), 1 / max(1, memories)))
        self.event, self.scenario = nn.Embedding(events + 1, size), nn.Embedding(scenarios + 1, size)
        self.pause, self.asked_after = nn.Embedding(_PAUSES, size), nn.Embedding(_PAUSES, size)
        for table in (self.event, self.scenario, self.pause, self.asked_after):
            nn.init.normal_(table.weight, std=0.1)
        self.blocks = Blocks(recipe.sequence_encoder, size)
        self.user = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
        self.dropout = nn.Dropout(recipe.dropout)
        self.log_scale = nn.Parameter(torch.tensor(_SCALE).log())

    def items(self, fields: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what items with fields [N, F] are in a history [N, D], and their vectors [N, D + 1]."""
        read = self.fields(fields, 0)
        hidden = self.item(read)
        return hidden, torch.cat([functional.normalize(hidden, dim=-1), self.bias(read)], -1)

    def states(
        self,
        hidden: torch.Tensor,
        events: torch.Tensor,
        scenarios: torch.Tensor,
        seconds: torch.Tensor,
        is_act: torch.Tensor,
    ) -> torch.Tensor:
        """Return what is known of the users after each of their acts, [G, L, D].

        Args:
            hidden: the acts' items [G, L, D].
            events, scenarios: int64 [G, L], 0 = none.
            seconds: when, float64 [G, L], ascending.
            is_act: bool [G, L]; what is none stands before the first.
        """
        since = torch.diff(seconds, dim=1, prepend=seconds[:, :1])
        known = is_act & functional.pad(is_act[:, :-1], (1, 0))
        pauses = torch.where(known, pause_bucket(since), _PAUSES - 1)
        acts = hidden + self.event(events) + self.scenario(scenarios) + self.pause(pauses)
        ages = ((seconds[:, -1:] - seconds) / 86_400).to(hidden.dtype)
        return self.blocks(self.dropout(acts), is_act, torch.where(is_act, ages, 0.0))

    def users(self, states: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
        """Return the vectors [M, D + 1] of users with states [M, D], asked so many seconds [M] after their last act."""
        towards = self.user(states + self.asked_after(pause_bucket(seconds))) + states
        scaled = functional.normalize(towards, dim=-1) * self.log_scale.exp()
        return functional.pad(self.dropout(scaled), (0, 1), value=1.0)


def sampled_softmax(logits: torch.Tensor, log_chance: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood [M] of each moment's item among all, estimated from a pool of items.

    A negative's logit is corrected by the logarithm of its chance to be in the pool, so that popular items, which are drawn
    more often, are not pushed down for it (log-Q correction: Bengio and Senécal 2008, Yi et al. 2019; the positive itself is
    there for certain: Rawat et al. 2019).

    Args:
        logits: of each moment's user and each distinct item of the pool [M, N].
        log_chance: [N].
        positive: each moment's place in the pool, int64 [M].
    """
    own = logits.gather(1, positive[:, None])
    corrected = (logits - log_chance).scatter(1, positive[:, None], own)
    return corrected.logsumexp(1) - own[:, 0]
