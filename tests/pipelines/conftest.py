"""One night of the tiny shop whose tables are written by hand: a few good rows of each, which a test then spoils."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from nightshelf.config import Shop
from nightshelf.daily_tables import daily_tables
from nightshelf.feature_tables import OOV_BUCKETS, feature_tables
from nightshelf.features import dense_features, index_features
from nightshelf.log_tables import log_tables
from nightshelf.table_spec import TableSpec
from pipelines.arrow_schema import arrow_schema
from pipelines.stage import Night
from pipelines.warehouse import Warehouse

DAY = dt.date(2026, 2, 5)
VOCABULARY = 9
_DEFAULTS: dict[str, Any] = {
    "string": "x", "int32": 1, "int64": 1, "float32": 0.5, "float64": 0.5, "bool": True, "date": DAY,
    "timestamp": dt.datetime(2026, 2, 5, tzinfo=dt.UTC), "list<int32>": [1, 2], "list<float32>": [1.0, 0.5],
}  # fmt: skip
# … and of columns that mean the same in every table
_NAMED = {"user_key": "u1", "item_id": "i1", "scenario": "search", "inverse_propensity": 2.0}


@pytest.fixture
def night(tiny_shop: Callable[..., Shop]) -> Night:
    shop = tiny_shop(days=0)
    night = Night(shop, DAY, Warehouse(shop), "2026-02-05-check-1")
    put(night, "events", [{"event_id": "old"}], DAY - dt.timedelta(days=9))  # since when there are features
    return night


def put(night: Night, table: str, rows: list[dict[str, Any]], day: dt.date = DAY) -> None:
    spec = night.warehouse.specs[table]
    full = [{**{name: row.get(name) for name in spec.column_names}, "as_of_date": day} for row in rows]
    night.warehouse.publish_arrow(table, pa.Table.from_pylist(full, arrow_schema(spec)), [day], uuid.uuid4().hex)


@pytest.fixture
def publish() -> Callable[..., None]:
    """Return publish(night, table, rows, day=DAY): one partition; columns that a row lacks are null."""

    return put


@pytest.fixture
def good_rows() -> Callable[..., list[dict[str, Any]]]:
    """Return good_rows(shop, table, change={}): rows of a table that hold every rule; `change` is laid over the last."""

    def make(shop: Shop, table: str, change: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        spec = Warehouse(shop).specs[table]
        rows = [{**_default(spec), **row} for row in _ROWS.get(table, lambda shop: [{}])(shop)]
        rows[-1].update(change or {})
        return rows

    return make


@pytest.fixture
def publish_good(good_rows: Callable[..., list[dict[str, Any]]]) -> Callable[..., None]:
    """Return publish_good(night, *tables): good rows of these tables (default: all that clean and features write)."""

    def put_good(night: Night, *tables: str) -> None:
        shop = night.shop
        written = [spec.name for spec in [*log_tables(shop), *daily_tables(shop), *feature_tables(shop)]]
        for table in tables or [*written, "candidates"]:
            put(night, table, good_rows(shop, table))

    return put_good


@pytest.fixture
def broken() -> Callable[[Night], set[tuple[str, str, str]]]:
    """Return broken(night) → severity, rule and column of the results in data_checks that did not hold."""

    def find(night: Night) -> set[tuple[str, str, str]]:
        rows = night.warehouse.read("data_checks", [DAY]).to_pylist()
        return {(row["severity"], row["expectation"], row["column_name"]) for row in rows if not row["success"]}

    return find


def _default(spec: TableSpec) -> dict[str, Any]:
    plain = {column.name: None if column.nullable else _DEFAULTS[column.type] for column in spec.columns}
    return plain | {name: value for name, value in _NAMED.items() if name in plain}


def _events(shop: Shop) -> list[dict[str, Any]]:
    """Return one event an hour of the shop's day (Shanghai), each source once in three."""
    start = dt.datetime(2026, 2, 4, 16, tzinfo=dt.UTC)
    kinds = [
        ("home_log", "home_feed", "impression"),
        ("search_log", "search", "click"),
        ("order_log", "home_feed", "cart"),
    ]
    rows = []
    for hour in range(24):
        source, scenario, kind = kinds[hour % 3]
        place = {"source": source, "scenario": scenario, "event_type": kind}
        when = {"event_id": f"e{hour}", "event_ts": start + dt.timedelta(hours=hour)}
        rows.append({**when, **place, "position": 1, "price": 2.5})
    return rows


