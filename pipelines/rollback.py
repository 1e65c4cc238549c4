"""Roll the published shelves back to what readers saw before: one commit, in seconds, whatever the size of the shelves.

Copies for storefronts follow after it, as fast as the shop's exports write them.
"""

import datetime as dt
import uuid
from pathlib import Path

from pyiceberg.table.snapshots import Operation, Snapshot

from nightshelf.config import Shop
from nightshelf.dates import parse_as_of_date
from nightshelf.errors import EngineError, InputError, NightshelfError
from nightshelf.logs import get_logger
from pipelines.shelf_status import ITEM_TABLE, TABLE, tell_status
from pipelines.sql import write_views
from pipelines.stage import lease, run_stage
from pipelines.warehouse import Warehouse


def rollback(shop: Shop, to: str, reason: str = "") -> str:
    """Make an earlier state of `recommendations` the current one, export it, and return a sentence that says what is served now.

    What failed or was killed on the way, the same call does again.

    Args:
        shop: the shop.
        to: a night, YYYY-MM-DD: the last state in which its shelves were the newest; or a snapshot id (shelf_status has them).
        reason: kept in shelf_status.

    Raises:
        InputError: there is no such state, or it is the current one as it was published, or files of it are gone.
        EngineError: another run holds the shop, or the rollback stopped half-way.
        NightshelfError: an export failed, of the kind that the stage says; the shelves are rolled back all the same.
    """
    with lease(shop):
        warehouse = Warehouse(shop)
        current = warehouse.snapshot_id(TABLE)
        if current is None:
            raise InputError(f"shop {shop.shop} has published no shelves; there is nothing to go back to")
        wanted = int(to) if to.isdigit() else _last_state_of(warehouse, parse_as_of_date(to))
        known = {snapshot.snapshot_id for snapshot in _states(warehouse)}
        night = warehouse.newest_partition(TABLE, wanted) if wanted in known else None
        if night is None:
            raise InputError(f'--to {to}: no such state of {TABLE}; `nightshelf sql "from shelf_status"` lists them')
        run = next(_run_of(state) for state in _states(warehouse) if state.snapshot_id == wanted)
        states = {TABLE: wanted, **_items_beside(warehouse, run)}
        if _is_as_published(warehouse, states, run):
            raise InputError(
                f"--to {to}: the shelves of {night} are the newest already; give an earlier night or a snapshot id"
            )
        _check_files(warehouse, states, to)
        try:
            _serve(warehouse, states, night, reason)
        except Exception as error:
            get_logger("rollback").exception("--to %s stopped half-way", to)
            why = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            raise EngineError(
                f"--to {to}: the rollback stopped half-way ({why}); run the same command again"
            ) from error
    told = f"shop {shop.shop} serves the shelves of {night} again (snapshot {wanted}, was {current})"
    return f"{told}; {_export(shop, night, told)}" if shop.exports else told


def _is_as_published(warehouse: Warehouse, states: dict[str, int], run: str) -> bool:
    """Return whether these states of a run are current since it published them: no rollback has led there, none stopped there."""
    rows = [row for row in warehouse.read("shelf_status").to_pylist() if row["status"] != "refused"]
    last = max(rows, key=lambda row: row["told_at"], default={"status": "published", "run_id": run})
    is_current = all(warehouse.snapshot_id(table) == state for table, state in states.items())
    return is_current and (last["status"], last["run_id"]) == ("published", run)


def _check_files(warehouse: Warehouse, states: dict[str, int], to: str) -> None:
    """See to it that every file of these states is there, before anything is changed.

    Raises:
        InputError: one is gone.
    """
    for table, state in states.items():
        gone = [file for file in warehouse.files_as_of(table, str(state))[0] if not Path(file).exists()]
        if gone:
            raise InputError(f"--to {to}: {gone[0]} and with it that state is gone; give a later night")


def _serve(warehouse: Warehouse, states: dict[str, int], night: dt.date, reason: str) -> None:
    """Make these states the current ones, and tell it. What was done before is done again, with no harm."""
    with warehouse.together():
        for table, state in states.items():
            warehouse.restore(table, state)
        tell_status(warehouse, night, f"{night}-rollback-{uuid.uuid4().hex[:12]}", "rolled_back", reason)
    write_views(warehouse)


def _export(shop: Shop, night: dt.date, told: str) -> str:
    """Let the storefronts follow; the lease is free again, since the stage takes it itself."""
    try:
        return run_stage("export", shop, night).message
    except NightshelfError as error:
        raise type(error)(
            f"{told}, but not every export followed, and its readers may still see the shelves before: {error}; "
            f"mend that, then run `nightshelf stage export --as-of-date {night}`"
        ) from error


def _items_beside(warehouse: Warehouse, run: str) -> dict[str, int]:
    """Return the state of the item shelves that a run published; where there is none, they stay as they are."""
    states = warehouse.states_of(ITEM_TABLE, run)
    if not states and warehouse.load(ITEM_TABLE) is not None:
        get_logger("rollback").warning("%s stays as it is: it has no state of the run %s", ITEM_TABLE, run)
    return {ITEM_TABLE: states[-1]} if states else {}


def _run_of(state: Snapshot) -> str:
    return (state.summary["run_id"] if state.summary else None) or ""


def _states(warehouse: Warehouse):  # type: ignore[no-untyped-def]
    table = warehouse.load(TABLE)
    return table.snapshots() if table else []


def _last_state_of(warehouse: Warehouse, night: dt.date) -> int:
    """Return the last state in which the shelves of `night` were the newest.

    Raises:
        InputError: there is none.
    """
    seen: set[dt.date] = set()
    for snapshot in reversed(_states(warehouse)):
        if snapshot.summary and snapshot.summary.operation is Operation.DELETE:
            continue  # the first half of a commit, in which a night that was published again is gone: nobody saw it
        newest = warehouse.newest_partition(TABLE, snapshot.snapshot_id)
        if newest == night:
            return int(snapshot.snapshot_id)
        seen |= {newest} if newest else set()
    nights = ", ".join(map(str, sorted(seen))) or "none"
    raise InputError(
        f"--to {night}: no state is left in which its shelves were the newest; there are those of {nights}"
    )
