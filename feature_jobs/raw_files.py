"""Which raw files there are, and which columns their first lines or footers name."""

import bz2
import csv
import gzip
import os
import re
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.errors import AnalysisException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from feature_jobs.sail import is_embedded
from feature_jobs.storage import literal_path
from nightshelf.errors import InputError
from nightshelf.raw_logs import Csv

OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
_BLOCK = 4 << 20
csv.field_size_limit(1 << 30)  # the default, 128 kB, is less than a long query
_READ_BY_SPARK = (".lz4", ".snappy", ".deflate", ".zst")


class RawTable(Protocol):
    """What a source, the items, the users and the graph of a shop file have in common."""

    @property
    def path(self) -> str:
        """Return the path pattern."""

    @property
    def format(self) -> Literal["jsonl", "csv", "parquet"]:
        """Return the format."""

    @property
    def csv(self) -> Csv:
        """Return how a CSV file of it is written."""


def find_files(spark: SparkSession, pattern: str) -> list[str]:
    """Return the files that match a path pattern, sorted; a folder stands for its files, hidden names are skipped.

    Patterns with a scheme (s3a://, hdfs://, gs:// …) are listed by Spark.

    Raises:
        InputError: Sail is to read a compression that it does not know, or Spark a name that it does not.
    """
    if "://" in pattern and not pattern.startswith("file://"):
        try:
            listed = spark.read.format("binaryFile").load(pattern).select("path").collect()
        except AnalysisException as error:
            if error.getCondition() == "PATH_NOT_FOUND":
                return []
            raise
        return sorted(row.path for row in listed)
    path = Path(pattern.removeprefix("file://")).absolute()
    found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    files = [file for place in found for file in (place.iterdir() if place.is_dir() else [place]) if file.is_file()]
    names = sorted({str(file) for file in files if not file.name.startswith((".", "_"))})
    if is_embedded() and (packed := next((name for name in names if name.endswith(_READ_BY_SPARK)), None)):
        raise InputError(
            f"{packed}: Sail does not read {Path(packed).suffix}; pack it as .gz or .bz2, or take `engine: sail` "
            "out of the shop file"
        )
    # Spark looks for a checksum beside a file, and takes what stands before the colon for a scheme
    if not is_embedded() and (odd := next((name for name in names if ":" in Path(name).name), None)):
        raise InputError(f"{odd}: Spark reads no file with a colon in its name; rename it, or say `engine: sail`")
    return names


def event_date_of(pattern: str, file_path: Column) -> Column:
    """Return the {event_date} of a file's path (Spark writes such paths percent-encoded), or null."""
    text = pattern.split("://", 1)[-1] if "://" in pattern else re.sub(r"^(\.\./)+", "", os.path.normpath(pattern))
    parts = [_path_regex(part) for part in text.split("{event_date}")]
    regex = parts[0] + r"(\d{4}-\d{2}-\d{2})" + r"\d{4}-\d{2}-\d{2}".join(parts[1:]) + "(?:/[^/]*)?$"
    return F.to_date(F.nullif(F.regexp_extract(file_path, regex, 1), F.lit("")))


def _path_regex(glob_part: str) -> str:
    wild = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*|\*|\?|\[[^\]]*\])", glob_part)
    return "".join(wild.get(p, p if p.startswith("[") else re.escape(quote(p, safe="/:=,;@&+$!~'()"))) for p in pieces)


def first_line(spark: SparkSession, file: str, encoding: str) -> str | None:
    """Return the first line of a text file that is not blank, without its line break or byte order mark; None if there is none.

    Raises:
        InputError: the file cannot be read.
    """
    return next(iter(first_lines(spark, file, encoding, 1)), None)


def first_lines(spark: SparkSession, file: str, encoding: str, count: int) -> list[str]:
    """Return the first lines of a text file that are not blank, `count` at most, without line breaks or a byte order mark.

    Lines end where Spark ends them: at a line feed, a carriage return, or both.

    Raises:
        InputError: the file cannot be read.
    """
    if "://" in file or file.endswith(_READ_BY_SPARK):
        rows = spark.read.text(literal_path(file)).select(F.col("value").cast("binary")).head(count)
        texts = [bytes(row[0]).decode(encoding, "replace") for row in rows]
        return [text for line in texts if (text := line.lstrip("\ufeff")).strip()]
    try:
        with OPEN.get(Path(file).suffix, open)(file, "rt", encoding=encoding, errors="replace") as lines:
            found = (line.rstrip("\n").lstrip("\ufeff") for line in lines)
            return list(islice((text for text in found if text.strip()), count))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be read ({error}); bring the file again") from None


def check_whole(files: list[str]) -> None:
    """Read all of the packed and the Parquet files that lie on this machine: an engine that fails at one does not say at which.

    Raises:
        InputError: one of them cannot be read to its end.
    """
    for file in files:
        is_packed = Path(file).suffix in OPEN
        if "://" in file or not (is_packed or file.endswith(".parquet")):
            continue
        try:
            if is_packed:
                with OPEN[Path(file).suffix](file, "rb") as stream:
                    while stream.read(_BLOCK):
                        pass
            else:
                for _ in pq.ParquetFile(file).iter_batches():
                    pass
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"{file}: cannot be read to its end ({reason}); bring the file again") from None


def csv_fields(line: str, delimiter: str) -> list[str]:
    """Split one line of a CSV file, with quotes where the delimiter is one character."""
    fields = next(csv.reader([line], delimiter=delimiter), [""]) if len(delimiter) == 1 else line.split(delimiter)
    return [field.strip() for field in fields]


def parquet_schema(spark: SparkSession, file: str) -> pa.Schema:
    """Return the Arrow schema of a Parquet file, from its footer.

    Raises:
        InputError: the file is no Parquet, or a part of it is missing.
    """
    if "://" in file:
        return spark.read.parquet(literal_path(file)).limit(0).toArrow().schema
    try:
        with pq.ParquetFile(file) as opened:
            return _with_moments(opened)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: is no whole Parquet file ({reason}); bring the file again") from None


def _with_moments(file: pq.ParquetFile) -> pa.Schema:
    """Return the schema; times of the old type INT96, as Spark and Hive write them, are moments in UTC."""
    schema = file.schema_arrow
    old = {column.path for n in range(len(file.schema)) if (column := file.schema.column(n)).physical_type == "INT96"}
    for name in old & set(schema.names):
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.timestamp("ns", "UTC")))
    return schema
