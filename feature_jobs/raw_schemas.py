"""Which columns the beginnings of raw files have, and of what kind: enough to see that a log has changed its schema."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from feature_jobs.raw_files import RawTable, csv_fields, first_lines, parquet_schema

FILES = 5  # files of a day that are looked into
LINES = 400  # lines of each
_CLEAR = 0.9  # a column is of the kind that this share of its values is of


@dataclass
class SeenColumn:
    """A column of a log's sample: the kinds of its values, and on how many rows it stood."""

    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def kind(self) -> str:
        """Return text, integer, number, boolean, time, date, list, object; mixed if values differ, empty if there are none."""
        if not self.kinds:
            return "empty"
        kind, count = self.kinds.most_common(1)[0]
        numeric = self.kinds["integer"] + self.kinds["number"]
        if count < _CLEAR * self.kinds.total() <= numeric:  # prices such as 5 and 5.5
            return "number"
        return kind if count >= _CLEAR * self.kinds.total() else "mixed"


@dataclass
class SeenSchema:
    """The columns of a log's sample by name, and the number of its rows."""

    rows: int = 0
    columns: dict[str, SeenColumn] = field(default_factory=dict)

    def add(self, row: dict[str, str | None]) -> None:
        """Count a row, given as column → kind of its value, None for an absent one."""
        self.rows += 1
        for name, kind in row.items():
            column = self.columns.setdefault(name, SeenColumn())
            column.rows += 1
            if kind is not None:
                column.kinds[kind] += 1


def seen_schema(spark: SparkSession, files: list[str], table: RawTable) -> SeenSchema:
    """Return the schema that a sample of these files shows; a Parquet file's footer counts as one row.

    Raises:
        InputError: a file cannot be read.
    """
    seen = SeenSchema()
    for file in _spread(files):
        if table.format == "parquet":
            seen.add({column.name: _kind_of_type(column.type) for column in parquet_schema(spark, file)})
            continue
        lines = first_lines(spark, file, table.csv.encoding if table.format == "csv" else "UTF-8", LINES)
        for row in _csv_kinds(lines, table) if table.format == "csv" else _json_kinds(lines):
            seen.add(row)
    return seen


def _spread(files: list[str]) -> list[str]:
    """Return FILES of the files, from the first to the last."""
    step = max(1, -(-len(files) // FILES))
    return files[::step]


def _csv_kinds(lines: list[str], table: RawTable) -> list[dict[str, str | None]]:
    rows = [csv_fields(line, table.csv.delimiter) for line in lines]
    if not rows:
        return []
    header = rows[0] if table.csv.header else [f"_c{n}" for n in range(len(rows[0]))]
    values = [row for row in rows[1 if table.csv.header else 0 :] if len(row) == len(header)]
    # A header alone still says which columns there are
    return [
        {name: _kind_of_text(text) for name, text in zip(header, row, strict=True)}
        for row in values or [[""] * len(header)]
    ]


def _json_kinds(lines: list[str]) -> list[dict[str, str | None]]:
    rows = []
    for line in lines:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):  # a broken line is the cleaning's matter
            continue
        if isinstance(content, dict):
            rows.append({name: _kind_of_value(value) for name, value in content.items()})
    return rows


def _kind_of_text(text: str) -> str | None:
    if not text:
        return None
    if text.removeprefix("-").isdecimal():
        return "integer"
    try:
        float(text)
    except ValueError:
        return "text"
    return "number"


def _kind_of_value(value: Any) -> str | None:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "text", list: "list", dict: "object"}
    return None if value is None else kinds[type(value)]


def _kind_of_type(kind: pa.DataType) -> str | None:
    tests = {
        "boolean": pa.types.is_boolean, "integer": pa.types.is_integer, "number": pa.types.is_floating,
        "decimal": pa.types.is_decimal, "time": pa.types.is_timestamp, "date": pa.types.is_date, "list": pa.types.is_list,
        "object": pa.types.is_struct, "text": _is_text,
    }  # fmt: skip
    if pa.types.is_null(kind):
        return None
    return next((name for name, holds in tests.items() if holds(kind)), str(kind))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
