"""The only place that makes a Spark session. The jobs themselves use DataFrames alone, so that any Spark can run them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from nightshelf.config import Shop
from nightshelf.errors import EngineError, InputError

MIN_JAVA = 17
# Spark writes one method for a table's whole row; beyond 8,000 bytes Java would interpret it, four times as slow.
_WIDE_ROWS = "-XX:-DontCompileHugeMethods"


def spark_session(shop: Shop) -> SparkSession:
    """Return the process's Spark session, starting it at the first call (later calls share it).

    Scratch files go below the shop's home. A local master listens on loopback only.

    Raises:
        InputError: there is no Java, or it is older than 17.
        EngineError: the session could not be started.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    _check_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable  # or UDFs start another interpreter
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(shop.spark.master).appName(f"nightshelf {shop.shop}")
    for key, value in _settings(shop).items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise EngineError(
            f"Spark at {shop.spark.master} did not start ({reason}); is the master right and reachable?"
        ) from error


def _settings(shop: Shop) -> dict[str, str]:
    scratch = shop.home / "tmp" / "spark"
    scratch.mkdir(parents=True, exist_ok=True)
    settings = {
        "spark.driver.memory": shop.spark.driver_memory,
        "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={scratch} -XX:+UseParallelGC {_WIDE_ROWS} {_quiet_logs(scratch)}",
        "spark.executor.extraJavaOptions": _WIDE_ROWS,
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.shuffle.partitions": str(shop.spark.shuffle_partitions),
        "spark.sql.autoBroadcastJoinThreshold": "64m",  # a night's snapshots: no shuffle of the impressions to meet them
        "spark.sql.sources.fileCompressionFactor": "10",  # or a table of 30 MB in Parquet, 1.5 million rows, passes for small
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # PyIceberg refuses INT96, the default
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.hadoop.parquet.compression.codec.zstd.level": "1",  # as small as level 3 on these tables, a sixth less time
        "spark.sql.legacy.parquet.nanosAsLong": "true",  # else a raw log with nanoseconds cannot be read
        "spark.sql.legacy.javaCharsets": "true",  # raw logs in GBK and the like
        "spark.sql.legacy.codingErrorAction": "true",  # a bad byte becomes U+FFFD; it does not end the night
        "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",  # one day is one path: list them in the driver
        "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if shop.spark.master.startswith("local"):
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    return settings


def _quiet_logs(folder: Path) -> str:
    """Write a log4j2 file that lets errors through only, and return the JVM option that names it."""
    file = folder / "log4j2.properties"
    file.write_text(
        "rootLogger.level = error\nrootLogger.appenderRef.stderr.ref = stderr\n"
        # Spark tells of its own level for the Python gateway unless that is the root's
        "logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer\nlogger.gateway.level = error\n"
        "appender.stderr.type = Console\nappender.stderr.name = stderr\nappender.stderr.target = SYSTEM_ERR\n"
        "appender.stderr.layout.type = PatternLayout\nappender.stderr.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex\n"
    )
    return f"-Dlog4j2.configurationFile={file}"


def java_version() -> int | None:
    """Return the major version of the Java that Spark would start, or None if there is none."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        return None
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(\d+)', told)
    return int(match[1]) if match else None


def _check_java() -> None:
    version = java_version()
    if version is None:
        raise InputError(
            f"no Java found for Spark; install Java {MIN_JAVA} or later (Debian: default-jre-headless) or set JAVA_HOME to one"
        )
    if version < MIN_JAVA:
        raise InputError(
            f"Java {version} is too old for Spark; install Java {MIN_JAVA} or later, or set JAVA_HOME to one"
        )
