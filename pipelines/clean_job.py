"""What the steps of the stage `clean` share: its night, its days and their files, and where it writes."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nightshelf.config import Shop
from pipelines.arrivals import Arrivals
from pipelines.stage import Night

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class CleanJob:
    """One attempt to clean.

    folders: table → the folder of its files. judged: the folder of every raw row with its verdict. key_path: the file that holds
    the key for user ids.
    """

    night: Night
    spark: "SparkSession"
    arrivals: Arrivals
    folders: dict[str, Path]
    judged: Path
    key_path: Path

    @property
    def shop(self) -> Shop:
        """Return the shop whose night it is."""
        return self.night.shop

    @property
    def taken_back(self) -> Path:
        """Return the folder of the events of earlier days that had waited until their item is known."""
        return self.judged.with_name("taken_back")

    @property
    def days(self) -> list[dt.date]:
        """Return the days that are written, oldest first."""
        return self.arrivals.days

    def list_files(self, pattern: str) -> list[str]:
        """Return the files that match a path pattern, sorted (feature_jobs.raw_files.find_files)."""
        from feature_jobs.raw_files import find_files

        return find_files(self.spark, pattern)

    def published(self, table: str, days: set[dt.date]) -> "DataFrame":
        """Return the rows of these partitions as earlier nights published them; no days: no rows."""
        from feature_jobs.storage import read_table

        warehouse = self.night.warehouse
        return read_table(self.spark, warehouse.specs[table], warehouse.files(table, days) if days else [])
