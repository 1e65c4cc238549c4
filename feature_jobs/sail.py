"""The embedded engine: Sail, which speaks Spark Connect's protocol, inside this process. It needs no Java.

Sail carries out the jobs' DataFrames as Spark does, but for what is refused here and in feature_jobs.raw_lines.
"""

import atexit
import json
import os
import re
from functools import cache
from typing import TYPE_CHECKING

from nightshelf.config import Shop
from nightshelf.errors import InputError

if TYPE_CHECKING:
    from pysail.spark import SparkConnectServer

# Looking around, back references, atomic groups and possessive repeats.
_NOT_IN_RUST = re.compile(r"\(\?(?:<?[=!]|>)|\\[1-9]|[*+?}]\+")
_WEEK = 7 * 24 * 3600


def start_sail(shop: Shop) -> str:
    """Start Sail on a random port of loopback, to be stopped when this process ends; returns its address, sc://host:port.

    A process has one at most: a second call returns the first one's address. Its memory is not bounded: it counts a text
    as large as the block that the text was cut from, and would refuse a night that takes a tenth of what it counts.

    Raises:
        InputError: the shop needs what Sail does not have, or the package is not installed.
    """
    check_sail(shop)
    host, port = _server(shop.home.as_posix(), shop.spark.shuffle_partitions).listening_address
    return f"sc://{host}:{port}"


def is_embedded() -> bool:
    """Say whether this process's session is Sail's."""
    return _server.cache_info().currsize > 0


@cache
def _server(home: str, partitions: int) -> "SparkConnectServer":
    scratch = f"{home}/tmp/sail"
    os.makedirs(scratch, exist_ok=True)  # noqa: PTH103
    os.environ |= {
        "SAIL_EXECUTION__DEFAULT_PARALLELISM": str(partitions),
        "SAIL_RUNTIME__TEMPORARY_FILES__PATHS": json.dumps([scratch]),
        "SAIL_PARQUET__COMPRESSION": "zstd(1)",
        "SAIL_PARQUET__SKIP_ARROW_METADATA": "true",
        "SAIL_SPARK__SESSION_TIMEOUT_SECS": str(_WEEK),
    }
    os.environ.setdefault("RUST_LOG", "error")
    try:
        from pysail.spark import SparkConnectServer
    except ImportError:
        raise InputError(
            "Sail is not installed here; run `make env`, or take `engine: sail` out of the shop file"
        ) from None
    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    atexit.register(server.stop)
    return server


def check_sail(shop: Shop) -> None:
    """Refuse what Sail cannot do.

    Raises:
        InputError: a path with a scheme, or an expression that Rust's regular expressions do not have.
    """
    for pattern in shop.quarantine.test_users:
        if found := _NOT_IN_RUST.search(pattern):
            raise InputError(
                f"quarantine.test_users: {pattern!r}: Sail knows no {found[0]!r} in an expression; "
                "write it without, or take `engine: sail` out of the shop file"
            )
    for place, path in _paths(shop):
        if "://" in path and not path.startswith("file://"):
            raise InputError(
                f"{place}.path = {path!r}: Sail reads raw logs from this machine's files alone; "
                "copy them here, or take `engine: sail` out of the shop file"
            )


def _paths(shop: Shop) -> list[tuple[str, str]]:
    tables = {"items": shop.items, "users": shop.users, "graph": shop.graph}
    paths = [(f"sources.{source.name}", source.path) for source in shop.sources]
    return paths + [(name, table.path) for name, table in tables.items() if table is not None]
