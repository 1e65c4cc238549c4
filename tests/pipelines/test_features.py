"""Stage `features`: day by day or at once it writes the same snapshots, and a second run the same rows."""

import datetime as dt
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightshelf.errors import InputError
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.features import index_features
from pipelines.arrow_schema import arrow_schema
from pipelines.feature_days import OF_LOGS, SNAPSHOTS, SUMS, missing_days
from pipelines.features import run
from pipelines.stage import Night
from pipelines.warehouse import DAY_FOLDER, Warehouse

pytestmark = pytest.mark.spark

DAYS = [dt.date(2026, 2, n) for n in range(1, 6)]
NIGHTLY = ("vocabularies", "training_examples", "example_days", "item_graph", "candidates")


def put_days(warehouse: Warehouse, days: list[dt.date]) -> None:
    """Publish events, items and users as the stage `clean` would; each day's rows depend on the day alone."""
    for day in days:
        chance, noon = random.Random(str(day)), dt.datetime.combine(day, dt.time(4), dt.UTC)
        rows = []
        for n in range(120):
            late = dt.timedelta(days=chance.random() < 0.1)
            kind = chance.choice(["impression"] * 5 + ["click"] * 3 + ["cart", "purchase"])
            rows.append({
                "event_id": f"{day}-{n}", "event_date": day - late, "source": "log",
                "event_ts": noon - late + dt.timedelta(minutes=chance.randrange(300)), "event_type": kind,
                "scenario": chance.choice(["home_feed", "search"]), "user_key": f"u{chance.randrange(5)}",
                "item_id": f"i{chance.randrange(6)}", "price": 5.0 if kind == "purchase" else None,
            })  # fmt: skip
        items = [
            {
                "as_of_date": day,
                "item_id": f"i{n}",
                "category_1": "c",
                "category_2": "c",
                "category_3": f"c/{n % 2}",
                "price": 5.0 + n,
            }
            for n in range(7)
        ]
        users = [{"user_key": f"u{n}", "user_age_band": "young"} for n in range(6)]
        for table, content in (("events", rows), ("items", items), ("users", users)):
            put_rows(warehouse, table, day, content)


def put_rows(warehouse: Warehouse, table: str, day: dt.date, rows: list[dict]) -> None:
    """Publish one partition; columns that a row lacks are null."""
    spec = warehouse.specs[table]
    full = [{**{name: row.get(name) for name in spec.column_names}, "as_of_date": day} for row in rows]
    warehouse.publish_arrow(table, pa.Table.from_pylist(full, arrow_schema(spec)), [day], f"put-{day}")


def night_of(shop, day, name):
    return Night(shop, day, Warehouse(shop), name)


def rows_of(warehouse, table, leave_out=()):
    read = warehouse.read(table)
    return sorted((tuple(row.values()) for row in read.drop_columns(list(leave_out)).to_pylist()), key=str)


