"""Histories as sequences: attention by a target, and the layers that read a history's events one after the other.

Events are right-aligned, the newest last; what is no event (padding, or a kind that the model does not know) has no part in
anything, however wide the batch is. Shapes: G histories, L events, D the width of an event, H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from training.recipe import BlockSizes, EncoderSizes


# Ages are bucketed by powers of two of a minute, as gaps within a session differ by minutes and visits by days: below 1, 3, 7 …
# minutes; the last bucket begins at about half a year.
AGE_BUCKETS = 19
_MINUTES_A_DAY = 24 * 60
_WINDOWS = (2, 3, 4)
_DROPPED = -1e9  # of a score: its weight is 0, and a row of nothing else stays finite


def age_bucket(ages: torch.Tensor) -> torch.Tensor:
    """Return the bucket of each age in days."""
    return minute_bucket(_MINUTES_A_DAY * ages, AGE_BUCKETS)


def minute_bucket(minutes: torch.Tensor, buckets: int) -> torch.Tensor:
    """Return the bucket of each time in minutes, by powers of two: below 1, 3, 7 …; the last of so many holds all beyond."""
    return torch.log2(1 + minutes.clamp(min=0)).long().clamp(max=buckets - 1)


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, is_event: torch.Tensor) -> torch.Tensor:
    """Answer queries [G, R, D] from keys and values [G, L, D] where is_event [G, L]: [G, R, D].

    The target asks the history by scaled dot products (Vaswani et al. 2017) with an empty answer, which takes all of the weight
    where the history is empty.
    """
    scores = torch.bmm(queries, keys.transpose(1, 2)) * keys.shape[-1] ** -0.5
    scores = scores.masked_fill(~is_event.unsqueeze(1), -torch.inf)
    top = scores.detach().amax(-1, keepdim=True).clamp(min=0)
    odds = torch.exp(scores - top)
    weights = odds / (odds.sum(-1, keepdim=True) + torch.exp(-top))
    return torch.bmm(weights, values)


class ActivationUnit(nn.Module):
    """The local activation unit of DIN (Zhou et al., KDD 2018, arXiv:1706.06978): a network weighs each event for the target.

    It hears the event, the target, and what they have in common: their product and their difference, which is in the weights of
    the two themselves. Events are summed up by these weights without a softmax: a strong interest counts as such. Units are
    PReLU.
    """

    undecayed = ("slope",)

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, units), nn.Linear(width, units, bias=False)
        self.product, self.score = nn.Linear(width, units, bias=False), nn.Linear(units, 1)
        self.slope = nn.Parameter(torch.full((units, 1), 0.25))

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, is_event: torch.Tensor
    ) -> torch.Tensor:
        """Answer queries [G, R, D] from keys and values [G, L, D] where is_event [G, L]: [G, R, D]."""
        # What the products of a target and all events make of a unit is one product of matrices: [G, R x units, L].
        asked = (queries.unsqueeze(2) * self.product.weight).flatten(1, 2)
        common = torch.bmm(asked, keys.transpose(1, 2)).unflatten(1, (queries.shape[1], -1))
        heard = common + self.query(queries).unsqueeze(-1) + self.key(keys).transpose(1, 2).unsqueeze(1)
        units = heard.relu() - self.slope * (-heard).relu()
        weights = (units * self.score.weight.t()).sum(2) + self.score.bias
        return torch.bmm(weights * is_event.unsqueeze(1), values)


def make_sequence_layer(sizes: EncoderSizes, width: int) -> SequenceLayer:
    """Return the layer of a recipe for events of that width."""
    if sizes.kind == "transformer" or sizes.kind == "hstu":
        return Blocks(sizes, width)
    plain: dict[str, type[MeanPooling | GRU | Convolution]] = {
        "mean_pooling": MeanPooling,
        "gru": GRU,
        "convolution": Convolution,
    }
    return plain[sizes.kind](width)


class MeanPooling(nn.Module):
    """The mean of the events; 0 without any."""

    pools = True

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, events: torch.Tensor, is_event: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Pool events [G, L, D] to [G, 1, D]."""
        count = is_event.sum(1, keepdim=True).clamp(min=1).unsqueeze(-1)
        return (events * is_event.unsqueeze(-1)).sum(1, keepdim=True) / count


