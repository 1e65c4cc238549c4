"""Servers of PostgreSQL and Redis on loopback, with data in a temporary folder; and versions of shelves to export."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from nightshelf.config import load_shop
from nightshelf.tables import table_specs
from pipelines.arrow_schema import arrow_schema
from pipelines.exports.version import Version

DEMO = Path(__file__).parents[2] / "conf" / "shops" / "demo.yaml"
USERS, PLACES = 3000, 5
_SECONDS = 30


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def _program(name: str, *folders: Path) -> str:
    found = shutil.which(name) or next((str(f / name) for f in folders if (f / name).exists()), None)
    if found is None:
        pytest.fail(f"{name} is not on this machine; install it, e.g. apt-get install postgresql redis-server")
    return found


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """Return the address of a server of PostgreSQL."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    initdb, server = (_program(name, *binaries) for name in ("initdb", "postgres"))
    data, port = tmp_path_factory.mktemp("postgres"), _free_port()
    as_user: dict = {}
    if os.getuid() == 0:  # PostgreSQL refuses root
        for folder in [data, *data.parents[:3]]:
            if folder.stat().st_uid == 0 and str(folder) != "/tmp":
                folder.chmod(0o711)
        shutil.chown(data, "postgres", "postgres")
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    home = {"cwd": data, **as_user}
    make = [initdb, "-D", str(data / "db"), "-U", "shop", "-A", "trust", "-E", "UTF8"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, **home)
    command = [server, "-D", str(data / "db"), "-h", "127.0.0.1", "-p", str(port), "-k", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **home)
    url = f"postgresql://shop:secret@127.0.0.1:{port}/postgres"
    try:
        _wait(lambda: psycopg.connect(url).close())
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """Return the address of a server of Redis."""
    folder, port = tmp_path_factory.mktemp("redis"), _free_port()
    command = [_program("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        _wait(lambda: redis.Redis.from_url(url).ping())
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait(attempt):
    until = time.monotonic() + _SECONDS
    while True:
        try:
            return attempt()
        except (psycopg.OperationalError, redis.ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


@pytest.fixture
def version(tmp_path):
    """Return version(number): shelves of 3,000 users, or items, whose scores are all the number, in a file a scenario."""
    specs = table_specs(load_shop(DEMO))

    def make(number: int, kind: str = "recommendations") -> Version:
        files, schema = [], arrow_schema(specs[kind])
        for scenario in ("home_feed", "search"):
            count = USERS * PLACES
            columns = {
                "as_of_date": pa.array([f"2026-02-{1 + number % 28:02d}"] * count).cast(pa.date32()),
                "scenario": pa.repeat(scenario, count),
                "user_key": pa.array([f"u{n // PLACES}" for n in range(count)]),
                "anchor_item_id": pa.array([f"a{n // PLACES}" for n in range(count)]),
                "rank": pa.array([1 + n % PLACES for n in range(count)], pa.int32()),
                "item_id": pa.array([f'i"{n % PLACES}, ü' for n in range(count)]),
                "score": pa.repeat(float(number), count),
                "reason": pa.array(["" if n % 2 else "Goes with 'it'" for n in range(count)]),
            }
            table = pa.table([columns.get(field.name, _plain(field, count)) for field in schema], schema=schema)
            files.append(str(tmp_path / f"{number}-{scenario}.parquet"))
            pq.write_table(table, files[-1])
        return Version(f"202602{1 + number % 28:02d}_{number:08x}", files, schema)

    return make


def _plain(field: pa.Field, count: int) -> pa.Array:
    if field.name.startswith("p_"):
        return pa.nulls(count, field.type)
    value = "x" if field.type == pa.string() else 1
    return pa.repeat(pa.scalar(value, field.type), count)
