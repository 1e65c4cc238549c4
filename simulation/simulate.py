"""Simulates a shop day by day: raw logs below home/raw, and the truth behind them below home/truth.

A day is a function of the plan and of the state at the end of the day before, so it does not depend on the days that
follow. A chunk of users is simulated by one process at a time; memory is bounded by the chunk.
"""

import datetime as dt
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.paths import truth_dir
from simulation.catalogue import items_on
from simulation.day import simulate_chunk
from simulation.listings import write_complements, write_items, write_users
from simulation.plan import IMPRESSIONS_PER_USER_DAY, Plan, catalogue_of, day_folder, load_plan
from simulation.rawlogs import FOLDERS

PROCESSES = 2


def simulate_shop(
    shop: Shop,
    first_day: dt.date,
    days: int,
    users: int,
    items: int,
    seed: int,
    impressions_per_user_day: float | None = None,
    progress: Callable[[dt.date, int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the logs of `days` days from `first_day` on, and their truth. Days that exist from the same plan are kept.

    Args:
        shop: where to write (home), and time zone.
        first_day: first date of the logs.
        days: number of days.
        users: number of users, some of whom never come.
        items: number of items, some of which are launched later.
        seed: the same seed and sizes give the same bytes.
        impressions_per_user_day: mean over all users; None: 6.
        progress: called after each day with its date, the days done and the impressions so far.

    Returns:
        first_day, last_day, days, impressions, clicks, carts, purchases, rows, active_share, bytes.

    Raises:
        InputError: home holds the logs of another plan, or a number is out of range.
    """
    if days < 1:
        raise InputError(f"days = {days}: there is nothing to simulate; give at least 1")
    rate = impressions_per_user_day or IMPRESSIONS_PER_USER_DAY
    plan = Plan(first_day.isoformat(), users, items, seed, rate, shop.timezone)
    truth = truth_dir(shop)
    _claim(plan, shop.home, truth)
    stats: list[dict[str, Any]] = []
    with _workers(plan) as pool:
        for day in range(days):
            date = plan.date(day)
            if not (day_folder(truth, date) / "stats.json").exists():
                _simulate_day(plan, day, shop.home, truth, pool)
            stats.append(json.loads((day_folder(truth, date) / "stats.json").read_text()))
            if progress:
                progress(date, day + 1, sum(s["impressions"] for s in stats))
    _gather_dirt(plan, days, truth)
    totals = {
        name: sum(s[name] for s in stats) for name in ("impressions", "clicks", "carts", "purchases", "rows", "bytes")
    }
    active = float(np.mean([s["active_users"] for s in stats])) / users
    return {
        "first_day": str(first_day),
        "last_day": str(plan.date(days - 1)),
        "days": days,
        **totals,
        "active_share": active,
    }


def _claim(plan: Plan, home: Path, truth: Path) -> None:
    """Make home this plan's, or see that it already is."""
    found = load_plan(truth)
    if found is not None and found != plan:
        raise InputError(
            f"{home} holds the simulated shop {found}; simulate {plan} elsewhere, or delete {truth} and {home / 'raw'}"
        )
    if found is None:
        write_users(plan, home / "raw" / "users.csv")
        write_complements(plan, home / "raw" / "complements.csv")
        plan.save(truth)


def _workers(plan: Plan) -> Any:
    if plan.chunks == 1:
        return nullcontext()
    return ProcessPoolExecutor(min(PROCESSES, os.cpu_count() or 1), get_context("spawn"))


def _simulate_day(plan: Plan, day: int, home: Path, truth: Path, pool: Executor | None) -> None:
    """Simulate all chunks into hidden folders, then show the logs, and at last the truth, which marks the day as done."""
    date = plan.date(day)
    hidden = {name: home / "raw" / name / f".{date}.tmp" for name in FOLDERS}
    target = day_folder(truth, date)
    fresh = target.with_name(f".{date}.tmp")
    for folder in [*hidden.values(), fresh]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    run = partial(simulate_chunk, plan, day, home, truth)
    parts = list((pool.map if pool else map)(run, range(plan.chunks)))
    write_items(
        catalogue_of(plan),
        items_on(catalogue_of(plan), day),
        plan.date(day),
        plan.date(0),
        home / "raw" / "items" / f"{date}.parquet",
    )
    for name, folder in hidden.items():
        shutil.rmtree(home / "raw" / name / str(date), ignore_errors=True)
        folder.rename(home / "raw" / name / str(date))
    (fresh / "stats.json").write_text(json.dumps(_sum(parts)))
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _sum(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the chunks' statistics: numbers, and lists of numbers place by place."""
    return {name: np.sum([part[name] for part in parts], axis=0).tolist() for name in parts[0]}


def _gather_dirt(plan: Plan, days: int, truth: Path) -> None:
    """Write truth/dirt.parquet: every planted row that stands in the logs of these days."""
    files = [file for day in range(days) for file in sorted(day_folder(truth, plan.date(day)).glob("dirt-*.parquet"))]
    table = pa.concat_tables([pq.read_table(file) for file in files])
    pq.write_table(table, truth / "dirt.parquet.tmp")
    (truth / "dirt.parquet.tmp").rename(truth / "dirt.parquet")
