"""Maintenance: what anybody can read stays as it was, and nothing else stays."""

import datetime as dt
import os
import time
import uuid
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from nightshelf.errors import InputError
from nightshelf.paths import shelf_parts_dir, views_file
from pipelines.arrow_schema import arrow_schema
from pipelines.maintenance import maintain, told
from pipelines.publish import content_hash
from pipelines.rollback import rollback
from pipelines.sql import connect
from pipelines.warehouse import Warehouse

DAY, EVE = dt.date(2026, 2, 5), dt.date(2026, 2, 4)
NOW = dt.datetime.now(dt.UTC)


def rows(price):
    return [{"item_id": f"i{n}", "price": price} for n in range(3)]


@pytest.fixture
def used(night, publish):
    """Return a warehouse with history: partitions written again, ledgers with many files, a killed attempt's files."""
    for day in (EVE, DAY):
        for price in (1.0, 2.0, 3.0):
            publish(night, "items", rows(price), day)
    for n in range(12):
        night.warehouse.append("shelf_status", [{"as_of_date": EVE if n < 10 else DAY, "run_id": f"r{n}"}])
    killed = night.warehouse.new_run_dir("items", "killed") / "part.parquet"
    killed.write_bytes(b"x" * 1000)
    (killed.parent / "fresh.parquet").write_bytes(b"y")
    _age(night.shop.home, but="fresh.parquet")
    return night.warehouse


def _age(home, but=""):
    for file in home.rglob("*"):
        if file.is_file() and file.name != but:
            os.utime(file, (time.time() - 7200,) * 2)


def content(warehouse):
    names = ("items", "shelf_status", "events")
    return {name: sorted(map(repr, warehouse.read(name).to_pylist())) for name in names}


def data_files(warehouse, table):
    return sorted(str(file) for file in (warehouse.shop.home / "warehouse/data" / table).rglob("*") if file.is_file())


def test_what_nobody_can_read_goes_and_the_rest_stays(used):
    before = content(used)
    told_of = {kept.table: kept for kept in maintain(used.shop, NOW + dt.timedelta(days=31))}
    assert content(Warehouse(used.shop)) == before
    assert content(used) == before  # also to whoever had opened it before
    assert told_of["items"].states_left == 1
    fresh = [file for file in data_files(used, "items") if file.endswith("fresh.parquet")]
    assert data_files(used, "items") == sorted([*used.files("items"), *fresh])
    assert len(fresh) == 1
    assert told_of["items"].bytes_freed > 1000
    with duckdb.connect(str(views_file(used.shop)), read_only=True) as file:
        assert file.execute("SELECT count(*) FROM items").fetchall() == [(6,)]
    assert told_of["shelf_status"].merged == 1  # two files of the other partition are few
    assert len(used.files("shelf_status", [EVE])) == 1
    _age(used.shop.home)
    maintain(used.shop, NOW + dt.timedelta(days=31))
    assert data_files(used, "items") == used.files("items")
    assert content(used) == before


@pytest.mark.parametrize("way", ["link", "dots"])
def test_a_home_that_is_named_another_way_keeps_its_files(used, way, tmp_path):
    home = used.shop.home
    (tmp_path / "link").symlink_to(home)
    other = {"link": tmp_path / "link", "dots": home / ".." / home.name}[way]
    before, files = content(used), set(used.files("items"))
    maintain(used.shop.model_copy(update={"home": other}), NOW + dt.timedelta(days=31))
    assert files <= set(data_files(used, "items"))
    assert content(Warehouse(used.shop)) == before


def test_states_younger_than_the_shop_wants_stay_readable(used):
    snapshots = [snapshot.snapshot_id for snapshot in used.load("items").snapshots()]
    before = {n: connect(used, str(n)).sql("from items order by all").fetchall() for n in snapshots}
    assert len({str(state) for state in before.values()}) >= 6
    (kept,) = [kept for kept in maintain(used.shop, NOW + dt.timedelta(days=29)) if kept.table == "items"]
    assert (kept.states, kept.states_left) == (len(snapshots), len(snapshots))
    assert {n: connect(used, str(n)).sql("from items order by all").fetchall() for n in snapshots} == before


def test_a_dry_run_deletes_nothing_and_tells(used):
    before = data_files(used, "items"), used.snapshot_id("shelf_status")
    done = maintain(used.shop, NOW + dt.timedelta(days=31), dry_run=True)
    assert (data_files(used, "items"), used.snapshot_id("shelf_status")) == before
    text = told(done, dry_run=True)
    assert text.splitlines()[-1].endswith("would be deleted")
    (items,) = [kept for kept in done if kept.table == "items"]
    assert str(items) in text
    really = {kept.table: kept for kept in maintain(used.shop, NOW + dt.timedelta(days=31))}["items"]
    assert (items.files_deleted, items.bytes_freed, items.states_left) == (really.files_deleted, really.bytes_freed, 1)
    assert items.files_deleted > 1


