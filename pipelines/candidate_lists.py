"""Candidates as matrices: one row of item numbers a user, padded with -1, ready for scoring in blocks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EVERYBODY = "*"
CANDIDATE_TABLES = ("candidates", "retrieved_candidates")
CANDIDATE_COLUMNS = ("user_key", "scenario", "item_id", "generator", "generator_score", "because")
# Where several generators propose one item to one user, the first of these is named as its source.
GENERATOR_ORDER = ("own_history", "related", "affinity", "brand", "two_tower", "fresh", "popular")


@dataclass(frozen=True)
class CandidateLists:
    """What is worth ranking.

    items: [users, width] item numbers, -1 where a user has fewer; one row at least. generators: [users, width] places in
    GENERATOR_ORDER. because: [users, width] places in `texts` (0 is null). everybody: per scenario (and `*`) the item
    numbers and generators that any user may be shown, best first. rows: of the table.
    """

    items: np.ndarray
    generators: np.ndarray
    because: np.ndarray
    texts: list[str | None]
    everybody: dict[str, tuple[np.ndarray, np.ndarray]]
    rows: int


def pack_candidates(candidates: Iterable[pa.Table], user_keys: list[str], item_ids: list[str]) -> CandidateLists:
    """Arrange the table `candidates` by user.

    A candidate whose user or item is not in the lists is left out; an item proposed twice to a user is kept once.

    Args:
        candidates: parts of the table, of its CANDIDATE_COLUMNS; no more than one of them is held at once.
        user_keys: the users that are known.
        item_ids: the catalogue, in the order of its numbers.
    """
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
    # By user, item and generator; the best of equals comes first
    proposal = (user.astype(np.int64) * max(1, len(item_ids)) + item) * len(GENERATOR_ORDER) + generator
    order = np.lexsort((-score, proposal))
    pair = proposal[order] // len(GENERATOR_ORDER)
    order = order[np.concatenate([np.ones(len(pair[:1]), bool), pair[1:] != pair[:-1]])]
    user = user[order]
    counts = np.bincount(user, minlength=len(user_keys))
    column = np.arange(len(user)) - (np.cumsum(counts) - counts)[user]
    shape = (max(1, len(user_keys)), int(counts.max(initial=0)))  # where there is no user, one that has nothing

    def by_user(values: np.ndarray, empty: int) -> np.ndarray:
        matrix = np.full(shape, empty, values.dtype)
        matrix[user, column] = values[order]
        return matrix

    everybody = _for_everybody(*_joined(shared, (np.str_, np.int32, np.int8, np.float32)))
    return CandidateLists(by_user(item, -1), by_user(generator, 0), by_user(because, 0), texts.known, everybody, rows)


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


def _for_everybody(
    scenario: np.ndarray, item: np.ndarray, generator: np.ndarray, score: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    lists = {}
    for name in np.unique(scenario):
        rows = np.flatnonzero(scenario == name)
        rows = rows[np.lexsort((item[rows], -score[rows], -generator[rows]))]
        _, first = np.unique(item[rows], return_index=True)
        rows = rows[np.sort(first)]
        lists[str(name)] = (item[rows], generator[rows])
    return lists
