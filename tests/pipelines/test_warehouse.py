import datetime as dt
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pyarrow as pa
import pytest

from nightshelf.config import Shop, load_shop
from nightshelf.errors import EngineError, InputError
from pipelines.sql import connect, print_query
from pipelines.warehouse import Warehouse, write_days

DEMO = Path(__file__).resolve().parents[2] / "conf/shops/demo.yaml"
DAY = dt.date(2026, 2, 14)
EVE = dt.date(2026, 2, 13)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("NIGHTSHELF_HOME", str(tmp_path / "it's home"))
    return load_shop(DEMO)


def counts(day: dt.date, *sources: str, rows: int = 1) -> pa.Table:
    n = len(sources)
    zeros = {name: [0] * n for name in ("taken_back", "quarantined", "expected", "duplicates", "other_days")}
    return pa.table(
        {"as_of_date": [day] * n, "source": list(sources), "rows_read": [rows] * n, "kept": [rows] * n, **zeros}
    )


def edges(day: dt.date) -> pa.Table:
    edge = {"as_of_date": [day], "head": ["i1"], "relation": ["click"], "tail": ["i2"], "weight": [0.5], "lift": [2.0]}
    return pa.table(edge)


def test_a_partition_is_replaced_and_its_neighbour_stays(shop: Shop) -> None:
    warehouse = Warehouse(shop)
    both = pa.concat_tables([counts(EVE, "a"), counts(DAY, "a", "b")])
    assert warehouse.publish_arrow("source_counts", both, [EVE, DAY], "one") == 3
    assert warehouse.publish_arrow("source_counts", counts(DAY, "c", rows=5), [DAY], "two") == 1
    assert warehouse.read("source_counts", [DAY])["source"].to_pylist() == ["c"]
    assert warehouse.read("source_counts", [EVE])["source"].to_pylist() == ["a"]
    assert warehouse.partitions("source_counts") == [EVE, DAY]


def test_a_home_is_one_shops_whoever_copied_its_shop_file(shop: Shop) -> None:
    """A copied shop file, or $NIGHTSHELF_HOME, leads two into one home, where each would replace the other's days."""
    Warehouse(shop).publish_arrow("source_counts", counts(DAY, "a"), [DAY], "one")
    with pytest.raises(
        InputError, match=r"it's home holds the tables of shop 'demo', and the shop file says 'mine'; .*home"
    ):
        Warehouse(shop.model_copy(update={"shop": "mine"}))
    assert Warehouse(shop).partitions("source_counts") == [DAY]


def test_a_home_that_was_copied_or_moved_is_not_taken_for_the_one_that_its_tables_lie_in(shop: Shop) -> None:
    """A copy would write into the home that it was made from; a home behind a link is the same one."""
    Warehouse(shop).publish_arrow("source_counts", counts(DAY, "a"), [DAY], "one")
    copied, linked = shop.home.with_name("copied"), shop.home.with_name("linked")
    shutil.copytree(shop.home, copied)
    linked.symlink_to(shop.home)
    warehouse = Warehouse(shop.model_copy(update={"home": copied}))
    for attempt in (
        lambda: warehouse.read("source_counts"),
        lambda: warehouse.publish_arrow("source_counts", counts(DAY, "b"), [DAY], "two"),
    ):
        with pytest.raises(EngineError, match=r"this home was copied or moved.*move it back, or begin another home"):
            attempt()
    behind = Warehouse(shop.model_copy(update={"home": linked}))
    behind.publish_arrow("source_counts", counts(EVE, "c"), [EVE], "three")
    assert Warehouse(shop).read("source_counts")["source"].sort().to_pylist() == ["a", "c"]
    shop.home.rename(shop.home.with_name("moved"))
    moved = Warehouse(shop.model_copy(update={"home": shop.home.with_name("moved")}))
    with pytest.raises(EngineError, match="source_counts are not here"):
        moved.read("source_counts")


def test_an_empty_partition_really_becomes_empty(shop: Shop) -> None:
    warehouse = Warehouse(shop)
    warehouse.publish_arrow("source_counts", counts(DAY, "a"), [DAY], "one")
    warehouse.publish_arrow("source_counts", counts(DAY), [DAY], "two")
    assert warehouse.read("source_counts").num_rows == 0


