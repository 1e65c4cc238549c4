"""What every test may use: one Spark session, and a tiny shop whose logs are written by hand."""

import csv
import datetime as dt
import gzip
import json
import math
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from nightshelf.config import Shop, load_shop
from nightshelf.tables import table_specs

if TYPE_CHECKING:
    import pandas as pd

FIRST_DAY = dt.date(2026, 2, 1)
# Of the night alone, and of few users, scenarios and categories in a random world
FEW_KEYS = ("user_scenario_features", "attribute_features")

TINY_SHOP: dict[str, Any] = {
    "shop": "tiny",
    "timezone": "Asia/Shanghai",
    "history_days": 10,
    "sources": [
        {
            "name": "home_log",
            "path": "raw/home/{event_date}/*.jsonl.gz",
            "format": "jsonl",
            "scenario": "home_feed",
            "event_type": {"column": "action", "map": {"show": "impression", "clk": "click"}},
            "columns": {"user_id": "uid", "item_id": "sku", "event_ts": "ts", "request_id": "rid", "position": "pos"},
            "timestamp": {"format": "epoch_ms"},
            "late_by_days": 1,
        },
        {
            "name": "search_log",
            "path": "raw/search/{event_date}.csv",
            "format": "csv",
            "scenario": "search",
            "event_type": {"column": "what", "map": {"seen": "impression", "clicked": "click"}},
            "columns": {
                "user_id": "who",
                "item_id": "item",
                "event_ts": "at",
                "request_id": "req",
                "position": "rank",
                "query": "q",
            },
            "timestamp": {"format": "yyyy-MM-dd HH:mm:ss", "timezone": "Asia/Shanghai"},
            "late_by_days": 1,
        },
        {
            "name": "order_log",
            "path": "raw/orders/{event_date}.csv",
            "format": "csv",
            "csv": {"delimiter": ";"},
            "scenario": "home_feed",
            "event_type": {"column": "act", "map": {"add": "cart", "pay": "purchase"}},
            "columns": {
                "user_id": "customer",
                "item_id": "article",
                "event_ts": "unix",
                "quantity": "n",
                "price": "amount",
            },
            "timestamp": {"format": "epoch_s"},
            "late_by_days": 1,
        },
    ],
    "items": {
        "path": "raw/items.csv",
        "format": "csv",
        "columns": {
            "item_id": "sku",
            "title": "title",
            "category": "category",
            "brand": "brand",
            "price": "price",
            "stock": "stock",
        },
        "attributes": ["colour"],
    },
    "users": {"path": "raw/users.csv", "format": "csv", "columns": {"user_id": "user_id", "age_band": "age_band"}},
    "tasks": {
        "click": {"event": "click", "label_window": "1h"},
        "cart": {"event": "cart", "given": "click", "label_window": "1d"},
        "purchase": {"event": "purchase", "given": "click", "label_window": "2d"},
        "spend": {"event": "purchase", "given": "click", "value": "amount", "kind": "regression", "label_window": "2d"},
    },
    "scenarios": {
        "home_feed": {"top_n": 5, "utility": {"click": 1, "purchase": 10}},
        "search": {"top_n": 3, "utility": {"click": 1}},
    },
    "spark": {"master": "local[2]", "driver_memory": "1g", "shuffle_partitions": 2},
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The one Spark session of all tests; stages that ask for a session get this one. $NIGHTSHELF_TEST_ENGINE: sail.

    Its tables are tiny and its plans many: compiling them costs more than it saves. The night through the real DAG, in
    tests/dags, starts its own sessions and compiles as every night does.
    """
    from feature_jobs.session import spark_session

    engine = os.environ.get("NIGHTSHELF_TEST_ENGINE")
    place = {"engine": engine} if engine else TINY_SHOP["spark"]
    shop = Shop.model_validate({**TINY_SHOP, "spark": place, "home": str(tmp_path_factory.mktemp("spark"))})
    with pytest.MonkeyPatch.context() as patch:
        # With the first compiler alone Java keeps 48 MB of code, which the tests fill: then it sweeps more than it runs
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")
        session = spark_session(shop)
    session.conf.set("spark.sql.codegen.wholeStage", "false")
    yield session
    session.stop()


@pytest.fixture
def five_partitions(spark: Any) -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which the shared session has five partitions after each shuffle, however small; else it is one."""

    @contextmanager
    def scattered() -> Iterator[None]:
        told = {"spark.sql.shuffle.partitions": "5", "spark.sql.adaptive.coalescePartitions.enabled": "false"}
        before = {name: spark.conf.get(name) for name in told}
        try:
            for name, value in told.items():
                spark.conf.set(name, value)
            yield
        finally:
            for name, value in before.items():
                spark.conf.set(name, value)

    return scattered


@pytest.fixture(scope="session")
def make_tiny_shop() -> Callable[..., Shop]:
    """Return make(folder, days=5, user_count=12, item_count=15, seed=0, **overrides) → Shop, with raw logs from 2026-02-01 on.

    Keyword overrides replace top-level keys of the shop file (None removes one). Item `i0` is the most popular; user `u0`
    has events on every day. The shop file lies at folder/tiny.yaml, its home at folder/home.
    """

    def make(
        folder: Path, days: int = 5, user_count: int = 12, item_count: int = 15, seed: int = 0, **overrides: Any
    ) -> Shop:
        home = folder / "home"
        content = {**TINY_SHOP, "home": str(home), **overrides}
        content = {key: value for key, value in content.items() if value is not None}
        (folder / "tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        if days:
            write_tiny_logs(home / "raw", days, user_count, item_count, seed)
        return load_shop(folder / "tiny.yaml")

    return make


@pytest.fixture
def tiny_shop(
    tmp_path: Path, make_tiny_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Shop]:
    """Return make_tiny_shop for this test's own folder."""
    monkeypatch.delenv("NIGHTSHELF_HOME", raising=False)
    monkeypatch.delenv("NIGHTSHELF_ID_KEY", raising=False)
    return lambda **choices: make_tiny_shop(tmp_path, **choices)


@pytest.fixture(scope="session")
def differences() -> Callable[..., list[str]]:
    """Return find_differences."""
    return find_differences


@pytest.fixture(scope="session")
def write_log() -> Callable[..., None]:
    """Return write(path, rows, delimiter=","): JSON lines (texts as they are), or CSV whose first row is the header."""

    def write(path: Path, rows: list[Any], delimiter: str = ",") -> None:
        if ".csv" in path.suffixes:
            write_csv(path, rows[0], rows[1:], delimiter)
        else:
            write_jsonl(path, rows)

    return write


def write_tiny_logs(raw: Path, days: int, users: int, items: int, seed: int) -> None:
    """Write clean logs: each active user has two home requests and one search a day, and may click, cart and buy."""
    raw.mkdir(parents=True, exist_ok=True)
    colours = ["red", "green", "blue"]
    catalogue = [
        [f"i{n}", f"thing {n}", f"c{n % 2}/d{n % 4}", f"b{n % 3}", 5 + n, 100, colours[n % 3]] for n in range(items)
    ]
    write_csv(raw / "items.csv", ["sku", "title", "category", "brand", "price", "stock", "colour"], catalogue)
    write_csv(raw / "users.csv", ["user_id", "age_band"], [[f"u{n}", ["young", "old"][n % 2]] for n in range(users)])
    for back in range(days):
        _write_tiny_day(raw, FIRST_DAY + dt.timedelta(days=back), users, items, random.Random(f"{seed} {back}"))


def _write_tiny_day(raw: Path, day: dt.date, users: int, items: int, chance: random.Random) -> None:
    midnight = dt.datetime.combine(day, dt.time(), dt.timezone(dt.timedelta(hours=8)))
    home, search, orders = [], [], []
    for user in range(users):
        if user and chance.random() < 0.3:
            continue
        for request in range(3):
            at = midnight + dt.timedelta(hours=8 + 4 * request, minutes=chance.randrange(60))
            rid = f"r{day:%d}-{user}-{request}"
            shown = sorted(chance.sample(range(items), 4), key=lambda n: n + 8 * chance.random())
            for position, item in enumerate(shown, 1):
                clicked = chance.random() < 0.6 / (1 + item / 5)
                moment = at + dt.timedelta(minutes=position)
                if request < 2:
                    base = {"uid": f"u{user}", "sku": f"i{item}", "rid": rid, "pos": position}
                    home.append({**base, "action": "show", "ts": int(at.timestamp() * 1000)})
                    if clicked:
                        home.append({**base, "action": "clk", "ts": int(moment.timestamp() * 1000)})
                else:
                    query = f"thing {shown[0]}"
                    search.append([f"u{user}", f"i{item}", "seen", f"{at:%Y-%m-%d %H:%M:%S}", rid, position, query])
                    if clicked:
                        search.append(
                            [f"u{user}", f"i{item}", "clicked", f"{moment:%Y-%m-%d %H:%M:%S}", rid, position, query]
                        )
                if clicked and chance.random() < 0.5:
                    orders.append([f"u{user}", f"i{item}", "add", int(moment.timestamp()) + 60, 1, 5 + item])
                    if chance.random() < 0.5:
                        orders.append(
                            [f"u{user}", f"i{item}", "pay", int(moment.timestamp()) + 3600, 1 + item % 2, 5 + item]
                        )
    write_jsonl(raw / "home" / str(day) / "part-0.jsonl.gz", home)
    write_csv(raw / "search" / f"{day}.csv", ["who", "item", "what", "at", "req", "rank", "q"], search)
    write_csv(raw / "orders" / f"{day}.csv", ["customer", "article", "act", "unix", "n", "amount"], orders, ";")


def write_jsonl(path: Path, rows: list[Any]) -> None:
    """Write JSON lines (a text is written as it is), gzipped if the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())


def write_csv(path: Path, header: list[str], rows: list[list[Any]], delimiter: str = ",") -> None:
    """Write a CSV file with its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])


