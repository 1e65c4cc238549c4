"""Re-ranking: from the candidates' scores to the order of a shelf, by the rules of its scenario.

Five rules act on the order, the sixth on single places:

- diversity: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998). Each place takes the item with the greatest
  (1 - d) × relevance - d × likeness to what stands above it; relevance is the score over the user's best one.
- most_per: at most so many items of one category or brand, as long as others are left.
- least: items of a group, say of small sellers, have at least a share of the places: of the first n places the whole part of
  share × n, as long as the group has candidates. A group gets a place where it can wait no longer, since some head of the shelf
  has no more places left than its groups lack (as in DetCons of Geyik, Ambler and Kenthapadi, KDD 2019). It comes before
  diversity and caps.
- repeats: what already stands on a shelf of the user in an earlier scenario counts for less.
- fresh: what was launched a few days ago counts for more.
- explore: each place is given, with that probability, to an item drawn by chance from what is new in the shop. The chance
  with which an item came to its place, given the places above it, is kept: `propensity`. The product down to a place is the
  chance of the shelf so far, for tomorrow's off-policy estimates (Precup, Sutton and Singh, ICML 2000; docs/queries.md).
"""

import hashlib
import zlib
from dataclasses import dataclass, field

import numpy as np

from nightshelf.scenarios import Rerank

SCORE, RULES, EXPLORE = range(3)
PLACED_BY = ("score", "rules", "explore")
# What two items share, and how alike that makes them; whoever shares a finer category shares the coarser ones too.
_LIKENESS = {"category_1": 0.2, "category_2": 0.2, "category_3": 0.4, "brand": 0.2}


