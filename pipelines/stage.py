"""What a stage is: a function of one night that reads partitions, publishes partitions, and counts its rows.

`run_stage` makes it a transaction: one writer a shop (a lease), a fresh run id, a row of stage_runs at the end.
"""

import datetime as dt
import json
import os
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from filelock import FileLock, Timeout

from nightshelf.config import Shop
from nightshelf.errors import EngineError, InputError, NightshelfError
from nightshelf.identity import ensure_key
from nightshelf.ledger_tables import ledgers
from nightshelf.logs import get_logger
from nightshelf.paths import views_file, warehouse_dir
from pipelines.code_version import code_version
from pipelines.memory import PeakMemory
from pipelines.sql import write_views
from pipelines.warehouse import Warehouse

# A stage's name → the module whose `run(night)` does it; in the order of a night.
STAGES = {
    "clean": "pipelines.clean",
    "validate_events": "pipelines.validate_events",
    "features": "pipelines.features",
    "validate_examples": "pipelines.validate_examples",
    "retrieve": "pipelines.retrieve",
    "train": "pipelines.train",
    "evaluate": "pipelines.evaluate",
    "promote": "pipelines.promote",
    "recommend": "pipelines.recommend",
    "publish": "pipelines.publish",
    "export": "pipelines.export",
    "report": "pipelines.report",
}


@dataclass(frozen=True)
class Night:
    """One night of one shop: everything that a stage may know."""

    shop: Shop
    as_of_date: dt.date
    warehouse: Warehouse
    run_id: str
    retrain: bool = True
    scenarios: tuple[str, ...] = ()

    @property
    def summary(self) -> dict[str, str]:
        """Return what every commit of this attempt carries in its snapshot."""
        return {"run_id": self.run_id, "as_of_date": str(self.as_of_date), "code_version": code_version()}


def night_of(
    shop: Shop, as_of_date: dt.date, run_id: str, retrain: bool = True, scenarios: tuple[str, ...] = ()
) -> Night:
    """Return a night of the shop, which counts as closed on the earlier days without a single event.

    There are such days only where all lie in one place: a dated log that is missing or empty stops the night.
    """
    warehouse = Warehouse(shop)
    if not any(source.is_dated for source in shop.sources):
        done, with_events = warehouse.partitions("source_counts"), warehouse.partitions("events")
        quiet = {day for day in done if with_events[:1] < [day] < [as_of_date]} - set(with_events)
        closed = shop.closed.model_copy(update={"dates": shop.closed.dates | quiet})
        shop = shop.model_copy(update={"closed": closed})
    return Night(shop, as_of_date, warehouse, run_id, retrain, scenarios)


@dataclass
class StageResult:
    """What a stage did, in rows; `inputs` names the tables that it read, `helpers` the rows of stage_runs of who helped."""

    rows_in: int = 0
    rows_out: int = 0
    rows_quarantined: int = 0
    inputs: list[str] = field(default_factory=list)
    message: str = ""
    helpers: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def lease(shop: Shop) -> Iterator[None]:
    """Be the only one who writes the shop, until the end of the block; the operating system frees a dead holder's.

    Raises:
        EngineError: another run holds it.
        InputError: its home cannot be made, or not be written.
    """
    lock = FileLock(shop.home / "night.lock")
    try:
        shop.home.mkdir(parents=True, exist_ok=True)
        held = lock.acquire(timeout=0)
    except Timeout:
        raise EngineError(
            f"another run holds {lock.lock_file}; wait for it to end, or stop it, then try again"
        ) from None
    except OSError as error:
        raise InputError(
            f"home {shop.home} cannot be written ({error.strerror or error}); name another folder, or mend its permissions"
        ) from None
    with held:
        yield


def run_stage(
    name: str, shop: Shop, as_of_date: dt.date, retrain: bool = True, scenarios: tuple[str, ...] = ()
) -> StageResult:
    """Run one stage of one night under the shop's lease and write its row of stage_runs.

    Raises:
        InputError, GateError, EngineError: as the stage says; the row then says `failed`.
    """
    log = get_logger(name)
    if name == "train" and os.environ.get("RANK", "0") != "0":
        return _help(shop, as_of_date, retrain)
    with lease(shop), PeakMemory() as memory:
        ensure_key(shop, has_users=_has_users(shop))
        night = night_of(shop, as_of_date, f"{as_of_date}-{name}-{uuid.uuid4().hex[:12]}", retrain, scenarios)
        started = time.time()
        log.info("%s %s %s: start", shop.shop, as_of_date, name)
        try:
            result = _attempt(night, name, started, memory)
        finally:
            _show(night, name)
    log.info(
        "%s %s %s: done in %.1f s, %d rows in, %d out %s",
        shop.shop,
        as_of_date,
        name,
        time.time() - started,
        result.rows_in,
        result.rows_out,
        result.message,
    )
    return result


def _has_users(shop: Shop) -> bool:
    """Return whether a night of the shop has published users."""
    return (warehouse_dir(shop) / "catalog.db").exists() and bool(Warehouse(shop).partitions("users"))


def _attempt(night: Night, name: str, started: float, memory: PeakMemory) -> StageResult:
    """Do the stage and write its row of stage_runs."""
    try:
        run: Callable[[Night], StageResult] = import_module(STAGES[name]).run
        result = run(night)
    except Exception as error:
        told = error if isinstance(error, NightshelfError) else _explain(night, name, error)
        _record(night, name, "failed", started, memory, StageResult(message=str(told)))
        raise told from error
    _record(night, name, "done", started, memory, result)
    return result


def _show(night: Night, name: str) -> None:
    """Let the file of views show how the stage ended: whole after publish; else the ledgers, in less time."""
    try:
        write_views(night.warehouse, None if name == "publish" else [spec.name for spec in ledgers()])
    except Exception as error:  # the stage ended as its row says, whatever becomes of a copy
        get_logger(name).warning("%s shows what it did before: %s", views_file(night.shop), error)


def _help(shop: Shop, as_of_date: dt.date, retrain: bool) -> StageResult:
    """Train beside the first process of torchrun, which holds the lease, registers the model and writes the row."""
    run: Callable[[Night], StageResult] = import_module(STAGES["train"]).run
    return run(night_of(shop, as_of_date, f"{as_of_date}-train-{uuid.uuid4().hex[:12]}", retrain))


def _explain(night: Night, name: str, error: Exception) -> EngineError:
    """Turn whatever an engine threw into one line, and keep the whole trace in a file."""
    trace = night.shop.home / "logs" / f"{night.run_id}.log"
    trace.parent.mkdir(exist_ok=True)
    trace.write_text("".join(traceback.format_exception(error)))
    first_line = next(iter(str(error).splitlines()), "")
    return EngineError(f"{name} failed: {type(error).__name__}: {first_line}; the whole trace is in {trace}")


def _record(night: Night, name: str, status: str, started: float, memory: PeakMemory, result: StageResult) -> None:
    inputs = {table: night.warehouse.snapshot_id(table) for table in result.inputs}
    row = {
        "as_of_date": night.as_of_date,
        "run_id": night.run_id,
        "stage": name,
        "status": status,
        "started_at": dt.datetime.fromtimestamp(started, dt.UTC),
        "seconds": time.time() - started,
        "peak_memory_mb": memory.mb,
        "rows_in": result.rows_in,
        "rows_out": result.rows_out,
        "rows_quarantined": result.rows_quarantined,
        "code_version": code_version(),
        "inputs": json.dumps(inputs),
        "message": result.message,
    }
    night.warehouse.append("stage_runs", [row, *result.helpers])