def plain_value(value: Any) -> Any:
    """Return a value that compares: lists as floats, NaN and NaT as None, moments without a zone."""
    import numpy as np  # here, for the DAG's tests have neither
    import pandas as pd

    if isinstance(value, list | np.ndarray):
        return [float(v) for v in value]
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, dt.date):
        moment = pd.Timestamp(value)
        return moment.tz_convert(None) if moment.tz else moment
    return value if isinstance(value, str) else float(value)


def is_same(one: Any, other: Any) -> bool:
    """Say whether two plain values are equal, numbers to 1e-9 of their size: those of 32 bits must be the same ones."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)


def as_stored(values: "pd.Series[Any]", kind: str) -> Any:
    """Return the values of a column as a table keeps them that declares it of this type: rounded, if in 32 bits."""
    import numpy as np

    if kind == "list<float32>":
        return [np.asarray(entries, dtype=np.float32) for entries in values]
    return values.astype(np.float32) if kind == "float32" else values


def find_differences(shop: Shop, found: "dict[str, pd.DataFrame]", expected: "dict[str, pd.DataFrame]") -> list[str]:
    """Return what differs between the tables of two worlds of the shop, an example a column.

    The expected numbers are first rounded to the type that the table declares, and then they must agree.
    """
    told, specs = [], table_specs(shop)
    for table, rows in expected.items():
        assert len(rows) > (5 if table in FEW_KEYS else 10), table
        assert len(found[table]) == len(rows), table
        kinds = {column.name: column.type for column in specs[table].columns}
        for column in rows:
            wanted = map(plain_value, as_stored(rows[column], kinds[column]))
            pairs = zip(map(plain_value, found[table][column]), wanted, strict=True)
            wrong = [f"{one} is not {other}" for one, other in pairs if not is_same(one, other)]
            told += [f"{table}.{column}: {wrong[0]} and {len(wrong) - 1} more" for _ in wrong[:1]]
    return told


# Spark and torch both start a thread a core; two cores are what a test may use.
os.environ.setdefault("OMP_NUM_THREADS", "2")
