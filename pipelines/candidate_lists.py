"""Candidates as matrices: one row of item numbers a user, padded with -1, ready for scoring in blocks."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EVERYBODY = "*"
CANDIDATE_TABLES = ("candidates", "retrieved_candidates")
# Where several generators propose one item to one user, the first of these is named as its source.
GENERATOR_ORDER = ("own_history", "related", "affinity", "brand", "two_tower", "fresh", "popular")


@dataclass(frozen=True)
class CandidateLists:
    """What is worth ranking.

    items: [users, width] item numbers, -1 where a user has fewer. generators: [users, width] places in GENERATOR_ORDER.
    because: [users, width] places in `texts` (0 is null). everybody: per scenario (and `*`) the item numbers and
    generators that any user may be shown, best first.
    """

    items: np.ndarray
    generators: np.ndarray
    because: np.ndarray
    texts: list[str | None]
    everybody: dict[str, tuple[np.ndarray, np.ndarray]]


def pack_candidates(candidates: pa.Table, user_keys: list[str], item_ids: list[str]) -> CandidateLists:
    """Arrange the table `candidates` by user.

    A candidate whose user or item is not in the lists is left out; an item proposed twice to a user is kept once.
    """
    user = _numbers(candidates["user_key"], user_keys)
    item = _numbers(candidates["item_id"], item_ids)
    generator = _numbers(candidates["generator"], list(GENERATOR_ORDER))
    encoded = candidates["because"].combine_chunks().dictionary_encode()
    because = pc.fill_null(pc.add(encoded.indices, 1), 0).to_numpy(zero_copy_only=False).astype(np.int32)
    score = candidates["generator_score"].to_numpy()
    usable = (item >= 0) & (generator >= 0)
    own = np.flatnonzero(usable & (user >= 0))
    order = own[np.lexsort((item[own], -score[own], generator[own], item[own], user[own]))]
    first = np.ones(len(order), bool)
    first[1:] = (user[order][1:] != user[order][:-1]) | (item[order][1:] != item[order][:-1])
    order = order[first]
    row, column, width = _places(user[order], len(user_keys))
    items = np.full((len(user_keys), width), -1, np.int32)
    generators = np.zeros((len(user_keys), width), np.int8)
    reasons = np.zeros((len(user_keys), width), np.int32)
    items[row, column] = item[order]
    generators[row, column] = generator[order]
    reasons[row, column] = because[order]
    everybody = _for_everybody(candidates, usable, item, generator, score)
    return CandidateLists(items, generators, reasons, [None, *encoded.dictionary.to_pylist()], everybody)


def _numbers(column: pa.ChunkedArray, values: list[str]) -> np.ndarray:
    found = pc.index_in(column, value_set=pa.array(values, pa.string()))
    return pc.fill_null(found, -1).to_numpy().astype(np.int32)


def _places(user: np.ndarray, users: int) -> tuple[np.ndarray, np.ndarray, int]:
    counts = np.bincount(user, minlength=users)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    return user, np.arange(len(user)) - starts[user], int(counts.max(initial=0))


def _for_everybody(
    candidates: pa.Table, usable: np.ndarray, item: np.ndarray, generator: np.ndarray, score: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    shared = usable & pc.equal(candidates["user_key"], EVERYBODY).to_numpy()
    scenario = candidates["scenario"].to_numpy()
    lists = {}
    for name in np.unique(scenario[shared].astype(str)):
        rows = np.flatnonzero(shared & (scenario == name))
        rows = rows[np.lexsort((item[rows], -score[rows], -generator[rows]))]
        _, first = np.unique(item[rows], return_index=True)
        rows = rows[np.sort(first)]
        lists[str(name)] = (item[rows], generator[rows].astype(np.int8))
    return lists
