"""From raw files to tables: where a line lies, the order of lines and of files, and partitions change nothing."""

import datetime as dt
import gzip
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nightshelf.config import Shop
from pipelines.stage import run_stage
from pipelines.warehouse import Warehouse

pytestmark = [pytest.mark.spark, pytest.mark.night]

NIGHT = dt.date(2026, 2, 2)
PATHS = {"home_log": "raw/home/{event_date}/*.gz", "order_log": "raw/orders/{event_date}*"}
SCENARIOS = {"home_feed": {"utility": {"click": 1}}}
BROKEN = {".gz": '{"uid":', ".csv": "u1,i1"}
PARTITIONS = {"plain": 2, "scattered": 5}
STAGES = f"""
import datetime, sys
from nightshelf.config import load_shop
from pipelines.stage import run_stage
for stage in ("clean", "features"):
    run_stage(stage, load_shop(sys.argv[1]), datetime.date({NIGHT:%Y, %-m, %-d}))
"""
QUARANTINE = {"orphans": {"purchase": "1h"}, "bots": {"max_clicks_per_day": 6}, "max_share": 0.99}


def make_shop(make_tiny_shop, folder: Path, engine: str, partitions: int) -> Shop:
    """Write two days of two logs, each file with copies of some lines, others repeated 2 s later, and a broken one."""
    folder.mkdir()
    told = [source.model_dump(mode="json") for source in make_tiny_shop(folder, days=0).sources]
    sources = [
        {**source, "path": PATHS[source["name"]], "repeats_within": "5s"} for source in told if source["name"] in PATHS
    ]
    spark = {"engine": engine, "shuffle_partitions": partitions}
    shop = make_tiny_shop(folder, days=2, sources=sources, scenarios=SCENARIOS, quarantine=QUARANTINE, spark=spark)
    for file in log_files(shop):
        head, rows = read_lines(file)
        write_lines(file, [*head, *rows, *rows[::3], *map(seconds_later, rows[::4]), BROKEN[file.suffix]])
    return shop


def seconds_later(row: str) -> str:
    return re.sub(r'("ts": )(\d+)', lambda found: f"{found[1]}{int(found[2]) + 2000}", row)


def log_files(shop: Shop) -> list[Path]:
    return sorted(file for log in ("home", "orders") for file in (shop.home / "raw" / log).rglob("*.*"))


def read_lines(file: Path) -> tuple[list[str], list[str]]:
    """Return the header, if there is one, and the rows."""
    lines = (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()).decode().splitlines()
    return (lines[:1], lines[1:]) if file.suffix == ".csv" else ([], lines)


def write_lines(file: Path, lines: list[str]) -> None:
    content = "".join(f"{line}\n" for line in lines).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def scatter(shop: Shop) -> None:
    """Deal the shuffled lines of each log out to three files; the names, in reverse, are others than before."""
    chance = random.Random(5)
    for file in log_files(shop):
        head, rows = read_lines(file)
        file.unlink()
        chance.shuffle(rows)
        name, suffix = file.name.split(".", 1)
        for n in range(3):
            write_lines(file.with_name(f"{name}-{9 - n}.{suffix}"), [*head, *rows[n::3]])


def tables_of(shop: Shop) -> dict[str, list[str]]:
    """Return all tables that the stages wrote; which file a row was set aside in is no content."""
    warehouse = Warehouse(shop)
    written = [name for name in warehouse.specs if name != "stage_runs" and warehouse.snapshot_id(name)]
    told = {name: warehouse.read(name).to_pylist() for name in written}
    return {name: sorted(str({**row, "file": None}) for row in rows) for name, rows in told.items()}


@pytest.fixture
def two_shops(make_tiny_shop, tmp_path, monkeypatch):
    """Return make(engine) → the shop, and the same with its logs scattered over files and more partitions."""
    monkeypatch.setenv("NIGHTSHELF_ID_KEY", "a key of the test alone, 32 bytes or more")
    monkeypatch.delenv("NIGHTSHELF_HOME", raising=False)

    def make(engine: str) -> tuple[Shop, Shop]:
        plain, scattered = (make_shop(make_tiny_shop, tmp_path / name, engine, n) for name, n in PARTITIONS.items())
        scatter(scattered)
        return plain, scattered

    return make


def check_equal(plain: Shop, scattered: Shop, count: int) -> None:
    one, other = tables_of(plain), tables_of(scattered)
    assert len(one) >= count
    assert [name for name, rows in one.items() if not rows] == []
    reasons = "\n".join(one["quarantine"])
    assert [name for name in ("unparsable", "orphan_outcome", "bot") if f"'{name}'" not in reasons] == []
    assert [name for name in one | other if one.get(name) != other.get(name)] == []


@pytest.mark.engines
def test_the_cleaned_tables_are_the_same(two_shops, five_partitions):
    plain, scattered = two_shops("spark")
    run_stage("clean", plain, NIGHT)
    with five_partitions():
        run_stage("clean", scattered, NIGHT)
    check_equal(plain, scattered, 6)


@pytest.mark.long
def test_every_table_is_the_same(two_shops):
    """On Sail, in processes of their own: it takes a sixth of Spark's time, whose features meet other partitions elsewhere."""
    shops = two_shops("sail")
    for shop in shops:
        done = subprocess.run([sys.executable, "-c", STAGES, str(shop.home.parent / "tiny.yaml")], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
    check_equal(*shops, 20)