def test_merging_does_not_hide_the_past(used):
    before = connect(used, str(EVE)).sql("select count(*) from shelf_status").fetchall()
    maintain(used.shop, NOW)
    assert connect(used, str(EVE)).sql("select count(*) from shelf_status").fetchall() == before == [(10,)]


def scatter(warehouse, table, rows, day, run_id):
    """Publish a partition of a file a row."""
    folder = warehouse.new_run_dir(table, uuid.uuid4().hex)
    (folder / f"_day={day}").mkdir()
    schema = arrow_schema(warehouse.specs[table])
    for n, row in enumerate(rows):
        part = pa.Table.from_pylist([{**row, "as_of_date": day}], schema)
        pa.parquet.write_table(part, folder / f"_day={day}" / f"part-{n:03}.parquet")
    warehouse.publish(table, folder, [day], {"run_id": run_id, "as_of_date": str(day)})


@pytest.mark.parametrize("table", ["user_sequences", "events", "training_examples"])
def test_a_partition_of_many_small_files_becomes_one_file_with_the_same_rows(night, good_rows, table):
    warehouse = night.warehouse
    (row,) = good_rows(night.shop, table)[:1]
    key = next(name for name in row if name in ("user_key", "event_id", "impression_id"))
    rows = [{**row, key: f"k{n:02}"} for n in range(40)]
    scatter(warehouse, table, rows, EVE, "eve")
    scatter(warehouse, table, rows[:32], DAY, "day")
    before, commits = warehouse.read(table).to_pylist(), len(warehouse.load(table).metadata.metadata_log)
    hashes = [content_hash(warehouse.files(table, [day])) for day in (EVE, DAY)]
    earlier = connect(warehouse, str(EVE)).sql(f"select count(*) from {table} where as_of_date = '{EVE}'").fetchall()
    (kept,) = [kept for kept in maintain(night.shop, NOW) if kept.table == table]
    assert kept.merged == 1
    assert [len(warehouse.files(table, [day])) for day in (EVE, DAY)] == [1, 32]
    assert len(warehouse.load(table).metadata.metadata_log) == commits + 1
    after = warehouse.read(table).to_pylist()
    assert sorted(map(repr, after)) == sorted(map(repr, before))
    assert [content_hash(warehouse.files(table, [day])) for day in (EVE, DAY)] == hashes
    in_file = pa.parquet.read_table(warehouse.files(table, [EVE])[0])
    assert in_file[key].to_pylist() == [row[key] for row in rows]  # in their order: exports read a shelf in one piece
    assert (
        connect(warehouse, str(EVE)).sql(f"select count(*) from {table} where as_of_date = '{EVE}'").fetchall()
        == earlier
    )


def test_large_files_are_left_however_many(night, monkeypatch):
    monkeypatch.setattr("pipelines.maintenance._SMALL_BYTES", 100)
    scatter(night.warehouse, "items", [{"item_id": f"i{n}"} for n in range(40)], DAY, "day")
    assert not any(kept.merged for kept in maintain(night.shop, NOW))


def test_a_rollback_to_merged_shelves_finds_those_of_items(night):
    warehouse, names = night.warehouse, ("recommendations", "item_recommendations")
    for day, run_id in ((EVE, "eve"), (DAY, "day")):
        for table in names:
            scatter(
                warehouse, table, [{"item_id": f"i{n}"} for n in range(33 if table == names[0] else 1)], day, run_id
            )
        maintain(night.shop, NOW)
    assert len(warehouse.files("recommendations")) == 2
    rollback(night.shop, str(EVE))
    assert [warehouse.partitions(table) for table in names] == [[EVE], [EVE]]


def test_tags_go_with_their_states_and_rollback_says_so(night, publish):
    for n in (1, 2):
        publish(night, "recommendations", [{"item_id": "i1", "rank": n}], (EVE, DAY)[n - 1])
        night.warehouse.tag("recommendations", f"night-{(EVE, DAY)[n - 1]}")
    assert set(night.warehouse.load("recommendations").metadata.refs) == {"main", f"night-{EVE}", f"night-{DAY}"}
    maintain(night.shop, NOW + dt.timedelta(days=31))
    assert set(night.warehouse.load("recommendations").metadata.refs) == {"main", f"night-{DAY}"}
    assert night.warehouse.partitions("recommendations") == [EVE, DAY]  # every night's rows stay
    with pytest.raises(InputError, match="no state is left"):
        rollback(night.shop, str(EVE))


