"""Shelves as rows of the table recommendations."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from nightshelf.generators import GENERATOR_ORDER
from pipelines.reasons import reason_texts
from pipelines.rerank import PLACED_BY, Groups
from pipelines.shelf_plan import ShelfPlan
from pipelines.shelves import Shelves

_USERS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Catalogue:
    """The night's items by item number: their rows, ids, titles, by rule what is never shown, and what they belong to."""

    items: pa.Table
    item_ids: list[str]
    keys: pa.Array  # the same
    titles: dict[str, str]
    kept_away: dict[str, np.ndarray]
    groups: Groups


@dataclass(frozen=True)
class RowMaker:
    """What all rows of an attempt have in common; `texts` are those that candidates' `because` point to."""

    plan: ShelfPlan
    run_id: str
    user_keys: pa.Array
    catalogue: Catalogue
    texts: list[str | None]

    def rows(self, name: str, shelves: Shelves) -> pa.Table:
        """Return the rows of shelves in a scenario."""
        plan, count = self.plan, len(shelves.ranks)
        columns = {
            "as_of_date": pa.array([plan.as_of_date] * count, pa.date32()),
            "scenario": pa.array([name] * count),
            "user_key": self.user_keys.take(pa.array(shelves.users.clip(min=0))),
            "rank": shelves.ranks,
            "item_id": self.catalogue.keys.take(pa.array(shelves.items)),
            "score": shelves.scores,
            **{f"p_{task}": shelves.predictions[task] for task in plan.shop.tasks},
            "source": pa.array(GENERATOR_ORDER).take(pa.array(shelves.generators)),
            "reason": pa.array(reason_texts(shelves, name, self.texts, self.catalogue.titles), pa.string()),
            "rank_by_score": shelves.rank_by_score,
            "placed_by": pa.array(PLACED_BY).take(pa.array(shelves.placed_by)),
            "propensity": shelves.propensity,
            "model_version": pa.array([plan.model_version] * count),
            "run_id": pa.array([self.run_id] * count),
        }
        return pa.table(columns)


def for_all(rows: pa.Table, numbers: np.ndarray, members: Mapping[int, list[str]]) -> Iterator[pa.Table]:
    """Yield each shelf for all of its users, some of them at a time.

    Args:
        rows: of the table, in which those of a shelf lie together.
        numbers: of the shelf, of each row.
        members: by number the users.
    """
    starts = np.flatnonzero(np.diff(numbers, prepend=1))  # a number is below 0
    lengths = np.diff(starts, append=len(numbers))
    of = [members[number] for number in numbers[starts].tolist()]
    users, shelves = [user for some in of for user in some], np.repeat(np.arange(len(of)), [len(some) for some in of])
    place = rows.schema.get_field_index("user_key")
    for first in range(0, len(users), _USERS_AT_ONCE):
        some, shelf = users[first : first + _USERS_AT_ONCE], shelves[first : first + _USERS_AT_ONCE]
        count = lengths[shelf]
        taken = np.repeat(starts[shelf] - (np.cumsum(count) - count), count) + np.arange(count.sum())
        keys = pa.array(some, pa.string()).take(pa.array(np.repeat(np.arange(len(some)), count)))
        yield rows.take(pa.array(taken)).set_column(place, rows.schema.field("user_key"), keys)
