"""Stage clean over hand-written logs, through the real engines: every rule, the books, and no id anywhere."""

import datetime as dt
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightshelf.errors import InputError
from nightshelf.identity import ensure_key, user_key
from pipelines.stage import night_of, run_stage
from pipelines.warehouse import Warehouse

pytestmark = [pytest.mark.spark, pytest.mark.night]
D1, D2, D3 = (dt.date(2026, 2, n) for n in (1, 2, 3))
CANARY = "canary_8472"
ITEMS = [["sku", "title", "category", "brand", "price", "stock", "colour"], ["i1", "one", "a / b/c/d", "x", 5, 3.0, ""]]
ITEMS += [
    ["i2", "two", "a", "", "", "", "red"],
    ["", "no id", "", "", 1, "", ""],
    ["i3", "bad", "", "", -1, "", ""],
    ["i1", "last", "a/b", "x", 6, 4, "blue"],
]


def ms(day, hour=12, minute=0, second=0):
    """Return the epoch milliseconds of a local time in Shanghai."""
    return int(
        dt.datetime(2026, 2, day, hour, minute, second, tzinfo=dt.timezone(dt.timedelta(hours=8))).timestamp() * 1000
    )


def show(day=2, **changes):
    """Return a good home row of that day, with changes; None removes a key."""
    row = {"uid": "u1", "sku": "i1", "action": "show", "ts": ms(day), "rid": "r1", "pos": 1, **changes}
    return {key: value for key, value in row.items() if value is not None}


