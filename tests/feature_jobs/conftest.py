"""Frames by hand: rows as dicts, everything that a test does not say is filled in."""

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from nightshelf.config import Shop
from nightshelf.tables import table_specs
from pipelines.arrow_schema import arrow_schema

FEBRUARY = dt.date(2026, 2, 1)
_FILL = {"string": "x", "int32": 0, "int64": 0, "float32": 0.0, "float64": 0.0, "bool": False}


@pytest.fixture
def frame(spark) -> Callable[..., Any]:
    """Return make(shop, table, rows) → DataFrame in the table's schema; missing nullable columns are null."""
    from feature_jobs.schema import spark_schema

    def make(shop: Shop, table: str, rows: list[dict[str, Any]]) -> Any:
        spec = table_specs(shop)[table]
        full = [
            {c.name: row.get(c.name, None if c.nullable else _FILL.get(c.type)) for c in spec.columns} for row in rows
        ]
        # From Arrow: a list of rows would go through a Python process at each reading.
        return spark.createDataFrame(pa.Table.from_pylist(full, arrow_schema(spec)), spark_schema(spec))

    return make


@pytest.fixture
def event() -> Callable[..., dict[str, Any]]:
    """Return make(event_type, user, item, day, hour=12, **columns) → a row of events; days count from 2026-02-01 = 0.

    The hour is of the shop's day in Shanghai, and may be a fraction.
    """
    counter = iter(range(10**6))

    def make(event_type: str, user: str, item: str, day: int, hour: float = 12, **columns: Any) -> dict[str, Any]:
        date = FEBRUARY + dt.timedelta(days=day)
        moment = dt.datetime.combine(date, dt.time(), dt.UTC) + dt.timedelta(hours=hour - 8)
        row = {
            "as_of_date": date, "event_id": f"e{next(counter):06d}", "event_date": date, "event_ts": moment, "source": "log",
            "scenario": "home_feed", "event_type": event_type, "user_key": user, "item_id": item,
        }  # fmt: skip
        return {**row, **columns}

    return make


@pytest.fixture
def random_log(event) -> Callable[..., list[dict[str, Any]]]:
    """Return make(seed, days=6) → events of a random small shop: late arrivals, repeats, ties in time, two scenarios."""

    def make(seed: int, days: int = 6) -> list[dict[str, Any]]:
        chance, rows = random.Random(seed), []
        for _ in range(200):
            user, item, day = f"u{chance.randrange(4)}", f"i{chance.randrange(6)}", chance.randrange(days)
            hour = chance.choice([0, 3, 12, 23]) + chance.choice([0, 0.25, 0.5])
            scenario = chance.choice(["home_feed", "search"])
            kind = chance.choice(["impression"] * 6 + ["click"] * 3 + ["cart", "purchase"])
            row = event(kind, user, item, day, hour, scenario=scenario)
            row["as_of_date"] += dt.timedelta(days=chance.choice([0, 0, 0, 0, 1, 2]))
            if kind in ("impression", "click"):
                row["request_id"] = chance.choice([None, f"r{chance.randrange(5)}"])
            if kind == "impression":
                row["propensity"] = chance.choice([None, 0.001, 0.5])
            if kind == "purchase":
                row |= {"price": chance.choice([5.0, 7.5]), "quantity": chance.choice([None, 2])}
            if kind == "click":
                row["dwell_seconds"] = chance.choice([None, 0.0, 12.5, 300.0])
                row["rating"] = row["dwell_seconds"] and 1.0 + chance.randrange(5)
            if kind == "impression" and scenario == "search":
                row |= {"query": chance.choice(["thing", "A thing, Ä 2", "?"]), "position": chance.choice([1, 2])}
            elif kind == "impression":
                row |= {"anchor_item_id": chance.choice([None, "i0", "i7"]), "position": chance.choice([None, 1])}
            rows.append(row)
        return rows

    return make
