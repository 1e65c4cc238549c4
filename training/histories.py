"""Users' histories as padded arrays; row 0 is the empty history of whoever has none."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from training.columns import day_numbers, read_columns, to_numpy

_LISTS = ["item_indexes", "event_type_indexes", "scenario_indexes", "age_days"]


@dataclass(frozen=True)
class Histories:
    """Rows of user_sequences: the newest `length` events, oldest first, zeros before them.

    `keys` are sorted (user_index, day) pairs as one number; history row r + 1 belongs to keys[r].
    """

    keys: np.ndarray
    items: np.ndarray  # int32 [rows + 1, length]
    events: np.ndarray  # int8, 0 = padding
    scenarios: np.ndarray  # int16
    ages: np.ndarray  # float32, days

    def rows_of(self, users: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return the history row of each (user_index, day since 1970); 0 where there is none."""
        if not self.keys.size:
            return np.zeros(len(users), np.int64)
        wanted = _key(users, days)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((self.keys[place] == wanted) & (users > 0), place + 1, 0)


def load_histories(files: Sequence[str | Path], length: int) -> Histories:
    """Read user_sequences.

    Raises:
        InputError, EngineError: as read_columns.
    """
    return padded_histories(read_histories(files), length)


def read_histories(files: Sequence[str | Path]) -> pa.Table:
    """Read the columns of user_sequences that a history is made of."""
    return read_columns("user_sequences", files, ["as_of_date", "user_index", *_LISTS])


def padded_histories(table: pa.Table, length: int) -> Histories:
    """Pad the lists of user_sequences rows; rows of unknown users (index 0) are found by nobody."""
    keys = _key(to_numpy(table["user_index"], np.int64), day_numbers(table["as_of_date"]))
    order = np.argsort(keys, kind="stable")
    lists = [table[name].combine_chunks() for name in _LISTS]
    sizes = np.diff(lists[0].offsets.to_numpy())[order]
    starts = lists[0].offsets.to_numpy()[:-1][order]
    kept = np.minimum(sizes, length)
    slot = np.arange(length)
    filled = slot >= length - kept[:, None]
    source = ((starts + sizes - length)[:, None] + slot)[filled]
    dtypes = (np.int32, np.int8, np.int16, np.float32)
    padded = [_pad(values, source, filled, dtype) for values, dtype in zip(lists, dtypes, strict=True)]
    return Histories(keys[order], *padded)


def _pad(values: pa.ListArray, source: np.ndarray, filled: np.ndarray, dtype: type) -> np.ndarray:
    rows = np.zeros((filled.shape[0] + 1, filled.shape[1]), dtype)
    rows[1:][filled] = values.values.to_numpy()[source]
    return rows


def _key(users: np.ndarray, days: np.ndarray) -> np.ndarray:
    return users.astype(np.int64) * 1_000_000 + days
