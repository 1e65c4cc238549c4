"""Users without a history, by what the user table says of them: a segment is one combination of attributes.

The model ranks for a segment as for a user of whom it knows these attributes and nothing else.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.features import attribute_columns
from pipelines.stage import Night

# Rarer combinations get the shelf of the unknown user.
MOST_SEGMENTS = 500


@dataclass(frozen=True)
class Segments:
    """What is known of each segment, and who is in none.

    fields: int32 [segments, attributes], ids of the vocabularies, 0 = not known. members: their users. others: users of whom
    nothing is known. All users in the order of their keys.
    """

    fields: np.ndarray
    members: list[list[str]]
    others: list[str]


def segments_of(night: Night, known: pa.Array) -> Segments:
    """Return the segments of the night's users, but for those that are known by what they did."""
    names = [f"user_{name}" for name in attribute_columns(night.shop)]
    users = night.warehouse.read("users", [night.as_of_date], ("user_key", *names)).sort_by("user_key")
    cold = users.filter(pc.invert(pc.is_in(users["user_key"], known)))
    keys = cold["user_key"].to_pylist()
    if not names or not keys:
        return Segments(np.zeros((0, len(names)), np.int32), [], keys)
    words = night.warehouse.read("vocabularies", [night.as_of_date], ("feature", "value", "index"))
    fields = np.stack([_ids(cold[name], words.filter(pc.equal(words["feature"], name))) for name in names], axis=1)
    kinds, place, counts = np.unique(fields, axis=0, return_inverse=True, return_counts=True)
    told = np.flatnonzero(kinds.any(axis=1))
    told = np.sort(told[np.argsort(-counts[told], kind="stable")][:MOST_SEGMENTS])
    number = np.full(len(kinds), len(told))
    number[told] = np.arange(len(told))
    members: list[list[str]] = [[] for _ in range(len(told) + 1)]
    for key, segment in zip(keys, number[place.ravel()].tolist(), strict=True):
        members[segment].append(key)
    return Segments(kinds[told], members[:-1], members[-1])


def _ids(values: pa.ChunkedArray, words: pa.Table) -> np.ndarray:
    """Return the vocabulary's id of each value; 0 where it has none of its own."""
    found = pc.index_in(values, value_set=words["value"].combine_chunks())
    ids = words["index"].combine_chunks().take(found.combine_chunks())
    return pc.fill_null(ids, 0).to_numpy().astype(np.int32)
