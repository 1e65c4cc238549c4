"""Batches of impressions that share a history: [chunks, rows] with one user and one day a chunk.

The impressions of a user's day have the same history and the same user features, so these are gathered and encoded once
for up to ROWS of them. Most histories are short: a batch is as wide as its longest one, and chunks of like length come
together (the bucketing of sequence models, Khomenko et al. 2017, arXiv:1708.05604). Chunks are shuffled, not rows; batch
k is a pure function of (seed, epoch, k).
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from nightshelf.logs import get_logger
from training.data import Examples
from training.spec import ModelSpec
from training.stretches import days_together, read_ahead, stretches

log = get_logger("train")

ROWS = 4
# Where pairs of a request are compared, its impressions lie together, up to so many.
REQUEST_ROWS = 16
# What a dataset holds of each row or item, beside the histories.
_COLUMNS = ["user_dense", "target_dense", "user_fields", "item", "scenario", "position", "labels", "request", "drawn"]
_COLUMNS += ["weights", "catalogue"]
# So many batches' worth of shuffled chunks are sorted by length at a time: chance still decides who shares a batch.
_POOL = 2


@dataclass(frozen=True)
class UserBatch:
    """G users with their histories of L events, exposures of E pairs of day and category, and O items of their own."""

    fields: torch.Tensor  # int64 [G, user fields]
    dense: torch.Tensor  # float32 [G, user features], normalised
    items: torch.Tensor  # int64 [G, L], rows of the item fields
    events: torch.Tensor  # int64 [G, L], 0 = padding
    scenarios: torch.Tensor  # int64 [G, L]
    ages: torch.Tensor  # float32 [G, L], days
    shown: torch.Tensor  # int32 [G, E], categories that the user was shown, 0 = padding
    shown_counts: torch.Tensor  # float32 [G, E]
    shown_ages: torch.Tensor  # float32 [G, E], days
    own: torch.Tensor  # int32 [G, O], items that the user may want again, 0 = padding
    own_counts: torch.Tensor  # float32 [G, O]
    own_ages: torch.Tensor  # float32 [G, O], days


@dataclass(frozen=True)
class Batch:
    """Impressions in G x R slots; a slot without one repeats its chunk's first, with weight 0, and has no part in anything."""

    users: UserBatch
    item_fields: torch.Tensor  # int64 [N, item fields] of the distinct items of this batch
    items: torch.Tensor  # int64 [G, R], rows of item_fields
    dense: torch.Tensor  # float32 [G, R, target features], normalised
    scenario: torch.Tensor  # int64 [G, R]
    position: torch.Tensor  # int64 [G, R]
    labels: torch.Tensor  # float32 [G, R, tasks]
    weights: torch.Tensor  # float32 [G, R, tasks]: sample weight x mask, 0 for padding
    request: torch.Tensor  # int64 [G, R], code of the request, -1 = none
    drawn: torch.Tensor  # float32 [G, R], what the drawing of negatives adds to a logit
    rows: torch.Tensor  # int64 [G, R], rows of the examples, -1 = padding
    slots: torch.Tensor  # int64 [impressions], their places among the G x R

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        users = UserBatch(*(part.to(device) for part in vars(self.users).values()))
        parts = {name: part.to(device) for name, part in vars(self).items() if name != "users"}
        return Batch(users=users, **parts)

    @property
    def is_row(self) -> torch.Tensor:
        """Return which slots hold an impression."""
        return self.rows >= 0