class GRU(nn.Module):
    """The last state of a gated recurrent network (GRU4Rec, Hidasi et al. 2016); 0 without an event."""

    pools = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.GRU(width, width, batch_first=True)

    def forward(self, events: torch.Tensor, is_event: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Read events [G, L, D] to the end: [G, 1, D]."""
        first = torch.argsort((~is_event).byte(), dim=1, stable=True)  # events first, in their order
        moved = events.gather(1, first.unsqueeze(-1).expand_as(events))
        lengths = is_event.sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(moved, lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
        _, last = self.cells(packed)
        return last.transpose(0, 1) * (lengths > 0).view(-1, 1, 1)


class Convolution(nn.Module):
    """Windows of 2, 3 and 4 neighbouring events, the strongest answer of each filter (the horizontal filters of Caser,
    Tang and Wang 2018); 0 without an event."""

    pools = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv1d(width, width, window) for window in _WINDOWS)
        self.merge = nn.Linear(len(_WINDOWS) * width, width)

    def forward(self, events: torch.Tensor, is_event: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Filter events [G, L, D] to [G, 1, D]."""
        last = torch.argsort(is_event.byte(), dim=1, stable=True)  # events last, in their order
        moved = (events * is_event.unsqueeze(-1)).gather(1, last.unsqueeze(-1).expand_as(events)).transpose(1, 2)
        ends = is_event.gather(1, last).unsqueeze(1)
        found = []
        for window, layer in zip(_WINDOWS, self.filters, strict=True):
            answers = layer(functional.pad(moved, (window - 1, 0))).relu()  # one a window, at its newest event
            found.append((answers * ends).amax(-1))
        return (self.merge(torch.cat(found, 1)) * is_event.any(1, keepdim=True)).unsqueeze(1)


class Blocks(nn.Module):
    """Blocks that let each event see those before it: of a Transformer, or HSTU. The target asks what comes out."""

    pools = False

    def __init__(self, sizes: BlockSizes, width: int) -> None:
        super().__init__()
        block = TransformerBlock if sizes.kind == "transformer" else HSTUBlock
        self.blocks = nn.ModuleList(block(width, sizes.heads) for _ in range(sizes.blocks))

    def forward(self, events: torch.Tensor, is_event: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Encode events [G, L, D]: [G, L, D]."""
        length = events.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=events.device).tril()
        sees = causal & is_event.unsqueeze(1)  # [G, L, L]
        for block in self.blocks:
            events = block(events, sees, ages)
        return events


class TransformerBlock(nn.Module):
    """Causal self-attention and a feed-forward layer, each behind a normalisation (SASRec, Kang and McAuley 2018; the
    target then asks, as in BST, Chen et al. 2019). The time since each event stands in the event itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, events: torch.Tensor, sees: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Encode events [G, L, D] that see where `sees` [G, L, L]."""
        queries, keys, values = _by_head(self.project(self.before_attention(events)), 3, self.heads)
        scores = queries @ keys.transpose(-1, -2) * keys.shape[-1] ** -0.5
        weights = scores.masked_fill(~sees.unsqueeze(1), _DROPPED).softmax(-1)
        events = events + self.merge(_side_by_side(weights @ values))
        return events + self.feed(self.before_feed(events))


class HSTUBlock(nn.Module):
    """Pointwise aggregated attention with a gate, without a softmax (HSTU, Zhai et al. 2024, arXiv:2402.17152).

    Scores have a bias for the time between two events; what is summed up is divided by the number of events seen.
    """

    undecayed = ("apart",)

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = nn.Linear(width, 4 * width), nn.Linear(width, width)
        self.apart = nn.Parameter(torch.zeros(AGE_BUCKETS, heads))

    def forward(self, events: torch.Tensor, sees: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Encode events [G, L, D] that see where `sees` [G, L, L]."""
        gates, queries, keys, values = _by_head(functional.silu(self.project(self.before(events))), 4, self.heads)
        apart = age_bucket((ages.unsqueeze(1) - ages.unsqueeze(2)).abs())
        scores = queries @ keys.transpose(-1, -2) + functional.embedding(apart, self.apart).permute(0, 3, 1, 2)
        weights = functional.silu(scores) * sees.unsqueeze(1) / sees.sum(-1).clamp(min=1)[:, None, :, None]
        mixed = self.after(_side_by_side(weights @ values)) * _side_by_side(gates)
        return events + self.merge(mixed)


SequenceLayer = MeanPooling | GRU | Convolution | Blocks


def _by_head(side_by_side: torch.Tensor, parts: int, heads: int) -> tuple[torch.Tensor, ...]:
    """Cut [G, L, parts x D] into its parts, each by head: [G, H, L, D / H]."""
    return side_by_side.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _side_by_side(by_head: torch.Tensor) -> torch.Tensor:
    """Put heads [G, H, L, d] side by side: [G, L, H x d]."""
    return by_head.transpose(1, 2).flatten(-2)
