"""Who makes the parts of a night's shelves: processes of this machine, the tasks of a Spark job, or whoever takes a share."""

import datetime as dt
import multiprocessing
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.logs import configure_logging, get_logger
from nightshelf.parallel import cores
from pipelines.shelf_parts import make_part
from pipelines.shelf_plan import ShelfPlan, plan_shelves
from pipelines.shelf_rows import Catalogue
from pipelines.stage import night_of

if TYPE_CHECKING:
    import pyarrow as pa

_LOG_SECONDS = 10.0


def make_missing(plan: ShelfPlan, run_id: str, catalogue: Catalogue) -> int:
    """Make the parts that nobody has finished, here or on Spark, as the shop file says; return how many were there."""
    missing = plan.missing()
    if missing and plan.shop.serving.engine == "spark":
        _make_on_spark(plan, missing, run_id)
    elif len(missing) > 1 and cores() > 1:
        _make_side_by_side(plan, missing, run_id)
    for number in plan.missing():
        make_part(plan, number, run_id, catalogue)
    return len(plan.shards) - len(missing)


def _make_side_by_side(plan: ShelfPlan, missing: list[int], run_id: str) -> None:
    """Have the parts made by processes of their own, one a core: threads would wait for Python's lock a third of their time."""
    count = min(cores(), len(missing))
    context = multiprocessing.get_context("spawn")  # what torch and Arrow have started does not survive a fork
    with ProcessPoolExecutor(count, context, configure_logging) as pool:
        share = max(1, cores() // count)
        for made in [pool.submit(make_part, plan, number, run_id, workers=share) for number in missing]:
            made.result()


def serve_share(shop: Shop, as_of_date: dt.date, share: str, scenarios: tuple[str, ...] = ()) -> None:
    """Make a share of a night's parts, but for those that are there. It publishes nothing, and so needs no lease.

    Args:
        shop: the shop.
        as_of_date: the night, up to `promote` done.
        share: "2/4" is the second of four.
        scenarios: whose shelves are made; none: all.

    Raises:
        InputError: the share is none, or candidates or features are missing.
        EngineError: features, model or registry cannot be read.
    """
    which, of = _share(share)
    run_id = f"{as_of_date}-shelves-{uuid.uuid4().hex[:12]}"
    plan = plan_shelves(night_of(shop, as_of_date, run_id, scenarios=scenarios))
    mine = range(which - 1, len(plan.shards), of)
    rows = sum(make_part(plan, number, run_id) for number in mine)
    log = get_logger("shelves")
    log.info("share %s: %d of %d parts, %d rows, wait for `recommend`", share, len(mine), len(plan.shards), rows)


def _share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"share {text!r} is none; write which one of how many, from 1/4 to 4/4")
    return int(found[1]), int(found[2])


def _make_on_spark(plan: ShelfPlan, missing: list[int], run_id: str) -> None:
    """Have each of the parts made by one task of a Spark job; its rows go to files below home, which all machines see."""
    from feature_jobs.session import spark_session

    log = get_logger("recommend")
    if plan.model is not None:  # the registry's own copy may be out of the workers' sight
        model = plan.folder / "model"
        shutil.copytree(plan.model, model, dirs_exist_ok=True)
        plan = replace(plan, model=model)
    numbers = spark_session(plan.shop).range(0, len(missing), 1, len(missing))
    made = numbers.mapInArrow(partial(_make_some, plan, missing, run_id), "rows long")
    log.info("Spark makes %d parts of the shelves", len(missing))
    with ThreadPoolExecutor(1) as pool:
        done, told = pool.submit(made.collect), time.monotonic()
        while not done.done():
            time.sleep(0.2)
            if time.monotonic() - told > _LOG_SECONDS:
                told = time.monotonic()
                log.info("%d of %d parts are made", len(missing) - len(plan.missing()), len(missing))
        done.result()


def _make_some(
    plan: ShelfPlan, missing: list[int], run_id: str, batches: "Iterator[pa.RecordBatch]"
) -> "Iterator[pa.RecordBatch]":
    """Make the parts with these places in `missing`, with one thread: Spark fills the cores with tasks."""
    import pyarrow as pa

    for batch in batches:
        rows = [make_part(plan, missing[place], run_id, workers=1) for place in batch.column(0).to_pylist()]
        yield pa.record_batch([pa.array(rows, pa.int64())], ["rows"])
