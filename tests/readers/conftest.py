"""The shop's tables, and two engines that read them with nothing of nightshelf: Spark with Iceberg's runtime, and DuckDB."""

import datetime as dt
import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from nightshelf.config import load_shop
from nightshelf.table_spec import ColumnType, TableSpec
from pipelines.arrow_schema import arrow_schema
from pipelines.warehouse import Warehouse

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "conf/shops/demo.yaml"
SQLITE_DRIVER = Path("/usr/share/java/sqlite-jdbc.jar")
DAYS = [dt.date(2026, 2, day) for day in (12, 13, 14)]
_FLOATS = [0.1, -0.0, 1e-30, 3e38, float(2**24 + 1)]
# What a column of each type may hold, the ends of its range among it
_VALUES: dict[ColumnType, list[Any]] = {
    "string": ["", "*", "ü'\"\n\\", "x" * 300],
    "int32": [-(2**31), 0, 2**31 - 1],
    "int64": [-(2**63), 0, 2**63 - 1],
    "float32": _FLOATS,
    "float64": _FLOATS,
    "bool": [True, False],
    "date": [dt.date(1969, 12, 31), dt.date(2026, 2, 28)],
    "timestamp": [dt.datetime(2026, 2, 1, 23, 59, 59, 999999, dt.UTC), dt.datetime(1969, 12, 31, 23, tzinfo=dt.UTC)],
    "list<int32>": [[], [-5], [1, 2, 3]],
    "list<float32>": [[], [2.5], [0.1, 1e-20]],
}
Rows = Counter[str]


class Reader(Protocol):
    """An engine that opens tables of Iceberg."""

    def read(self, metadata: str, *, snapshot: int = 0, at_ms: int = 0, day: dt.date | None = None) -> Rows:
        """Return the rows that a metadata file names: of now, a snapshot or a moment; all of them, or those of one day."""


def count_rows(rows: list[dict[str, Any]]) -> Rows:
    """Return rows in a form that compares: every column with its name, in the table's order; the rows in any order."""
    return Counter(repr({name: _plain(value) for name, value in row.items()}) for row in rows)


def _plain(value: Any) -> Any:
    """Return a moment in UTC, since Spark tells it in this process's own zone; and all else as it is."""
    return value.astimezone(dt.UTC).isoformat() if isinstance(value, dt.datetime) else value


class SparkReader:
    """Spark 3.5 with Iceberg's own runtime."""

    def __init__(self, spark: SparkSession) -> None:
        self.spark = spark

    def read(self, metadata: str, *, snapshot: int = 0, at_ms: int = 0, day: dt.date | None = None) -> Rows:
        asked = self.spark.read.format("iceberg")
        if snapshot:
            asked = asked.option("snapshot-id", snapshot)
        if at_ms:
            asked = asked.option("as-of-timestamp", at_ms)
        table = asked.load(metadata)
        if day:
            table = table.where(f"as_of_date = DATE '{day}'")
        return count_rows([row.asDict() for row in table.collect()])


