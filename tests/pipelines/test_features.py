"""Stage `features`: day by day or at once it writes the same snapshots, and a second run the same rows."""

import datetime as dt
import random

import pyarrow as pa
import pytest

from nightshelf.errors import InputError
from nightshelf.features import index_features
from pipelines.features import SNAPSHOTS, run
from pipelines.stage import Night
from pipelines.warehouse import Warehouse, arrow_schema

pytestmark = pytest.mark.spark

DAYS = [dt.date(2026, 2, n) for n in range(1, 6)]
NIGHTLY = ("vocabularies", "training_examples", "item_graph", "candidates")


def put_days(warehouse: Warehouse, days: list[dt.date]) -> None:
    """Publish events, items and users as the stage `clean` would; each day's rows depend on the day alone."""
    for day in days:
        chance, noon = random.Random(str(day)), dt.datetime.combine(day, dt.time(4), dt.UTC)
        rows = []
        for n in range(120):
            late = dt.timedelta(days=chance.random() < 0.1)
            kind = chance.choice(["impression"] * 5 + ["click"] * 3 + ["cart", "purchase"])
            rows.append({
                "as_of_date": day, "event_id": f"{day}-{n}", "event_date": day - late, "source": "log",
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
        users = [{"as_of_date": day, "user_key": f"u{n}", "user_age_band": "young"} for n in range(6)]
        for table, content in (("events", rows), ("items", items), ("users", users)):
            full = [{name: row.get(name) for name in warehouse.specs[table].column_names} for row in content]
            arrow = pa.Table.from_pylist(full, arrow_schema(warehouse.specs[table]))
            warehouse.publish_arrow(table, arrow, [day], f"put-{day}")


def night_of(shop, day, name):
    return Night(shop, day, Warehouse(shop), name)


def rows_of(warehouse, table, leave_out=()):
    read = warehouse.read(table)
    return sorted((tuple(row.values()) for row in read.drop_columns(list(leave_out)).to_pylist()), key=str)


def test_day_by_day_or_at_once_the_snapshots_are_equal(spark, tiny_shop, tmp_path):
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
    for table, left_out in zip(SNAPSHOTS, (ids, ids, (), ("user_index", "item_indexes")), strict=True):
        own = [name for name in left_out if name in Warehouse(shop).specs[table].column_names]
        by_day, once = rows_of(Warehouse(shop), table, own), rows_of(Warehouse(at_once), table, own)
        assert by_day == once, table
        assert {row[0] for row in once} == set(DAYS)
    assert rows_of(Warehouse(shop), "impressions") == rows_of(Warehouse(at_once), "impressions")

    before = {table: rows_of(Warehouse(shop), table) for table in (*SNAPSHOTS, *NIGHTLY)}
    assert all(before.values())
    run(night_of(shop, DAYS[-1], "c"))
    assert {table: rows_of(Warehouse(shop), table) for table in before} == before
    _check_vocabularies_grow(Warehouse(shop))


def _check_vocabularies_grow(warehouse):
    first, last = (rows_of_day(warehouse, day) for day in DAYS[-2:])
    assert first <= last
    for feature in {feature for feature, _, _ in last}:
        numbers = sorted(index for name, _, index in last if name == feature)
        assert numbers == list(range(1, len(numbers) + 1))


def rows_of_day(warehouse, day):
    return {(row["feature"], row["value"], row["index"]) for row in warehouse.read("vocabularies", [day]).to_pylist()}


def test_no_events_in_the_window_is_told(spark, tiny_shop):
    shop = tiny_shop(days=0)
    with pytest.raises(InputError, match="no events between 2026-01-27 and 2026-02-05 in shop tiny"):
        run(night_of(shop, DAYS[-1], "a"))
