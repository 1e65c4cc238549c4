"""Raw logs of any size, written by DuckDB in seconds: three logs in two formats, a catalogue, users, and their shop file.

Every number is a hash of its row, so that the same arguments give the same logs. Some rows are late, repeated, or of an
unknown item, as in every log. `skewed` gives one user 1 % and one item 5 % of all impressions.
"""

import datetime as dt
from pathlib import Path

import duckdb
import yaml

FIRST_DAY = dt.date(2026, 3, 1)
CLICK, CART, PURCHASE = 0.08, 0.2, 0.3  # of impressions, of clicks, of carts
SLATE = 10


def shop_file(home: Path, history_days: int) -> dict[str, object]:
    """Return the shop of these logs."""
    stamp = {"timestamp": {"format": "epoch_ms"}, "late_by_days": 2}
    shown = {"user_id": "uid", "item_id": "sku", "event_ts": "ts", "request_id": "rid", "position": "pos"}
    sources = [
        {
            "name": "home_log", "path": "raw/home/{event_date}.json.gz", "format": "jsonl", "scenario": "home_feed",
            "event_type": {"column": "act", "map": {"show": "impression", "clk": "click"}},
            "columns": shown, **stamp,
        },
        {
            "name": "search_log", "path": "raw/search/{event_date}.csv.gz", "format": "csv", "scenario": "search",
            "event_type": {"column": "act", "map": {"show": "impression", "clk": "click"}},
            "columns": {**shown, "query": "q"}, **stamp,
        },
        {
            "name": "order_log", "path": "raw/orders/{event_date}.csv.gz", "format": "csv", "scenario": "cart",
            "event_type": {"column": "act", "map": {"add": "cart", "pay": "purchase"}},
            "columns": {"user_id": "uid", "item_id": "sku", "event_ts": "ts", "quantity": "n", "price": "amount"}, **stamp,
        },
    ]  # fmt: skip
    bought = {"event": "purchase", "given": "click", "label_window": "3d"}
    utility = {"utility": {"click": 1, "purchase": 20}}
    return {
        "shop": "big", "home": str(home), "timezone": "UTC", "history_days": history_days, "sources": sources,
        "items": {
            "path": "raw/items.csv", "format": "csv", "attributes": ["colour"],
            "columns": {"item_id": "sku", "title": "title", "category": "category", "brand": "brand", "price": "price"},
        },
        "users": {"path": "raw/users.csv", "format": "csv", "columns": {"user_id": "uid", "age_band": "age"}},
        "tasks": {
            "click": {"event": "click", "label_window": "1h"},
            "cart": {"event": "cart", "given": "click", "label_window": "1d"},
            "purchase": bought,
            "spend": {**bought, "value": "amount", "kind": "regression"},
        },
        "scenarios": {"home_feed": utility, "search": utility, "cart": utility},
        "quarantine": {"bots": dict.fromkeys(
            ["max_clicks_per_day", "max_impressions_per_day", "max_items_per_day", "max_hours_per_day", "max_even_gaps"]
        )},
    }  # fmt: skip