class DuckReader:
    """DuckDB with its extension `iceberg`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    def read(self, metadata: str, *, snapshot: int = 0, at_ms: int = 0, day: dt.date | None = None) -> Rows:
        quoted = metadata.replace("'", "''")
        asked = f"'{quoted}'"
        if snapshot:
            asked += f", snapshot_from_id = {snapshot}"
        if at_ms:
            asked += f", snapshot_from_timestamp = make_timestamp({1000 * at_ms})"
        days = f"WHERE as_of_date = DATE '{day}'" if day else ""
        return count_rows(self.connection.execute(f"FROM iceberg_scan({asked}) {days}").to_arrow_table().to_pylist())


@pytest.fixture(scope="session")
def spark_with_iceberg() -> Iterator[SparkSession]:
    """Return a session of Spark that has Iceberg's runtime and SQLite's driver."""
    import snowpark_connect_deps_iceberg  # here, for `make test` reads this file in an environment without it

    if not SQLITE_DRIVER.exists():
        pytest.fail(f"{SQLITE_DRIVER} is not on this machine; install it: apt-get install libxerial-sqlite-jdbc-java")
    jars = Path(snowpark_connect_deps_iceberg.__file__).parent / "jars"
    [runtime] = jars.glob("iceberg-spark-runtime-3.5_2.12-*.jar")
    told = {
        "spark.jars": f"{runtime},{SQLITE_DRIVER}",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    session = SparkSession.builder.master("local[2]").config(map=told).getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="session")
def duckdb_with_iceberg(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """Return the connection that `duckdb.sql` uses; it finds the extensions as after `INSTALL iceberg`."""
    import duckdb_extension_avro
    import duckdb_extension_iceberg

    connection = duckdb.default_connection()
    version, platform = connection.sql("SELECT version(), (FROM pragma_platform())").fetchall()[0]
    folder = tmp_path_factory.mktemp("extensions") / version / platform
    folder.mkdir(parents=True)
    for package in (duckdb_extension_avro, duckdb_extension_iceberg):
        [extension] = Path(package.__file__).parent.glob("extensions/*/*.duckdb_extension")
        (folder / extension.name).symlink_to(extension)
    connection.execute(f"SET extension_directory = '{folder.parents[1]}'")
    connection.execute("LOAD iceberg")
    return connection


@pytest.fixture(scope="session", params=["spark", "duckdb"])
def reader(request: pytest.FixtureRequest) -> Reader:
    """Return one engine after the other."""
    if request.param == "spark":
        return SparkReader(request.getfixturevalue("spark_with_iceberg"))
    return DuckReader(request.getfixturevalue("duckdb_with_iceberg"))


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """Return the demo shop's warehouse, empty, in this test's own home, whose path must be quoted."""
    monkeypatch.setenv("NIGHTSHELF_HOME", str(tmp_path / "it's home"))
    return Warehouse(load_shop(DEMO))


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Return a warehouse whose every table has random rows of three days, one of them published twice, and tags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSHELF_HOME", str(tmp_path_factory.mktemp("full")))
        warehouse, chance = Warehouse(load_shop(DEMO)), random.Random(1)
    for table, spec in warehouse.specs.items():
        for run, day in enumerate([*DAYS[:2], *DAYS[1:]]):
            warehouse.publish_arrow(table, _some_rows(spec, day, chance), [day], f"run-{run}")
            warehouse.tag(table, f"night-{day}")
    return warehouse


def _some_rows(spec: TableSpec, day: dt.date, chance: random.Random) -> pa.Table:
    def value(kind: ColumnType) -> Any:
        return None if chance.random() < 0.2 else chance.choice(_VALUES[kind])

    rows = [{column.name: value(column.type) for column in spec.columns} | {"as_of_date": day} for _ in range(20)]
    return pa.Table.from_pylist(rows, arrow_schema(spec))


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Return the warehouse of a simulated shop after a night by the project's own engines, its shelves made twice."""
    home = tmp_path_factory.mktemp("night")
    place = {**os.environ, "NIGHTSHELF_HOME": str(home), "NIGHTSHELF_ID_KEY": "a key of the test, 32 bytes or more"}
    run = ["run", "--as-of-date", "2026-02-04"]
    simulate = ["simulate", "--days", "4", "--users", "300", "--items", "100"]
    for command in (simulate, run, [*run, "--from", "recommend"], ["maintain"]):
        line = [str(ROOT / ".venv/jobs/bin/nightshelf"), *command, "--shop", str(DEMO)]
        done = subprocess.run(line, cwd=ROOT, env=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIGHTSHELF_HOME", str(home))
        return Warehouse(load_shop(DEMO))


@pytest.fixture(scope="session")
def rows_of() -> Callable[[list[dict[str, Any]]], Rows]:
    """Return count_rows."""
    return count_rows


@pytest.fixture(scope="session")
def ours() -> Callable[..., Rows]:
    """Return ours(warehouse, table, days=None) → the rows that the project itself reads."""
    return lambda warehouse, table, days=None: count_rows(warehouse.read(table, days).to_pylist())


@pytest.fixture(scope="session")
def metadata_of() -> Callable[[Warehouse, str], str]:
    """Return metadata_of(warehouse, table) → the table's newest metadata file."""
    return lambda warehouse, table: warehouse.load(table).metadata_location


@pytest.fixture(scope="session")
def publish() -> Callable[..., None]:
    """Return publish(warehouse, table, rows, day, run): rows as dictionaries; columns that they lack are null."""

    def put(warehouse: Warehouse, table: str, rows: list[dict[str, Any]], day: dt.date, run: str) -> None:
        spec = warehouse.specs[table]
        whole = [{**dict.fromkeys(spec.column_names), **row, "as_of_date": day} for row in rows]
        warehouse.publish_arrow(table, pa.Table.from_pylist(whole, arrow_schema(spec)), [day], run)

    return put
