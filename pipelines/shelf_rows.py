"""Shelves as rows of the table recommendations."""

from collections.abc import Iterator
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


def for_all(shelf: pa.Table, users: list[str]) -> Iterator[pa.Table]:
    """Yield the same shelf for each of these users, some of them at a time."""
    length, place = shelf.num_rows, shelf.schema.get_field_index("user_key")
    for start in range(0, len(users), _USERS_AT_ONCE):
        some = users[start : start + _USERS_AT_ONCE]
        repeated = shelf.take(pa.array(np.tile(np.arange(length), len(some))))
        keys = pa.array(some, pa.string()).take(pa.array(np.repeat(np.arange(len(some)), length)))
        yield repeated.set_column(place, shelf.schema.field("user_key"), keys)
