"""Parquet in, columns out: the one place where training reads files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import dataset

from nightshelf.errors import EngineError, InputError
from nightshelf.parallel import in_parallel

Files = Sequence[str | Path]
Result = TypeVar("Result")
Range = tuple[float, float]


def read_columns(table: str, files: Files, columns: list[str], keep: pc.Expression | None = None) -> pa.Table:
    """Read these columns of all files of a table: all rows, or those that `keep` holds for.

    Raises:
        InputError: there are no files, or a column is missing.
        EngineError: a file cannot be read.
    """
    parts = []
    for file in _some(table, files):
        with _opened(table, file, columns) as reader:
            if keep is None:
                parts.append(reader.read(columns=columns))
            else:  # row groups without such rows are not read
                parts.append(dataset.dataset(str(file)).to_table(columns=columns, filter=keep))
    return pa.concat_tables(parts, promote_options="permissive")


def map_row_groups(
    table: str, files: Files, columns: list[str], work: Callable[[int, Callable[[], pa.Table]], Result]
) -> list[Result]:
    """Return work(n, read) of each row group n of all files, in their order; read() returns its rows.

    A core has one of them in memory at a time. A file without rows counts as one row group.

    Raises:
        InputError, EngineError: as read_columns; and what `work` raises.
    """
    groups = []
    for file in _some(table, files):
        with _opened(table, file, columns) as reader:
            groups += [(file, number) for number in range(max(1, reader.num_row_groups))]

    def read(n: int) -> pa.Table:
        """Return the rows of row group n of all files, counted through; those of a file without any have no rows."""
        file, number = groups[n]
        with _opened(table, file, columns) as reader:
            is_empty = not reader.num_row_groups
            return reader.read(columns=columns) if is_empty else reader.read_row_group(number, columns=columns)

    return in_parallel(lambda n: work(n, lambda: read(n)), range(len(groups)))


def fill_rows(
    table: str,
    files: Files,
    blocks: Sequence[tuple[np.ndarray, list[str]]],
    places: Sequence[np.ndarray],
    ranges: Mapping[str, Range],
) -> None:
    """Read columns side by side into arrays.

    Args:
        blocks: each array [rows, columns] with the names of its columns.
        places: for each row group, the row of the arrays that each of its rows goes to; -1 = none.
        ranges: column → what its values are at least and at most.

    Raises:
        InputError, EngineError: as read_columns; InputError where a float is not finite, or a value is out of its range.
    """

    def fill(n: int, read: Callable[[], pa.Table]) -> None:
        """Read row group n, unless none of its rows is wanted, and put each row into its place in every array."""
        kept = np.flatnonzero(places[n] >= 0)
        if not kept.size:
            return
        rows = read()
        chosen = rows if len(kept) == rows.num_rows else rows.take(pa.array(kept))
        for array, names in blocks:
            values = stack(chosen, names, array.dtype.type)
            if array.dtype.kind == "f":
                check_finite(values, names, table)
            for column, name in zip(values.T, names, strict=True):
                if name in ranges:
                    check_range(column, name, ranges[name], table)
            array[places[n][kept]] = values

    map_row_groups(table, files, [name for _, names in blocks for name in names], fill)


def count_rows(table: str, files: Files) -> int:
    """Return how many rows the files of a table hold.

    Raises:
        EngineError: a file cannot be read.
    """
    total = 0
    for file in files:
        with _opened(table, file, []) as reader:
            total += reader.metadata.num_rows
    return total


def _some(table: str, files: Files) -> Files:
    if not files:
        raise InputError(f"table {table}: no files for this night; run the features stage first")
    return files


@contextmanager
def _opened(table: str, file: str | Path, columns: list[str]) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file) as reader:
            missing = sorted(set(columns) - set(reader.schema_arrow.names))
            if missing:
                raise InputError(
                    f"table {table}: column {missing[0]!r} is missing in {file}; run the features stage again with this shop file"
                )
            yield reader
    except (OSError, pa.ArrowException) as error:
        raise EngineError(
            f"table {table}: {file} cannot be read ({' '.join(str(error).split())[:200]}); run the stage that writes it again"
        ) from None


def to_numpy(column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    """Return a column without nulls as a numpy array; a null becomes 0."""
    if column.null_count:
        column = pc.fill_null(column, 0)
    return column.to_numpy().astype(dtype)  # a copy of its own, since Arrow's buffers are read-only


def stack(table: pa.Table, names: list[str], dtype: type) -> np.ndarray:
    """Return columns side by side as an array [rows, len(names)]."""
    values = np.empty((table.num_rows, len(names)), dtype)

    def fill(place: int) -> None:
        """Fill the column at a place: each thread writes one of its own."""
        values[:, place] = to_numpy(table[names[place]], dtype)

    in_parallel(fill, range(len(names)))
    return values


def day_numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return dates as days since 1970-01-01."""
    return column.cast(pa.date32()).cast(pa.int32()).to_numpy()


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


def check_range(values: np.ndarray, name: str, limits: Range, table: str) -> None:
    """Refuse values [n] of a column below or above its limits.

    Raises:
        InputError: there is one.
    """
    least, most = limits
    wrong = (values < least) | (values > most)
    if wrong.any():
        limit = f"at least {least:g}" if most == np.inf else f"{least:g} to {most:g}"
        raise InputError(
            f"table {table}: column {name!r} holds {values[wrong][0]:g}, and its values are {limit}; run the features stage again"
        )