class Dataset:
    """Examples as tensors, cut into chunks of one user-day, or of one request where a loss compares its impressions. Columns stay
    where they are, or lie on an accelerator.

    Which rows make a batch is decided by the CPU in any case.
    """

    def __init__(self, examples: Examples, spec: ModelSpec) -> None:
        self.examples, self.size, self.device = examples, len(examples), torch.device("cpu")
        self._by_request = any(task.loss == "pairwise" for task in spec.tasks)
        self.chunks = self._cut(np.arange(len(examples)))
        self.user_dense = _scaled(examples.user_dense, spec.user_dense, examples, spec)
        self.target_dense = _scaled(examples.target_dense, spec.target_dense, examples, spec)
        self.user_fields, self.item = torch.from_numpy(examples.user_fields), torch.from_numpy(examples.item).long()
        self.scenario, self.position = torch.from_numpy(examples.scenario), torch.from_numpy(examples.position)
        self.labels, self.request = torch.from_numpy(examples.labels), torch.from_numpy(examples.request)
        self.drawn = torch.from_numpy(examples.drawn)
        weights = examples.storage.zeros(examples.masks.shape, np.float32)
        self.weights = torch.from_numpy(np.multiply(examples.masks, examples.weight[:, None], out=weights))
        self.history, self.catalogue = torch.from_numpy(examples.history), torch.from_numpy(examples.catalogue)
        stored = examples.histories
        self.histories = [
            torch.from_numpy(a[:, -spec.recipe.history_length :])
            for a in (stored.items, stored.events, stored.scenarios, stored.ages)
        ]
        self.exposure = [torch.from_numpy(a) for a in (stored.shown, stored.shown_counts, stored.shown_ages)]
        self.own = [torch.from_numpy(a) for a in (stored.own, stored.own_counts, stored.own_ages)]
        self.lengths, self.shown_lengths = entries(self.histories[1]), entries(self.exposure[0])
        self.own_lengths = entries(self.own[0])
        days, size = len(np.unique(examples.day)), examples.storage.size
        self.days_together = days_together(days, size, spec.recipe.shuffle_gb)

    def to(self, device: torch.device) -> "Dataset":
        """Return a view whose columns lie on a device; in mapped files they stay, as where they would take more than half of the
        memory that is free there, and each batch goes there."""
        part = copy.copy(self)
        part.device = device
        if device.type == "cpu" or self.examples.storage.is_mapped:
            return part
        columns = [*(getattr(self, name) for name in _COLUMNS), *self.histories, *self.exposure, *self.own]
        size, free = sum(column.nbytes for column in columns), free_on(device)
        if size > free // 2:
            log.info(
                "columns of %.1f GB stay in main memory, for %.1f GB are free on %s", size / 1e9, free / 1e9, device
            )
            return part
        for name in _COLUMNS:
            setattr(part, name, getattr(self, name).to(device))
        lists = (self.histories, self.exposure, self.own)
        part.histories, part.exposure, part.own = ([c.to(device) for c in of] for of in lists)
        return part

    def subset(self, chosen: np.ndarray) -> "Dataset":
        """Return a view of the rows where `chosen` [n] is true; the columns are shared."""
        part, rows = copy.copy(self), np.flatnonzero(chosen)
        part.size = len(rows)
        part.chunks = self._cut(rows)
        return part

    def by_propensity(self) -> "Dataset":
        """Return a view whose rows weigh as many times more as the log showed them too rarely, where the examples tell it.

        So an average over what a policy chose to show becomes one over what it chose from (Horvitz and Thompson 1952).
        """
        if self.examples.inverse_propensity is None:
            return self
        part = copy.copy(self)
        inverse = torch.from_numpy(self.examples.inverse_propensity).to(self.weights.device)
        part.weights = self.weights * inverse.unsqueeze(1)
        return part

    def thinned(self, share: float, seed: int, epoch: int) -> "Dataset":
        """Return a view with all rows that have an outcome and a share of the others, which weigh 1 / share as much.

        Each epoch draws its own, and the expected loss stays the same (He et al. 2014, section 6.3).
        """
        if share >= 1:
            return self
        rows = np.sort(self.chunks[self.chunks >= 0].numpy())
        drawn = np.random.default_rng((seed, epoch)).random(len(rows)) < share
        has_outcome = (self.labels[rows] > 0).any(1).cpu().numpy()
        kept = rows[has_outcome | drawn]
        part = copy.copy(self)
        part.size = len(kept)
        part.chunks = self._cut(kept)
        weight = torch.ones(len(self.labels))
        weight[rows[~has_outcome]] = 1 / share
        part.weights = self.weights * weight.to(self.weights.device).unsqueeze(1)
        return part

    def shuffled_batches(self, batch_size: int, seed: int, epoch: int) -> list[torch.Tensor]:
        """Return the chunks of an epoch in batches of about `batch_size` slots, by chance but for the lengths of histories.

        Of large columns some days' come after another (training/stretches.py).
        """
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        parts = stretches(self._days(), self.days_together, generator)
        return [batch for chunks in parts for batch in self._shuffled(chunks, batch_size, generator)]

    def read_ahead(self, batches: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Give batches one by one, and have what those after them need read from mapped files meanwhile."""
        return read_ahead(batches, self._days(), self._ask_for) if self.examples.storage.is_mapped else iter(batches)

    def ordered_batches(self, batch_size: int) -> list[torch.Tensor]:
        """Return all chunks in batches of about `batch_size` slots, from the shortest history to the longest."""
        return list(self._by_length(torch.arange(len(self.chunks))).split(self._chunks_of(batch_size)))

    def batch(self, chunks: torch.Tensor) -> Batch:
        """Gather chunks [G] of impressions."""
        rows = self.chunks[chunks]
        history = self.history[rows[:, 0]]
        items, events, scenarios, ages = gather_newest(self.histories, history, self.lengths)
        shown = gather_newest(self.exposure, history, self.shown_lengths)
        own = gather_newest(self.own, history, self.own_lengths)
        slots = (rows.flatten() >= 0).nonzero().squeeze(1)
        rows = rows.to(self.labels.device)
        first = rows[:, 0]
        read = torch.where(rows >= 0, rows, first.unsqueeze(1))
        seen = items.long().clamp(max=len(self.catalogue) - 1)
        distinct, place = torch.unique(torch.cat([seen.reshape(-1), self.item[read].reshape(-1)]), return_inverse=True)
        history_places, target_places = place[: seen.numel()].view_as(seen), place[seen.numel() :].view_as(read)
        users = UserBatch(
            self.user_fields[first].long(),
            self.user_dense[first],
            history_places,
            events.long(),
            scenarios.long(),
            ages,
            *shown,
            *own,
        )
        batch = Batch(
            users=users,
            item_fields=self.catalogue[distinct].long(),
            items=target_places,
            dense=self.target_dense[read],
            scenario=self.scenario[read],
            position=self.position[read],
            labels=self.labels[read],
            weights=self.weights[read] * (rows >= 0).unsqueeze(-1),
            request=self.request[read],
            drawn=self.drawn[read],
            rows=rows,
            slots=slots.to(rows.device),
        )
        return batch if self.labels.device == self.device else batch.to(self.device)

    def _cut(self, rows: np.ndarray) -> torch.Tensor:
        """Return rows as chunks [chunks, ROWS], or [chunks, REQUEST_ROWS] of a request each."""
        of = self.examples
        user, day = of.user[rows], of.day[rows]
        if self._by_request:
            return torch.from_numpy(chunk_rows(user, day, rows, REQUEST_ROWS, of.request[rows]))
        return torch.from_numpy(chunk_rows(user, day, rows))

    def _shuffled(self, chunks: torch.Tensor, batch_size: int, generator: torch.Generator) -> list[torch.Tensor]:
        order, size = chunks[torch.randperm(len(chunks), generator=generator)], self._chunks_of(batch_size)
        batches = [batch for pool in order.split(_POOL * size) for batch in self._by_length(pool).split(size)]
        return [batches[place] for place in torch.randperm(len(batches), generator=generator)]

    def _days(self) -> torch.Tensor:
        """Return the day of each chunk."""
        return torch.from_numpy(self.examples.day)[self.chunks[:, 0]]

    def _ask_for(self, day: int) -> None:
        """Have the system read what the examples of a day need; rows and histories of one day lie together."""
        rows = np.flatnonzero(self.examples.day == day)
        stored = self.examples.histories
        histories = self.examples.history[rows]
        first = int(histories[histories > 0].min(initial=len(stored.items)))
        of_rows = [self.user_dense, self.target_dense, self.user_fields, self.labels, self.weights]
        of_histories = [stored.items, stored.events, stored.scenarios, stored.ages, stored.shown, stored.shown_counts]
        for column in of_rows:
            self.examples.storage.ask_for(column.numpy(), int(rows[0]), int(rows[-1]) + 1)
        of_histories += [stored.shown_ages, stored.own, stored.own_counts, stored.own_ages]
        for array in of_histories:
            self.examples.storage.ask_for(array, first, int(histories.max()) + 1)

    def _by_length(self, chunks: torch.Tensor) -> torch.Tensor:
        return chunks[self.lengths[self.history[self.chunks[chunks, 0]]].argsort(stable=True)]

    def _chunks_of(self, batch_size: int) -> int:
        return max(1, batch_size // self.chunks.shape[1])


def free_on(device: torch.device) -> int:
    """Return how many bytes are free on an accelerator; none where torch cannot tell, for nothing can be counted on there."""
    try:
        return torch.accelerator.get_memory_info(device)[0]
    except (RuntimeError, NotImplementedError):
        return 0


def _scaled(raw: np.ndarray, names: list[str], examples: Examples, spec: ModelSpec) -> torch.Tensor:
    ready = examples.storage.zeros((len(raw), spec.normalization.width(names)), np.float32)
    return torch.from_numpy(spec.normalization.apply(raw, names, ready))


def entries(padded: torch.Tensor) -> torch.Tensor:
    """Return the length of each right-aligned row [n, length] from its first number on; 0 is padding."""
    is_entry = padded != 0
    return torch.where(is_entry.any(1), padded.shape[1] - is_entry.byte().argmax(1), 0)


def gather_newest(columns: list[torch.Tensor], rows: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """Return rows of parallel right-aligned columns [n, length], as wide as the longest of these rows, at least 1."""
    width = max(1, int(lengths[rows].max()))
    rows = rows.to(columns[0].device)
    return [column[rows, -width:] for column in columns]


def chunk_rows(
    user: np.ndarray, day: np.ndarray, rows: np.ndarray, width: int = ROWS, request: np.ndarray | None = None
) -> np.ndarray:
    """Pack rows of one (user, day) side by side; with `request`, of one (user, day, request).

    Returns:
        int64 [chunks, width] of `rows`, -1 = padding, never in the first slot.
    """
    keys = [user, day] if request is None else [user, day, request]
    order = np.lexsort((rows, *reversed(keys)))
    starts = np.flatnonzero(np.r_[True, np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)])
    sizes = np.diff(np.r_[starts, len(order)])
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    per_group = -(-sizes // width)
    first_chunk = np.r_[0, np.cumsum(per_group)[:-1]]
    chunks = np.full((int(per_group.sum()), width), -1, np.int64)
    chunks[np.repeat(first_chunk, sizes) + place // width, place % width] = rows[order]
    return chunks
