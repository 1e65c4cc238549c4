"""Night after night: a late event reopens the partitions of examples of which it changes a label, once, and no others."""

import datetime as dt

import pyarrow as pa
import pytest

from pipelines.arrow_schema import arrow_schema
from pipelines.features import run
from pipelines.stage import Night
from pipelines.warehouse import Warehouse

pytestmark = [pytest.mark.spark, pytest.mark.engines]

DAYS = [dt.date(2026, 2, day) for day in range(1, 8)]
# day and hour of happening, day of arrival, type, item; all of one user.
LATE = [
    (4, 12.1, 5, "click", "i0"),  # the fourth is still to ripen: the night of the fifth writes it anyway
    (5, 11, 6, "purchase", "once"),  # of what was shown and clicked on the third, which had ripened
    (6, 12.2, 7, "click", "i1"),  # it was clicked already
]
REASONS = {
    3: {2: "new", 3: "new"},
    4: {2: "ripening", 3: "ripening", 4: "new"},
    5: {3: "ripening", 4: "ripening", 5: "new"},
    6: {3: "late events", 4: "ripening", 5: "ripening", 6: "new"},
    7: {5: "ripening", 6: "ripening", 7: "new"},
}


def rows_of_day(day):
    """Three items are shown to two users each noon, another one on the third; all but i0 are clicked."""
    rows = []
    for user in ("u", "v"):
        for item in ("i0", "i1", "i2", *["once"] * (day == 3)):
            rows.append(row_of(day, 12, day, "impression", item, user))
            rows += [row_of(day, 12.1, day, "click", item, user)] if item != "i0" else []
    return rows + [row_of(*late, "u") for late in LATE if late[2] == day]


def row_of(day, hour, arrival, kind, item, user):
    date = dt.date(2026, 2, day)
    moment = dt.datetime.combine(date, dt.time(), dt.UTC) + dt.timedelta(hours=hour - 8)
    return {
        "as_of_date": dt.date(2026, 2, arrival), "event_id": f"{day}-{hour}-{arrival}-{kind}-{item}-{user}",
        "event_date": date, "event_ts": moment, "source": "log", "scenario": "home_feed", "event_type": kind,
        "user_key": user, "item_id": item, "price": 5.0 if kind == "purchase" else None,
    }  # fmt: skip


def put_day(warehouse, day):
    category = {f"category_{level}": "c" for level in (1, 2, 3)}
    items = [{"item_id": item, "price": 5.0, **category} for item in ("i0", "i1", "i2", "once")]
    put(warehouse, "events", day, rows_of_day(day.day))
    put(warehouse, "items", day, items)
    put(warehouse, "users", day, [{"user_key": user} for user in ("u", "v")])


def put(warehouse, table, day, rows):
    spec = warehouse.specs[table]
    full = [{**{name: row.get(name) for name in spec.column_names}, "as_of_date": day} for row in rows]
    warehouse.publish_arrow(table, pa.Table.from_pylist(full, arrow_schema(spec)), [day], f"put-{day}")


def told(warehouse, night):
    rows = warehouse.read("example_days", [dt.date(2026, 2, night)]).to_pylist()
    return {row["example_date"].day: row["reason"] for row in rows}


def labels(warehouse):
    rows = warehouse.read("training_examples").to_pylist()
    kept = ("as_of_date", "impression_id", *(name for name in rows[0] if name.startswith(("label_", "mask_"))))
    return sorted(tuple(row[name] for name in kept) for row in rows)


def test_a_late_event_reopens_what_it_touches_once(spark, tiny_shop, tmp_path):
    """Labels of the tiny shop know all that is in time two days later; what is late may come until the fourth."""
    shop = tiny_shop(days=0)
    warehouse = Warehouse(shop)
    for day in DAYS:
        put_day(warehouse, day)
        if day.day in REASONS:
            run(Night(shop, day, warehouse, f"night-{day}"))
    assert {night: told(warehouse, night) for night in REASONS} == REASONS

    at_once = shop.model_copy(update={"home": tmp_path / "at_once"})
    for day in DAYS:
        put_day(Warehouse(at_once), day)
    run(Night(at_once, DAYS[-1], Warehouse(at_once), "once"))
    assert labels(warehouse) == labels(Warehouse(at_once))

    run(Night(shop, DAYS[5], warehouse, "again"))  # a night that is run again tells the same
    assert told(warehouse, 6) == REASONS[6]
