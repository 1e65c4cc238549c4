"""SQL over the warehouse: one DuckDB view a table, over exactly the files of one snapshot. Nothing can be written."""

import csv
import datetime as dt
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Any

import duckdb

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.paths import views_file, warehouse_dir
from pipelines.warehouse import Warehouse


def connect(warehouse: Warehouse, as_of: str = "") -> duckdb.DuckDBPyConnection:
    """Open a read-only look at the tables, as they are now or as the snapshot or date `as_of` left them.

    Raises:
        InputError: no table has that snapshot or a night of that date.
    """
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    found = False
    for name in warehouse.specs:
        files, known = warehouse.files_as_of(name, as_of)
        found = found or known
        _create_view(connection, warehouse, name, files)
    if as_of and not found:
        raise InputError(
            f"--as-of {as_of!r} is neither a snapshot id nor a night of this shop whose state is left (`nightshelf maintain` "
            "forgets those older than keep.snapshot_days); leave it out for the tables of now"
        )
    connection.execute(f"SET allowed_directories = ['{_quoted(str(warehouse_dir(warehouse.shop)))}/']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def write_views(warehouse: Warehouse, tables: Iterable[str] | None = None) -> Path:
    """Write the shop's file of views, for any client that opens DuckDB files; return it.

    Its views name the files of the tables as they are now, so it is written anew by each night's publish, a rollback and the
    maintenance; the other stages renew the views of `tables` alone. Who has it open keeps the old one.
    """
    target = views_file(warehouse.shop)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    if tables is not None and target.exists():
        shutil.copyfile(target, fresh)
    else:
        tables = warehouse.specs
    with duckdb.connect(str(fresh)) as connection:
        connection.begin()  # a commit a view takes longer than all the rest
        for name in tables:
            _create_view(connection, warehouse, name, warehouse.files(name))
        connection.commit()
    fresh.replace(target)
    return target


def print_query(shop: Shop, query: str, output: str, as_of: str) -> None:
    """Run a query and print its rows as table, csv or json.

    Raises:
        InputError: the query or the format is wrong, or it would do more than read.
    """
    if output not in _WRITERS:
        raise InputError(f"--format {output!r} is unknown; write table, csv or json")
    if not (warehouse_dir(shop) / "catalog.db").exists():
        raise InputError(f"{shop.home}: no night has been published there; run `nightshelf run --shop …` first")
    connection = connect(Warehouse(shop), as_of)
    try:
        _check_reads(connection, query)
        cursor = connection.execute(query)
        if cursor is None:
            raise InputError(f'{query!r} asks nothing; write a query such as "from shelf_status"')
        names = [column[0] for column in cursor.description or []]
        rows = cursor.fetchall()
    except duckdb.Error as error:
        raise InputError(f"the query failed: {error}") from None
    _WRITERS[output](_apart(names), rows)


# PIVOT is MULTI; SET has variables, since the configuration is locked.
_READING = {"SELECT", "MULTI", "PRAGMA", "SET"}
_EXPLAIN = re.compile(r"\s*explain(\s+analyze|\s*\([^)]*\))?\s+", re.IGNORECASE)


def _check_reads(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """See to it that a query only reads: whoever may open the warehouse's folder may write there, too, for all that DuckDB knows.

    Raises:
        InputError: a statement of it does more, or explains what would: EXPLAIN ANALYZE does it.
    """
    for statement in connection.extract_statements(query):
        inner = [statement]
        if statement.type.name == "EXPLAIN":
            inner = connection.extract_statements(_EXPLAIN.sub("", statement.query, count=1))
        for part in inner:
            if part.type.name not in _READING:
                raise InputError(
                    f"{statement.query.strip()!r} does more than read, and nothing can be written here; "
                    "ask with SELECT, FROM or WITH; --format csv or json with `> FILE` keeps an answer"
                )


def _apart(names: list[str]) -> list[str]:
    """Return the names, of which the second, third … like another gets a number, as DuckDB names them in a subquery."""
    found: list[str] = []
    for name in names:
        taken, number = {*names, *found}, 1
        while name in found and f"{name}_{number}" in taken:
            number += 1
        found.append(f"{name}_{number}" if name in found else name)
    return found


def _create_view(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, name: str, files: list[str]) -> None:
    spec = warehouse.specs[name]
    columns = ", ".join(f'NULL::{_DUCKDB[column.type]} AS "{column.name}"' for column in spec.columns)
    body = f"SELECT {columns} WHERE false"
    if files:
        listed = ", ".join(f"'{_quoted(file)}'" for file in files)
        rows = f"SELECT * FROM read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
        body = f"{rows} UNION ALL BY NAME {body}"  # nights before an upgrade lack columns, which are null then
    connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS {body}')


_DUCKDB = {
    "string": "VARCHAR",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "list<int32>": "INTEGER[]",
    "list<float32>": "FLOAT[]",
}


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _write_table(names: list[str], rows: list[tuple[Any, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*names)
    for row in rows:
        table.add_row(
            *("" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value) for value in row)
        )
    # A title such as "[new] shirt" is a text, no markup of the terminal
    Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False, highlight=False).print(table)


def _write_csv(names: list[str], rows: list[tuple[Any, ...]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)


def _write_json(names: list[str], rows: list[tuple[Any, ...]]) -> None:
    plain = [dict(zip(names, map(_json_value, row), strict=True)) for row in rows]
    json.dump(plain, sys.stdout, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def _json_value(value: Any) -> Any:
    """Return a value as JSON has it: a decimal as a number; what JSON has no number for (nan, infinity) as its name."""
    if isinstance(value, list | tuple):
        return [_json_value(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _json_value(part) for key, part in value.items()}
    if isinstance(value, dt.date | dt.datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    is_plain = value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value))
    return value if is_plain else str(value)


_WRITERS = {"table": _write_table, "csv": _write_csv, "json": _write_json}
