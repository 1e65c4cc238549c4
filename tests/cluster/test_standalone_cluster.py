"""The feature jobs on a standalone cluster, a master and two workers from pyspark's own jars: the tables of a local run."""

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyspark
import pytest

from nightshelf.config import Shop, load_shop
from nightshelf.daily_tables import daily_tables
from nightshelf.feature_tables import feature_tables
from nightshelf.log_tables import log_tables
from pipelines.warehouse import Warehouse
from simulation.simulate import simulate_shop

ROOT = Path(__file__).resolve().parents[2]
SHOP = ROOT / "conf/shops/demo.yaml"
NIGHT = "2026-02-13"
SPARK_HOME = Path(pyspark.__file__).parent
pytestmark = pytest.mark.cluster


@dataclass
class Cluster:
    """A running master and its workers."""

    url: str
    web: str
    master: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """Return what the master tells of its workers and applications."""
        with urllib.request.urlopen(f"{self.web}/json/", timeout=5) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def alive(self) -> int:
        return sum(worker["state"] == "ALIVE" for worker in self.state()["workers"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(kind: str, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a daemon of Spark in a process group of its own, so that it can be killed with its executors."""
    command = [str(SPARK_HOME / "bin/spark-class"), f"org.apache.spark.deploy.{kind}", *arguments]
    environment = {
        **os.environ,
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_NO_DAEMONIZE": "1",
    }
    with (folder / f"{kind.split('.')[0]}-{time.monotonic_ns()}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def kill(daemon: subprocess.Popen[bytes]) -> None:
    if daemon.poll() is None:
        os.killpg(daemon.pid, signal.SIGKILL)
    daemon.wait(30)


def wait_for(what: str, seconds: float, holds: Any) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if holds():
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {seconds} s")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    port, web = free_port(), free_port()
    url = f"spark://127.0.0.1:{port}"
    master = start("master.Master", tmp_path, "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(web))
    running = Cluster(url, f"http://127.0.0.1:{web}", master)
    try:
        wait_for("the master", 60, lambda: running.alive() == 0)
        for number in range(2):
            work = ["--work-dir", str(tmp_path / f"work{number}"), "--webui-port", str(free_port())]
            running.workers.append(
                start("worker.Worker", tmp_path, "--host", "127.0.0.1", "--cores", "1", "--memory", "2g", *work, url)
            )
        wait_for("two workers", 60, lambda: running.alive() == 2)
        yield running
    finally:
        for daemon in [*running.workers, master]:
            kill(daemon)


def night(home: Path, master: str) -> subprocess.Popen[str]:
    """Start the cleaning and the features of a simulated shop's night, its logs made in `home` first."""
    shop = load_shop(SHOP).model_copy(update={"home": home})
    simulate_shop(shop, dt.date(2026, 2, 10), 4, 800, 120, 3)
    environment = {
        **os.environ,
        "NIGHTSHELF_HOME": str(home),
        "NIGHTSHELF_SPARK_MASTER": master,
        "NIGHTSHELF_ID_KEY": "a key of the test alone, 32 bytes or more",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    command = [
        str(Path(sys.executable).parent / "nightshelf"),
        "run",
        "--shop",
        str(SHOP),
        "--as-of-date",
        NIGHT,
        "--until",
        "features",
    ]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(run: subprocess.Popen[str], so_far: str = "") -> str:
    out, _ = run.communicate(timeout=900)
    assert run.returncode == 0, so_far + out
    return so_far + out


def table_names(shop: Shop) -> list[str]:
    """Return the tables that `clean` and `features` write."""
    return [spec.name for spec in [*log_tables(shop), *daily_tables(shop), *feature_tables(shop)]]


def tables(home: Path) -> dict[str, list[str]]:
    """Return every table's rows as sorted text."""
    warehouse = Warehouse(load_shop(SHOP).model_copy(update={"home": home}))
    return {name: sorted(map(repr, warehouse.read(name).to_pylist())) for name in table_names(warehouse.shop)}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    home = tmp_path_factory.mktemp("local")
    finish(night(home, "local[2]"))
    return tables(home)


def assert_same(found: dict[str, list[str]], expected: dict[str, list[str]]) -> None:
    assert all(expected.values())
    for name in sorted(expected):
        differing = [pair for pair in zip(found[name], expected[name], strict=False) if pair[0] != pair[1]]
        assert len(found[name]) == len(expected[name]), name
        assert not differing, (name, len(differing), differing[0])


def test_a_cluster_makes_the_tables_of_a_local_run(
    cluster: Cluster, local: dict[str, list[str]], tmp_path: Path
) -> None:
    finish(night(tmp_path / "home", cluster.url))
    applications = cluster.state()["completedapps"]
    assert [application["state"] for application in applications] == ["FINISHED"] * len(applications)
    assert applications  # the work was done there, and not beside it
    assert_same(tables(tmp_path / "home"), local)


@pytest.mark.parametrize("stage", ["clean", "features"])
def test_a_worker_killed_in_the_middle_changes_nothing(
    cluster: Cluster, local: dict[str, list[str]], tmp_path: Path, stage: str
) -> None:
    run, told = night(tmp_path / "home", cluster.url), ""
    assert run.stdout is not None
    for line in run.stdout:
        told += line
        if f"{stage}: start" in line:
            break
    wait_for("executors of both workers", 120, lambda: sum(a["cores"] for a in cluster.state()["activeapps"]) == 2)
    time.sleep(8)  # the session has started, and the stage is at work
    assert run.poll() is None, told
    kill(cluster.workers[0])
    told = finish(run, told)
    assert_same(tables(tmp_path / "home"), local)
    assert cluster.state()["completedapps"], told
