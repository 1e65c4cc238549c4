"""Parquet files of a log → rows in the file's own types, beside the row as JSON."""

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import DataType, LongType, StringType, StructField, StructType

from feature_jobs.json_text import json_row, quoted
from feature_jobs.sail import is_embedded
from feature_jobs.storage import file_uri, literal_path

# What Spark makes of types that it does not have itself
_SIGNED = {
    pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20),
    pa.string_view(): pa.string(), pa.binary_view(): pa.binary(),
}  # fmt: skip


def read_parquet_rows(spark: SparkSession, files: list[str], columns: dict[str, str], schema: pa.Schema) -> DataFrame:
    """Return the rows of files that have the wanted columns in these types (our name → the file's; its Arrow schema).

    Times with nanoseconds become timestamps, dictionaries their values; a time without a zone keeps to have none.
    """
    names = list(dict.fromkeys(columns.values()))
    if is_embedded():
        rows = _read_in_python(spark, files, pa.schema([schema.field(name) for name in names]))
    else:
        rows = spark.read.parquet(*(literal_path(file) for file in files))
        rows = rows.select(
            F.col("_metadata.file_path").alias("_file_path"),
            F.monotonically_increasing_id().alias("_place"),
            *(_native(name, schema.field(name).type, rows.schema[name].dataType).alias(name) for name in names),
        )
    return rows.select(
        F.col("_file_path").alias("file_path"),
        F.col("_place").alias("place"),
        json_row([rows.schema[name] for name in names]).alias("raw"),
        F.lit(True).alias("is_parsable"),
        *(quoted(theirs).alias(ours) for ours, theirs in columns.items()),
    )


def _native(name: str, kind: pa.DataType, read_as: DataType) -> Column:
    column = quoted(name)
    if pa.types.is_timestamp(kind) and isinstance(read_as, LongType):  # the session's way with nanoseconds since 1970
        whole = column - F.pmod(column, F.lit(1000))  # a quotient of doubles is a microsecond off now and then
        moment = F.timestamp_micros(F.call_function("div", whole, F.lit(1000)))
        return moment if kind.tz else moment.cast("timestamp_ntz")
    if pa.types.is_dictionary(kind):
        return column.cast("string")
    return column


def _read_in_python(spark: SparkSession, files: list[str], schema: pa.Schema) -> DataFrame:
    """Read the files where the engine tells no row's file, and knows no nanoseconds."""
    plain = pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])
    fields = [StructField("_file_path", StringType()), StructField("_place", LongType())]
    told = StructType([*fields, *from_arrow_schema(plain, prefer_timestamp_ntz=True).fields])
    return spark.range(0, len(files), 1, len(files)).mapInArrow(_reader(files, plain), told)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz and "UTC")
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    return _SIGNED.get(kind, kind)


def _reader(files: list[str], schema: pa.Schema) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the files whose numbers the batches hold: _file_path, _place and the schema's columns."""
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from _rows_of(files[number], schema)

    return read


def _rows_of(file: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    place = 0
    for batch in pq.ParquetFile(file).iter_batches(columns=schema.names):
        columns = [pa.repeat(file_uri(file), batch.num_rows), pa.array(range(place, place + batch.num_rows))]
        columns += [_as(batch.column(field.name), field.type) for field in schema]
        yield pa.RecordBatch.from_arrays(columns, ["_file_path", "_place", *schema.names])
        place += batch.num_rows


def _as(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind) and values.type.unit == "ns":
        values = pc.floor_temporal(values, unit="microsecond")
    return values.cast(kind)
