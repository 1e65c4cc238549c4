"""The tables of one attempt of a stage: those that it wrote, from its own files; the others, as published."""

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.stage import Night
from pipelines.warehouse import DAY_FOLDER, write_days

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


class Attempt:
    """Reads and writes tables with Spark; nothing is published before `publish`."""

    def __init__(self, night: Night, spark: "SparkSession") -> None:
        self.spark = spark
        self._night = night
        self._written: dict[str, tuple[Path, list[dt.date]]] = {}

    def published(self, table: str) -> list[dt.date]:
        """Return the published partitions, oldest first."""
        return self._night.warehouse.partitions(table)

    def read(self, table: str, dates: Iterable[dt.date]) -> "DataFrame":
        """Return the rows of these days: own files where this attempt wrote them."""
        from feature_jobs.storage import read_table

        return read_table(self.spark, self._night.warehouse.specs[table], self.files(table, dates))

    def files(self, table: str, dates: Iterable[dt.date]) -> list[str]:
        """Return the Parquet files of these days: own ones where this attempt wrote them."""
        days = sorted(set(dates))
        folder, own = self._written.get(table, (Path(), []))
        files = self._night.warehouse.files(table, [d for d in days if d not in own])
        return files + [
            str(f) for d in days if d in own for f in sorted((folder / f"{DAY_FOLDER}={d}").glob("*.parquet"))
        ]

    def write(
        self, table: str, rows: "DataFrame", dates: list[dt.date], sort_by: list[str], by_task: bool = False
    ) -> None:
        """Write the partitions `dates` of a table; `by_task`: as the rows lie, each task one file a day."""
        from feature_jobs.storage import write_table

        folder = self._night.warehouse.new_run_dir(table, self._night.run_id)
        write_table(rows, self._night.warehouse.specs[table], folder, sort_by, by_task)
        self._written[table] = (folder, dates)

    def write_parts(self, table: str, parts: "Iterable[DataFrame]", dates: list[dt.date], sort_by: list[str]) -> None:
        """Write the partitions `dates` of a table part by part, each task of a part one file a day."""
        from feature_jobs.storage import write_table

        folder = self._night.warehouse.new_run_dir(table, self._night.run_id)
        for rows in parts:
            write_table(rows, self._night.warehouse.specs[table], folder, sort_by, by_task=True)
        self._written[table] = (folder, dates)

    def write_night(self, table: str, rows: "DataFrame", sort_by: list[str]) -> None:
        """Write the night's partition of a table that has no other, in as many files as shuffles have partitions."""
        from feature_jobs.storage import write_day

        folder, day = self._night.warehouse.new_run_dir(table, self._night.run_id), self._night.as_of_date
        spec = self._night.warehouse.specs[table]
        write_day(rows, spec, folder, day, sort_by, self._night.shop.spark.shuffle_partitions)
        self._written[table] = (folder, [day])

    def write_arrow(self, table: str, rows: "pa.Table") -> None:
        """Write the night's partition of a small table."""
        folder, day = self._night.warehouse.new_run_dir(table, self._night.run_id), self._night.as_of_date
        write_days(rows, folder, [day])
        self._written[table] = (folder, [day])

    def publish(self) -> dict[str, int]:
        """Publish all tables that were written; returns their rows."""
        warehouse, summary = self._night.warehouse, self._night.summary
        written = sorted(self._written.items())
        return {table: warehouse.publish(table, folder, dates, summary) for table, (folder, dates) in written}