def keeping(shop, **partition_days):
    """Return the shop as one that keeps partitions of these tables for so many days."""
    return shop.model_copy(update={"keep": shop.keep.model_copy(update={"partition_days": partition_days})})


def test_partitions_are_dropped_only_where_the_shop_says_so(night, publish):
    edge = DAY - dt.timedelta(days=20)
    for table in ("candidates", "items"):
        for day in (edge - dt.timedelta(days=1), edge, DAY):
            publish(night, table, [{"item_id": "i1"}], day)
    maintain(keeping(night.shop, candidates=20), NOW)
    assert night.warehouse.partitions("candidates") == [edge, DAY]
    assert len(night.warehouse.partitions("items")) == 3


@pytest.mark.parametrize("at", [NOW, NOW + dt.timedelta(days=4000)])
def test_what_is_served_stays_however_long_ago_its_night_was(night, publish, at):
    tables = ("recommendations", "item_recommendations", "candidates")
    long_ago, last = dt.date(2014, 3, 1), dt.date(2014, 4, 1)
    for table, newest in zip(tables, (last, last - dt.timedelta(days=1), DAY), strict=True):
        for day in (long_ago, newest):
            publish(night, table, [{"item_id": "i1"}], day)
    maintain(keeping(night.shop, **dict.fromkeys(tables, 14)), at)
    assert [night.warehouse.partitions(table) for table in tables] == [[last], [last - dt.timedelta(days=1)], [DAY]]


def test_the_shelves_of_a_shop_that_was_rolled_back_far_stay(night, publish):
    for table in ("recommendations", "candidates"):
        for day in (EVE, DAY, DAY + dt.timedelta(days=29)):
            publish(night, table, [{"item_id": "i1"}], day)
    rollback(night.shop, str(DAY))
    maintain(keeping(night.shop, recommendations=14, candidates=14), NOW)
    assert night.warehouse.partitions("recommendations") == [EVE, DAY]
    assert night.warehouse.partitions("candidates") == [DAY + dt.timedelta(days=29)]


def test_a_table_that_nights_read_back_cannot_be_dropped(tiny_shop):
    with pytest.raises(InputError, match="'events' is read by later nights"):
        tiny_shop(days=0, keep={"partition_days": {"events": 30}})


@pytest.fixture
def parts(night):
    """Return parts(day, age=7200): a folder with a finished part of that night's shelves, touched so many seconds ago."""

    def make(day, age=7200):
        folder = shelf_parts_dir(night.shop) / f"{day}-{uuid.uuid4().hex[:16]}"
        (folder / "00000").mkdir(parents=True)
        (folder / "00000" / "search.parquet").write_bytes(b"x" * 1000)
        for path in (*folder.rglob("*"), folder):
            os.utime(path, (time.time() - age,) * 2)
        return folder

    return make


def test_parts_of_nights_that_are_over_go_and_those_that_a_run_takes_over_stay(night, publish, parts):
    publish(night, "recommendations", [{"item_id": "i1"}], DAY)
    stay = [parts(DAY), parts(DAY + dt.timedelta(days=1)), parts(EVE, age=60)]
    begun = parts(EVE)
    (begun / ".00001-fresh").mkdir()  # somebody makes another part right now
    strange = shelf_parts_dir(night.shop) / "2026-02-01-notes"
    strange.mkdir()
    over = [parts(EVE), parts(dt.date(2025, 12, 31))]
    done = maintain(night.shop, NOW, dry_run=True)[-1]
    assert (done.table, done.files_deleted, done.bytes_freed) == ("shelf_parts", 2, 2000)
    assert all(folder.exists() for folder in over)
    done = maintain(night.shop, NOW)
    assert (done[-1].files, done[-1].files_deleted, done[-1].bytes_freed) == (4, 2, 2000)
    assert "shelf_parts: 2 of 4 files" in told(done, dry_run=False)
    assert sorted(shelf_parts_dir(night.shop).iterdir()) == sorted([*stay, begun, strange])


def test_without_a_published_night_all_parts_stay(night, parts):
    folder = parts(EVE)
    maintain(night.shop, NOW)
    assert folder.exists()


def test_an_empty_home_has_nothing_to_do(tiny_shop):
    shop = tiny_shop(days=0)
    assert told(maintain(shop, NOW), dry_run=False) == "in all: 0 files, 0.0 MB deleted"
    assert Path(shop.home / "warehouse").exists()