@pytest.mark.histories
def test_day_by_day_or_at_once_the_snapshots_are_equal(spark, tiny_shop, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.feature_writer._ROWS_AT_A_TIME", 250)  # at once, too, some days at a time
    shop = tiny_shop(days=0)
    at_once = shop.model_copy(update={"home": tmp_path / "at_once"})
    put_days(Warehouse(at_once), DAYS)
    result = run(night_of(at_once, DAYS[-1], "a"))
    assert result.rows_in == 120 * len(DAYS)
    put_days(Warehouse(shop), DAYS[:-1])
    run(night_of(shop, DAYS[-2], "a"))
    put_days(Warehouse(shop), DAYS[-1:])
    run(night_of(shop, DAYS[-1], "b"))
    ids = [f.name for f in index_features(shop) if f.vocabulary]  # an id depends on the night that first saw the value
    ids += ["item_indexes", "category_indexes", "shown_category_indexes"]
    for table in SNAPSHOTS:
        own = [name for name in ids if name in Warehouse(shop).specs[table].column_names]
        by_day, once = rows_of(Warehouse(shop), table, own), rows_of(Warehouse(at_once), table, own)
        assert by_day == once, table
        assert {row[0] for row in once} == set(DAYS)
    for table in (*OF_LOGS, *SUMS):
        assert rows_of(Warehouse(shop), table) == rows_of(Warehouse(at_once), table), table
    ids = [*ids[:-3], "labels_as_of"]  # the night that wrote a row: it stays while nothing that comes changes a label
    by_day, once = (rows_of(Warehouse(home), "training_examples", ids) for home in (shop, at_once))
    assert by_day == once

    before = {table: rows_of(Warehouse(shop), table) for table in (*SNAPSHOTS, *NIGHTLY)}
    assert all(before.values())
    run(night_of(shop, DAYS[-1], "c"))
    assert {table: rows_of(Warehouse(shop), table) for table in before} == before
    _check_vocabularies_grow(Warehouse(shop))
    relations = set(Warehouse(shop).read("item_graph")["relation"].to_pylist())
    assert relations == {
        "co_click",
        "co_cart",
        "co_purchase",
        "in_category_1",
        "in_category_2",
        "in_category_3",
        "in_price_band",
    }


@pytest.mark.histories
def test_a_shop_may_begin_with_one_day_of_logs(spark, tiny_shop):
    shop = tiny_shop(days=0)
    for day in DAYS[:2]:
        put_days(Warehouse(shop), [day])
        run(night_of(shop, day, str(day)))
    assert Warehouse(shop).partitions("training_examples") == DAYS[1:2]  # the first day has no features of a day before


@pytest.mark.histories
def test_the_night_of_a_closed_day_has_that_days_catalogue_and_users(spark, tiny_shop):
    shop = tiny_shop(days=0)
    put_days(Warehouse(shop), DAYS[:2])
    for table, rows in (
        ("items", [{"item_id": "i1", "category_3": "c/1"}, {"item_id": "new", "category_3": "c/1"}]),
        ("users", [{"user_key": f"u{n}", "user_age_band": "old"} for n in range(5)]),
    ):
        put_rows(Warehouse(shop), table, DAYS[2], rows)
    run(night_of(shop, DAYS[2], "a"))
    tables = Warehouse(shop)
    popular = {
        (row["scenario"], row["item_id"])
        for row in tables.read("candidates", [DAYS[2]]).to_pylist()
        if row["generator"] == "popular"
    }
    assert popular == {(scenario, item) for scenario in shop.scenarios for item in ("i1", "new")}
    assert {row["item_id"] for row in tables.read("candidates", [DAYS[2]]).to_pylist()} == {"i1", "new"}
    [old] = [row["index"] for row in tables.read("vocabularies", [DAYS[2]]).to_pylist() if row["value"] == "old"]
    told = tables.read("user_features", [DAYS[2]]).to_pylist()
    assert {row["user_age_band_index"] for row in told} == {old}


def _check_vocabularies_grow(warehouse):
    first, last = (rows_of_day(warehouse, day) for day in DAYS[-2:])
    assert first <= last
    for feature in {feature for feature, _, _ in last}:
        numbers = sorted(index for name, _, index in last if name == feature)
        assert numbers == list(range(OOV_BUCKETS + 1, OOV_BUCKETS + 1 + len(numbers)))


def rows_of_day(warehouse, day):
    return {(row["feature"], row["value"], row["index"]) for row in warehouse.read("vocabularies", [day]).to_pylist()}


@pytest.mark.histories
def test_a_shop_with_orders_alone_gets_every_table(spark, tiny_shop):
    orders = {
        "name": "order_log", "path": "raw/orders/*.csv", "format": "csv", "scenario": "home_feed", "event_type": "purchase",
        "columns": {"user_id": "u", "item_id": "i", "event_ts": "t"},
    }  # fmt: skip
    shop = tiny_shop(
        days=0,
        sources=[orders],
        items=None,
        users=None,
        negatives={"sampled": 2},
        tasks={"purchase": {"event": "purchase", "label_window": "1h"}},
        scenarios={"home_feed": {"utility": {"purchase": 1}}},
    )
    warehouse = Warehouse(shop)
    for day in DAYS[:2]:
        start = dt.datetime.combine(day, dt.time(4), dt.UTC)
        bought = [(f"u{n % 7}", f"i{n * 7 % 11}", start + dt.timedelta(minutes=n)) for n in range(40)]
        log = [
            {"event_id": f"{day}-{n}", "event_date": day, "event_ts": ts, "source": "order_log", "scenario": "home_feed",
             "event_type": "purchase", "user_key": user, "item_id": item}
            for n, (user, item, ts) in enumerate(bought)
        ]  # fmt: skip
        put_rows(warehouse, "events", day, log)
        put_rows(warehouse, "items", day, [{"item_id": f"i{n}", "price": None} for n in range(11)])
        put_rows(warehouse, "users", day, [{"user_key": f"u{n}"} for n in range(7)])
    run(night_of(shop, DAYS[1], "a"))
    assert {table for table in (*SNAPSHOTS, *NIGHTLY) if warehouse.read(table).num_rows == 0} == set()
    examples = warehouse.read("training_examples").to_pandas()
    assert examples.groupby("label_purchase").size().to_dict() == {0.0: 80, 1.0: 40}
    assert (examples["mask_purchase"] == 1).all()
    assert (examples.loc[examples["label_purchase"] == 0, "sample_weight"] > 1).all()
    assert examples["item_purchase_rate_30d"].between(0, 1).all()


def test_no_events_in_the_window_is_told(spark, tiny_shop):
    shop = tiny_shop(days=0)
    with pytest.raises(InputError, match="no events between 2026-01-27 and 2026-02-05 in shop tiny"):
        run(night_of(shop, DAYS[-1], "a"))


def test_a_day_whose_snapshot_lacks_a_column_is_written_anew(tiny_shop):
    shop = tiny_shop(days=0)
    warehouse = Warehouse(shop)
    for table in SNAPSHOTS:
        for day in DAYS[:3]:
            put_rows(warehouse, table, day, [{}])
    night = night_of(shop, DAYS[3], "n")
    assert missing_days(night, SNAPSHOTS, DAYS[:4]) == [DAYS[3]]
    older = arrow_schema(warehouse.specs["user_sequences"])
    older = older.remove(older.get_field_index("shown_counts"))
    folder = warehouse.new_run_dir("user_sequences", "older")
    (folder / f"{DAY_FOLDER}={DAYS[1]}").mkdir()
    row = {"as_of_date": DAYS[1], "user_key": "u", "user_index": 1}
    pq.write_table(pa.Table.from_pylist([row], older), folder / f"{DAY_FOLDER}={DAYS[1]}" / "part.parquet")
    warehouse.publish("user_sequences", folder, [DAYS[1]], {"run_id": "older"})
    assert missing_days(night, SNAPSHOTS, DAYS[:4]) == [DAYS[1], DAYS[3]]