HOME = [
    (None, show()),
    ("duplicate", show()),
    ("duplicate", show(1, rid="late", uid="u2")),  # arrived on the day before already
    (None, show(1, rid="late", uid="u3")),
    (None, show(2, ts=ms(2, 23, 59, 59), pos=2)),
    ("unparsable", '{"uid":"' + CANARY + '", "sku": "i1", '),
    ("missing_key_field", show(uid=None)),
    ("missing_key_field", show(sku="  ", uid=CANARY)),
    ("missing_key_field", show(ts=None)),
    ("unknown_event_type", show(action="hover")),
    ("unknown_event_type", show(action=None)),
    ("impossible_timestamp", show(ts=ms(3, 0))),
    ("impossible_timestamp", show(ts=0)),
    ("impossible_timestamp", show(ts="soon", uid=CANARY)),
    ("impossible_timestamp", show(ts=253402300800000)),
    ("too_late", show(ts=ms(2) - 2 * 86_400_000)),
    ("negative_number", show(pos=-1)),
    ("absurd_number", show(pos=1_000_001)),
    (None, show(pos=1_000_000)),
    ("text_too_long", show(rid="x" * 101)),
    ("unknown_item", show(sku="i999")),
    ("test_user", show(uid="qa-7")),
    (None, show(uid="qa-7x", pos=3)),
    *(("bot", show(uid="robot", action="clk", rid=f"b{n}")) for n in range(4)),
    ("bot", show(uid="robot", rid="b9")),
    ("bot", show(uid="robot", sku="i998")),
    *((None, show(uid="busy", action="clk", rid=f"b{n}")) for n in range(3)),
]
ORDERS = [
    (None, ["u1", "i1", "pay", ms(2) // 1000, 2, "9.5"]),
    (None, ["u9", "i1", "add", ms(2) // 1000, "", ""]),
    (None, ["u1", "i2", "pay", ms(2) // 1000, "N/A", " null"]),  # words for nothing
    ("not_a_number", ["u1", "i2", "pay", ms(2) // 1000, 1, "9,50"]),
    ("not_a_number", ["u1", "i2", "pay", ms(2) // 1000, "two", "-"]),
    ("not_whole", ["u1", "i2", "pay", ms(2) // 1000, "0.4", 3]),
    ("unparsable", [CANARY, "i1", "pay", ms(2) // 1000, 2]),
    ("negative_number", ["u1", "i1", "pay", ms(2) // 1000, 1, -3]),
    ("absurd_number", ["u1", "i1", "pay", ms(2) // 1000, 1, 1e9]),
    ("absurd_number", ["u1", "i1", "pay", ms(2) // 1000, 1, "NaN"]),
    ("absurd_number", ["u1", "i1", "pay", ms(2) // 1000, 10**12, 1]),
]
SHOWN = [
    (None, {"user": "u5", "item": "i2", "page": "sale", "at": dt.datetime(2026, 2, 2, 3, tzinfo=dt.UTC)}),
    (
        "unknown_scenario",
        {"user": CANARY, "item": "i2", "page": "nowhere", "at": dt.datetime(2026, 2, 2, 3, tzinfo=dt.UTC)},
    ),
]
SHOWN_LOG = {
    "name": "shown_log", "path": "raw/shown/{event_date}.parquet", "format": "parquet", "event_type": "impression",
    "scenario": {"column": "page", "map": {"sale": "search"}},
    "columns": {"user_id": "user", "item_id": "item", "event_ts": "at"}, "timestamp": {"format": "iso8601"},
}  # fmt: skip
QUARANTINE = {
    "bots": {"max_clicks_per_day": 3},
    "test_users": ["qa-.", "test_.*"],
    "max_text": 100,
    "max_price": 1e6,
    "max_quantity": 100,
    "max_share": 0.99,
}


@pytest.fixture(scope="module")
def cleaned(spark, make_tiny_shop, write_log, tmp_path_factory):
    """Return the warehouse after the nights of D1 and D2 over the dirty logs above."""
    folder = tmp_path_factory.mktemp("dirty")
    base = make_tiny_shop(folder, days=0)
    sources = [source.model_dump(mode="json") for source in base.sources if source.name != "search_log"]
    shop = make_tiny_shop(folder, days=0, sources=[*sources, SHOWN_LOG], quarantine=QUARANTINE)
    raw = shop.home / "raw"
    header = ["customer", "article", "act", "unix", "n", "amount"]
    write_log(raw / "items.csv", ITEMS)
    write_log(
        raw / "users.csv",
        [["user_id", "age_band"], ["u1", "old"], ["u7", "young"], ["u7", "old"], ["test_1", ""], ["", "x"]],
    )
    write_log(raw / "home/2026-02-01/a.jsonl.gz", [show(1, rid="late", uid="u2")])
    write_log(raw / "orders/2026-02-01.csv", [header, ["u1", "i1", "pay", ms(1) // 1000, 1, 7]], ";")
    write_log(raw / "home/2026-02-02/a.jsonl.gz", [row for _, row in HOME])
    write_log(raw / "orders/2026-02-02.csv", [header, *(row for _, row in ORDERS)], ";")
    (raw / "shown").mkdir()
    for day, rows in ((D1, SHOWN[:1]), (D2, SHOWN)):
        moved = [{**row, "at": row["at"] - (D2 - day)} for _, row in rows]
        pq.write_table(pa.Table.from_pylist(moved), raw / "shown" / f"{day}.parquet")
    run_stage("clean", shop, D1)
    run_stage("clean", shop, D2)
    return Warehouse(shop)


@pytest.mark.parametrize(("source", "rows"), [("home_log", HOME), ("order_log", ORDERS), ("shown_log", SHOWN)])
def test_every_row_ends_where_it_belongs(cleaned, source, rows):
    expected = sorted(reason for reason, _ in rows if reason not in (None, "duplicate"))
    found = [row["reason"] for row in cleaned.read("quarantine", [D2]).to_pylist() if row["source"] == source]
    assert sorted(found) == expected
    (counts,) = [row for row in cleaned.read("source_counts", [D2]).to_pylist() if row["source"] == source]
    assert counts["rows_read"] == len(rows)
    assert counts["duplicates"] == sum(reason == "duplicate" for reason, _ in rows)
    assert counts["kept"] == sum(reason is None for reason, _ in rows)
    assert counts["quarantined"] == len(expected)


def test_events_carry_the_shops_names_types_and_times(cleaned):
    key = ensure_key(cleaned.shop).read_bytes()
    events = cleaned.read("events", [D2]).to_pylist()
    (order,) = [e for e in events if e["event_type"] == "purchase" and e["item_id"] == "i1"]
    assert (order["quantity"], order["price"], order["scenario"], order["position"]) == (2, 9.5, "home_feed", None)
    assert order["event_ts"] == dt.datetime(2026, 2, 2, 4, tzinfo=dt.UTC)
    assert order["user_key"] == user_key("u1", key)
    (unread,) = [e for e in events if e["item_id"] == "i2" and e["source"] == "order_log"]
    assert unread["quantity"] is unread["price"] is None
    (late,) = [e for e in events if e["request_id"] == "late"]
    assert (late["as_of_date"], late["event_date"], late["user_key"]) == (D2, D1, user_key("u3", key))
    (shown,) = [e for e in events if e["source"] == "shown_log"]
    assert (shown["scenario"], shown["event_ts"].hour) == ("search", 3)
    assert len({e["event_id"] for e in events}) == len(events)


def test_quarantine_shows_the_fault_without_the_user(cleaned):
    rows = {(r["source"], r["reason"], r["evidence"]): r["raw"] for r in cleaned.read("quarantine", [D2]).to_pylist()}
    key = user_key(CANARY, ensure_key(cleaned.shop).read_bytes())
    assert rows["home_log", "unparsable", "no jsonl row of this log"].startswith('{"xxx":"xxxxxx_9999", "xxx": "x9"')
    assert f'"uid": "{key}"' in rows["home_log", "missing_key_field", "sku is absent"]
    assert rows["home_log", "missing_key_field", "uid is absent"].startswith('{"xxx": "x9"')
    assert ("home_log", "unknown_event_type", "hover") in rows
    assert ("home_log", "unknown_event_type", "action is absent") in rows
    assert ("home_log", "text_too_long", "request_id has 101 characters") in rows
    assert ("home_log", "bot", "4 clicks in one day, more than 3") in rows
    assert '"page":"nowhere"' in rows["shown_log", "unknown_scenario", "nowhere"]


def test_no_raw_id_is_written_anywhere(cleaned):
    home = cleaned.shop.home
    tables = [cleaned.read(name) for name in ("events", "quarantine", "users", "items", "source_counts", "stage_runs")]
    assert not any(CANARY in str(table.to_pylist()) for table in tables)
    files = [file for file in home.rglob("*") if file.is_file() and file.relative_to(home).parts[0] != "raw"]
    assert not any(CANARY.encode() in file.read_bytes() for file in files)
    assert not (home / "tmp" / "clean").exists()


def test_items_are_the_last_good_rows_of_the_catalogue(cleaned):
    items = {row["item_id"]: row for row in cleaned.read("items", [D2]).to_pylist()}
    assert set(items) == {"i1", "i2"}
    assert [items["i1"][name] for name in ("title", "price", "stock", "attribute_colour")] == ["last", 6.0, 4, "blue"]
    assert [items["i1"][f"category_{n}"] for n in (1, 2, 3)] == ["a", "a/b", "a/b"]
    assert items["i2"]["brand"] is items["i2"]["price"] is None


def test_faulty_rows_of_the_catalogue_are_told_and_too_many_stop_the_night(spark, tiny_shop, write_log, caplog):
    shop = tiny_shop(days=1, user_count=3)
    header, *good = [line.split(",") for line in (shop.home / "raw/items.csv").read_text().splitlines()]
    price, sku = header.index("price"), header.index("sku")

    def spoiled(row, place, value):
        return [value if n == place else old for n, old in enumerate(row)]

    bad = [
        spoiled(good[0], price, "-1"),
        spoiled(good[1], sku, ""),
        [*spoiled(good[2], price, "9,50")],
        ["i1", "short"],
    ]
    write_log(shop.home / "raw/items.csv", [header, *bad, *good * 5])  # the last row of an item counts
    run_stage("clean", shop, D1)
    assert len(Warehouse(shop).read("items", [D1])) == len(good)
    [told] = [record.getMessage() for record in caplog.records if " rows of " in record.getMessage()]
    for fault in (
        "4 of",
        "1 × price is negative or absurd: -1",
        "1 × sku is absent",
        "1 × no number in price: 9,50",
        "1 × no csv row",
    ):
        assert fault in told
    write_log(shop.home / "raw/items.csv", [header, *(spoiled(row, price, "9,50") for row in good)])
    with pytest.raises(InputError, match=r"items: .*no number in price: 9,50; more than quarantine\.max_share = 0\.2"):
        run_stage("clean", shop, D1)


def test_a_key_that_is_gone_stops_the_night_before_it_hashes_under_another(cleaned):
    key = ensure_key(cleaned.shop)
    kept = key.rename(key.with_name("kept"))
    try:
        with pytest.raises(InputError, match=r"identity\.key is gone, the key of earlier nights' users"):
            run_stage("clean", cleaned.shop, D2)
        assert not key.exists()
    finally:
        kept.rename(key)


def test_users_are_the_tables_and_all_seen_so_far(cleaned):
    key = ensure_key(cleaned.shop).read_bytes()

    def known(day):
        return {row["user_key"]: row["user_age_band"] for row in cleaned.read("users", [day]).to_pylist()}

    members = {user_key("u1", key): "old", user_key("u7", key): "old"}
    assert known(D1) == {**members, **{user_key(u, key): None for u in ("u2", "u5")}}
    assert known(D2) == {**members, **{user_key(u, key): None for u in ("u2", "u3", "u5", "u9", "busy", "qa-7x")}}


@pytest.mark.histories
def test_days_one_by_one_are_the_days_all_at_once(spark, make_tiny_shop, write_log, tmp_path):
    """Late rows, rows said twice, clicks whose impression came the day before, later, or never, and cancelled sales."""
    for name in ("model", "shop", "other"):
        (tmp_path / name).mkdir()
    sources = [source.model_dump(mode="json") for source in make_tiny_shop(tmp_path / "model", days=0).sources]
    sources[0]["repeats_within"] = "5s"
    sources[2] |= {"negative_quantity": "cancels", "without_user": "expected"}
    rules = {"sources": sources, "quarantine": {"orphans": {"click": "2h"}}}
    shop = make_tiny_shop(tmp_path / "shop", days=2, user_count=6, **rules)
    late = {"uid": "u0", "sku": "i0", "action": "show", "ts": ms(1, 23), "rid": "late", "pos": 1}
    again = {**late, "ts": ms(1, 23) + 4000}
    followed = {**late, "action": "clk", "ts": ms(2, 0) + 100}  # an hour after, in the next day's log
    forged = {**late, "action": "clk", "sku": "i5", "ts": ms(2, 0) + 100, "rid": "forged"}
    write_log(shop.home / "raw/home/2026-02-01/late.jsonl.gz", [late, again])
    write_log(shop.home / "raw/home/2026-02-02/late.jsonl.gz", [late, {**late, "rid": "only late"}, followed, forged])
    orders = {day: shop.home / f"raw/orders/2026-02-0{day}.csv" for day in (1, 2)}
    sold = "u0;i9;pay;{};{};5\n"
    of_day = sold.format(ms(1, 9) // 1000, 7) + sold.format(ms(1, 10) // 1000, 7) + sold.format(ms(1, 11) // 1000, -7)
    orders[1].write_text(orders[1].read_text() + of_day + sold.replace("u0", "").format(ms(1) // 1000, 1))
    # A late sale and its cancellation, and one of a sale of the day before
    late_sale = (
        sold.format(ms(1, 20) // 1000, 8) + sold.format(ms(2, 1) // 1000, -8) + sold.format(ms(2, 1) // 1000, -7)
    )
    orders[2].write_text(orders[2].read_text() + late_sale)
    run_stage("clean", shop, D1)
    run_stage("clean", shop, D2)
    other = make_tiny_shop(tmp_path / "other", days=0, **rules)
    shutil.copytree(shop.home / "raw", other.home / "raw")
    shutil.copytree(shop.home / "keys", other.home / "keys")
    run_stage("clean", other, D2)
    for table in ("events", "quarantine", "source_counts", "items", "users"):
        once, twice = Warehouse(other).read(table).to_pylist(), Warehouse(shop).read(table).to_pylist()
        assert sorted(map(repr, once)) == sorted(map(repr, twice)), table
    counts = {(row["source"], row["as_of_date"]): row for row in Warehouse(other).read("source_counts").to_pylist()}
    assert [counts["home_log", day]["duplicates"] for day in (D1, D2)] == [1, 1]
    assert [[counts["order_log", day][name] for name in ("quarantined", "expected")] for day in (D1, D2)] == [
        [3, 3]
    ] * 2
    sevens = [row for row in once_read(other, "events") if row["quantity"] in (7, 8)]
    assert [(row["as_of_date"], row["event_ts"].hour) for row in sevens] == [(D1, 1)]  # 9 o'clock in Shanghai
    found = [row for row in once_read(other, "quarantine") if row["reason"] == "orphan_outcome"]
    assert {row["as_of_date"] for row in found} == {D2}  # a day without one is cleaned too
    orphans = {row["raw"] for row in found}
    assert sum("forged" in raw for raw in orphans) == 1
    assert not any('"late"' in raw for raw in orphans)


def once_read(shop, table):
    return Warehouse(shop).read(table).to_pylist()


@pytest.mark.histories
def test_a_closed_day_without_logs_keeps_the_users_and_the_items(spark, tiny_shop):
    shop = tiny_shop(days=1, user_count=3, closed={"dates": [D2]})
    run_stage("clean", shop, D1)
    run_stage("clean", shop, D2)
    warehouse = Warehouse(shop)
    assert [row["rows_read"] for row in warehouse.read("source_counts", [D2]).to_pylist()] == [0, 0, 0]
    for table in ("users", "items"):
        assert len(warehouse.read(table, [D2])) == len(warehouse.read(table, [D1])) > 0


def test_logs_of_all_days_in_one_place_without_a_catalogue(spark, tiny_shop, write_log):
    source = {
        "name": "buys", "path": "raw/buys/*.csv", "format": "csv", "scenario": "home_feed", "event_type": "purchase",
        "columns": {"user_id": "u", "item_id": "i", "event_ts": "t", "price": "p"}, "timestamp": {"format": "iso8601"},
    }  # fmt: skip
    tasks = {"purchase": {"event": "purchase", "label_window": "1d"}}
    scenarios = {"home_feed": {"utility": {"purchase": 1}}}
    shop = tiny_shop(
        days=0,
        sources=[source],
        items=None,
        users=None,
        tasks=tasks,
        scenarios=scenarios,
        history_days=3,
        negatives={"sampled": 2},
    )
    rows = [
        ["u1", "a", "2026-02-01T12:00:00", 5],
        ["u2", "b", "2026-02-03T12:00:00", ""],
        ["u3", "a", "2026-02-03T13:00:00", 7],
    ]
    rows += [["u4", "c", "2026-02-04T00:00:00", 1], ["u4", "c", "2025-12-01T00:00:00", 1], ["u5", "c", "when", 1]]
    write_log(shop.home / "raw/buys/all.csv", [["u", "i", "t", "p"], *rows])
    run_stage("clean", shop, D3)
    warehouse = Warehouse(shop)
    counts = {
        row["as_of_date"]: [row[name] for name in ("rows_read", "kept", "quarantined", "other_days")]
        for row in warehouse.read("source_counts").to_pylist()
    }
    assert counts == {D1: [1, 1, 0, 0], D2: [0, 0, 0, 0], D3: [5, 2, 1, 2]}
    assert [night_of(shop, D3, "a-test").shop.is_closed(day) for day in (D1, D2, D3)] == [False, True, False]
    assert not night_of(shop, D2, "a-test").shop.is_closed(D2)  # a night has no excuse but the shop file
    items = {(row["as_of_date"], row["item_id"]): row["price"] for row in warehouse.read("items").to_pylist()}
    assert items == {(D1, "a"): 5.0, (D2, "a"): 5.0, (D3, "a"): 7.0, (D3, "b"): None}
    assert [len(warehouse.read("users", [day])) for day in (D1, D2, D3)] == [1, 1, 3]


@pytest.mark.histories
def test_what_is_wrong_is_told_and_nothing_is_published(spark, tiny_shop, write_log):
    shop = tiny_shop(days=2, user_count=3)
    run_stage("clean", shop, D1)
    search = shop.home / "raw/search/2026-02-02.csv"
    header, *rows = [line.split(",") for line in search.read_text().splitlines()]
    before = {
        table: Warehouse(shop).snapshot_id(table)
        for table in ("events", "quarantine", "items", "users", "source_schemas", "source_counts")
    }
    for table, column in (("items", "brand"), ("users", "age_band")):
        file = shop.home / f"raw/{table}.csv"
        good = file.read_text()
        file.write_text(good.replace(column, f"{column}_new", 1))
        changed = rf"the file of {table} changed .*: {column} renamed .*correct it, or {table} in the shop file"
        with pytest.raises(InputError, match=changed):
            run_stage("clean", shop, D2)
        file.write_text(good)
    search.unlink()
    with pytest.raises(
        InputError, match=r"no log of search_log for 2026-02-02: nothing matches .*search/2026-02-02\.csv"
    ):
        run_stage("clean", shop, D2)
    changed = r"the log of search_log changed between 2026-02-01 and 2026-02-02: "
    write_log(search, [["who", "item", "what", "when", "req", "rank", "q"], *rows])
    with pytest.raises(InputError, match=changed + r"at renamed \(at: text → when: text\)"):
        run_stage("clean", shop, D2)
    write_log(search, [header, *([*row[:4], n, *row[5:]] for n, row in enumerate(rows))])
    with pytest.raises(InputError, match=changed + r"req retyped \(text → integer\); .* schema_since: 2026-02-02"):
        run_stage("clean", shop, D2)

    assert before == {table: Warehouse(shop).snapshot_id(table) for table in before}
    assert Warehouse(shop).read("stage_runs").column("status").to_pylist().count("failed") == 5
    assert not list((shop.home / "warehouse/data/events").glob("run=2026-02-02-*"))

    meant = shop.sources[1].model_copy(update={"schema_since": D2})
    run_stage("clean", shop.model_copy(update={"sources": [shop.sources[0], meant, shop.sources[2]]}), D2)
    seen = {row["column_name"]: row["kind"] for row in Warehouse(shop).read("source_schemas", [D2]).to_pylist()}
    assert (seen["req"], seen["uid"], seen["unix"]) == ("integer", "text", "integer")


@pytest.mark.histories
def test_a_wrong_column_in_the_first_night_is_told(spark, tiny_shop, write_log):
    shop = tiny_shop(days=1, user_count=3)
    search = shop.home / "raw/search/2026-02-01.csv"
    good = [line.split(",") for line in search.read_text().splitlines()]
    write_log(search, [["who", "item", "what", "when", "req", "rank", "q"], *good[1:]])
    with pytest.raises(
        InputError,
        match=r"search/2026-02-01\.csv: no column 'at', which sources.search_log names for event_ts; columns there: who",
    ):
        run_stage("clean", shop, D1)
    write_log(search, good)
    home = shop.home / "raw/home/2026-02-01/part-0.jsonl.gz"
    write_log(home, [{"user": "u1", "sku": "i1", "action": "show", "ts": ms(1)}] * 3)
    with pytest.raises(InputError, match="home_log 2026-02-01: column 'uid' is absent in every row"):
        run_stage("clean", shop, D1)
