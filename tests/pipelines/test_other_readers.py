"""The warehouse's tables as other clients of Iceberg open them: nothing of nightshelf reads here."""

import datetime as dt
import json
import subprocess
import sys

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from nightshelf.paths import warehouse_dir

DAY = dt.date(2026, 2, 14)
EVE = dt.date(2026, 2, 13)
# Sail is an engine of its own, with its own reader of Iceberg; clients ask it as they ask Spark.
READER = """
import json, sys
from pyspark.sql import SparkSession
from pysail.spark import SparkConnectServer
server = SparkConnectServer()
server.start()
spark = SparkSession.builder.remote(f"sc://localhost:{server.listening_address[1]}").getOrCreate()
rows = spark.read.format("iceberg").load(sys.argv[1]).orderBy("as_of_date", "source").collect()
print(json.dumps([[str(row.as_of_date), row.source, row.rows_read] for row in rows]))
"""


def counts(day, *sources, rows):
    n = len(sources)
    zeros = {name: [0] * n for name in ("taken_back", "quarantined", "expected", "duplicates", "other_days")}
    return pa.table(
        {"as_of_date": [day] * n, "source": list(sources), "rows_read": [rows] * n, "kept": [rows] * n, **zeros}
    )


def test_spark_api_and_pyiceberg_see_what_is_published_and_nothing_else(night):
    shop, warehouse = night.shop, night.warehouse
    warehouse.publish_arrow("source_counts", counts(EVE, "a", rows=1), [EVE], "one")
    warehouse.publish_arrow("source_counts", counts(DAY, "a", "b", rows=2), [DAY], "two")
    warehouse.publish_arrow("source_counts", counts(DAY, "c", rows=3), [DAY], "three")  # in the place of the one before
    root = warehouse_dir(shop)
    catalog = SqlCatalog("nightshelf", uri=f"sqlite:///{root}/catalog.db", warehouse=f"file://{root}/iceberg")
    table = catalog.load_table("nightshelf.source_counts")
    rows = table.scan().to_arrow().sort_by([("as_of_date", "ascending"), ("source", "ascending")])
    asked = ("as_of_date", "source", "rows_read")
    seen = [[str(row["as_of_date"]), row["source"], row["rows_read"]] for row in rows.select(asked).to_pylist()]
    assert seen == [["2026-02-13", "a", 1], ["2026-02-14", "c", 3]]
    command = [sys.executable, "-c", READER, table.location().removeprefix("file://")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == seen
