"""Users' histories as padded arrays; row 0 is the empty history of whoever has none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.features import EXPOSURE_LENGTH
from training.columns import day_numbers, read_columns

_EVENTS = {
    "item_indexes": np.int32,
    "event_type_indexes": np.int8,
    "scenario_indexes": np.int16,
    "age_days": np.float32,
}
_SHOWN = {"shown_category_indexes": np.int32, "shown_counts": np.float32, "shown_age_days": np.float32}


@dataclass(frozen=True)
class Histories:
    """Rows of user_sequences: the newest `length` events, oldest first, zeros before them.

    `keys` are sorted pairs (place in `users`, day) as one number; history row r + 1 belongs to keys[r]. Users go by their
    keys, since rare ones share an id.
    """

    users: pa.Array  # distinct user keys
    keys: np.ndarray
    items: np.ndarray  # int32 [rows + 1, length]
    events: np.ndarray  # int8, 0 = padding
    scenarios: np.ndarray  # int16
    ages: np.ndarray  # float32, days
    shown: np.ndarray  # int32 [rows + 1, exposure length], ids of third-level categories, 0 = padding
    shown_counts: np.ndarray  # float32, impressions of that category on one day
    shown_ages: np.ndarray  # float32, days

    def rows_of(self, users: pa.DictionaryArray, days: np.ndarray) -> np.ndarray:
        """Return the history row of each (user key, day since 1970); 0 where there is none."""
        if not self.keys.size:
            return np.zeros(len(users), np.int64)
        known = pc.fill_null(pc.index_in(users.dictionary, value_set=self.users), -1)
        wanted = _key(known.to_numpy()[users.indices.to_numpy()], days)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, place + 1, 0)


def load_histories(files: Sequence[str | Path], length: int) -> Histories:
    """Read user_sequences.

    Raises:
        InputError, EngineError: as read_columns.
    """
    return padded_histories(read_histories(files), length)


def read_histories(files: Sequence[str | Path]) -> pa.Table:
    """Read the columns of user_sequences that a history is made of."""
    return read_columns("user_sequences", files, ["as_of_date", "user_key", *_EVENTS, *_SHOWN])


def padded_histories(table: pa.Table, length: int) -> Histories:
    """Pad the lists of user_sequences rows."""
    users = table["user_key"].combine_chunks().dictionary_encode()
    keys = _key(users.indices.to_numpy(), day_numbers(table["as_of_date"]))
    order = np.argsort(keys, kind="stable")
    events = _padded(table, _EVENTS, order, length)
    return Histories(users.dictionary, keys[order], *events, *_padded(table, _SHOWN, order, EXPOSURE_LENGTH))


def _padded(table: pa.Table, columns: Mapping[str, type], order: np.ndarray, length: int) -> list[np.ndarray]:
    """Return the newest `length` entries of parallel lists, right-aligned, with an empty row before the others."""
    lists = [table[name].combine_chunks() for name in columns]
    offsets = lists[0].offsets.to_numpy()
    sizes, starts = np.diff(offsets)[order], offsets[:-1][order]
    kept = np.minimum(sizes, length)
    slot = np.arange(length)
    filled = slot >= length - kept[:, None]
    source = ((starts + sizes - length)[:, None] + slot)[filled]
    padded: list[np.ndarray] = []
    for values, dtype in zip(lists, columns.values(), strict=True):
        rows: np.ndarray = np.zeros((len(order) + 1, length), dtype)
        rows[1:][filled] = values.values.to_numpy()[source]
        padded.append(rows)
    return padded


def _key(users: np.ndarray, days: np.ndarray) -> np.ndarray:
    return users.astype(np.int64) * 1_000_000 + days
