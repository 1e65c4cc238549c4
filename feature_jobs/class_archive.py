"""The archive of Spark's classes: read and checked once, when the environment is made, and mapped at each start after it.

Spark starts in about half the time with it (application class-data sharing, JEP 310 and 350). A small job of the kinds that
nights are made of has Java meet their classes, and Java writes them down as it ends.

.venv/jobs/bin/python -m feature_jobs.class_archive
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from feature_jobs.java import check_java, class_archive, quiet_logs

_SECONDS = 120
_ROWS = [
    "concat('u', id % 7) u",
    "concat('i', id % 5) i",
    "cast(1770000000 + id as string) t",
    "cast(id / 3 as string) p",
]
_FIELDS = "u string, i string, t string, p string"
_EVENTS = """
    select e.*, named(u) key, timestamp_seconds(try_cast(t as double)) ts, xxhash64(u, t) id, p rlike '^[0-9]+' good
    from (select inline(array(from_json(value, '{0}'), from_csv(value, '{0}'))) from lines) e where length(u) > 0
"""
_COUNTS = """
    with days as (select u, i, d, count_if(good) n, max_by(i, ts) latest from events group by u, i, d),
    spread as (select u, n, explode(sequence(d, date_add(d, 3))) day from days),
    totals as (select u, day, cast(sum(n) as double) n from spread group by u, day),
    ranked as (select *, row_number() over (partition by u order by n desc) place from totals),
    acts as (select u, sort_array(collect_list(struct(ts, i))) acts from events group by u)
    select /*+ broadcast(a) */ r.*, slice(filter(acts, act -> act.i <> 'i1'), -1, 1).i recent, e.d
    from ranked r left join acts a using (u) full join (select distinct u, d from events) e using (u)
    where place < 5 and u in (select u from days where n > 0)
"""


def main() -> None:
    """Make the archive. Without it all works, more slowly, so that a failure is told and no more."""
    try:
        check_java()
        make_archive(class_archive())
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        sys.stderr.write(
            f"nightshelf: no archive of Spark's classes ({reason}); each start of Spark takes seconds more\n"
        )


def make_archive(file: Path) -> None:
    """Run the job in a Java of its own, wait until that has ended, and put its archive in place.

    Raises:
        OSError: Java wrote no archive.
        PySparkException, subprocess.TimeoutExpired: the job failed, or Java does not end.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as name:
        folder = Path(name)
        written = folder / file.name
        options = f"-XX:ArchiveClassesAtExit={written} -Xlog:cds*=off -Xlog:class*=off -XX:+UseParallelGC"
        settings: dict[str, bool | float | int | str | None] = {
            "spark.driver.extraJavaOptions": f"{options} -Dlog4j2.configurationFile={quiet_logs(folder)}",
            "spark.driver.host": "127.0.0.1",
            "spark.local.dir": str(folder),
            "spark.ui.enabled": False,
            "spark.ui.showConsoleProgress": False,
        }
        os.environ["PYSPARK_PYTHON"] = sys.executable
        spark = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
        _work(spark, folder)
        java: subprocess.Popen[bytes] = spark.sparkContext._gateway.proc  # type: ignore[union-attr]
        spark.stop()
        assert java.stdin is not None
        java.stdin.close()  # its sign to end
        java.wait(_SECONDS)
        written.replace(file)


def _work(spark: SparkSession, folder: Path) -> None:
    """Read and parse lines, hash in Python, write Parquet by day and read it; then join, count, rank and fold lists."""
    logs, table = [str(folder / kind) for kind in ("json", "csv")], str(folder / "events")
    rows = spark.range(100).selectExpr(*_ROWS)
    rows.write.json(logs[0])
    rows.write.csv(logs[1])
    spark.read.text(logs).createOrReplaceTempView("lines")
    spark.udf.register("named", F.arrow_udf(lambda texts: texts, "string"))  # type: ignore[call-overload]
    events = spark.sql(_EVENTS.format(_FIELDS)).withColumn("d", F.to_date(F.from_utc_timestamp("ts", "Asia/Shanghai")))
    sorted_by_day = events.repartition("d").sortWithinPartitions("d", "key").withColumn("_day", F.col("d"))
    sorted_by_day.write.partitionBy("_day").parquet(table)
    spark.read.schema(events.schema).parquet(table).persist().createOrReplaceTempView("events")
    spark.table("events").count()
    spark.sql(_COUNTS).write.mode("append").parquet(str(folder / "counts"))


if __name__ == "__main__":
    main()
