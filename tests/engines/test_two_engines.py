"""One code, every engine: the tables of two nights over dirty logs, by Spark here, a Spark Connect server, and Sail."""

import datetime as dt
import gzip
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyspark
import pytest
import yaml

from nightshelf.config import load_shop
from pipelines.warehouse import Warehouse
from simulation.simulate import simulate_shop

ROOT = Path(__file__).resolve().parents[2]
FIRST_DAY = dt.date(2026, 2, 10)
NIGHTS = ("2026-02-12", "2026-02-13")
OTHERS = {"stage_runs"}  # it tells times
CLI = "from pipelines.cli import main; main()"
SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
_ADDRESSES = ("connect.grpc.binding.address", "driver.host", "driver.bindAddress")
pytestmark = pytest.mark.engines


def write_shop(folder: Path, raw: Path, spark: dict[str, Any]) -> Path:
    """Write the demo's shop file with a home of its own over the shared logs, and rules that the demo does without."""
    shop = yaml.safe_load((ROOT / "conf/shops/demo.yaml").read_text())
    for table in (*shop["sources"], shop["items"], shop["users"], shop["graph"]):
        table["path"] = f"{raw}/{table['path'].removeprefix('raw/')}"
    shop |= {"home": str(folder / "home"), "spark": {"driver_memory": "1500m", **spark}}
    shop["quarantine"] |= {"orphans": {"click": "1h"}, "bots": {"max_clicks_per_day": 60, "min_clicks": 5}}
    shop["model"] = str(ROOT / shop["model"])
    (folder / "shop.yaml").write_text(yaml.safe_dump(shop, sort_keys=False))
    return folder / "shop.yaml"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulate the logs of four days, and write by hand what logs have that no simulation thought of."""
    home = tmp_path_factory.mktemp("logs")
    shop = load_shop(ROOT / "conf/shops/demo.yaml").model_copy(update={"home": home})
    simulate_shop(shop, FIRST_DAY, 4, 500, 120, 3)
    for day in ("2026-02-11", "2026-02-13"):
        add_odd_rows(home / "raw", day)
    return home / "raw"


def add_odd_rows(raw: Path, day: str) -> None:
    noon = int(dt.datetime.fromisoformat(f"{day}T12:00:00+08:00").timestamp())
    home = {
        "uid": "u<1>é",
        "sku": "S0000001",
        "action": "clk",
        "ts": noon * 1000,
        "rid": "r",
        "pos": 1,
        "prop": 0.00012,
    }
    changes: list[dict[str, Any]] = [
        {}, {"pos": "2.0"}, {"pos": 3.5}, {"prop": "5d"}, {"prop": "NaN"}, {"pos": "1e9"}, {"ts": f"{noon * 1000}"},
        {"ts": noon * 1000 + 0.5}, {"ts": "0x1p40"}, {"uid": {"a": 1.50}}, {"uid": " u2 "}, {"sku": "\U0001f600 \u2028"},
    ]  # fmt: skip
    odd: list[Any] = [{**home, **change} for change in changes]
    odd += [{"UID": "u1", "sku": "x"}, [home], "{}{}", '{"uid":"u1"', " "]
    lines = [text if isinstance(text, str) else json.dumps(text) for text in odd]
    write(raw / f"home_feed/{day}/odd.jsonl.gz", "\n".join([*lines, '{"uid": "\udcff\udcfe"}', "\r"]))
    times = ["2026-02-11 10:00", "10:00:00", "T10:00", "now", "2026-2-11T10:00:00.1234567Z", f"{day}T10:00:00+08:00",
             f"{day}T10:00:00+0800", "2026-02-30T10:00:00Z", "20260211", "", None, f"{day} 10:00:00 UTC"]  # fmt: skip
    search = {"user": "u1", "product": "S0000002", "type": "click", "request": "r", "rank": 1, "q": "a\u0000b"}
    write(raw / f"search/{day}/odd.jsonl.gz", "\n".join(json.dumps({**search, "time": moment}) for moment in times))
    header = gzip.decompress(next(iter((raw / f"cart/{day}").glob("*.csv.gz"))).read_bytes()).decode().splitlines()[0]
    row = {
        "customer": "u3",
        "article": "S0000003",
        "unix": str(noon),
        "req": "r",
        "act": "add",
        "pos": "1",
        "qty": "2",
        "unit_price": "5",
    }
    changes = [
        {}, {"customer": '"u;3"'}, {"customer": '"u ""3"""'}, {"customer": '"u3'}, {"customer": "u3;x"}, {"customer": 'a"b"c'},
        {"req": '""'}, {"unit_price": "1e4"}, {"unit_price": "12345678.9"}, {"unit_price": "0.0001"}, {"qty": "1e-4"},
        {"unix": f"{noon}.25"},
    ]  # fmt: skip
    cart = [";".join({**row, **change}.get(name, "") for name in header.split(";")) for change in changes]
    write(raw / f"cart/{day}/odd.csv.gz", "\r\n".join(["\ufeff" + header, *cart]))