def write_big_log(
    home: Path, events: int, days: int, history_days: int, skewed: bool = False, items: int | None = None
) -> Path:
    """Write about `events` events over `days` days from FIRST_DAY on; return the shop file. Logs that are there are kept.

    There is a user for every 100 events and, unless told, an item for every 500, up to 50,000.
    """
    home.mkdir(parents=True, exist_ok=True)
    file = home / "shop.yaml"
    if file.exists():
        return file
    users, items = max(events // 100, 100), items or min(max(events // 500, 100), 50_000)
    shown = int(events / (1 + CLICK * (1 + CART * (1 + PURCHASE))))
    with duckdb.connect(str(home / "making.duckdb")) as db:
        db.execute("CREATE MACRO chance(n, k) AS (hash(n, k) % 1000003) / 1000003.0")
        _write_tables(db, home / "raw", users, items)
        db.execute(_impressions(shown, days, users, items, skewed))
        db.execute(_outcomes())
        for n in range(days):
            _write_day(db, home / "raw", FIRST_DAY + dt.timedelta(days=n))
    (home / "making.duckdb").unlink()
    file.write_text(yaml.safe_dump(shop_file(home, history_days), sort_keys=False))
    return file


def _write_tables(db: duckdb.DuckDBPyConnection, raw: Path, users: int, items: int) -> None:
    for name in ("home", "search", "orders"):
        (raw / name).mkdir(parents=True, exist_ok=True)
    db.execute(
        f"""COPY (SELECT 'i' || n AS sku, 'thing ' || n AS title, 'c' || n % 12 || '/d' || n % 60 || '/e' || n % 240 AS category,
            'b' || n % 200 AS brand, round(5 + 200 * chance(n, 1), 2) AS price, 'colour' || n % 9 AS colour,
            DATE '{FIRST_DAY}' - (n % 365)::INT AS launched
        FROM range({items}) t(n)) TO '{raw}/items.csv'"""
    )
    db.execute(f"COPY (SELECT 'u' || n AS uid, 'a' || n % 6 AS age FROM range({users}) t(n)) TO '{raw}/users.csv'")


def _impressions(rows: int, days: int, users: int, items: int, skewed: bool) -> str:
    """Return SQL for the table shown: SLATE items a request; popular items are shown more, busy users come more often."""
    start = int(dt.datetime.combine(FIRST_DAY, dt.time(), dt.UTC).timestamp() * 1000)
    user, item = f"floor({users} * pow(chance(r, 2), 1.5))::BIGINT", f"floor({items} * pow(chance(n, 3), 2.5))::BIGINT"
    if skewed:
        user = f"CASE WHEN chance(r, 4) < 0.01 THEN 0 ELSE {user} END"
        item = f"CASE WHEN chance(n, 5) < 0.05 THEN 0 ELSE {item} END"
    return f"""CREATE TABLE shown AS
        SELECT n, r, 'u' || ({user}) AS uid, 'i' || ({item}) AS sku, n % {SLATE} + 1 AS pos, chance(r, 6) < 0.4 AS is_search,
            {start} + floor(chance(r, 7) * {days} * 86400e3)::BIGINT + (n % {SLATE}) * 10 AS ts
        FROM (SELECT n, n // {SLATE} AS r FROM range({rows}) t(n))"""


def _outcomes() -> str:
    """Return SQL for the table happened: every row of a log, with the day of its file."""
    return f"""CREATE TABLE happened AS
        WITH clicked AS ({_followed("shown", 600, 8, CLICK)}), added AS ({_followed("clicked", 7200, 10, CART)}),
        paid AS ({_followed("added", 40 * 3600, 12, PURCHASE)}),
        every AS (
            SELECT 'show' AS act, * FROM shown UNION ALL SELECT 'clk', * FROM clicked
            UNION ALL SELECT 'add', * FROM added UNION ALL SELECT 'pay', * FROM paid)
        SELECT act, CASE WHEN act IN ('add', 'pay') THEN 'orders' WHEN is_search THEN 'search' ELSE 'home' END AS log,
            uid, CASE WHEN chance(n, 14) < 0.001 THEN 'gone' ELSE sku END AS sku, 'r' || r AS rid, pos, ts,
            1 + n % 2 AS n, round(5 + 200 * chance(substr(sku, 2)::BIGINT, 1), 2) AS amount,
            (to_timestamp(ts / 1000) AT TIME ZONE 'UTC')::DATE + (chance(n, 15) < 0.01)::INT AS arrived
        FROM every, range(CASE WHEN chance(n, 16) < 0.005 THEN 2 ELSE 1 END)"""


def _followed(table: str, seconds: int, k: int, share: float) -> str:
    """Return SQL for what a share of the rows is followed by, within so many seconds."""
    later = f"ts + 5000 + (chance(n, {k}) * {seconds}e3)::BIGINT"
    return f"SELECT * REPLACE ({later} AS ts) FROM {table} WHERE chance(n, {k + 1}) < {share}"


def _write_day(db: duckdb.DuckDBPyConnection, raw: Path, day: dt.date) -> None:
    columns = {
        "home": "uid, sku, act, ts, rid, pos",
        "search": "uid, sku, act, ts, rid, pos, 'thing ' || substr(sku, 2) AS q",
        "orders": "uid, sku, act, ts, n, amount",
    }
    for log, wanted in columns.items():
        query = f"SELECT {wanted} FROM happened WHERE log = '{log}' AND arrived = DATE '{day}' ORDER BY ts"
        kind = "json" if log == "home" else "csv"
        db.execute(f"COPY ({query}) TO '{raw}/{log}/{day}.{kind}.gz' (FORMAT {kind.upper()}, COMPRESSION gzip)")
