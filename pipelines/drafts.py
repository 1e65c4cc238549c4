"""Drafts of shelves: one file a scenario, written while the shelves come, and what is published of the scenarios left out."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.stage import Night
from pipelines.warehouse import DAY_FOLDER, arrow_schema

_GROUP_ROWS = 200_000


class Drafts:
    """The files of one attempt, open for writing: no more than a row group of each scenario waits in memory."""

    def __init__(self, night: Night, table: str, scenarios: Iterable[str]) -> None:
        """Begin the drafts `table` of these scenarios."""
        self._night, self._table, self.scenarios = night, table, tuple(scenarios)
        self._folder = night.warehouse.new_run_dir(table, night.run_id)
        (self._folder / f"{DAY_FOLDER}={night.as_of_date}").mkdir()
        self._schema = arrow_schema(night.warehouse.specs[table])
        files = {name: self._file(name) for name in self.scenarios}
        self._writers = {name: pq.ParquetWriter(file, self._schema, compression="zstd") for name, file in files.items()}
        self._waiting: dict[str, list[pa.Table]] = {name: [] for name in self.scenarios}

    def _file(self, name: str) -> Path:
        return self._folder / f"{DAY_FOLDER}={self._night.as_of_date}" / f"part-{name}.parquet"

    def add(self, name: str, rows: pa.Table) -> None:
        """Append rows to the file of a scenario: columns in any order, types are cast to the spec's."""
        self._waiting[name].append(rows.select(self._schema.names).cast(self._schema))
        if sum(part.num_rows for part in self._waiting[name]) >= _GROUP_ROWS:
            self._flush(name)

    def _flush(self, name: str) -> None:
        if self._waiting[name]:
            self._writers[name].write_table(pa.concat_tables(self._waiting[name]).combine_chunks())
            self._waiting[name] = []

    def __enter__(self) -> "Drafts":
        return self

    def __exit__(self, *failure: object) -> None:
        for name, writer in self._writers.items():
            with writer:
                if failure[0] is None:
                    self._flush(name)

    def publish(self, published: str, others: list[str]) -> int:
        """Make them the night's drafts, beside what `published` has of the night in other scenarios; return the rows."""
        night = self._night
        if others:
            rows = night.warehouse.read(published, [night.as_of_date])
            kept = rows.filter(pc.is_in(rows["scenario"], pa.array(others, pa.string())))
            if kept.num_rows:
                pq.write_table(kept.cast(self._schema), self._file("kept"), compression="zstd")
        return night.warehouse.publish(self._table, self._folder, [night.as_of_date], night.summary)
