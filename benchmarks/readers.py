"""make bench-readers: who reads the shelves while nights publish, are refused and are killed sees whole versions only.

Readers poll the newest night of `recommendations` and then of `item_recommendations` in processes of their own; meanwhile
`nightshelf stage publish` runs again and again over drafts that bear a version: until 20 have published, 5 were refused by
the audit (of either table), and 5 were killed at a random moment and run again. A read is a violation if it sees in either
table rows of two versions, too few rows, a version older than one that was published when it began, or one that no publish
had begun when it ended.

Both tables change in one commit, but a read looks at one after the other: where the commit falls between its looks it is
counted as `apart`, and is no violation. At all other times the bounds above leave one version: who sees two then sees one
that is too old or too new. Prints a table and one JSON line.

  make bench-readers      (or: .venv/jobs/bin/python -m benchmarks.readers --reads 1000 --seed 1)
"""

import argparse
import datetime as dt
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from nightshelf.config import Shop, load_shop
from nightshelf.errors import GateError
from pipelines.arrow_schema import arrow_schema
from pipelines.shelf_status import ITEM_TABLE, TABLE
from pipelines.warehouse import Warehouse

SHOP, NIGHTSHELF = "conf/shops/demo.yaml", str(Path(sys.executable).with_name("nightshelf"))
NIGHT, USERS, ITEMS, READERS = dt.date(2026, 2, 14), 500, 60, 2
PUBLISHED, REFUSED, KILLED = "published", "refused", "killed"
_PAUSE = 0.5  # seconds between two reads, or readers alone would have the machine
OWNERS = {TABLE: "user_key", ITEM_TABLE: "anchor_item_id"}
_LOOK = """
    WITH rows AS (FROM read_parquet($files))
    SELECT count(*), count(DISTINCT (scenario, {owner})), count(DISTINCT reason), min(reason) FROM rows
    WHERE as_of_date = (SELECT max(as_of_date) FROM rows)"""


