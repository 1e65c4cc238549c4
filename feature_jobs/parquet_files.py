"""Parquet files written by pyarrow inside the engine's tasks.

For Sail: its own writer names the items of a list so that Iceberg does not know them, and makes no folder for no rows.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import to_arrow_schema

# A column that orders the rows of a task, and stays out of the files.
ORDER = "_order"
_ROW_GROUP_BYTES = 64 << 20
_MOST_ROW_GROUPS = 8
Batches = Iterable[pa.RecordBatch]


def write_from_tasks(df: DataFrame, folder: str, split_by: list[str], plain: list[str]) -> None:
    """Write the rows as they come below `folder/<column>=<value>/…` for the columns of `split_by`, a file or more a task.

    The Parquet columns `plain` have no dictionary. Without `split_by` there is a file even if there are no rows.
    """
    kept = [name for name in df.columns if name not in (*split_by, ORDER)]
    schema = to_arrow_schema(df.select(*kept).schema)
    written = df.mapInArrow(_writer(folder, split_by, schema, plain), "rows bigint").collect()
    if not split_by and not any(row["rows"] for row in written):
        _File(Path(folder), schema, plain).close()


def _writer(folder: str, split_by: list[str], schema: pa.Schema, plain: list[str]) -> Callable[[Batches], Batches]:
    def write(batches: Batches) -> Iterator[pa.RecordBatch]:
        """Write a task's batches to files of its own; yield one batch with the number of their rows."""
        rows, files = 0, dict[tuple[str, ...], _File]()
        for batch in batches:
            rows += batch.num_rows
            for values, run in _runs(batch, split_by):
                if values not in files:
                    parts = (f"{name}={value}" for name, value in zip(split_by, values, strict=True))
                    files[values] = _File(Path(folder, *parts), schema, plain)
                files[values].add(run)
            if sum(file.waiting_bytes for file in files.values()) > _ROW_GROUP_BYTES:
                for file in files.values():
                    file.flush()
        for file in files.values():
            file.close()
        yield pa.RecordBatch.from_pydict({"rows": [rows]})

    return write


def _runs(batch: pa.RecordBatch, split_by: list[str]) -> Iterator[tuple[tuple[str, ...], pa.RecordBatch]]:
    """Cut a batch where the values of split_by change."""
    columns = [batch.column(name) for name in split_by]
    ends = {end for column in columns for end in pc.run_end_encode(column).run_ends.to_pylist()} | {batch.num_rows}
    start = 0
    for end in sorted(ends - {0}):
        yield tuple(_text(column[start].as_py()) for column in columns), batch.slice(start, end - start)
        start = end


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _File:
    """The Parquet files of one folder and task, one after the other, written a row group at a time."""

    def __init__(self, folder: Path, schema: pa.Schema, plain: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._schema = folder, schema
        self._waiting: list[pa.RecordBatch] = []
        self.waiting_bytes = 0
        self._with_dictionary = [name for field in schema if (name := parquet_path(field)) not in plain]
        self._file, self._groups = self._open(), 0

    def _open(self) -> pq.ParquetWriter:
        return pq.ParquetWriter(
            self._folder / f"part-{uuid4().hex}.parquet",
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=self._with_dictionary,
            store_schema=False,
        )

    def add(self, rows: pa.RecordBatch) -> None:
        """Take rows in, which wait in memory until `flush`; `waiting_bytes` tells how much that is."""
        self._waiting.append(rows.select(self._schema.names).cast(self._schema))
        self.waiting_bytes += rows.nbytes

    def flush(self) -> None:
        """Write the rows that wait as one row group; a new file begins where the last one holds _MOST_ROW_GROUPS."""
        if not self._waiting:
            return
        if self._groups == _MOST_ROW_GROUPS:
            self._file.close()
            self._file, self._groups = self._open(), 0
        self._file.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting, self.waiting_bytes, self._groups = [], 0, self._groups + 1

    def close(self) -> None:
        """Write what waits, and the footer: before it nobody can read the file."""
        self.flush()
        self._file.close()


def parquet_path(field: pa.Field) -> str:
    """Return the name of a column inside a Parquet file."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