def _source_counts(shop: Shop) -> list[dict[str, Any]]:
    base = {"rows_read": 10, "taken_back": 0, "kept": 8, "quarantined": 1, "duplicates": 1, "other_days": 0}
    return [{"source": source.name, **base} for source in shop.sources]


def _vocabularies(shop: Shop) -> list[dict[str, Any]]:
    features = {f.vocabulary for f in index_features(shop) if f.vocabulary}
    short = {"item": "i", "user": "u"}
    return [
        {"feature": feature, "value": f"{short.get(feature, feature)}{n}", "index": OOV_BUCKETS + n}
        for feature in sorted(features)
        for n in range(1, VOCABULARY + 1)
    ]


def on_day(split: str, night: dt.date = DAY) -> dict[str, dt.date]:
    """Return the dates of an example of a split."""
    day = night - dt.timedelta(days=4 * (split == "train"))
    return {"event_date": day, "feature_date": day - dt.timedelta(days=1)}


def _examples(shop: Shop) -> list[dict[str, Any]]:
    """Return 12 examples in two scenarios and two splits with both classes each."""
    rows = []
    for n in range(12):
        labels = {f"label_{task}": float(n // 4 % 2) for task in shop.tasks}
        masks = {f"mask_{task}": 1.0 for task in shop.tasks}
        place = {"scenario": ("home_feed", "search")[n // 2 % 2], "sample_weight": 1.0}
        when = on_day(("train", "test")[n % 2])
        rows.append({"impression_id": f"e{n}", **when, **place, **labels, **masks})
    return rows


def _normalization(shop: Shop) -> list[dict[str, Any]]:
    """Return a scale for each dense feature, fitted up to the day before."""
    fitted = {"deviation": 1.0, "edges": [0.5, 2.0], "fitted_until": DAY - dt.timedelta(days=1)}
    return [{"feature": feature.name, **fitted} for feature in dense_features(shop)]


_ROWS: dict[str, Callable[[Shop], list[dict[str, Any]]]] = {
    "events": _events,
    "quarantine": lambda shop: [{"source": "home_log", "reason": "bot"}],
    "waiting_events": lambda shop: [{"source": "home_log", "event_type": "click", "scenario": "search"}],
    "source_counts": _source_counts,
    "source_schemas": lambda shop: [{"source": "home_log", "column_name": name} for name in ("uid", "sku")],
    "items": lambda shop: [{"item_id": "i1"}, {"item_id": "i2", "price": 5.0, "stock": 3}],
    "users": lambda shop: [{"user_key": "u1"}, {"user_key": "u2"}],
    "impressions": lambda shop: [{"impression_id": f"e{n}"} for n in range(3)],
    "acts": lambda shop: [{"event_type": "click"}],
    "vocabularies": _vocabularies,
    "user_features": lambda shop: [{"user_key": "u1"}, {"user_key": "u2"}],
    "item_features": lambda shop: [{"item_id": "i1"}, {"item_id": "i2"}],
    "item_scenario_features": lambda shop: [{"scenario": "search", "item_id": f"i{n}"} for n in (1, 2)],
    "user_sequences": lambda shop: [{"user_key": "u1"}, {"user_key": "u2"}],
    "item_graph": lambda shop: [
        {"head": "i1", "relation": "goes_with", "tail": "i2"},
        {"head": "i1", "relation": "co_click", "tail": "i2"},
    ],
    "training_examples": _examples,
    "normalization": _normalization,
    "candidates": lambda shop: [{"user_key": "*", "scenario": s, "item_id": "i1"} for s in shop.scenarios],
}