def write(file: Path, text: str) -> None:
    file.write_bytes(gzip.compress(text.encode("utf-8", "surrogateescape"), mtime=0))


def nights(folder: Path, raw: Path, spark: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Run the cleaning and the features of two nights in a process each; return every table's rows."""
    shop_file = write_shop(folder, raw, spark)
    environment = {
        **os.environ,
        "NIGHTSHELF_ID_KEY": "a key of the test alone, 32 bytes or more",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    environment.pop("NIGHTSHELF_HOME", None)
    for night in NIGHTS:
        for stage in ("clean", "features"):
            command = [sys.executable, "-c", CLI, "stage", stage, "--shop", str(shop_file), "--as-of-date", night]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stdout + done.stderr
    warehouse = Warehouse(load_shop(shop_file))
    return {
        name: warehouse.read(name).to_pylist() for name in warehouse.specs.keys() - OTHERS if warehouse.partitions(name)
    }


@pytest.fixture(scope="module")
def by_spark(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return nights(tmp_path_factory.mktemp("spark"), raw, {"master": "local[2]"})


def assert_same(found: dict[str, list[dict[str, Any]]], expected: dict[str, list[dict[str, Any]]]) -> None:
    assert (
        found.keys() == expected.keys() >= {"events", "quarantine", "source_counts", "training_examples", "candidates"}
    )
    for name in sorted(expected):
        assert len(found[name]) == len(expected[name]), name
        pairs = zip(sorted(found[name], key=exact), sorted(expected[name], key=exact), strict=True)
        differing = [(one, other) for one, other in pairs if not equal(one, other)]
        assert not differing, (name, len(differing), difference(*differing[0]))


def exact(row: dict[str, Any]) -> str:
    """Return a row as text to sort by: numbers that may differ in their last place come last, rounded."""
    measured = {key: value for key, value in row.items() if isinstance(value, float)}
    return repr([value for key, value in row.items() if key not in measured]) + repr(
        [f"{v:.6g}" for v in measured.values()]
    )


def equal(one: Any, other: Any) -> bool:
    """Compare two values; floats to 1e-9 of themselves, NaN equals NaN."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {key: (one[key], other[key]) for key in one if not equal(one[key], other[key])}


def test_sail_makes_the_tables_of_spark(raw: Path, by_spark: dict[str, Any], tmp_path: Path) -> None:
    assert_same(nights(tmp_path, raw, {"engine": "sail"}), by_spark)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Start a Spark Connect server from pyspark's own jars; returns its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = Path(pyspark.__file__).parent
    settings = {"spark.connect.grpc.binding.port": str(port), "spark.ui.enabled": "false"}
    settings |= {f"spark.{name}": "127.0.0.1" for name in _ADDRESSES}
    command = [str(home / "bin/spark-submit"), "--master", "local[2]", "--driver-memory", "2g", "--class", SERVER]
    command += [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    own = {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    own["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    jar = next((home / "jars").glob("spark-connect_*.jar"))
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, str(jar)], env={**os.environ, **own}, stdout=log, stderr=log)
    try:
        wait_for_port(port, process, tmp_path / "server.log")
        yield f"sc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise AssertionError(f"no server at port {port}: {log.read_text()[-2000:]}")


def test_a_spark_connect_server_makes_the_tables_of_spark(
    raw: Path, by_spark: dict[str, Any], server: str, tmp_path: Path
) -> None:
    assert_same(nights(tmp_path, raw, {"remote": server}), by_spark)