def test_partitions_are_asked_for_without_a_text_that_must_be_parsed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyIceberg's parser fails now and then when two threads need it first, as those do that write two tables at a time."""
    monkeypatch.setattr("pyiceberg.expressions.parser.parse", lambda text: pytest.fail(f"parsed {text}"))
    warehouse = Warehouse(shop)
    for _ in range(2):
        warehouse.publish_arrow(
            "source_counts", pa.concat_tables([counts(EVE, "a"), counts(DAY, "b")]), [EVE, DAY], "r"
        )
    assert warehouse.read("source_counts", [DAY])["source"].to_pylist() == ["b"]
    assert len(warehouse.files("source_counts", [EVE, DAY])) == 2
    assert warehouse.files("source_counts", []) == []
    assert set(warehouse.statistics("source_counts", [EVE])) == {EVE}


def test_rows_and_nulls_of_a_partition_are_those_of_all_its_files(shop: Shop) -> None:
    warehouse = Warehouse(shop)
    folder = warehouse.new_run_dir("source_counts", "two files")
    (folder / f"_day={DAY}").mkdir()
    for n, rows in enumerate((counts(DAY, "a", "b"), counts(DAY, "c"))):
        rows = rows.set_column(rows.schema.get_field_index("kept"), "kept", pa.nulls(rows.num_rows, pa.int64()))
        pa.parquet.write_table(rows, folder / f"_day={DAY}" / f"part-{n}.parquet")
    warehouse.publish("source_counts", folder, [DAY], {})
    warehouse.publish_arrow("source_counts", counts(EVE, "a"), [EVE], "eve")
    found = warehouse.statistics("source_counts", [EVE, DAY])
    assert {day: (rows, nulls["kept"], nulls["source"]) for day, (rows, nulls) in found.items()} == {
        DAY: (3, 3, 0),
        EVE: (1, 0, 0),
    }
    assert list(warehouse.statistics("source_counts", [EVE])) == [EVE]


def test_files_that_were_never_published_are_not_seen(shop: Shop) -> None:
    warehouse = Warehouse(shop)
    warehouse.publish_arrow("source_counts", counts(DAY, "a"), [DAY], "one")
    folder = warehouse.new_run_dir("source_counts", "killed") / f"_day={DAY}"
    folder.mkdir()
    pa.parquet.write_table(counts(DAY, "ghost"), folder / "part-0.parquet")
    assert warehouse.read("source_counts")["source"].to_pylist() == ["a"]


@pytest.mark.parametrize("is_new", [True, False])
def test_commits_that_belong_together_are_seen_together_or_not_at_all(shop: Shop, is_new: bool) -> None:
    warehouse, reader = Warehouse(shop), Warehouse(shop)
    tables = ("source_counts", "item_graph")
    if not is_new:
        for table in tables:
            warehouse.publish_arrow(table, counts(EVE, "a") if table == tables[0] else edges(EVE), [EVE], "one")

    def seen(by: Warehouse) -> list[list[dt.date]]:
        return [by.partitions(table) for table in tables]

    before = seen(reader)
    with pytest.raises(OSError, match="the disk is full"), warehouse.together():
        warehouse.publish_arrow(tables[0], counts(DAY, "a"), [DAY], "two")
        warehouse.tag(tables[0], "two")
        raise OSError("the disk is full")
    assert seen(warehouse) == seen(reader) == before
    with warehouse.together():
        warehouse.publish_arrow(tables[0], counts(DAY, "a"), [DAY], "three")
        warehouse.publish_arrow(tables[1], edges(DAY), [DAY], "three")
        warehouse.tag(tables[0], "three")
        assert seen(reader) == before  # and no reader waits
        assert seen(warehouse) == [[*days, DAY] for days in before]
    assert seen(warehouse) == seen(reader) == [[*days, DAY] for days in before]
    found = reader.load(tables[0])
    assert found is not None and set(found.metadata.refs) == {"main", "three"}


