"""From ids to vectors: the embedding table, and the attention by which a target item asks a user's history.

Shapes: G users, R targets a user, L events of a history, N distinct items, D the attention size.
"""

import torch
from torch import nn
from torch.nn import functional

# Ages are bucketed by powers of two of six hours: 0-6 h, 6-18 h, … ; the last bucket begins at about half a year.
AGE_BUCKETS = 11


class FieldEmbedding(nn.Module):
    """One table for all categorical fields, each at its own offset.

    The ids are those of the night that the table was made for, until it is told of another's. An id beyond is unknown, as 0 is.
    """

    sizes: torch.Tensor
    offsets: torch.Tensor
    limits: torch.Tensor
    starts: torch.Tensor
    rows: torch.Tensor

    def __init__(self, sizes: dict[str, int], embedding_size: int) -> None:
        super().__init__()
        counts = torch.tensor(list(sizes.values()))
        self.register_buffer("sizes", counts, persistent=False)
        self.register_buffer("offsets", counts.cumsum(0) - counts, persistent=False)
        self.table = nn.Embedding(int(counts.sum()), embedding_size, sparse=True)
        nn.init.normal_(self.table.weight, std=0.02)
        for name in ("limits", "starts", "rows"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64), persistent=False)
        self.read_ids([torch.arange(count) for count in counts.tolist()])

    def read_ids(self, known: list[torch.Tensor]) -> None:
        """Read the ids of another night: known[field][id] is the id under which this table knows the same value."""
        counts = torch.tensor([len(ids) for ids in known])
        self.limits, self.starts = counts, counts.cumsum(0) - counts
        own = zip(known, self.sizes, self.offsets, strict=True)
        self.rows = torch.cat([torch.where(ids < size, ids, 0) + offset for ids, size, offset in own])

    def forward(self, ids: torch.Tensor, first: int) -> torch.Tensor:
        """Look up ids [..., F] of the fields first .. first + F: [..., F * embedding size]."""
        fields = slice(first, first + ids.shape[-1])
        place = torch.where(ids < self.limits[fields], ids, 0) + self.starts[fields]
        return self.table(self.rows[place]).flatten(-2)


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
        tables = (self.event.weight, self.scenario.weight, self.age.weight)
        kinds, places = (len(table) for table in tables[:2])
        events = torch.where(events < kinds, events, 0)
        scenarios = torch.where(scenarios < places, scenarios, 0)
        # The sums of all combinations are few: one look-up an event, not three.
        sums = tables[0][:, None, None] + tables[1][:, None] + tables[2]
        return functional.embedding((events * places + scenarios) * AGE_BUCKETS + age_bucket(ages), sums.flatten(0, 2))

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
