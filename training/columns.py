"""Parquet in, columns out: the one place where training reads files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nightshelf.errors import EngineError, InputError
from nightshelf.parallel import in_parallel

Files = Sequence[str | Path]


def read_columns(table: str, files: Files, columns: list[str]) -> pa.Table:
    """Read these columns of all files of a table.

    Raises:
        InputError: there are no files, or a column is missing.
        EngineError: a file cannot be read.
    """
    if not files:
        raise InputError(f"table {table}: no files for this night; run the features stage first")
    parts = []
    for file in files:
        try:
            reader = pq.ParquetFile(file)
            missing = sorted(set(columns) - set(reader.schema_arrow.names))
            if missing:
                raise InputError(
                    f"table {table}: column {missing[0]!r} is missing in {file}; run the features stage again with this shop file"
                )
            parts.append(reader.read(columns=columns))
        except (OSError, pa.ArrowException) as error:
            raise EngineError(
                f"table {table}: {file} cannot be read ({' '.join(str(error).split())[:200]}); run the stage that writes it again"
            ) from None
    return pa.concat_tables(parts, promote_options="permissive")


def to_numpy(column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    """Return a column without nulls as a numpy array; a null becomes 0."""
    if column.null_count:
        column = pc.fill_null(column, 0)
    return column.to_numpy().astype(dtype)  # a copy of its own, since Arrow's buffers are read-only


def stack(table: pa.Table, names: list[str], dtype: type, rows: pa.Array | None = None) -> np.ndarray:
    """Return columns side by side as an array [rows, len(names)]: of all rows, or of those at `rows` in their order."""
    values = np.empty((table.num_rows if rows is None else len(rows), len(names)), dtype)

    def fill(place: int) -> None:
        column = table[names[place]]
        values[:, place] = to_numpy(column if rows is None else column.take(rows), dtype)

    in_parallel(fill, range(len(names)))
    return values


def day_numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return dates as days since 1970-01-01."""
    return column.cast(pa.date32()).cast(pa.int32()).to_numpy()


def codes(encoded: pa.DictionaryArray) -> np.ndarray:
    """Return a code 0.. for each distinct value of an encoded text column, by first sight; -1 for null."""
    return np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), np.int64)


def places(column: pa.ChunkedArray, names: list[str]) -> np.ndarray:
    """Return 1 + the place of each text in `names`; 0 for one that is not there."""
    found = pc.index_in(column.cast(pa.string()), value_set=pa.array(names, pa.string()))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int64) + 1


def check_finite(values: np.ndarray, names: list[str], table: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        InputError: a value is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if bad.size:
        raise InputError(f"table {table}: column {names[bad[0]]!r} holds NaN or infinity; run the features stage again")
