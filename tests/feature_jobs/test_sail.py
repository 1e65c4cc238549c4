"""The embedded engine in a process of its own: what it refuses, what it keeps, and that it ends with the process."""

import subprocess
import sys

import pytest

from feature_jobs.sail import check_sail
from nightshelf.errors import InputError

SESSION = """
from pathlib import Path
from feature_jobs.sail import is_embedded, start_sail
from feature_jobs.session import spark_session
from nightshelf.config import load_shop
shop = load_shop(Path({file!r}))
spark = spark_session(shop)
assert spark is spark_session(shop) and is_embedded()
assert start_sail(shop).startswith("sc://127.0.0.1:")
print(spark.sql("select timestamp'2026-02-01 00:00:00' at").toArrow().schema.field("at").type, spark.range(3).count())
"""


def test_a_session_starts_without_java_and_ends_silently(tiny_shop, tmp_path):
    tiny_shop(days=0, spark={"engine": "sail"})
    code = SESSION.format(file=str(tmp_path / "tiny.yaml"))
    done = subprocess.run([sys.executable, "-c", code], env={"PATH": ""}, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "timestamp[us, tz=UTC] 3\n", "")


@pytest.mark.parametrize("pattern", ["test_(?=x)", "(?<!a)b", r"(a)\1", "a++", "(?>ab)"])
def test_an_expression_that_rust_has_not_is_refused(tiny_shop, pattern):
    shop = tiny_shop(days=0, spark={"engine": "sail"}, quarantine={"test_users": [pattern]})
    with pytest.raises(InputError, match=r"quarantine.test_users: .* Sail knows no .* take `engine: sail` out"):
        check_sail(shop)


def test_logs_elsewhere_are_refused(tiny_shop):
    items = {"path": "s3a://bucket/{event_date}.csv", "format": "csv", "columns": {"item_id": "sku"}}
    with pytest.raises(
        InputError, match=r"items.path = 's3a://bucket/.*': Sail reads raw logs from this machine's files"
    ):
        check_sail(tiny_shop(days=0, spark={"engine": "sail"}, items=items))
    check_sail(tiny_shop(days=0, spark={"engine": "sail"}))
