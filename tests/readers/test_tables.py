"""Every table as Spark with Iceberg's runtime and DuckDB's extension read it, row for row beside what the project reads."""

import datetime as dt
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from nightshelf.table_spec import ColumnType
from pipelines.warehouse import Warehouse

pytestmark = pytest.mark.readers
DAY = dt.date(2026, 2, 13)
MOMENT = dt.datetime(2026, 2, 13, 1, 2, 3, tzinfo=dt.UTC)
SINGLE = float(np.float32(0.1))


def test_every_table_and_type_with_nulls(full, reader, ours, metadata_of):
    tables = full.tables()
    assert tables == sorted(full.specs)
    assert {column.type for spec in full.specs.values() for column in spec.columns} == set(get_args(ColumnType))
    assert {ours(full, table).total() for table in tables} == {60}  # the first rows of the day published twice are gone
    assert [table for table in tables if reader.read(metadata_of(full, table)) != ours(full, table)] == []


def test_every_table_of_a_night(night, reader, ours, metadata_of):
    """Spark 4, DuckDB and PyArrow wrote their files; a second run and the maintenance replaced some."""
    tables = night.tables()
    filled = {table for table in tables if ours(night, table)}
    assert filled >= {"events", "training_examples", "recommendations", "item_recommendations", "stage_runs"}
    assert len(filled) > 30
    assert [table for table in tables if reader.read(metadata_of(night, table)) != ours(night, table)] == []


@pytest.mark.parametrize(
    ("table", "column", "before", "after"),
    [
        ("events", "event_ts", MOMENT, MOMENT + dt.timedelta(microseconds=1)),
        ("events", "price", 0.1, math.nextafter(0.1, 1)),
        ("events", "query", "", None),
        ("user_sequences", "age_days", [], None),
        ("user_sequences", "age_days", [SINGLE], [float(np.nextafter(np.float32(SINGLE), np.float32(1)))]),
        ("user_sequences", "user_key", "u1", "u2"),
    ],
)
def test_a_changed_value_is_a_difference(warehouse, publish, reader, ours, metadata_of, table, column, before, after):
    publish(warehouse, table, [{column: before}], DAY, "one")
    first, was = metadata_of(warehouse, table), ours(warehouse, table)
    publish(warehouse, table, [{column: after}], DAY, "two")
    assert reader.read(first) == was
    assert reader.read(first) != ours(warehouse, table) == reader.read(metadata_of(warehouse, table))
    publish(warehouse, table, [{column: before}] * 2, DAY, "three")
    assert reader.read(first) != ours(warehouse, table), "a row twice is not the row once"


def test_one_day_opens_no_file_of_another(warehouse, full, reader, ours, metadata_of):
    table = "training_examples"
    for day in full.partitions(table):
        warehouse.publish_arrow(table, full.read(table, [day]), [day], f"run-{day}")
    rows, metadata = ours(warehouse, table, [DAY]), metadata_of(warehouse, table)
    assert 0 < rows.total() < reader.read(metadata).total()
    for file in {*warehouse.files(table)} - {*warehouse.files(table, [DAY])}:
        Path(file).unlink()
    assert reader.read(metadata, day=DAY) == rows
    with pytest.raises(Exception, match=r"(?i)no such file|does not exist|cannot open"):
        reader.read(metadata)


def test_a_table_without_rows_and_one_that_gained_a_column(warehouse, publish, reader, ours, metadata_of):
    publish(warehouse, "quarantine", [], DAY, "none")
    assert reader.read(metadata_of(warehouse, "quarantine")) == ours(warehouse, "quarantine")
    publish(warehouse, "quarantine", [{"source": "a"}], DAY, "one")
    publish(warehouse, "quarantine", [], DAY, "none again")
    assert not reader.read(metadata_of(warehouse, "quarantine"))
    shop = warehouse.shop
    narrow = shop.model_copy(update={"tasks": {name: task for name, task in shop.tasks.items() if name != "spend"}})
    publish(Warehouse(narrow), "recommendations", [{"p_click": 0.5}], DAY - dt.timedelta(days=1), "narrow")
    publish(warehouse, "recommendations", [{"p_spend": 0.5}], DAY, "wide")
    rows = reader.read(metadata_of(warehouse, "recommendations"))
    assert rows == ours(warehouse, "recommendations")
    assert sorted("'p_spend': None" in row for row in rows) == [False, True]
