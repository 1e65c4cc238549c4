"""Users' histories as padded arrays; row 0 is the empty history of whoever has none."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.features import EXPOSURE_LENGTH, OWN_LENGTH, SEQUENCE_LENGTH
from training.columns import check_finite, check_range, count_rows, day_numbers, map_row_groups, read_columns
from training.storage import Storage

_EVENTS = {
    "item_indexes": np.int32,
    "event_type_indexes": np.int8,
    "scenario_indexes": np.int16,
    "age_days": np.float32,
}
_SHOWN = {"shown_category_indexes": np.int32, "shown_counts": np.float32, "shown_age_days": np.float32}
_OWN = {"own_item_indexes": np.int32, "own_counts": np.float32, "own_age_days": np.float32}
_TABLE, _OWNER, _COLUMNS = "user_sequences", ["as_of_date", "user_key"], _EVENTS | _SHOWN | _OWN


@dataclass(frozen=True)
class Lengths:
    """How many entries each list of a history has at most: events, and items that a user may want again."""

    events: int
    own: int

    @classmethod
    def of(cls, shop: Shop) -> "Lengths":
        """Return the lengths of a shop's lists; those that it never fills get no room."""
        return cls(SEQUENCE_LENGTH, OWN_LENGTH if shop.rebuy else 1)

    def of_column(self, name: str) -> int:
        """Return the length of a list of user_sequences."""
        return self.events if name in _EVENTS else self.own if name in _OWN else EXPOSURE_LENGTH


@dataclass(frozen=True)
class Histories:
    """Rows of user_sequences: the newest events, oldest first, zeros before them; likewise the other lists.

    `keys` are sorted pairs (day, place in `users`) as one number; history row r + 1 belongs to keys[r]. Users go by their
    keys, since rare ones share an id.
    """

    users: pa.Array  # distinct user keys
    keys: np.ndarray
    items: np.ndarray  # int32 [rows + 1, events]
    events: np.ndarray  # int8, 0 = padding
    scenarios: np.ndarray  # int16
    ages: np.ndarray  # float32, days
    shown: np.ndarray  # int32 [rows + 1, exposure length], ids of third-level categories, 0 = padding
    shown_counts: np.ndarray  # float32, impressions of that category on one day
    shown_ages: np.ndarray  # float32, days
    own: np.ndarray  # int32 [rows + 1, own], ids of items that the user may want again, 0 = padding
    own_counts: np.ndarray  # float32, weighed days on which the user chose it
    own_ages: np.ndarray  # float32, days since the last of them

    def rows_of(self, users: pa.DictionaryArray, days: np.ndarray) -> np.ndarray:
        """Return the history row of each (user key, day since 1970); 0 where there is none."""
        if not self.keys.size:
            return np.zeros(len(users), np.int64)
        known = pc.fill_null(pc.index_in(users.dictionary, value_set=self.users), -1)
        wanted = _key(known.to_numpy()[users.indices.to_numpy()], days)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, place + 1, 0)


def load_histories(files: Sequence[str | Path], lengths: Lengths, storage: Storage) -> Histories:
    """Read user_sequences, a row group at a time.

    Raises:
        InputError, EngineError: as read_columns; EngineError where the storage has no room.
    """
    owners = map_row_groups(_TABLE, files, _OWNER, lambda _, read: read())
    users, keys, places = _sorted(pa.concat_tables(owners))
    arrays = _zeros(len(keys), lengths, storage)
    of_group = np.split(places, np.cumsum([rows.num_rows for rows in owners])[:-1])
    map_row_groups(_TABLE, files, list(_COLUMNS), lambda n, read: _pad(read(), of_group[n], arrays))
    return Histories(users, keys, *arrays)


def bytes_of_histories(files: Sequence[str | Path], lengths: Lengths) -> int:
    """Return how much memory the histories of these files take."""
    width = sum(lengths.of_column(name) * np.dtype(dtype).itemsize for name, dtype in _COLUMNS.items())
    return count_rows(_TABLE, files) * width


def read_histories(files: Sequence[str | Path], keep: pc.Expression | None = None) -> pa.Table:
    """Read the columns of user_sequences that a history is made of: of all rows, or of those that `keep` holds for."""
    return read_columns(_TABLE, files, [*_OWNER, *_COLUMNS], keep)


def padded_histories(table: pa.Table, lengths: Lengths) -> Histories:
    """Pad the lists of user_sequences rows."""
    users, keys, places = _sorted(table)
    arrays = _zeros(len(keys), lengths, Storage())
    _pad(table, places, arrays)
    return Histories(users, keys, *arrays)


def _sorted(table: pa.Table) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Return the distinct users, the sorted keys, and the history row of each row."""
    users = table["user_key"].combine_chunks().dictionary_encode()
    keys = _key(users.indices.to_numpy(), day_numbers(table["as_of_date"]))
    order = np.argsort(keys, kind="stable")
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(1, len(order) + 1)
    return users.dictionary, keys[order], places


def _zeros(rows: int, lengths: Lengths, storage: Storage) -> list[np.ndarray]:
    return [storage.zeros((rows + 1, lengths.of_column(name)), dtype) for name, dtype in _COLUMNS.items()]


def _pad(table: pa.Table, places: np.ndarray, arrays: list[np.ndarray]) -> None:
    """Put the newest entries of each row's lists, right-aligned, into the rows `places` of the arrays of _COLUMNS.

    Raises:
        InputError: lists of one row differ in length, or hold what is no id, age or count.
    """
    for names in (list(_EVENTS), list(_SHOWN), list(_OWN)):
        first = list(_COLUMNS).index(names[0])
        lists = [table[name].combine_chunks() for name in names]
        _check(lists, names)
        offsets, length = lists[0].offsets.to_numpy(), arrays[first].shape[1]
        sizes, starts = np.diff(offsets), offsets[:-1]
        slot = np.arange(length)
        filled = slot >= length - np.minimum(sizes, length)[:, None]
        source = ((starts + sizes - length)[:, None] + slot)[filled]
        for values, array in zip(lists, arrays[first:], strict=False):
            rows = np.zeros(filled.shape, array.dtype)
            rows[filled] = values.values.to_numpy()[source]
            array[places] = rows


def _check(lists: list[pa.ListArray], names: list[str]) -> None:
    for values, name in zip(lists, names, strict=True):
        if not lists[0].value_lengths().equals(values.value_lengths()):
            raise InputError(
                f"table {_TABLE}: the lists {names[0]!r} and {name!r} of a row differ in length; run the features stage again"
            )
        entries, dtype = values.flatten().to_numpy(), np.dtype(_COLUMNS[name])
        check_finite(entries[:, None], [name], _TABLE)
        if "age" not in name:
            check_range(entries, name, (0, np.inf if dtype.kind == "f" else np.iinfo(dtype.name).max), _TABLE)


def _key(users: np.ndarray, days: np.ndarray) -> np.ndarray:
    # By days first: what a day's examples read lies together.
    return (days.astype(np.int64) << 40) + users
