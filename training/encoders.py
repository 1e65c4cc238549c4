"""From ids to vectors: the embedding table, and what each target item hears of a user's history.

Shapes: G users, R targets a user, L events of a history, N distinct items, D the attention size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from training.sequences import AGE_BUCKETS, ActivationUnit, age_bucket, attend, make_sequence_layer
from training.sharded_table import ShardedTable

if TYPE_CHECKING:
    from training.recipe import EncoderSizes


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
        self.table: nn.Embedding | ShardedTable = nn.Embedding(int(counts.sum()), embedding_size, sparse=True)
        nn.init.normal_(self.table.weight, std=0.02)
        for name in ("limits", "starts", "rows"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64), persistent=False)
        self.read_ids([torch.arange(count) for count in counts.tolist()])

    def shard(self, device: torch.device, l2: float) -> None:
        """Keep this rank's rows of the table alone, on a device. All ranks at once.

        Raises:
            InputError: the table cannot be sharded.
        """
        self.table = ShardedTable(self.table.weight.detach(), device, l2)

    def read_ids(self, known: list[torch.Tensor]) -> None:
        """Read the ids of another night: known[field][id] is the id under which this table knows the same value."""
        counts = torch.tensor([len(ids) for ids in known])
        self.limits, self.starts = counts, counts.cumsum(0) - counts
        own = zip(known, self.sizes, self.offsets, strict=True)
        self.rows = torch.cat([torch.where(ids < size, ids, 0) + offset for ids, size, offset in own])

    def forward(self, ids: torch.Tensor, first: int, beside: torch.Tensor | None = None) -> torch.Tensor:
        """Look up ids [..., F] of the fields first .. first + F, side by side, and set other columns [..., C] behind them.

        Returns:
            [..., F x embedding size + C], in the precision that autocast asks for.
        """
        fields = slice(first, first + ids.shape[-1])
        limits, starts = self.limits[fields], self.starts[fields]
        precision = torch.get_autocast_dtype(ids.device.type)
        if not torch.is_autocast_enabled(ids.device.type):
            precision = self.table.weight.dtype
        if ids.device.type == "cpu" and isinstance(self.table, nn.Embedding) and self.table.sparse:
            from training.kernels import table

            return table.look_up(
                self.table.weight, table.rows_of_ids(ids, limits, starts, self.rows), beside, precision
            )
        place = torch.where(ids < limits, ids, 0) + starts
        vectors = self.table(self.rows.index_select(0, place.flatten()).view_as(place)).flatten(-2).to(precision)
        return vectors if beside is None else torch.cat([vectors, beside.to(precision)], dim=-1)


class HistoryEncoder(nn.Module):
    """What each target item hears of a user's history.

    An event is the item's vector plus what happened (event type), where (scenario) and how long ago. With target attention and
    DIN the target asks the events as they are; the other kinds first make of them a sequence that the target asks, or one
    vector that all targets hear.
    """

    def __init__(self, sizes: EncoderSizes, vector_size: int, size: int, events: int, scenarios: int) -> None:
        super().__init__()
        self.query = nn.Linear(vector_size, size)
        self.unit = ActivationUnit(size, sizes.units) if sizes.kind == "din" else None
        asks_items = sizes.kind == "target_attention" or self.unit is not None
        self.key = nn.Linear(vector_size, size, bias=False) if asks_items else None
        self.value = nn.Linear(vector_size, size, bias=False)
        self.event, self.scenario = nn.Embedding(events + 1, size), nn.Embedding(scenarios + 1, size)
        self.age = nn.Embedding(AGE_BUCKETS, size)
        self.target_scenario = nn.Linear(scenarios + 1, size, bias=False)  # of a one-hot scenario
        for table in (self.event, self.scenario, self.age):
            nn.init.normal_(table.weight, std=0.1)
        self.sequence = None if asks_items else make_sequence_layer(sizes, size)

    def item_parts(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return what an item brings into each event of it: [N, D], or [N, 2 D] where it has a key of its own."""
        value = self.value(vectors)
        return value if self.key is None else torch.cat([self.key(vectors), value], -1)

    def context(self, events: torch.Tensor, scenarios: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Return what surrounds each event of a history: [G, L, D]."""
        tables = (self.event.weight, self.scenario.weight, self.age.weight)
        kinds, places = (len(table) for table in tables[:2])
        events = torch.where(events < kinds, events, 0)
        scenarios = torch.where(scenarios < places, scenarios, 0)
        # The sums of all combinations are few: one look-up an event, not three.
        sums = tables[0].unsqueeze(1).unsqueeze(1) + tables[1].unsqueeze(1) + tables[2]
        return functional.embedding((events * places + scenarios) * AGE_BUCKETS + age_bucket(ages), sums.flatten(0, 2))

    def encode(
        self, parts: torch.Tensor, context: torch.Tensor, is_event: torch.Tensor, ages: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values [G, L, D] of histories; of a kind that pools, [G, 1, D] twice."""
        if self.sequence is None:
            keys, values = parts.chunk(2, dim=-1)
            return keys + context, values + context
        encoded = self.sequence(parts + context, is_event, ages)
        return encoded, encoded

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, is_event: torch.Tensor
    ) -> torch.Tensor:
        """Answer queries [G, R, D] from what `encode` returned: [G, R, D]."""
        if self.sequence is not None and self.sequence.pools:
            return values.expand_as(queries)
        if self.unit is not None:
            return self.unit(queries, keys, values, is_event)  # type: ignore[no-any-return]
        return attend(queries, keys, values, is_event)
