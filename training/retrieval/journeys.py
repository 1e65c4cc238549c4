"""The acts of all users, each user's one after the other, as arrays."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.errors import InputError
from training.columns import Files, read_columns
from training.example_keys import by_first_sight

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Journeys:
    """Columns of n acts, by user and then by time; user u's acts are rows starts[u] … starts[u + 1] - 1.

    The order hangs neither on files nor on the key that hashes the users' ids: users come as they first act.
    """

    starts: np.ndarray  # int64 [U + 1]
    user_keys: list[str]  # [U]
    item: np.ndarray  # int32 [n], place in the catalogue
    event: np.ndarray  # int64 [n], 1 + place among the event types
    scenario: np.ndarray  # int64 [n], 1 + place among the scenarios
    seconds: np.ndarray  # float64 [n], since 1970

    def __len__(self) -> int:
        return len(self.item)

    @cached_property
    def user(self) -> np.ndarray:
        """Return whose each act is: int64 [n]."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @cached_property
    def first(self) -> np.ndarray:
        """Return for each act the row of its user's first act on its item: int64 [n]."""
        pair = self.user * (int(self.item.max(initial=0)) + 1) + self.item
        _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
        return first[inverse]


def load_journeys(files: Files, item_ids: pa.Array, events: list[str], scenarios: list[str]) -> Journeys:
    """Read the table `acts`. Acts on items, of event types and in scenarios that are not named are left out.

    Raises:
        InputError: no files, a missing column, or no act on any of the items.
        EngineError: a file cannot be read.
    """
    rows = read_columns("acts", files, ["user_key", "item_id", "event_type", "scenario", "event_ts", "event_id"])
    item, event, scenario = (
        _places(rows[name], values)
        for name, values in (("item_id", item_ids), ("event_type", events), ("scenario", scenarios))
    )
    rows = rows.filter(pa.array((item >= 0) & (event >= 0) & (scenario >= 0)))
    if not rows.num_rows:
        raise InputError("acts: none of them is on an item of the catalogue; is the path of the shop's items right?")
    item, event, scenario = (column[(item >= 0) & (event >= 0) & (scenario >= 0)] for column in (item, event, scenario))
    seconds = rows["event_ts"].cast(pa.int64()).to_numpy() / 1e6
    users = rows["user_key"].combine_chunks().dictionary_encode()
    codes = users.indices.to_numpy()
    # Acts of one moment by item and type; the hashed id of the event is the last resort
    ids = pc.rank(rows["event_id"], tiebreaker="dense").to_numpy()
    in_time = np.lexsort((ids, scenario, event, item, seconds))
    number = np.empty(len(codes), np.int64)
    number[in_time] = by_first_sight(codes[in_time])
    order = in_time[np.argsort(number[in_time], kind="stable")]
    keys = np.empty(len(users.dictionary), object)
    keys[number] = users.dictionary.to_numpy(zero_copy_only=False)[codes]
    return Journeys(
        starts=np.concatenate([[0], np.cumsum(np.bincount(number))]),
        user_keys=keys.tolist(),
        item=item[order].astype(np.int32),
        event=event[order] + 1,
        scenario=scenario[order] + 1,
        seconds=seconds[order],
    )


def _places(column: pa.ChunkedArray, values: pa.Array | list[str]) -> np.ndarray:
    found = pc.index_in(column, value_set=pa.array(values, pa.string()))
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)
