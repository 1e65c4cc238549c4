"""Shelves of items: what to show to whoever is at an item (on its page, with it in the cart …), of whom nothing else is known.

An item is worth what the champion expects of it in the scenario from a user whom nobody knows, times the lift that it has beside
the anchor (pipelines/anchor_lifts.py); what costs more than it earns is divided by it. So it needs no passes over pairs: one list
a category, and the anchor's own neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nightshelf.scenarios import Scenario
from pipelines.anchor_lifts import Lifts, Ties
from pipelines.preselection import chosen_from, preselected
from pipelines.rerank import Groups, order

_BLOCK = 512  # anchors at once


@dataclass(frozen=True)
class ItemShelves:
    """Rows of shelves: numbers of anchors and items, rank, score, lift, relation (0: none) and place by score, all [rows]."""

    anchors: np.ndarray
    ranks: np.ndarray
    items: np.ndarray
    scores: np.ndarray
    lifts: np.ndarray
    relations: np.ndarray
    rank_by_score: np.ndarray


def fill_item_shelves(
    scenario: Scenario,
    worth: np.ndarray,
    allowed: np.ndarray,
    category: np.ndarray,
    lifts: Lifts,
    ties: Ties,
    groups: Groups,
) -> Iterator[ItemShelves]:
    """Yield the shelves of all items, some anchors of one category at a time; equal scores go to the lower item number.

    Args:
        scenario: its top_n and the caps, least shares and diversity of its `rerank` hold.
        worth: expected utility in the scenario to anybody [items].
        allowed: whether an item may be shown at all [items].
        category: the row of each item in lifts.tree [items].
        lifts: of the scenario.
        ties: the night's.
        groups: of the catalogue.
    """
    every = np.arange(len(worth))[None]
    wanted = chosen_from(scenario.top_n) + 1  # one of them may be the anchor
    for number in np.unique(category):
        by_category = lifts.row(number)[category]
        score = np.where(allowed, _lifted(worth, by_category), -np.inf)
        best = preselected(score[None], every, wanted, scenario.top_n, scenario.rerank, groups)[0]
        anchors = np.flatnonzero(category == number)
        for start in range(0, len(anchors), _BLOCK):
            block = anchors[start : start + _BLOCK]
            near = ties.tails(block)
            items = _once(np.concatenate([np.broadcast_to(best, (len(block), len(best))), near], axis=1))
            relations = ties.of(np.repeat(block, items.shape[1]), items.ravel()).reshape(items.shape)
            lift = by_category[items] * lifts.by_relation[relations]
            shown = (items >= 0) & allowed[items] & (items != block[:, None])
            score = np.where(shown, _lifted(worth[items], lift), -np.inf)
            yield _arranged(scenario, block, items, score, lift, relations, groups)


def _lifted(worth: np.ndarray, lift: np.ndarray) -> np.ndarray:
    """Return what items are worth beside an anchor: the more, the higher the lift, below 0 too."""
    return np.where(worth < 0, worth / lift, worth * lift)


def _once(items: np.ndarray) -> np.ndarray:
    """Replace what is repeated in a row of item numbers [B, K] by -1."""
    by_item = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, by_item, 1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    once = np.empty_like(items)
    np.put_along_axis(once, by_item, ordered, 1)
    return once


def _arranged(
    scenario: Scenario,
    anchors: np.ndarray,
    items: np.ndarray,
    score: np.ndarray,
    lift: np.ndarray,
    relations: np.ndarray,
    groups: Groups,
) -> ItemShelves:
    columns = order(score, items, scenario.top_n, scenario.rerank, groups, np.zeros(items.shape, np.int16))
    by_score = np.argsort(np.lexsort((items, -score), axis=1), axis=1) + 1
    taken = [np.take_along_axis(part, columns, 1) for part in (items, score, lift, relations, by_score)]
    kept = np.isfinite(taken[1])
    rank = np.broadcast_to(np.arange(1, columns.shape[1] + 1), columns.shape)
    items, score, lift, relations, by_score = (part[kept] for part in taken)
    owner = np.broadcast_to(anchors[:, None], columns.shape)[kept]
    return ItemShelves(owner, rank[kept], items, score, lift, relations, by_score)
