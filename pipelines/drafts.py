"""Drafts of shelves: one file a scenario, written while the shelves come, and what is published of the scenarios left out."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nightshelf.config import Shop
from nightshelf.tables import table_specs
from pipelines.arrow_schema import arrow_schema
from pipelines.stage import Night
from pipelines.warehouse import DAY_FOLDER

_GROUP_ROWS = 1 << 16  # more of them wait in memory as texts, six scenarios of each process that makes a part


class ShelfFiles:
    """Files of shelves, one a scenario, open for writing: no more than a row group of each waits in memory."""

    def __init__(self, folder: Path, shop: Shop, table: str, scenarios: Iterable[str]) -> None:
        """Begin files with the columns of a table in a folder."""
        self.rows, self._folder = 0, folder
        self._schema = arrow_schema(table_specs(shop)[table])
        files = {name: folder / f"{name}.parquet" for name in scenarios}
        self._writers = {name: pq.ParquetWriter(file, self._schema, compression="zstd") for name, file in files.items()}
        self._waiting: dict[str, list[pa.Table]] = {name: [] for name in files}

    def add(self, name: str, rows: pa.Table) -> None:
        """Append rows to the file of a scenario: columns in any order, types are cast to the spec's."""
        self.rows += rows.num_rows
        self._waiting[name].append(rows.select(self._schema.names).cast(self._schema))
        if sum(part.num_rows for part in self._waiting[name]) >= _GROUP_ROWS:
            self._flush(name)

    def _flush(self, name: str) -> None:
        if self._waiting[name]:
            self._writers[name].write_table(pa.concat_tables(self._waiting[name]).combine_chunks())
            self._waiting[name] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        for name, writer in self._writers.items():
            with writer:
                if failure[0] is None:
                    self._flush(name)


class Drafts(ShelfFiles):
    """The files of one attempt at a table of drafts."""

    def __init__(self, night: Night, table: str, scenarios: Iterable[str]) -> None:
        """Begin the drafts `table` of these scenarios."""
        self._night, self._table, self.scenarios = night, table, tuple(scenarios)
        self._run = night.warehouse.new_run_dir(table, night.run_id)
        folder = self._run / f"{DAY_FOLDER}={night.as_of_date}"
        folder.mkdir()
        super().__init__(folder, night.shop, table, self.scenarios)

    def take(self, part: Path) -> None:
        """Take over the files of a finished part, which are not copied."""
        for file in sorted(part.glob("*.parquet")):
            os.link(file, self._folder / f"{file.stem}-{part.name}.parquet")

    def publish(self, published: str, others: list[str]) -> int:
        """Make them the night's drafts, beside what `published` has of the night in other scenarios; return the rows."""
        night = self._night
        if others:
            rows = night.warehouse.read(published, [night.as_of_date])
            kept = rows.filter(pc.is_in(rows["scenario"], pa.array(others, pa.string())))
            if kept.num_rows:
                pq.write_table(kept.cast(self._schema), self._folder / "-kept.parquet", compression="zstd")
        return night.warehouse.publish(self._table, self._run, [night.as_of_date], night.summary)
