"""Negatives that tell what a user does not buy again: some of the drawn ones give way to items of the user's own.

Few of the drawn negatives are things that the user bought before, so that from them alone a model hardly learns which of these
come next, and that is what it ranks; of what nobody else buys it sees none at all. So in training a share of a user's negatives
of a day becomes own items that the user chose neither then nor on the next day; the newest rows of whoever chose them lend the
item's features. How likely an item is a negative by both draws, training makes up for (training/drawn.py; mixed negative
sampling: Yang et al., WWW 2020).
"""

from dataclasses import dataclass

import numpy as np

from nightshelf.feature_tables import OOV_BUCKETS

_SHARE = 0.25


@dataclass(frozen=True)
class Rows:
    """Columns of examples [n]: codes of who, when (days since 1970) and where, ids of items, and whether each was chosen."""

    day: np.ndarray
    scenario: np.ndarray
    user: np.ndarray
    history: np.ndarray
    item: np.ndarray
    chosen: np.ndarray  # bool

    def take(self, places: np.ndarray) -> "Rows":
        """Return some of the rows."""
        return Rows(**{name: column[places] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Swaps:
    """Which negatives give way, and how items are drawn then.

    out, into: places of rows [m] whose item gives way, and of rows that hold the item which takes its place. of_pool, of_own: of
    each row [n], in times that an item of the day's pool was drawn for its user: how often it still is, if it is in the pool,
    and how often it is as one of the user's own.
    """

    out: np.ndarray
    into: np.ndarray
    of_pool: np.ndarray
    of_own: np.ndarray


def own_negatives(rows: Rows, own: np.ndarray) -> Swaps:
    """Draw own items in place of some negatives: of the same rows the same ones, as the drawn negatives are a night's, too.

    Args:
        rows: the examples of some days, all of each.
        own: ids of items that the user may want again, by history [histories, O], 0 = padding.
    """
    rng, codes = np.random.default_rng(0), _Codes.of(rows, own)
    chosen = np.flatnonzero(rows.chosen)
    sold, at = np.unique(codes(rows.scenario, rows.item, rows.day)[chosen], return_index=True)
    acts = np.unique(codes(rows.user, rows.item, rows.day)[chosen])
    out, into = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    of_pool, of_own = np.ones(len(rows.day), np.float32), np.zeros(len(rows.day), np.float32)
    by_day = np.argsort(rows.day, kind="stable")
    for day in np.split(by_day, np.flatnonzero(np.diff(rows.day[by_day])) + 1) if len(chosen) else []:
        some = rows.take(day)
        # A visit is a user's day in a scenario
        _, first, visit = np.unique(codes(some.history, some.scenario, 0), return_index=True, return_inverse=True)
        visits, mine = some.take(first), own[some.history[first]].astype(np.int64)
        scenario, user, today = (column[:, None] for column in (visits.scenario, visits.user, visits.day))
        wanted = codes(scenario, mine, today)
        newest = np.searchsorted(sold, wanted, side="right") - 1
        # Ids up to OOV_BUCKETS are many items'
        known = (sold[newest] // codes.days == wanted // codes.days) & (newest >= 0) & (mine > OOV_BUCKETS)
        act = codes(user, mine, today)
        free = known & ~_is_among(acts, act) & ~_is_among(acts, act + 1)
        negatives = np.flatnonzero(~some.chosen)
        count = np.bincount(visit[negatives], minlength=len(first))
        drawn = np.minimum(np.rint(_SHARE * count).astype(np.int64), free.sum(axis=1))
        order = np.argsort(np.where(free, rng.random(free.shape), 2.0), axis=1)
        takes = np.arange(free.shape[1]) < drawn[:, None]
        shuffled = negatives[np.lexsort((rng.random(len(negatives)), visit[negatives]))]
        gone = shuffled[_numbers(count) < drawn[visit[shuffled]]]
        out.append(day[gone])
        into.append(chosen[at[np.take_along_axis(newest, order, 1)[takes]]])
        some.item[gone] = rows.item[into[-1]]
        lists = np.unique(codes(np.arange(len(first))[:, None], mine, 0)[known])
        is_own = _is_among(lists, codes(visit, some.item, 0))
        pool = np.unique(codes(some.scenario, some.item, 0)[some.chosen]) // codes(1, 0, 0)
        size = np.bincount(pool, minlength=int(some.scenario.max()) + 1)[visits.scenario]
        each = drawn / np.maximum(free.sum(axis=1), 1) * size / np.maximum(count, 1)
        of_pool[day], of_own[day] = (1 - drawn / np.maximum(count, 1))[visit], is_own * each[visit]
    return Swaps(np.concatenate(out), np.concatenate(into), of_pool, of_own)


@dataclass(frozen=True)
class _Codes:
    """One number for whoever (or wherever), an item and a day: in this order it grows."""

    items: int
    days: int

    @classmethod
    def of(cls, rows: Rows, own: np.ndarray) -> "_Codes":
        """Return codes that have room for the items, the scenarios, and the days of rows and one more."""
        largest = max(int(ids.max(initial=0)) for ids in (rows.item, own, rows.scenario))
        return cls(largest + 1, int(rows.day.max(initial=0)) + 2)

    def __call__(self, who: np.ndarray | int, item: np.ndarray | int, day: np.ndarray | int) -> np.ndarray:
        return (np.asarray(who, np.int64) * self.items + item) * self.days + day


def _is_among(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Say which values are among some that are known and sorted."""
    if not len(known):
        return np.zeros(values.shape, bool)
    return np.asarray(known[np.searchsorted(known, values).clip(max=len(known) - 1)] == values)


def _numbers(count: np.ndarray) -> np.ndarray:
    """Return 0, 1, … for each of so many, one after another [sum]."""
    return np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
