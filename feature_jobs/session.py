"""The only place that makes a Spark session. The jobs themselves use DataFrames alone, so that any Spark can run them."""

import os
import sys

from pyspark.sql import SparkSession

from feature_jobs.java import WIDE_ROWS, check_java, driver_options
from feature_jobs.sail import start_sail
from nightshelf.config import Shop
from nightshelf.errors import EngineError
from nightshelf.paths import scratch_dir

# What a running server can still be told, as the jobs need it.
_OF_SESSION = {
    "spark.sql.autoBroadcastJoinThreshold": "64m",  # a night's snapshots: no shuffle of the impressions to meet them
    "spark.sql.sources.fileCompressionFactor": "10",  # or a table of 30 MB in Parquet, 1.5 million rows, passes for small
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",  # ids alone go to Python, each hashed once a batch
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # PyIceberg refuses INT96, the default
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.legacy.parquet.nanosAsLong": "true",  # else a raw log with nanoseconds cannot be read
    "spark.sql.legacy.javaCharsets": "true",  # raw logs in GBK and the like
    "spark.sql.legacy.codingErrorAction": "true",  # a bad byte becomes U+FFFD; it does not end the night
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",  # one day is one path: list them in the driver
}


def spark_session(shop: Shop) -> SparkSession:
    """Return the process's Spark session, starting it at the first call (later calls share it).

    Scratch files go below the shop's home. A local master, and Sail, listen on loopback only.

    Raises:
        InputError: there is no Java, or it is older than 17; or the shop asks of Sail what it does not have.
        EngineError: the session could not be started.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    if shop.spark.engine == "sail":
        return _connected(shop, start_sail(shop), "is the shop's home writable?")
    if shop.spark.remote:
        return _connected(shop, shop.spark.remote, "is the address right, and the server up?")
    check_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable  # or UDFs start another interpreter
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(shop.spark.master).appName(f"nightshelf {shop.shop}")
    for key, value in _settings(shop).items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except Exception as error:
        raise _not_started(shop.spark.master, error, "is the master right and reachable?") from error


def _connected(shop: Shop, remote: str, question: str) -> SparkSession:
    try:
        session = SparkSession.builder.remote(remote).getOrCreate()
        for key, value in {**_OF_SESSION, "spark.sql.shuffle.partitions": str(shop.spark.shuffle_partitions)}.items():
            session.conf.set(key, value)
    except Exception as error:
        raise _not_started(remote.split("/;")[0], error, question) from error  # what follows /; may be a token
    return session


def _not_started(place: str, error: Exception, question: str) -> EngineError:
    reason = str(error).strip().splitlines()[0]
    return EngineError(f"Spark at {place} did not start ({reason}); {question}")


def _settings(shop: Shop) -> dict[str, str]:
    scratch = scratch_dir(shop) / "spark"
    scratch.mkdir(parents=True, exist_ok=True)
    settings = {
        **_OF_SESSION,
        "spark.driver.memory": shop.spark.driver_memory,
        "spark.driver.extraJavaOptions": driver_options(scratch),
        "spark.executor.extraJavaOptions": WIDE_ROWS,
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.shuffle.partitions": str(shop.spark.shuffle_partitions),
        "spark.hadoop.parquet.compression.codec.zstd.level": "1",  # as small as level 3 on these tables, a sixth less time
        "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if shop.spark.master.startswith("local"):
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    return settings
