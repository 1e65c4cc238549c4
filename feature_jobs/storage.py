"""The only place where feature jobs read and write tables: Parquet files that the warehouse names and publishes."""

import datetime as dt
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_jobs.schema import conformed, spark_schema
from nightshelf.table_spec import TableSpec

# The warehouse publishes the files below folder/_day=YYYY-MM-DD; as_of_date itself stays inside the files.
DAY_FOLDER = "_day"


def read_table(spark: SparkSession, spec: TableSpec, files: list[str]) -> DataFrame:
    """Return the rows of these files (no files: no rows) in the spec's schema."""
    schema = spark_schema(spec)
    if not files:
        return spark.createDataFrame([], schema)
    return spark.read.schema(schema).parquet(*(literal_path(file) for file in files))


def write_table(
    df: DataFrame, spec: TableSpec, folder: Path, sort_by: list[str], files_per_day: int | None = 1, split_by: str = ""
) -> None:
    """Write the rows below `folder/_day=<as_of_date>/`, conformed to the spec and sorted inside each file.

    With `files_per_day`, each day becomes at most that many files (rows with equal first sort column stay together);
    None keeps df's own partitioning: each of its tasks writes one file a day. `split_by` names a column beyond the spec
    whose values part the rows into folders of their own: `folder/<split_by>=<value>/_day=…`.
    """
    split = [split_by] if split_by else []
    day = F.col("as_of_date").cast("string").alias(DAY_FOLDER)
    rows = df.select(*conformed(spec), day, *split)
    if files_per_day is not None:
        part = F.pmod(F.xxhash64(sort_by[0]), F.lit(files_per_day)) if files_per_day > 1 else F.lit(0)
        rows = rows.repartition(F.col(DAY_FOLDER), part)
    folders = [*split, DAY_FOLDER]
    rows.sortWithinPartitions(*folders, *sort_by).write.partitionBy(*folders).mode("append").parquet(str(folder))


def write_day(df: DataFrame, spec: TableSpec, folder: Path, day: dt.date) -> None:
    """Write the rows of one day below `folder/_day=<day>/` as they come, one file a task: for one large partition."""
    df.select(conformed(spec)).write.mode("append").parquet(f"{folder}/{DAY_FOLDER}={day}")


def literal_path(file: str) -> str:
    """Return the path with the characters escaped that Spark would read as a glob."""
    return "".join(f"\\{letter}" if letter in "*?[]{}" else letter for letter in file)
