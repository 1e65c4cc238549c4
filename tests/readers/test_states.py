"""What a table held before: by snapshot, moment and metadata file, over replaced days, a rollback and a refused publish."""

import datetime as dt
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Event

import pytest

from nightshelf.paths import warehouse_dir
from pipelines.warehouse import Warehouse

pytestmark = pytest.mark.readers
EVE, DAY = dt.date(2026, 2, 13), dt.date(2026, 2, 14)
TABLE = "source_counts"


def test_each_past_state_is_found(warehouse, publish, reader, ours, metadata_of):
    told = []

    def mark():
        time.sleep(0.01)  # the moment lies behind this commit and before the next one
        state = metadata_of(warehouse, TABLE), warehouse.snapshot_id(TABLE)
        told.append((*state, int(time.time() * 1000), ours(warehouse, TABLE)))
        time.sleep(0.01)

    for run, day, source in (("one", EVE, "a"), ("two", DAY, "b"), ("three", DAY, "c")):
        publish(warehouse, TABLE, [{"source": source}, {"source": "z"}], day, run)
        mark()
    warehouse.restore(TABLE, told[1][1])  # as a rollback does
    mark()
    publish(warehouse, TABLE, [{"source": "refused"}], DAY, "four")  # as `publish` takes back what its audit refused
    warehouse.restore(TABLE, told[1][1])
    warehouse.forget(TABLE, warehouse.states_of(TABLE, "four"))
    mark()
    publish(warehouse, TABLE, [], EVE, "five")
    mark()
    newest = metadata_of(warehouse, TABLE)
    assert len({frozenset(rows) for *_, rows in told}) == 4
    for metadata, snapshot, at_ms, rows in told:
        assert reader.read(metadata) == rows
        assert reader.read(newest, snapshot=snapshot) == rows
        assert reader.read(newest, at_ms=at_ms) == rows


def test_who_reads_meanwhile_sees_whole_versions_and_keeps_the_one_that_was_opened(warehouse, publish, reader, ours):
    versions, seen, done = [], [], Event()

    def publish_version(own):
        rows = [{"source": source, "rows_read": len(versions)} for source in "abc"]
        publish(own, TABLE, rows, DAY, f"run-{len(versions)}")
        versions.append(ours(own, TABLE))

    def publish_on():
        own = Warehouse(warehouse.shop)
        while not done.is_set():
            publish_version(own)

    publish_version(warehouse)
    first = newest(warehouse)
    with ThreadPoolExecutor() as pool:
        publishing = pool.submit(publish_on)
        try:
            while sum(one != other for one, other in pairwise(seen)) < 5 and not publishing.done():
                seen.append(reader.read(newest(warehouse)))
                assert reader.read(first) == versions[0]
        finally:
            done.set()
    publishing.result()
    places = [versions.index(rows) for rows in seen]
    assert places == sorted(places)
    assert places[-1] >= 5


def newest(warehouse):
    """Return the newest metadata file as the docs find it."""
    catalog = sqlite3.connect(f"file:{warehouse_dir(warehouse.shop)}/catalog.db?mode=ro", uri=True)
    [found] = catalog.execute("SELECT metadata_location FROM iceberg_tables WHERE table_name = ?", [TABLE]).fetchone()
    catalog.close()
    return found