@dataclass(frozen=True)
class Groups:
    """What each item of the catalogue belongs to: column of the table items → codes [items], -1 where it has none.

    values: column → what its codes stand for. age_days: since the launch [items], infinite where that is unknown.
    """

    codes: dict[str, np.ndarray]
    values: dict[str, list[str]] = field(default_factory=dict)
    age_days: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def protected(self, rules: Rerank) -> list[tuple[np.ndarray, float]]:
        """Return for each group with a least share which items belong to it [items], and the share."""
        groups = [(column, *group) for column, shares in rules.least.items() for group in shares.items()]
        return [(self.codes[column] == _place(value, self.values[column]), share) for column, value, share in groups]

    def likeness(self, items: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return how alike items [B, K] are to one item a row [B], 0..1."""
        alike = np.zeros(items.shape, np.float32)
        for column, share in _LIKENESS.items():
            codes, of_other = self.codes[column][items], self.codes[column][other][:, None]
            alike += np.float32(share) * ((codes == of_other) & (codes >= 0))
        return alike


def _place(value: str, values: list[str]) -> int:
    """Return the place of a value, or one that nothing has."""
    return values.index(value) if value in values else len(values)


def least_places(share: float, places: int) -> int:
    """Return how many of the first places a group with a least share has."""
    return int(share * places + 1e-9)


def highest(score: np.ndarray, items: np.ndarray, n: int) -> np.ndarray:
    """Return the columns [B, min(n, K)] of the highest scores, ties by item number, best first.

    Those are parted from the rest before they are sorted; where equals lie on both sides, their items decide.

    Args:
        score: [B, K], no NaN.
        items: item numbers [B, K].
        n: how many.
    """
    n, worse = min(n, score.shape[1]), -score
    if n == 0:
        return np.zeros((len(score), 0), np.int64)
    best = np.argpartition(worse, n - 1, axis=1)[:, :n]
    is_candidate = worse <= np.take_along_axis(worse, best[:, -1:], 1)
    for row in np.flatnonzero(is_candidate.sum(axis=1) > n):
        tied = np.flatnonzero(is_candidate[row])
        best[row] = tied[np.lexsort((items[row, tied], worse[row, tied]))[:n]]
    by_score = np.lexsort([np.take_along_axis(a, best, 1) for a in (items, worse)], axis=1)
    return np.take_along_axis(best, by_score, 1)


def order(
    score: np.ndarray, items: np.ndarray, length: int, rules: Rerank, groups: Groups, repeated: np.ndarray
) -> np.ndarray:
    """Return the columns [B, min(length, K)] in the order in which the shelves take them; ties go to the lower item number.

    Args:
        score: [B, K], -inf where there is nothing to place; such columns come last.
        items: item numbers [B, K].
        length: the most places.
        rules: the scenario's.
        groups: of the catalogue.
        repeated: on how many shelves of the user's earlier scenarios each item is [B, K].
    """
    length = min(length, score.shape[1])
    worth = raised(score, items, rules, groups)
    worth = _discounted(worth, repeated, rules.repeats) if rules.repeats else worth
    if not rules.diversity and not rules.most_per and not rules.least:
        return highest(worth, items, length)
    by_item = np.argsort(items, axis=1, kind="stable")  # the first of equals is the one with the lowest item number
    items, worth = (np.take_along_axis(a, by_item, 1) for a in (items, worth))
    rows, exists = np.arange(len(items)), np.isfinite(worth)
    best = np.where(exists, np.abs(worth), 0).max(axis=1, keepdims=True, initial=1e-12)
    relevance = np.where(exists, worth / best, -np.inf)
    codes = {column: groups.codes[column][items] for column in rules.most_per}
    free, is_full = np.ones(items.shape, bool), np.zeros(items.shape, bool)
    alike, placed = np.zeros(items.shape, np.float32), np.empty((len(items), length), np.int64)
    counts = {column: np.zeros(items.shape, np.int16) for column in rules.most_per}
    protected = [(members[items], share) for members, share in groups.protected(rules)]
    lacking = _wanted([(members & exists, share) for members, share in protected], len(items), length)
    for place in range(length):
        gain = (1 - rules.diversity) * relevance - rules.diversity * alike
        # A cap gives way only where nothing else is left: a shelf has no hole
        gain = gain - 10.0 * is_full
        for (members, _), is_due in zip(protected, _due(lacking[:, :, place:]), strict=True):
            gain = gain + 100.0 * (members & is_due[:, None])
        gain = np.where(free & exists, gain, -np.inf)
        pick = np.where(np.isfinite(gain).any(axis=1), gain.argmax(axis=1), free.argmax(axis=1))
        placed[:, place] = pick
        free[rows, pick] = False
        for (members, _), lacks in zip(protected, lacking, strict=True):
            lacks -= members[rows, pick][:, None]
        if rules.diversity:
            alike = np.maximum(alike, groups.likeness(items, items[rows, pick]))
        for column, most in rules.most_per.items():
            same = (codes[column] == codes[column][rows, pick][:, None]) & (codes[column] >= 0)
            counts[column] += same
            is_full |= counts[column] >= most
    return np.take_along_axis(by_item, placed, 1)


def _wanted(protected: list[tuple[np.ndarray, float]], shelves: int, length: int) -> np.ndarray:
    """Return how many places groups want of each head of the shelves [groups, B, length]; no more than they have candidates.

    Args:
        protected: of each group the candidates [B, K], and its share.
        shelves: how many they are, B.
        length: of a shelf.
    """
    wanted = np.zeros((len(protected), shelves, length), np.int64)
    for of_group, (members, share) in zip(wanted, protected, strict=True):
        of_heads = [least_places(share, head) for head in range(1, length + 1)]
        of_group[:] = np.minimum(of_heads, members.sum(axis=1, keepdims=True))
    return wanted


def _due(lacking: np.ndarray) -> np.ndarray:
    """Return which groups the next place may go to [groups, B]; none where it may go to any item.

    Those are the groups that lack places of the first head with no more places left than all of them lack.

    Args:
        lacking: places that groups lack of each head that begins with the next place [groups, B, heads]; below 0, none.
    """
    lacking = lacking.clip(min=0)
    all_lack = lacking.sum(axis=0)
    is_tight = all_lack >= np.arange(1, lacking.shape[2] + 1)
    first = is_tight.argmax(axis=1)
    return (lacking[:, np.arange(len(first)), first] > 0) & is_tight.any(axis=1)


def raised(score: np.ndarray, items: np.ndarray, rules: Rerank, groups: Groups) -> np.ndarray:
    """Return scores [B, K] of items [B, K] with what new ones gain."""
    if rules.fresh is None:
        return score
    share = rules.fresh.boost * np.clip(1 - groups.age_days[items] / rules.fresh.days, 0, 1)
    return score + np.where(np.isfinite(score), np.abs(score), 0.0) * share


def _discounted(score: np.ndarray, repeated: np.ndarray, repeats: float) -> np.ndarray:
    """Return scores less the share `repeats` of what is left of them, once for each earlier shelf."""
    loss = np.where(np.isfinite(score), np.abs(score), 0.0) * (1 - (1 - repeats) ** repeated)
    return score - loss


@dataclass(frozen=True)
class Exploration:
    """Which places of each user are given away, and in which order the columns of the pool take them.

    given: [B, places]. order: [B, P], the pool's columns, drawn without replacement; the first `size` [B] of them are there.
    """

    given: np.ndarray
    order: np.ndarray
    size: np.ndarray

    @property
    def taken(self) -> np.ndarray:
        """Return how many columns of the pool the shelf of each user takes [B]."""
        return np.minimum(self.given.sum(axis=1), self.size)


def chance_of(user_keys: list[str]) -> np.ndarray:
    """Return what the draws of users hang on, uint64 [users]: their keys, so that it is the same wherever they are served."""
    digests = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in user_keys)
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


def explore(
    chance: np.ndarray, items: np.ndarray, pool: np.ndarray, places: int, share: float, seed: str
) -> Exploration:
    """Draw for users which places are given away, and what from their pools.

    The draws hang on the seed, the user and the item alone, not on whom the user is served with.

    Args:
        chance: `chance_of` of the users [B].
        items: item numbers [B, P].
        pool: True where an item may be drawn [B, P].
        places: of a shelf.
        share: of the places, given away.
        seed: the night's.
    """
    key = _mixed(chance[:, None] ^ (np.uint64(zlib.crc32(seed.encode())) << np.uint64(32)))
    given = _uniform(key, np.arange(places)) < share
    drawn = np.where(pool, _uniform(key, (1 << 16) + items), 2.0)
    return Exploration(given, np.argsort(drawn, axis=1, kind="stable"), pool.sum(axis=1))


def _uniform(key: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return numbers in [0, 1) of keys [B, 1] and places, [n] or [B, n]."""
    return (_mixed(key + places.astype(np.uint64)) >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mixed(value: np.ndarray) -> np.ndarray:
    """Mix 64 bits (SplitMix64; Steele, Lea and Flood, OOPSLA 2014)."""
    value = value * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def interleave(
    best: np.ndarray, draws: Exploration, share: float, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the shelf: columns of `best` [B, n] or of the pool, whether the latter, and propensities, all [B, length].

    A column of -1 is an empty place: nothing is left. A propensity is the chance of the item at its place given the places above.
    """
    users = np.arange(len(best))
    columns = np.full((len(best), length), -1, np.int64)
    explored, propensity = np.zeros((len(best), length), bool), np.ones((len(best), length))
    from_best, from_pool = np.zeros(len(best), np.int64), np.zeros(len(best), np.int64)
    for place in range(length):
        left = draws.size - from_pool
        gives = draws.given[:, place] & (left > 0)
        has_best = from_best < best.shape[1]
        if draws.order.shape[1]:
            drawn = draws.order[users, np.minimum(from_pool, draws.order.shape[1] - 1)]
        else:
            drawn = np.full(len(best), -1)
        own = best[users, np.minimum(from_best, best.shape[1] - 1)] if best.shape[1] else np.full(len(best), -1)
        columns[:, place] = np.where(gives, drawn, np.where(has_best, own, -1))
        explored[:, place] = gives
        propensity[:, place] = np.where(gives, share / np.maximum(left, 1), np.where(left > 0, 1 - share, 1.0))
        from_pool += gives
        from_best += ~gives
    return columns, explored, propensity
