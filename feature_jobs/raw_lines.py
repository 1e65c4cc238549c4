"""Text files → one row per line that is not blank, with its file and its place in it.

Spark tells of each row which file it is from. Sail does not, and it ends at the first byte that is no UTF-8: there Python
reads the files, a block at a time.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_jobs.raw_files import OPEN
from feature_jobs.sail import is_embedded
from feature_jobs.storage import file_uri, literal_path

_BLOCK = 4 << 20
_COLUMNS = "file_path string, raw string, place bigint"


def read_lines(spark: SparkSession, files: list[str], encoding: str) -> DataFrame:
    """Return `file_path` (percent-encoded, with its scheme), `raw` (the line) and `place` (it grows along a file).

    Bytes that are no text of this encoding become U+FFFD: a broken byte in a table would stop every reader.
    """
    rows = _read_in_python(spark, files, encoding) if is_embedded() else _read_by_spark(spark, files, encoding)
    return rows.where(F.trim("raw") != "")


def _read_by_spark(spark: SparkSession, files: list[str], encoding: str) -> DataFrame:
    lines = spark.read.text([literal_path(file) for file in files])
    if encoding.upper().replace("-", "") == "UTF8":
        text = F.make_valid_utf8("value")
    else:
        text = F.decode(F.col("value").cast("binary"), encoding)
    return lines.select(
        F.col("_metadata.file_path").alias("file_path"),
        text.alias("raw"),
        F.monotonically_increasing_id().alias("place"),
    )


def _read_in_python(spark: SparkSession, files: list[str], encoding: str) -> DataFrame:
    return spark.range(0, len(files), 1, len(files)).mapInArrow(_reader(files, encoding), _COLUMNS)


def _reader(files: list[str], encoding: str) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the lines of the files whose numbers the batches hold: file_path, raw, place."""
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from _lines_of(files[number], encoding)

    return read


def _lines_of(file: str, encoding: str) -> Iterator[pa.RecordBatch]:
    opened: Callable[..., Any] = OPEN.get(Path(file).suffix, open)
    place, rest = 0, b""
    with opened(file, "rb") as stream:
        while block := stream.read(_BLOCK):
            end = block.rfind(b"\n") + 1
            if end:
                yield (lines := _as_batch(file, rest + block[:end], encoding, place))
                place, rest = place + lines.num_rows, b""
            rest += block[end:]
    if rest:
        yield _as_batch(file, rest, encoding, place)


def _as_batch(file: str, block: bytes, encoding: str, place: int) -> pa.RecordBatch:
    text = block.decode(encoding, "replace").removeprefix("\ufeff" if place == 0 else "")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = pc.list_flatten(pc.split_pattern(pa.array([text.removesuffix("\n")]), "\n"))
    count = len(lines)
    return pa.RecordBatch.from_arrays(
        [pa.repeat(file_uri(file), count), lines, pa.array(range(place, place + count))], ["file_path", "raw", "place"]
    )