def main() -> None:
    """Publish, refuse and kill while readers poll."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reads", type=int, default=1000, help="at least so many")
    parser.add_argument("--home", type=Path, default=Path("var/bench-readers"))
    asked = parser.parse_args()
    home = asked.home.absolute()
    shutil.rmtree(home, ignore_errors=True)
    os.environ["NIGHTSHELF_HOME"] = str(home)
    shop = load_shop(SHOP)
    warehouse = Warehouse(shop)
    _put(warehouse, "items", [{"item_id": f"i{n:03}"} for n in range(ITEMS)])
    _put(warehouse, "users", [{"user_key": f"u{n:03}"} for n in range(USERS)])
    context = multiprocessing.get_context("spawn")
    published, begun = context.Value("i", 0), context.Value("i", 0)
    done, found = context.Event(), context.Queue()
    _publish(shop, 1, PUBLISHED, 0.0)
    published.value = begun.value = 1
    expected = {
        table: (len(rows), len({(row["scenario"], row[OWNERS[table]]) for row in rows}))
        for table, rows in _drafts(shop, 1).items()
    }
    asked_of = (shop, expected, published, begun, done, found, asked.reads // READERS)
    readers = [
        context.Process(target=read, args=asked_of, daemon=True) for _ in range(READERS)
    ]  # they end with this process
    for reader in readers:
        reader.start()
    counts = act(shop, random.Random(asked.seed), published, begun)
    done.set()
    told = [found.get() for _ in readers]
    for reader in readers:
        reader.join()
    _print(counts, told, warehouse)


def act(shop: Shop, chance: random.Random, published: "Synchronized[int]", begun: "Synchronized[int]") -> Counter[str]:
    """Run the publishes one after the other, in an order by chance, until as many ended in each way; return how they ended."""
    todo = [PUBLISHED] * 20 + [REFUSED] * 5 + [KILLED] * 5
    chance.shuffle(todo)
    counts: Counter[str] = Counter()
    seconds = 5.0
    version = 1
    while todo:
        wanted, version = todo.pop(), version + 1
        if wanted != REFUSED:
            begun.value = version
        started = time.perf_counter()
        ended = _publish(shop, version, wanted, chance.uniform(0.3, 1.0) * seconds)
        if ended == KILLED:  # what was killed is run again, as the scheduler would
            counts[KILLED] += 1
            ended = _publish(shop, version, PUBLISHED, 0.0)
        elif ended == PUBLISHED:
            seconds = time.perf_counter() - started
            todo += [KILLED] if wanted == KILLED else []  # it was faster
        counts[ended] += 1
        if ended == PUBLISHED:
            published.value = version
        sys.stderr.write(f"version {version}: {wanted}, in the end {ended}\n")
    return counts


def _publish(shop: Shop, version: int, wanted: str, kill_after: float) -> str:
    """Write drafts of a version and run the stage over them; return how it ended."""
    drafts = _drafts(shop, version)
    if wanted == REFUSED:
        drafts[(TABLE, ITEM_TABLE)[version % 2]].pop()
    _put(Warehouse(shop), "shelf_drafts", drafts[TABLE])
    _put(Warehouse(shop), "item_shelf_drafts", drafts[ITEM_TABLE])
    command = [NIGHTSHELF, "stage", "publish", "--shop", SHOP, "--as-of-date", str(NIGHT)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, text=True
    )
    if wanted == KILLED:
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    _, told = process.communicate()
    if process.returncode == -signal.SIGKILL:
        return KILLED
    if process.returncode not in (0, GateError.exit_code):
        sys.exit(f"version {version} ended with {process.returncode}: {told[-500:]}")
    return PUBLISHED if process.returncode == 0 else REFUSED


def _drafts(shop: Shop, version: int) -> dict[str, list[dict[str, Any]]]:
    """Return what wants to be published in each table; its last row is a first place: without it the audit finds a gap."""
    place = {"source": "popular", "reason": f"version {version:03}"}
    of_user, of_item = {**place, "placed_by": "score", "propensity": 1.0}, {**place, "lift": 1.0}
    users, items = ["*", *(f"u{n:03}" for n in range(USERS))], [f"i{n:03}" for n in range(ITEMS)]
    shelves = [
        {**of_user, "scenario": name, "user_key": user, "item_id": items[rank], **_rank(rank)}
        for name, scenario in shop.scenarios.items()
        for user in users
        for rank in range(scenario.top_n, 0, -1)
    ]
    beside = [
        {**of_item, "scenario": name, "anchor_item_id": items[n], "item_id": items[(n + rank) % ITEMS], **_rank(rank)}
        for name in shop.anchors
        for n in range(ITEMS)
        for rank in range(shop.scenarios[name].top_n, 0, -1)
    ]
    return {TABLE: shelves, ITEM_TABLE: beside}


def _rank(rank: int) -> dict[str, Any]:
    return {"rank": rank, "rank_by_score": rank, "score": 1 / rank}


def _put(warehouse: Warehouse, table: str, rows: list[dict[str, Any]]) -> None:
    schema = arrow_schema(warehouse.specs[table])
    full = [{"as_of_date": NIGHT, **row} for row in rows]
    filled = pa.Table.from_pylist(full, pa.schema([field for field in schema if field.name in full[0]]))
    for field in schema:
        if field.name not in filled.column_names:
            filled = filled.append_column(field, pa.nulls(len(full), field.type))
    warehouse.publish_arrow(table, filled, [NIGHT], f"{table}-{time.time_ns()}")


def read(
    shop: Shop,
    expected: dict[str, tuple[int, int]],
    published: "Synchronized[int]",
    begun: "Synchronized[int]",
    done: Any,
    found: Any,
    least: int,
) -> None:
    """Poll until all publishes are done and `least` reads were made; put (milliseconds, violations, reads apart) into `found`."""
    warehouse, times, violations, apart = Warehouse(shop), [], [], 0
    while len(times) < least or not done.is_set():
        floor, started = published.value, time.perf_counter()
        seen = {table: look(warehouse, table) for table in expected}
        times.append(1000 * (time.perf_counter() - started))
        last, versions = begun.value, set()
        for table, (*size, count, reason) in seen.items():
            version = int(reason.split()[1]) if reason else 0
            versions.add(version)
            if tuple(size) != expected[table] or count != 1 or not floor <= version <= last:
                violations.append(
                    f"{table}: {size[0]} rows of {size[1]} shelves and {count} versions, {reason}; {floor} was published"
                )
        apart += len(versions) > 1
        time.sleep(_PAUSE)
    found.put((times, violations, apart))


def look(warehouse: Warehouse, table: str) -> tuple[Any, ...]:
    """Return rows, shelves, versions and a version of a table's newest night, over the files of one state of it."""
    query = _LOOK.format(owner=OWNERS[table])
    return duckdb.execute(query, {"files": warehouse.files(table)}).fetchall()[0]


def _print(counts: Counter[str], told: list[tuple[list[float], list[str], int]], warehouse: Warehouse) -> None:
    times = np.array([time for of_reader, _, _ in told for time in of_reader])
    violations = [violation for _, of_reader, _ in told for violation in of_reader]
    status = Counter(warehouse.read("shelf_status")["status"].to_pylist())
    table = Table("", "number")
    line: dict[str, Any] = {
        "reads": len(times),
        **{name: counts[name] for name in (PUBLISHED, REFUSED, KILLED)},
        "violations": len(violations),
        "apart": sum(apart for _, _, apart in told),
        "read_ms": {"median": round(float(np.median(times))), "p99": round(float(np.quantile(times, 0.99)))},
        "shelf_status": dict(status),
    }
    for name, value in line.items():
        table.add_row(name, str(value))
    Console(stderr=True).print(table)
    for violation in violations[:10]:
        sys.stderr.write(violation + "\n")
    sys.stdout.write(json.dumps(line) + "\n")
    sys.exit(3 if violations else 0)


if __name__ == "__main__":
    main()
