"""What a table is: its name, grain, keys and typed columns, declared once and for all engines.

A column's type is engine-neutral; feature_jobs/schema.py turns it into Spark's, pipelines/warehouse.py into Arrow's and
Iceberg's. Every table has the partition column `as_of_date`.
"""

from dataclasses import dataclass
from typing import Literal

ColumnType = Literal[
    "string", "int32", "int64", "float32", "float64", "bool", "date", "timestamp", "list<int32>", "list<float32>"
]


@dataclass(frozen=True)
class Column:
    """One column: its name, type, meaning (with unit) and whether it may be null."""

    name: str
    type: ColumnType
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class TableSpec:
    """One table: `grain` completes the sentence “one row per …”, `keys` are unique inside a partition."""

    name: str
    grain: str
    keys: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def column_names(self) -> list[str]:
        """Return the names of the columns in order."""
        return [column.name for column in self.columns]


AS_OF_DATE = Column("as_of_date", "date", "the last complete day that the row knows; the partition")
USER = Column("user_key", "string", "keyed hash of the user id")
ITEM = Column("item_id", "string", "the shop's item id")
SCENARIO = Column("scenario", "string", "the surface")