def test_a_kill_among_commits_that_belong_together_leaves_what_was_there(shop: Shop) -> None:
    Warehouse(shop).publish_arrow("source_counts", counts(EVE, "a"), [EVE], "one")
    doomed = multiprocessing.get_context("spawn").Process(target=_publish_and_die, args=(shop.home,))
    doomed.start()
    doomed.join()
    assert doomed.exitcode == -signal.SIGKILL
    warehouse = Warehouse(shop)
    assert warehouse.partitions("source_counts") == [EVE]
    warehouse.publish_arrow("source_counts", counts(DAY, "b"), [DAY], "two")  # nothing is locked
    assert warehouse.partitions("source_counts") == [EVE, DAY]


def _publish_and_die(home: Path) -> None:
    warehouse = Warehouse(load_shop(DEMO).model_copy(update={"home": home}))
    with warehouse.together():
        warehouse.publish_arrow("source_counts", counts(DAY, "a"), [DAY], "two")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_new_column_of_the_shop_file_widens_the_table(shop: Shop) -> None:
    narrow = shop.model_copy(update={"tasks": {name: task for name, task in shop.tasks.items() if name != "spend"}})
    row = {
        "as_of_date": DAY,
        "scenario": "search",
        "user_key": "u",
        "rank": 1,
        "item_id": "i",
        "source": "popular",
        "reason": "r",
        "rank_by_score": 1,
        "placed_by": "score",
        "model_version": "1",
        "run_id": "x",
    }
    for owner, day in ((narrow, EVE), (shop, DAY)):
        warehouse = Warehouse(owner)
        names = warehouse.specs["recommendations"].column_names
        full = {name: [row.get(name, 0.5)] for name in names} | {"as_of_date": [day]}
        warehouse.publish_arrow("recommendations", pa.table(full), [day], f"run-{day}")
    assert connect(Warehouse(shop)).execute("SELECT p_spend FROM recommendations ORDER BY as_of_date").fetchall() == [
        (None,),
        (0.5,),
    ]


