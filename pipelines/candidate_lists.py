"""Candidates as matrices: one row of item numbers a user, padded with -1, ready for scoring in blocks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.generators import GENERATOR_ORDER

EVERYBODY = "*"
CANDIDATE_TABLES = ("candidates", "retrieved_candidates")
CANDIDATE_COLUMNS = ("user_key", "scenario", "item_id", "generator", "generator_score", "because")


Quotas = Mapping[str, Mapping[str, int]]
_NO_QUOTA = np.iinfo(np.int32).max
_FRESH = GENERATOR_ORDER.index("fresh")


@dataclass(frozen=True)
class CandidateLists:
    """What is worth ranking.

    items: [users, width] item numbers, -1 where a user has fewer; one row at least. generators: [users, width] places in
    GENERATOR_ORDER. because: [users, width] places in `texts` (0 is null). everybody: per scenario (and `*`) the item
    numbers, generators and ranks of what any user may be shown, best first. rows: of the table. quotas: scenario → the most
    ranks of each generator [generators]; a scenario that is not there ranks everything. within: [⌈scenarios/8⌉, users, width],
    a bit for each scenario of `quotas`: whether the item is within one there.
    """

    items: np.ndarray
    generators: np.ndarray
    because: np.ndarray
    texts: list[str | None]
    everybody: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    rows: int
    quotas: dict[str, np.ndarray]
    within: np.ndarray

    def of_users(self, names: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Return the item numbers of users' own candidates [B, width] that any of these scenarios ranks, -1 for the others."""
        items = self.items[rows]
        if any(name not in self.quotas for name in names):
            return items
        asked = np.packbits([name in names for name in self.quotas], bitorder="little")
        return np.where((self.within[:, rows] & asked[:, None, None]).any(axis=0), items, -1)

    def of_everybody(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return item numbers and generators of what any user may be shown in one of these scenarios, each item once."""
        item, generator = self._proposed_to_all(names)
        first = np.sort(np.unique(item, return_index=True)[1])
        return item[first], generator[first]

    def new_in_shop(self, name: str) -> np.ndarray:
        """Return the item numbers of `fresh` within its quota of a scenario, whoever else proposes them and is named for it."""
        item, generator = self._proposed_to_all([name])
        return item[generator == _FRESH]

    def _proposed_to_all(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return item numbers and generators of the proposals to everybody within the quotas of one of these scenarios."""
        items, generators = [np.zeros(0, np.int32)], [np.zeros(0, np.int8)]
        for key, of in [*((name, name) for name in names), *((EVERYBODY, name) for name in names)]:
            if key in self.everybody:
                item, generator, rank = self.everybody[key]
                kept = rank <= self.quotas[of][generator] if of in self.quotas else np.ones(len(item), bool)
                items.append(item[kept])
                generators.append(generator[kept])
        return np.concatenate(items), np.concatenate(generators)

    def of_block(self, users: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the candidates [B, K] within the quotas of some scenarios, who proposed them and because of what.

        What everybody may be shown stands first, then the block's own, each item once a user; -1 is no item. A user's own end
        in -1s, the shorter the list, the more: scoring leaves out what is empty for all of its users. Those of whom no more
        than a segment is known (numbers below 0) have none of their own.

        Args:
            users: their numbers [B].
            names: the scenarios.
        """
        shared_items, shared_generators = self.of_everybody(names)
        unknown, row = users[:, None] < 0, users.clip(min=0)
        own = np.where(unknown, -1, self.of_users(names, row))
        place = np.full(max(own.max(initial=0), shared_items.max(initial=0)) + 2, len(shared_items))
        place[shared_items] = np.arange(len(shared_items))  # that of -1 and of all others is one more
        repeated = np.zeros((len(users), len(shared_items) + 1), bool)
        repeated[np.arange(len(users))[:, None], place[own]] = True
        rest = np.where(repeated[:, :-1], -1, shared_items[None, :])
        items = np.concatenate([rest, own], axis=1)
        generators = np.concatenate([np.broadcast_to(shared_generators, rest.shape), self.generators[row]], axis=1)
        because = np.concatenate([np.zeros(rest.shape, np.int32), self.because[row]], axis=1)
        return items, generators, because


def pack_candidates(
    candidates: Iterable[pa.Table], user_keys: list[str], item_ids: list[str], quotas: Quotas | None = None
) -> CandidateLists:
    """Arrange the table `candidates` by user.

    A candidate whose user or item is not in the lists is left out, and so is one that no scenario of `quotas` ranks. An item
    proposed twice to a user is kept once, under the first generator that any scenario heeds.

    Args:
        candidates: parts of the table, of its CANDIDATE_COLUMNS; no more than one of them is held at once.
        user_keys: the users that are known.
        item_ids: the catalogue, in the order of its numbers, which is that of the ids.
        quotas: scenario → generator → how many of its best proposals to a user are ranked; one that is not named: all. None:
            everything is ranked everywhere.
    """
    most = {
        name: np.array([of.get(generator, _NO_QUOTA) for generator in GENERATOR_ORDER])
        for name, of in (quotas or {}).items()
    }
    parts, shared, texts, rows = [], [], _Texts(), 0
    users, items, generators = (pa.array(values, pa.string()) for values in (user_keys, item_ids, GENERATOR_ORDER))
    for part in candidates:
        rows += part.num_rows
        item, generator = _numbers(part["item_id"], items), _numbers(part["generator"], generators)
        user, because = _numbers(part["user_key"], users), texts.numbers(part["because"])
        score, usable = part["generator_score"].to_numpy(), (item >= 0) & (generator >= 0)
        own = usable & (user >= 0)
        parts.append((user[own], item[own], generator[own].astype(np.int8), score[own], because[own]))
        for_all = usable & pc.equal(part["user_key"], EVERYBODY).to_numpy()
        scenario = part["scenario"].filter(pa.array(for_all)).to_numpy()
        shared.append((scenario.astype(str), item[for_all], generator[for_all].astype(np.int8), score[for_all]))
    user, item, generator, score, because = _joined(parts, (np.int32, np.int32, np.int8, np.float32, np.int32))
    parts.clear()
    rank, best_first = _ranks(user, generator, score, item)
    if most:
        best_first = best_first[(rank <= np.max([*most.values()], axis=0)[generator])[best_first]]
    # By user, item and generator; of equals the best stays first
    proposal = (user.astype(np.int64) * max(1, len(item_ids)) + item) * len(GENERATOR_ORDER) + generator
    order = best_first[np.argsort(proposal[best_first], kind="stable")]
    pair = proposal[order] // len(GENERATOR_ORDER)
    starts = np.flatnonzero(np.concatenate([np.ones(len(pair[:1]), bool), pair[1:] != pair[:-1]]))
    heeded = np.zeros((-(-len(most) // 8), len(starts)), np.uint8)
    for place, of in enumerate(most.values()):
        is_within = (rank[order] <= of[generator[order]]).astype(np.uint8) << (place % 8)
        if len(starts):
            heeded[place // 8] |= np.bitwise_or.reduceat(is_within, starts)
    order = order[starts]
    user = user[order]
    counts = np.bincount(user, minlength=len(user_keys))
    column = np.arange(len(user)) - (np.cumsum(counts) - counts)[user]
    shape = (max(1, len(user_keys)), int(counts.max(initial=0)))  # where there is no user, one that has nothing

    def by_user(values: np.ndarray, empty: int) -> np.ndarray:
        """Return the values of proposals as [users, most candidates of a user], `empty` where a user has fewer."""
        matrix = np.full(shape, empty, values.dtype)
        matrix[user, column] = values[order]
        return matrix

    within = np.zeros((len(heeded), *shape), np.uint8)
    within[:, user, column] = heeded
    everybody = _for_everybody(*_joined(shared, (np.str_, np.int32, np.int8, np.float32)))
    return CandidateLists(
        by_user(item, -1), by_user(generator, 0), by_user(because, 0), texts.known, everybody, rows, most, within
    )


class _Texts:
    """Texts by number, 0 for null: those that were met, in that order."""

    def __init__(self) -> None:
        self.known: list[str | None] = [None]
        self._number: dict[str, int] = {}

    def numbers(self, column: pa.ChunkedArray) -> np.ndarray:
        """Return the number of each text, int32; new texts get new numbers."""
        encoded = column.combine_chunks().dictionary_encode()
        found = []
        for text in encoded.dictionary.to_pylist():
            number = self._number.setdefault(text, len(self.known))
            if number == len(self.known):
                self.known.append(text)
            found.append(number)
        places = pc.fill_null(encoded.indices, len(found)).to_numpy(zero_copy_only=False)
        return np.array([*found, 0], np.int32)[places]


def _joined(parts: Sequence[tuple[np.ndarray, ...]], types: Sequence[type]) -> list[np.ndarray]:
    """Return each column of the parts in one piece."""
    return [np.concatenate([np.zeros(0, kind), *(part[at] for part in parts)]) for at, kind in enumerate(types)]


def _numbers(column: pa.ChunkedArray, values: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.index_in(column, value_set=values), -1).to_numpy().astype(np.int32)


def _ranks(
    owner: np.ndarray, generator: np.ndarray, score: np.ndarray, item: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of each proposal among those of its generator to its owner [rows], 1 = best, ties by item, and the order
    that sorts all by owner, generator and rank.
    """
    proposer = owner.astype(np.int64) * len(GENERATOR_ORDER) + generator
    order = np.lexsort((item, -score, proposer))
    place, ordered = np.arange(len(order)), proposer[order]
    is_first = np.concatenate([np.ones(len(order[:1]), bool), ordered[1:] != ordered[:-1]])
    rank = np.empty(len(order), np.int32)
    rank[order] = place - np.maximum.accumulate(np.where(is_first, place, 0)) + 1
    return rank, order


def _for_everybody(
    scenario: np.ndarray, item: np.ndarray, generator: np.ndarray, score: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    names, owner = np.unique(scenario, return_inverse=True)
    rank, _ = _ranks(owner, generator, score, item)
    lists = {}
    for place, name in enumerate(names):
        rows = np.flatnonzero(owner == place)
        rows = rows[np.lexsort((item[rows], -score[rows], -generator[rows]))]
        lists[str(name)] = (item[rows], generator[rows], rank[rows])
    return lists
