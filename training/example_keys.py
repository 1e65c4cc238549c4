"""Of whom, when and where each training example is, and the order in which training reads them.

The order hangs neither on files nor on the key that hashes the users' ids: the same logs give the same model. An impression
goes by its time, item, request and place in the list; its hashed id is the last resort, and read only where these are equal.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.columns import Files, day_numbers, map_row_groups, places, to_numpy

_TABLE = "training_examples"
_NULL = np.iinfo(np.int32).max  # behind all others
_BY_NUMBER_AND_ID = [("number", "ascending"), ("id", "ascending")]
_NUMBERS = ["item_index", "position"]
_COLUMNS = ["impression_ts", *_NUMBERS, "event_date", "feature_date", "scenario", "request_id", "user_key"]


@dataclass(frozen=True)
class ExampleKeys:
    """Columns of the rows of all files, as they come."""

    impression_ts: np.ndarray  # int64
    item_index: np.ndarray  # int32
    position: np.ndarray  # int32, or _NULL
    event_date: np.ndarray  # int32, days since 1970
    feature_date: np.ndarray  # int32
    scenario: np.ndarray  # int16, 1 + place in the shop file, 0 unknown
    request: np.ndarray  # int32, place among the requests in the order of their names, or _NULL
    users: pa.DictionaryArray
    row_groups: list[int]  # rows of each

    def __len__(self) -> int:
        return len(self.item_index)

    def sort(self, files: Files, chosen: np.ndarray) -> np.ndarray:
        """Return the places of the rows where `chosen` [rows] is true, in their order."""
        rows = np.flatnonzero(chosen)
        by = [column[rows] for column in (self.impression_ts, self.item_index, self.request, self.position)]
        order = np.lexsort(by[::-1])
        like_next = np.all([column[order][1:] == column[order][:-1] for column in by], axis=0)
        rows = rows[order]
        tied = np.r_[like_next, False] | np.r_[False, like_next]
        if len(rows) > 1 and tied.any():
            number = np.cumsum(np.r_[True, ~like_next])[tied]
            ids = self._impression_ids(files, rows[tied])
            settled = pc.sort_indices(pa.table({"number": number, "id": ids}), _BY_NUMBER_AND_ID)
            rows[tied] = rows[tied][settled.to_numpy()]
        return rows

    def users_of(self, rows: np.ndarray) -> pa.DictionaryArray:
        """Return the user keys of these rows."""
        return pa.DictionaryArray.from_arrays(self.users.indices.take(pa.array(rows)), self.users.dictionary)

    def requests_of(self, rows: np.ndarray) -> np.ndarray:
        """Return a code for the request of each of these rows, -1 for none: int64."""
        request = self.request[rows]
        return np.where(request == _NULL, -1, by_first_sight(request))

    def positions_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions of these rows, 0 for one that is not known: int64."""
        position = self.position[rows].astype(np.int64)
        return np.where(position == _NULL, 0, np.maximum(position, 0))

    def _impression_ids(self, files: Files, rows: np.ndarray) -> pa.Array:
        """Return the impression_id of these rows."""
        ends = np.cumsum(self.row_groups)
        ascending = np.sort(rows)
        cuts = np.searchsorted(ascending, ends)
        wanted = np.split(ascending, cuts[:-1])

        def find(n: int, read: Callable[[], pa.Table]) -> list[pa.Array]:
            """Return the ids of row group n that are wanted, in the order of the file; a group without any is not read."""
            if not wanted[n].size:
                return []
            return read()["impression_id"].take(pa.array(wanted[n] - (ends[n] - self.row_groups[n]))).chunks

        found = map_row_groups(_TABLE, files, ["impression_id"], find)
        ids = pa.chunked_array([chunk for chunks in found for chunk in chunks]).combine_chunks()
        return ids.take(pa.array(np.searchsorted(ascending, rows)))


def read_example_keys(files: Files, scenarios: list[str]) -> ExampleKeys:
    """Read the keys of training examples of a shop with these scenarios.

    Raises:
        InputError, EngineError: as read_columns.
    """

    def part(_: int, read: Callable[[], pa.Table]) -> tuple[list[np.ndarray], list[pa.Array]]:
        """Return a row group's numbers, an array a column, and its request ids and user keys as dictionary arrays."""
        rows = read()
        numbers = [
            to_numpy(rows["impression_ts"].cast(pa.int64()), np.int64),
            *(to_numpy(pc.fill_null(rows[name], _NULL), np.int32) for name in _NUMBERS),
            *(day_numbers(rows[name]) for name in ("event_date", "feature_date")),
            places(rows["scenario"], scenarios).astype(np.int16),
        ]
        return numbers, [rows[name].combine_chunks().dictionary_encode() for name in ("request_id", "user_key")]

    parts = map_row_groups(_TABLE, files, _COLUMNS, part)
    times, items, positions, event_dates, feature_dates, where = (
        np.concatenate(column) for column in zip(*(numbers for numbers, _ in parts), strict=True)
    )
    requests, users = (
        pa.chunked_array(column).combine_chunks() for column in zip(*(texts for _, texts in parts), strict=True)
    )
    row_groups = [len(numbers[0]) for numbers, _ in parts]
    return ExampleKeys(
        times, items, positions, event_dates, feature_dates, where, _by_name(requests), users, row_groups
    )


def by_first_sight(codes: np.ndarray) -> np.ndarray:
    """Number codes [n] by where each is seen first: int64, from 0."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]


def _by_name(texts: pa.DictionaryArray) -> np.ndarray:
    """Return the place of each text in the order of their names, or _NULL."""
    order = pc.array_sort_indices(texts.dictionary).to_numpy()
    place = np.full(len(order) + 1, _NULL, np.int32)
    place[order] = np.arange(len(order))
    return place[pc.fill_null(texts.indices, len(order)).to_numpy(zero_copy_only=False)]
