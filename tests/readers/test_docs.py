"""The snippets of docs/queries.md as they stand, but for the shop's home."""

import datetime as dt
import re
import sqlite3
from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError

from nightshelf.paths import warehouse_dir

pytestmark = pytest.mark.readers
DOCS = (Path(__file__).parents[2] / "docs/queries.md").read_text()
NEWEST, DUCKDB, SPARK = re.findall(r"^```python\n(.+?)^```", DOCS, re.MULTILINE | re.DOTALL)
TABLE = "recommendations"
# Of a day, another, that again, and a third one
OPERATIONS = ["append", "append", "delete", "append", "append"]
EVE, DAY = dt.date(2026, 2, 13), dt.date(2026, 2, 14)


def run(warehouse, *snippets, **names):
    """Run snippets in a shop; return the names that they leave."""
    for snippet in snippets:
        exec(snippet.replace("/data/demo/warehouse", str(warehouse_dir(warehouse.shop))), names)
    return names


def test_duckdb(full, ours, rows_of, duckdb_with_iceberg):
    found = run(full, NEWEST, DUCKDB)

    def rows(name):
        return rows_of(found[name].to_arrow_table().to_pylist())

    days = full.partitions(TABLE)
    assert rows("shelves") == ours(full, TABLE, days[2:])
    assert rows("by_snapshot") == rows("by_moment") == ours(full, TABLE, days[:1])
    assert [state["operation"] for state in found["states"].to_arrow_table().to_pylist()] == OPERATIONS


def test_spark(full, ours, rows_of, spark_with_iceberg):
    found = run(full, NEWEST, SPARK, spark=spark_with_iceberg.newSession())

    def rows(name):
        return rows_of([row.asDict() for row in found[name].collect()])

    days = full.partitions(TABLE)
    assert rows("shelves") == ours(full, TABLE, days[2:])
    assert rows("by_tag") == ours(full, TABLE, days[:2])
    assert rows("by_snapshot") == rows("by_moment") == ours(full, TABLE, days[:1])
    assert rows("by_file") == ours(full, TABLE)
    found["tagged"] = spark_with_iceberg.read.option("tag", f"night-{EVE}").format("iceberg").load(found["newest"])
    assert rows("tagged") == ours(full, TABLE, days[:2])
    assert [state.operation for state in found["states"].collect()] == OPERATIONS


def test_a_session_of_spark_keeps_no_night_from_publishing_and_cannot_write(
    warehouse, publish, ours, rows_of, spark_with_iceberg
):
    publish(warehouse, TABLE, [{"item_id": "a"}], EVE, "one")
    warehouse.tag(TABLE, f"night-{EVE}")
    names = {"spark": spark_with_iceberg.newSession()}
    run(warehouse, NEWEST, SPARK, **names)
    catalog = sqlite3.connect(warehouse_dir(warehouse.shop) / "catalog.db", timeout=0, isolation_level=None)
    catalog.execute("BEGIN EXCLUSIVE")  # fails while anybody has a lock
    catalog.close()
    publish(warehouse, TABLE, [{"item_id": "b"}], DAY, "two")
    found = run(warehouse, NEWEST, SPARK, **names)
    assert rows_of([row.asDict() for row in found["shelves"].collect()]) == ours(warehouse, TABLE, [DAY])
    with pytest.raises(Py4JJavaError, match="readonly database"):
        found["spark"].sql(f"DELETE FROM nightshelf.nightshelf.{TABLE} WHERE as_of_date = DATE '{DAY}'")
    assert ours(warehouse, TABLE).total() == 2
