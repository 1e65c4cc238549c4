"""Raw files → one row per raw line, with the wanted columns beside the text.

Text is read as lines and parsed by from_json / from_csv, so that a broken line costs itself alone. Blank lines and
headers are no rows.
"""

from collections import defaultdict
from functools import reduce

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StringType, StructField, StructType

from feature_jobs.csv_lines import csv_fields_of, has_width
from feature_jobs.raw_files import RawTable, csv_fields, first_line, parquet_schema
from feature_jobs.raw_lines import read_lines
from feature_jobs.raw_parquet import read_parquet_rows
from nightshelf.errors import InputError


def read_raw_rows(
    spark: SparkSession, files: list[str], table: RawTable, columns: dict[str, str], place: str
) -> list[DataFrame]:
    """Return frames (one per layout) with `file_path`, `place` (grows along a file), `raw`, `is_parsable`, the wanted columns.

    Args:
        spark: the session.
        files: existing files of the table.
        table: format and CSV layout.
        columns: our name → the file's name. CSV and JSON values come as text, Parquet's in their own types (times with
            nanoseconds as timestamps); a CSV without a header names its columns _c0, _c1, …
        place: where the table stands in the shop file, for errors, e.g. `sources.search_log`.

    Raises:
        InputError: a file lacks a wanted column or cannot be read.
    """
    if table.format == "jsonl":
        return [_json_rows(spark, files, columns)] if files else []
    read = _csv_groups if table.format == "csv" else _parquet_groups
    return read(spark, files, table, columns, place)


def _json_rows(spark: SparkSession, files: list[str], columns: dict[str, str]) -> DataFrame:
    names = sorted(set(columns.values()))
    rows = read_lines(spark, files, "UTF-8")
    # From_json gives nulls for broken text and forgets what follows an object, a second one too: between a beginning and
    # an end of our own it must read the whole line
    row = StructType([StructField(name, StringType()) for name in names])
    whole = StructType([StructField("rows", ArrayType(row)), StructField("end", StringType())])
    text = F.concat(F.lit('{"rows":['), F.col("raw"), F.lit('],"end":1}'))
    parsed = rows.withColumn("whole", F.from_json(text, whole))
    found, end = F.col("whole").getField("rows"), F.col("whole").getField("end")
    values = {ours: F.get(found, F.lit(0)).getField(theirs) for ours, theirs in columns.items()}
    is_one = (F.size(found) == 1) & end.isNotNull()
    is_parsable = F.trim("raw").startswith("{") & F.coalesce(is_one, F.lit(False))
    return parsed.select("file_path", "place", "raw", is_parsable.alias("is_parsable"), *_named(values))


def _csv_groups(
    spark: SparkSession, files: list[str], table: RawTable, columns: dict[str, str], place: str
) -> list[DataFrame]:
    groups: dict[str, list[str]] = defaultdict(list)
    for file in files:
        line = first_line(spark, file, table.csv.encoding)
        if line is not None:
            groups[line if table.csv.header else f"{len(csv_fields(line, table.csv.delimiter))}"].append(file)
    return [_csv_rows(spark, members, table, columns, place, head) for head, members in sorted(groups.items())]


def _csv_rows(
    spark: SparkSession, files: list[str], table: RawTable, columns: dict[str, str], place: str, head: str
) -> DataFrame:
    layout = table.csv
    header = csv_fields(head, layout.delimiter) if layout.header else [f"_c{n}" for n in range(int(head))]
    _check_columns(columns, header, files[0], place)
    rows = read_lines(spark, files, layout.encoding)
    if layout.header:
        rows = rows.where(F.ltrim("raw", F.lit("\ufeff")) != head)
    fields = csv_fields_of(F.col("raw"), layout, len(header))
    values = {ours: fields[header.index(theirs)] for ours, theirs in columns.items()}
    is_parsable = has_width(F.col("raw"), layout, len(header)).alias("is_parsable")
    return rows.select("file_path", "place", "raw", is_parsable, *_named(values))


def _parquet_groups(
    spark: SparkSession, files: list[str], table: RawTable, columns: dict[str, str], place: str
) -> list[DataFrame]:
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    schemas: dict[tuple[str, ...], pa.Schema] = {}
    for file in files:
        schema = parquet_schema(spark, file)
        _check_columns(columns, schema.names, file, place)
        layout = tuple(str(schema.field(name).type) for name in columns.values())
        groups[layout].append(file)
        schemas[layout] = schema
    return [read_parquet_rows(spark, members, columns, schemas[layout]) for layout, members in sorted(groups.items())]


def _named(values: dict[str, Column]) -> list[Column]:
    return [value.alias(name) for name, value in values.items()]


def _check_columns(columns: dict[str, str], present: list[str], file: str, place: str) -> None:
    for ours, theirs in columns.items():
        if theirs not in present:
            raise InputError(
                f"{file}: no column {theirs!r}, which {place} names for {ours}; "
                f"columns there: {', '.join(present)}; correct the log or the shop file"
            )


def union(frames: list[DataFrame]) -> DataFrame:
    """Return the rows of all frames (at least one), matched by column name."""
    return reduce(lambda left, right: left.unionByName(right), frames)
