"""Shelves as rows of the table recommendations."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.candidate_lists import GENERATOR_ORDER
from pipelines.rerank import PLACED_BY, Groups
from pipelines.shelves import Shelves, reason_texts
from pipelines.stage import Night


@dataclass(frozen=True)
class Catalogue:
    """The night's items by item number: their rows, ids, titles, what is out of stock, and what they belong to."""

    items: pa.Table
    item_ids: list[str]
    keys: pa.Array  # the same
    titles: dict[str, str]
    out_of_stock: np.ndarray
    groups: Groups


@dataclass(frozen=True)
class RowMaker:
    """What all rows of a night have in common; `texts` are those that candidates' `because` point to."""

    night: Night
    version: str
    user_keys: pa.Array
    catalogue: Catalogue
    texts: list[str | None]

    def rows(self, name: str, shelves: Shelves) -> pa.Table:
        """Return the rows of shelves in a scenario."""
        night, count = self.night, len(shelves.ranks)
        columns = {
            "as_of_date": pa.array([night.as_of_date] * count, pa.date32()),
            "scenario": pa.array([name] * count),
            "user_key": self.user_keys.take(pa.array(shelves.users.clip(min=0))),
            "rank": shelves.ranks,
            "item_id": self.catalogue.keys.take(pa.array(shelves.items)),
            "score": shelves.scores,
            **{f"p_{task}": shelves.predictions[task] for task in night.shop.tasks},
            "source": pa.array(GENERATOR_ORDER).take(pa.array(shelves.generators)),
            "reason": pa.array(reason_texts(shelves, name, self.texts, self.catalogue.titles), pa.string()),
            "rank_by_score": shelves.rank_by_score,
            "placed_by": pa.array(PLACED_BY).take(pa.array(shelves.placed_by)),
            "propensity": shelves.propensity,
            "model_version": pa.array([self.version] * count),
            "run_id": pa.array([night.run_id] * count),
        }
        return pa.table(columns)


def for_all(shelf: pa.Table, users: list[str]) -> pa.Table:
    """Give each of these users the same shelf: the unknown user's."""
    length = shelf.num_rows
    repeated = shelf.take(pa.array(np.tile(np.arange(length), len(users))))
    keys = pa.array(users, pa.string()).take(pa.array(np.repeat(np.arange(len(users)), length)))
    return repeated.set_column(repeated.schema.get_field_index("user_key"), shelf.schema.field("user_key"), keys)
