"""The only place where feature jobs read and write tables: Parquet files that the warehouse names and publishes."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, DoubleType, FloatType, StructField, TimestampType

from feature_jobs.parquet_files import ORDER, write_from_tasks
from feature_jobs.sail import is_embedded
from feature_jobs.schema import conformed, spark_schema
from nightshelf.table_spec import TableSpec

_MEASURED = (FloatType, DoubleType, TimestampType)
# No two rows have the same.
_DISTINCT = ("event_id", "impression_id", "row_id")
# The warehouse publishes the files below folder/_day=YYYY-MM-DD; as_of_date itself stays inside the files.
DAY_FOLDER = "_day"


def read_table(spark: SparkSession, spec: TableSpec, files: list[str]) -> DataFrame:
    """Return the rows of these files (no files: no rows) in the spec's schema."""
    schema = spark_schema(spec)
    if not files:
        return spark.createDataFrame([], schema)
    return spark.read.schema(schema).parquet(*(literal_path(file) for file in files))


def write_table(
    df: DataFrame, spec: TableSpec, folder: Path, sort_by: list[str], by_task: bool = False, split_by: str = ""
) -> None:
    """Write the rows below `folder/_day=<as_of_date>/`, conformed to the spec and sorted inside each file.

    The rows of a day come together, those of small days in one task; a day larger than Spark's advisory size of a
    partition (spark.sql.adaptive.advisoryPartitionSizeInBytes) is cut into files of about that size. With `by_task` df's
    own partitioning stays: each of its tasks writes one file a day. `split_by` names a column beyond the spec whose values
    part the rows into folders of their own: `folder/<split_by>=<value>/_day=…`.
    """
    split = [split_by] if split_by else []
    day = F.col("as_of_date").cast("string").alias(DAY_FOLDER)
    rows = df.select(*conformed(spec), day, *split)
    folders = [*split, DAY_FOLDER]
    if is_embedded():
        write_files(_sorted(rows, folders, sort_by), str(folder), folders)
        return
    if not by_task:
        rows = rows.hint("rebalance", F.col(DAY_FOLDER))
    write_files(rows.sortWithinPartitions(*folders, *sort_by), str(folder), folders)


def _sorted(rows: DataFrame, folders: list[str], sort_by: list[str]) -> DataFrame:
    """Bring the rows of a folder together, sorted, as Sail does for a window; a sort alone it drops before Python sees it."""
    if not sort_by:
        return rows
    return rows.withColumn(ORDER, F.row_number().over(Window.partitionBy(*folders).orderBy(*sort_by)))


def write_day(df: DataFrame, spec: TableSpec, folder: Path, day: dt.date, sort_by: list[str], most_files: int) -> None:
    """Write the rows of one day below `folder/_day=<day>/`, one sorted file a task: for one large partition."""
    rows = df.select(conformed(spec))
    # Sail waits for itself if it is to bring the parts of a union together, and has few tasks anyway
    if not is_embedded():
        rows = rows.coalesce(most_files).sortWithinPartitions(*sort_by)
    write_files(rows, f"{folder}/{DAY_FOLDER}={day}")


def keep(df: DataFrame) -> DataFrame:
    """Hold rows that are read again in memory, where their size is known: joins are planned by it. Sail keeps nothing."""
    if is_embedded():
        return df
    kept = df.persist()
    kept.count()
    return kept


def clear_cache(spark: SparkSession) -> None:
    """Forget what was persisted; Sail keeps nothing."""
    if not is_embedded():
        spark.catalog.clearCache()


def write_files(df: DataFrame, folder: str, split_by: Sequence[str] = ()) -> None:
    """Write the rows as they come, one file a task and value of `split_by`.

    Dictionaries are for words and ids that repeat. Those of the numbers took a third of the CPU time of writing wide rows.
    """
    plain = [_path(field) for field in df.schema if field.name in _DISTINCT or _is_measured(field.dataType)]
    if is_embedded():
        write_from_tasks(df, folder, list(split_by), plain)
        return
    options = {f"parquet.enable.dictionary#{path}": "false" for path in plain}
    df.write.options(**options).partitionBy(*split_by).mode("append").parquet(folder)


def _is_measured(kind: DataType) -> bool:
    return isinstance(kind.elementType if isinstance(kind, ArrayType) else kind, _MEASURED)


def _path(field: StructField) -> str:
    return f"{field.name}.list.element" if isinstance(field.dataType, ArrayType) else field.name


def file_uri(file: str) -> str:
    """Return the address of a local file as Spark tells it: percent-encoded."""
    return f"file://{quote(file)}"


def literal_path(file: str) -> str:
    """Return the path with the characters escaped that the engine would read as a glob."""
    if is_embedded():
        return file_uri(file)
    return "".join(f"\\{letter}" if letter in "*?[]{}" else letter for letter in file)
