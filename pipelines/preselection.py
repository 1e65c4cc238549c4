"""Which candidates a shelf chooses from: the best by a cheap score, but enough of what the rules of its scenario will ask for."""

import numpy as np

from nightshelf.scenarios import Rerank
from pipelines.rerank import Groups, highest, least_places, raised

# How many candidates a place on the shelf chooses from, and the least that any shelf chooses from.
PRESELECTED, PRESELECTED_LEAST = 2, 40


def chosen_from(top_n: int) -> int:
    """Return how many candidates a shelf of so many places chooses from."""
    return max(PRESELECTED_LEAST, PRESELECTED * top_n)


def preselected(score: np.ndarray, items: np.ndarray, n: int, top_n: int, rules: Rerank, groups: Groups) -> np.ndarray:
    """Return the columns [B, min(n, K)] of the candidates that shelves choose from, ties by item number.

    First are those that the groups with a least share need, the best of each and one more, for one of them may be the anchor of
    a shelf of items. Then come the best, those of new items raised, but of a category or brand with a cap no more than
    PRESELECTED × its places while others are left: as many as leave the shelf a choice, and not all that it chooses from.

    Args:
        score: [B, K], -inf where there is nothing.
        items: item numbers [B, K], -1 where there is nothing.
        n: how many.
        top_n: places of the shelf.
        rules: the scenario's.
        groups: of the catalogue.
    """
    wanted = worth = raised(score, items, rules, groups)
    for members, share in groups.protected(rules):
        own = np.where(members[items], worth, -np.inf)
        wanted = _first(wanted, highest(own, items, least_places(share, top_n) + 1), own > -np.inf)
    if rules.most_per:
        wanted = np.where(_within_caps(wanted, items, n, rules, groups), np.inf, wanted)
    return highest(wanted, items, n)


def _first(wanted: np.ndarray, columns: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """Return scores [B, K] with those of some columns infinite, where there is something."""
    first = np.zeros(wanted.shape, bool)
    np.put_along_axis(first, columns, True, axis=1)
    return np.where(first & exists, np.inf, wanted)


def _within_caps(wanted: np.ndarray, items: np.ndarray, n: int, rules: Rerank, groups: Groups) -> np.ndarray:
    """Return the columns of the best n that keep within the caps, True there [B, K]; what is infinite is always among them."""
    by_item = np.argsort(items, axis=1, kind="stable")  # the first of equals is the one with the lowest item number
    items, left = (np.take_along_axis(a, by_item, 1) for a in (items, wanted))
    codes = {column: groups.codes[column][items] for column in rules.most_per}
    taken = {column: np.full((len(items), n), -1, np.int32) for column in codes}
    rows, chosen = np.arange(len(items)), np.zeros(items.shape, bool)
    for place in range(min(n, items.shape[1])):
        pick = left.argmax(axis=1)
        is_there = left[rows, pick] > -np.inf
        chosen[rows, pick] |= is_there
        left[rows, pick] = -np.inf
        for column, most in rules.most_per.items():
            code = np.where(is_there, codes[column][rows, pick], -1)[:, None]
            taken[column][:, place] = code[:, 0]
            is_full = (code >= 0) & ((taken[column] == code).sum(axis=1, keepdims=True) >= PRESELECTED * most)
            if is_full.any():
                left[is_full & (codes[column] == code) & (left < np.inf)] = -np.inf
    within = np.empty_like(chosen)
    np.put_along_axis(within, by_item, chosen, 1)
    return within