def test_sql_travels_in_time_by_snapshot_and_by_date(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    warehouse = Warehouse(shop)
    warehouse.publish_arrow("source_counts", counts(EVE, "a"), [EVE], "one")
    first = warehouse.snapshot_id("source_counts")
    warehouse.publish_arrow("source_counts", counts(DAY, "b"), [DAY], "two")
    for as_of in (str(first), str(EVE)):
        print_query(shop, "SELECT source FROM source_counts", "csv", as_of)
        assert capsys.readouterr().out == "source\na\n"
    with pytest.raises(InputError, match="neither a snapshot id nor"):
        connect(warehouse, "1999-01-01")


def test_a_look_at_a_night_shows_no_later_one_when_it_was_published_again(shop: Shop) -> None:
    warehouse = Warehouse(shop)
    for n, day in enumerate((5, 6, 7, 5)):
        date = dt.date(2026, 2, day)
        warehouse.publish_arrow("source_counts", counts(date, "a", rows=n), [date], f"run-{n}")
        if day != 6:  # a table of which that night wrote nothing
            warehouse.append("shelf_status", [{"as_of_date": date, "run_id": f"run-{n}"}])

    def shown(day: int) -> list[tuple[int, int]]:
        asked = connect(warehouse, f"2026-02-0{day}")
        assert asked.execute(f"SELECT count(*) FROM shelf_status WHERE day(as_of_date) > {day}").fetchall() == [(0,)]
        return asked.execute("SELECT day(as_of_date), rows_read FROM source_counts ORDER BY 1").fetchall()

    assert shown(5) == [(5, 3)]
    assert shown(6) == [(5, 3), (6, 1)]
    assert shown(7) == [(5, 3), (6, 1), (7, 2)]
    with pytest.raises(InputError, match="neither a snapshot id nor"):
        connect(warehouse, "yesterday")


def test_sql_reads_and_does_nothing_else(shop: Shop, tmp_path: Path) -> None:
    warehouse = Warehouse(shop)
    warehouse.publish_arrow("source_counts", counts(DAY, "a"), [DAY], "one")
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for query in (
        f"SELECT * FROM read_csv('{tmp_path}/secret.csv')",
        "SET enable_external_access = true",
        "SELECT nothing FROM source_counts",
        "SELEC 1",
    ):
        with pytest.raises(InputError, match="the query failed"):
            print_query(shop, query, "table", "")
    within = str(shop.home / "warehouse").replace("'", "''")
    files = {file: file.read_bytes() for file in shop.home.rglob("*") if file.is_file()}
    data = warehouse.files("source_counts")[0].replace("'", "''")
    for query in (
        f"COPY source_counts TO '{tmp_path}/out.csv'",
        f"COPY (SELECT 1 AS a) TO '{data}' (FORMAT parquet)",
        f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{within}/out.csv'",
        f"explain (analyze) copy (select 1) to '{within}/out.csv'",
        f"PREPARE p AS COPY (SELECT 1) TO '{within}/out.csv'",
        f"SELECT 1; ATTACH '{within}/new.duckdb' AS new",
        f"EXPORT DATABASE '{within}/all'",
        "DELETE FROM source_counts",
        "CREATE TABLE mine AS FROM source_counts",
    ):
        with pytest.raises(InputError, match="does more than read"):
            print_query(shop, query, "table", "")
    assert {file: file.read_bytes() for file in shop.home.rglob("*") if file.is_file()} == files
    for query in (
        "EXPLAIN ANALYZE FROM source_counts",
        "SET VARIABLE name = 'a'; SELECT getvariable('name')",
        "PIVOT source_counts ON source USING sum(rows_read)",
        "SUMMARIZE source_counts",
        "SHOW TABLES",
        "PRAGMA table_info('source_counts')",
    ):
        print_query(shop, query, "table", "")


@pytest.mark.parametrize("output", ["table", "csv", "json"])
def test_formats(shop: Shop, capsys: pytest.CaptureFixture[str], output: str) -> None:
    Warehouse(shop).publish_arrow("source_counts", counts(DAY, "a"), [DAY], "one")
    print_query(shop, "SELECT as_of_date, source, NULL AS nothing FROM source_counts", output, "")
    assert "2026-02-14" in capsys.readouterr().out


def test_a_table_shows_texts_as_they_are(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    Warehouse(shop).publish_arrow("source_counts", counts(DAY, "a"), [DAY], "one")
    print_query(shop, "SELECT '[new] shirt' AS \"[b]\", '[/b]' AS closed, ':star:' AS name", "table", "")
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("[new] shirt", "[b]", "[/b]", ":star:"))


def test_a_shop_without_a_night_says_so(shop: Shop) -> None:
    with pytest.raises(InputError, match="no night has been published"):
        print_query(shop, "SELECT 1", "table", "")


def test_a_column_that_nights_before_an_upgrade_lack_is_null(shop: Shop) -> None:
    warehouse = Warehouse(shop)
    folder = warehouse.new_run_dir("shelf_status", "old")
    rows = pa.table({"as_of_date": pa.array([DAY], pa.date32()), "run_id": ["r"], "status": ["published"]})
    write_days(rows, folder, [DAY])
    warehouse.publish("shelf_status", folder, [DAY], {"run_id": "old"})
    found = connect(warehouse).execute("SELECT status, reason, serves FROM shelf_status").fetchall()
    assert found == [("published", None, None)]


def test_sql_loses_no_column_and_writes_json_that_every_reader_takes(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    Warehouse(shop).publish_arrow("source_counts", counts(DAY, "a"), [DAY], "one")
    query = "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a, 'nan'::DOUBLE AS odd, [1.5::DECIMAL(4, 2)] AS some"
    print_query(shop, query, "json", "")
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4, "odd": "nan", "some": [1.5]}]
    print_query(shop, query, "csv", "")
    assert capsys.readouterr().out.splitlines()[0] == "a,a_2,a_1,a_3,odd,some"


@pytest.mark.parametrize("query", ["", " ", ";", "-- nothing"])
def test_an_empty_query_is_told(shop: Shop, query: str) -> None:
    Warehouse(shop).publish_arrow("source_counts", counts(DAY, "a"), [DAY], "one")
    with pytest.raises(InputError, match="asks nothing"):
        print_query(shop, query, "table", "")
