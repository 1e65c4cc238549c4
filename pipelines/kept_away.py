"""What the rules of `exclude` keep away from users, read from a night's files."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset

from nightshelf.exclusions import item_condition


def kept_away(items: pa.Table, rule: str) -> np.ndarray:
    """Return which items, rows of the table items, a rule that asks the item alone keeps off every shelf: bool [items]."""
    with duckdb.connect() as connection:
        found = connection.register("items", items).execute(f"SELECT {item_condition(rule)} AS away FROM items")
        return np.asarray(found.fetchnumpy()["away"], bool)


def acted_on_pairs(
    files: Sequence[str], event: str, users: pa.Array, items: pa.Array, whose: dataset.Expression | None = None
) -> np.ndarray:
    """Return who acted on what: user number × items + item number, distinct and ascending, int64.

    Args:
        files: of the table events.
        event: the type of act.
        users, items: user keys and item ids, by number; acts of others, and on others, are left out.
        whose: narrows the rows that are read.
    """
    # A dataset drops rows of other types and users as it reads them, a part of a file at a time
    wanted = dataset.field("event_type") == event
    acted = dataset.dataset(list(files)).to_table(
        columns=["user_key", "item_id"], filter=wanted if whose is None else wanted & whose
    )
    numbers = [pc.index_in(acted["user_key"], users), pc.index_in(acted["item_id"], items)]
    pairs = pa.table(numbers, names=["user", "item"]).drop_null()
    return np.unique(pairs["user"].to_numpy().astype(np.int64) * len(items) + pairs["item"].to_numpy())


@dataclass(frozen=True)
class Exclusions:
    """What must not be shown: by rule items [items] or what a user acted on (sorted user × items + item), and what is blocked."""

    of_items: dict[str, np.ndarray]
    acted_on: dict[str, np.ndarray]
    blocked: np.ndarray

    def mask(self, rules: list[str], users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return True where the item [B, K] may be shown to the user [B]."""
        allowed = (items >= 0) & ~self.blocked[items]
        for kept_away in (self.of_items[rule] for rule in rules if rule in self.of_items):
            allowed &= ~kept_away[items]
        pair = users[:, None].astype(np.int64) * len(self.blocked) + items
        for acted in (self.acted_on[rule] for rule in rules if rule in self.acted_on):
            if len(acted):
                place = np.searchsorted(acted, pair).clip(max=len(acted) - 1)
                allowed &= acted[place] != pair
        return allowed

    def anybody(self, rules: list[str]) -> np.ndarray:
        """Return True where an item may be shown to whoever comes [items]."""
        every = np.arange(len(self.blocked))
        return self.mask(rules, np.array([-1]), every[None])[0]
