"""Stage clean over logs as other programs write them: every row is in the books, and each value is the one that was meant."""

import datetime as dt
import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightshelf.errors import InputError
from nightshelf.identity import ensure_key, user_key
from pipelines.stage import run_stage
from pipelines.warehouse import Warehouse

pytestmark = [pytest.mark.spark, pytest.mark.night]
DAY = dt.date(2026, 2, 1)
NOON = dt.datetime(2026, 2, 1, 12)  # of the shop, in Shanghai
SHOWN_LOG = {
    "name": "shown_log", "path": "raw/shown/{event_date}/*.parquet", "format": "parquet", "scenario": "search",
    "event_type": "impression", "columns": {"user_id": "user", "item_id": "item", "event_ts": "at", "position": "place"},
    "timestamp": {"format": "iso8601"},
}  # fmt: skip


@pytest.fixture
def shop(tiny_shop, write_log):
    """Return a shop with one log, of Parquet, and a catalogue of two items whose ids are numbers."""
    tasks = {"click": {"event": "impression", "label_window": "1h"}}
    scenarios = {"search": {"utility": {"click": 1}}}
    shop = tiny_shop(
        days=0, sources=[SHOWN_LOG], users=None, tasks=tasks, scenarios=scenarios, quarantine={"max_share": 0.9}
    )
    write_log(shop.home / "raw/items.csv", [["sku", "title", "category", "brand", "price", "stock", "colour"]])
    rows = "".join(f"{item},t,c,b,1,1,red\n" for item in ("42", "12345678"))
    (shop.home / "raw/items.csv").write_text((shop.home / "raw/items.csv").read_text() + rows)
    (shop.home / "raw/shown/2026-02-01").mkdir(parents=True)
    return shop


def test_parquet_files_of_other_types_in_one_day_say_the_same(spark, shop):
    folder = shop.home / "raw/shown/2026-02-01"
    moment = NOON - dt.timedelta(hours=8)  # in UTC
    files = {
        "floats": ([7.0, None], [42.0, 42.0], pa.array([NOON] * 2, pa.timestamp("us"))),
        "nan": ([7.0, float("nan")], [12345678.0] * 2, pa.array([moment] * 2, pa.timestamp("ms", "UTC"))),
        "texts": (["7", "  "], ["42", "42"], pa.array([NOON.isoformat()] * 2)),
        "bytes": ([b"7", b" "], [b"42"] * 2, pa.array([f"{NOON.isoformat()} Asia/Shanghai"] * 2)),
        "unsigned": (pa.array([7, None], pa.uint64()), pa.array([42, 42], pa.uint32()), pa.array([NOON] * 2, pa.timestamp("ns"))),
        "old": (["7", None], ["42"] * 2, pa.array([moment] * 2, pa.timestamp("ns"))),
        "empty": (pa.array([], pa.string()), pa.array([], pa.string()), pa.array([], pa.timestamp("us"))),
    }  # fmt: skip
    for place, (name, (users, items, times)) in enumerate(files.items()):
        columns = {"user": users, "item": items, "at": times, "place": pa.array([place] * len(times), pa.int16())}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet", use_deprecated_int96_timestamps=name == "old")
    run_stage("clean", shop, DAY)
    warehouse, key = Warehouse(shop), ensure_key(shop).read_bytes()
    (counts,) = warehouse.read("source_counts").to_pylist()
    assert [counts[name] for name in ("rows_read", "kept", "quarantined", "duplicates")] == [12, 6, 6, 0]
    assert {row["reason"] for row in warehouse.read("quarantine").to_pylist()} == {"missing_key_field"}
    events = {row["position"]: row for row in warehouse.read("events").to_pylist()}
    assert {row["user_key"] for row in events.values()} == {user_key("7", key)}
    assert [events[place]["item_id"] for place in range(6)] == ["42", "12345678", "42", "42", "42", "42"]
    assert {row["event_ts"] for row in events.values()} == {moment.replace(tzinfo=dt.UTC)}


def test_a_broken_file_among_good_ones_is_told_by_its_name(spark, tiny_shop):
    shop = tiny_shop(days=1, user_count=3)
    (good,) = (shop.home / "raw/home/2026-02-01").iterdir()
    line = gzip.decompress(good.read_bytes()).splitlines()[0].decode()
    rows = "\n".join(line + " " * (n % 97) for n in range(50_000)).encode()
    (good.parent / "late.jsonl.gz").write_bytes(gzip.compress(rows)[:-500])
    with pytest.raises(InputError, match=r"late\.jsonl\.gz: cannot be read to its end .*; bring the file again"):
        run_stage("clean", shop, DAY)
    assert Warehouse(shop).partitions("events") == []
