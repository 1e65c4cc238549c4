"""Simple recommenders over the same logs, without dirt: what a shelf must beat to be worth anything."""

import datetime as dt
from dataclasses import dataclass

import numpy as np

from simulation.rows import CLICK
from simulation.truth import Truth

_MOST_ITEMS_PER_USER = 100  # a user's latest items that enter the co-click counts


@dataclass(frozen=True)
class Record:
    """Clicks, carts and orders by number, the oldest first."""

    user: np.ndarray
    item: np.ndarray
    scenario: np.ndarray
    kind: np.ndarray
    users: int
    items: int


def read_record(truth: Truth, days: list[dt.date]) -> Record:
    """Return the outcomes of these days."""
    table = truth.outcomes(days)
    order = np.argsort(table["ts"].to_numpy(), kind="stable")
    user, item, scenario, kind = (
        table[name].to_numpy()[order].astype(np.int64) for name in ("user", "item", "scenario", "kind")
    )
    return Record(user, item, scenario, kind, truth.plan.users, truth.catalogue.size)


def popularity_scores(record: Record, scenario: int) -> np.ndarray:
    """Return each item's clicks in a scenario [items]."""
    clicks = (record.kind == CLICK) & (record.scenario == scenario)
    return np.bincount(record.item[clicks], minlength=record.items).astype(np.float32)


def own_history_scores(record: Record, users: np.ndarray) -> np.ndarray:
    """Return scores that put what a user touched last first [users, items]; 0: never touched. `users` ascend."""
    scores = np.zeros((len(users), record.items), np.float32)
    row, known = rows_of(users, record.user)
    # Later outcomes overwrite earlier ones: the record runs from the oldest to the newest.
    scores[row[known], record.item[known]] = np.flatnonzero(known) + 1
    return scores


def item_knn_scores(record: Record, users: np.ndarray) -> np.ndarray:
    """Return item-kNN scores [users, items]: the sum of the cosines of co-clicks with the user's items (Sarwar 2001)."""
    user, item = _pairs(record)
    head, tail, weight = _cosines(user, item, record.items)
    scores = np.zeros((len(users), record.items), np.float32)
    row, known = rows_of(users, user)
    starts = np.searchsorted(head, np.arange(record.items + 1))
    for place, source in zip(row[known], item[known], strict=True):
        edges = slice(starts[source], starts[source + 1])
        scores[place, tail[edges]] += weight[edges]
    return scores


def item_cosines(record: Record, items: np.ndarray) -> np.ndarray:
    """Return the cosines of co-clicks of these items with all [len(items), items]."""
    head, tail, weight = _cosines(*_pairs(record), record.items)
    row = np.full(record.items, -1)
    row[items] = np.arange(len(items))
    scores = np.zeros((len(items), record.items), np.float32)
    asked = row[head] >= 0
    scores[row[head[asked]], tail[asked]] = weight[asked]
    return scores


def _pairs(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Return users and the items that they turned to, each pair once; a user's first so many items."""
    user, item = np.divmod(np.unique(record.user * record.items + record.item), record.items)
    place = np.arange(len(user)) - np.searchsorted(user, user)
    return user[place < _MOST_ITEMS_PER_USER], item[place < _MOST_ITEMS_PER_USER]


def _cosines(user: np.ndarray, item: np.ndarray, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of items that share users, with the cosine of their user sets, sorted by head. `user` ascends."""
    counts = np.bincount(user)
    counts = counts[counts > 0]
    starts = np.cumsum(counts) - counts
    repeats = np.repeat(counts, counts)
    left = np.repeat(np.arange(len(user)), repeats)
    first = np.repeat(np.repeat(starts, counts), repeats)
    right = first + np.arange(len(left)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    differ = left != right
    keys, shared = np.unique(item[left[differ]] * items + item[right[differ]], return_counts=True)
    head, tail = np.divmod(keys, items)
    degree = np.bincount(item, minlength=items)
    return head, tail, (shared / np.sqrt(degree[head] * degree[tail])).astype(np.float32)


def rows_of(users: np.ndarray, who: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of each of `who` in `users`, and whether it is there."""
    order = np.argsort(users)
    place = np.minimum(np.searchsorted(users, who, sorter=order), len(users) - 1)
    row = order[place]
    return row, users[row] == who
