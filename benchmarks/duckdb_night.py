"""The stages clean and features of the big log in DuckDB: the same raw files, the same tables as Parquet, no pipeline around.

What it leaves out: the raw text of what is set aside, the comparison of schemas, the item graph, candidates, and publishing.

  python -m benchmarks.duckdb_night SHOP_FILE AS_OF_DATE     (prints the rows and clicks of the training examples)
"""

import datetime as dt
import json
import shutil
import sys
from pathlib import Path

import duckdb

from benchmarks.sql_features import TABLES, make_tables
from nightshelf.config import load_shop
from nightshelf.dates import days_back
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.features import attribute_columns, index_features
from nightshelf.parallel import cores

_EVENT = {"uid": "VARCHAR", "sku": "VARCHAR", "act": "VARCHAR", "ts": "BIGINT"}
_SHOWN = {**_EVENT, "rid": "VARCHAR", "pos": "INTEGER"}
LOGS = {
    "home": ("json", _SHOWN),
    "search": ("csv", {**_SHOWN, "q": "VARCHAR"}),
    "orders": ("csv", {**_EVENT, "n": "INTEGER", "amount": "DOUBLE"}),
}
SCENARIOS = {"home": "home_feed", "search": "search", "orders": "cart"}
KINDS = {"show": "impression", "clk": "click", "add": "cart", "pay": "purchase"}


def main() -> None:
    """Do the night and print what came of it."""
    shop, night = load_shop(sys.argv[1]), dt.date.fromisoformat(sys.argv[2])
    days = days_back(night, shop.history_days)
    out = shop.home / "duckdb"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with duckdb.connect(str(out / "night.duckdb")) as db:
        db.execute(
            "SET TimeZone = 'UTC'; SET preserve_insertion_order = false; SET memory_limit = '12GB'; "
            f"SET threads = {cores()}"
        )
        _clean(db, shop.home / "raw", days)
        _vocabularies(db, shop)
        make_tables(db, shop, days, days[0], night)
        for table in ("events", "shown", "vocabularies", *TABLES):
            db.execute(f"COPY {table} TO '{out}/{table}.parquet' (COMPRESSION zstd, COMPRESSION_LEVEL 1)")
        rows, clicks = db.execute("SELECT count(*), sum(label_click)::BIGINT FROM training_examples").fetchone() or (
            0,
            0,
        )
    print(json.dumps({"training_examples": rows, "clicks": clicks}))


def _clean(db: duckdb.DuckDBPyConnection, raw: Path, days: list[dt.date]) -> None:
    """Make events (typed, without repeats, of known items, at most two days late), items, users and shown."""
    kind = " ".join(f"WHEN '{name}' THEN '{meaning}'" for name, meaning in KINDS.items())
    parts = []
    for log, (suffix, columns) in LOGS.items():
        files = [f"{raw}/{log}/{day}.{suffix}.gz" for day in days]
        extra = [("pos", "position"), ("rid", "request_id"), ("q", "query"), ("n", "quantity"), ("amount", "price")]
        told = ", ".join(f"{name if name in columns else 'NULL'} AS {column}" for name, column in extra)
        header = ", header = true" if suffix == "csv" else ""
        parts.append(
            f"""SELECT sha256(concat_ws('|', '{log}', {", ".join(columns)})) AS event_id, sha256('key' || uid) AS user_key,
                sku AS item_id, CASE act {kind} END AS event_type, to_timestamp(ts / 1000) AS event_ts,
                '{SCENARIOS[log]}' AS scenario, regexp_extract(filename, '([0-9-]{{10}})', 1)::DATE AS as_of_date, {told}
            FROM read_{suffix}({files}, columns = {columns}, filename = true{header})"""
        )
    db.execute("CREATE TABLE known AS SELECT DISTINCT sku FROM read_csv($1)", [f"{raw}/items.csv"])
    db.execute(
        f"""CREATE TABLE events AS
        SELECT *, (event_ts AT TIME ZONE 'UTC')::DATE AS event_date, NULL::VARCHAR AS anchor_item_id,
            NULL::DOUBLE AS dwell_seconds, NULL::DOUBLE AS rating, NULL::DOUBLE AS propensity
        FROM ({" UNION ALL ".join(parts)})
        WHERE item_id IN (FROM known) AND event_date BETWEEN as_of_date - 2 AND as_of_date AND event_type IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY as_of_date) = 1"""
    )
    db.execute("CREATE TABLE day AS SELECT unnest($1)::DATE AS as_of_date", [days])
    path = "string_split(category, '/')"
    levels = ", ".join(f"array_to_string({path}[1:{n}], '/') AS category_{n}" for n in (1, 2, 3))
    db.execute(
        f"""CREATE TABLE items AS SELECT as_of_date, sku AS item_id, title, {levels}, brand, price, NULL::DATE AS launch_date,
            colour AS attribute_colour FROM read_csv('{raw}/items.csv'), day"""
    )
    db.execute(
        f"""CREATE TABLE users AS SELECT as_of_date, sha256('key' || uid) AS user_key, age AS user_age_band
            FROM read_csv('{raw}/users.csv'), day"""
    )
    db.execute(
        """CREATE TABLE shown AS SELECT as_of_date, event_id AS impression_id, event_date, event_ts AS impression_ts, scenario,
            user_key, item_id, request_id, position, propensity, 1.0 AS sampling_rate
        FROM events WHERE event_type = 'impression'"""
    )


def _vocabularies(db: duckdb.DuckDBPyConnection, shop) -> None:  # type: ignore[no-untyped-def]
    of_items = {f.vocabulary for f in index_features(shop) if f.owner == "item" and f.vocabulary} - {"item"}
    found = [
        "SELECT 'user' AS feature, user_key AS value FROM events",
        "SELECT 'item', item_id FROM events",
        "SELECT 'item', item_id FROM items",
        *(f"SELECT '{name}', {name} FROM items" for name in sorted(of_items)),
        *(f"SELECT 'user_{name}', user_{name} FROM users" for name in attribute_columns(shop)),
    ]
    db.execute(
        f"""CREATE TABLE vocabularies AS SELECT feature, value, NULL::DATE AS evicted_on,
            {OOV_BUCKETS} + row_number() OVER (PARTITION BY feature ORDER BY value) AS index
        FROM (SELECT DISTINCT feature, value FROM ({" UNION ALL ".join(found)})) WHERE value IS NOT NULL"""
    )


if __name__ == "__main__":
    main()
