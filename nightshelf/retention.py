"""How long old rows and states stay: the part `keep` of a shop file."""

from typing import Annotated

from pydantic import Field, field_validator

from nightshelf.yamlfile import Strict

# Tables that no night reads, or (candidates, for their recall and quotas) no further back than ten days.
_DROPPABLE = (
    "candidates", "retrieved_candidates", "shelf_drafts", "recommendations", "item_shelf_drafts", "item_recommendations",
    "quarantine",
)  # fmt: skip


class Keep(Strict):
    """How long `nightshelf maintain` keeps what is old, in days.

    snapshot_days: earlier states of the tables, for rollback and `--as-of`. partition_days: table → its partitions, by how much
    older they are than its newest, which always stays; those that are not named, and the tables that nights read back, stay for
    ever.
    """

    snapshot_days: int = Field(30, ge=1)
    partition_days: dict[str, Annotated[int, Field(ge=14)]] = Field({})

    @field_validator("partition_days")
    @classmethod
    def _read_by_no_night(cls, value: dict[str, int]) -> dict[str, int]:
        for name in value:
            if name not in _DROPPABLE:
                raise ValueError(f"{name!r} is read by later nights, or no table; known: {', '.join(_DROPPABLE)}")
        return value
