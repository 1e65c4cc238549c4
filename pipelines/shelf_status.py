"""The ledger shelf_status: which night's shelves readers see, and why not a newer one's."""

import datetime as dt
from typing import Literal

from pipelines.warehouse import Warehouse

TABLE, ITEM_TABLE = "recommendations", "item_recommendations"
Status = Literal["published", "refused", "rolled_back"]


def tell_status(warehouse: Warehouse, as_of_date: dt.date, run_id: str, status: Status, reason: str = "") -> None:
    """Write down how an attempt of the night `as_of_date` to change the shelves ended, and what is served since."""
    snapshot = warehouse.snapshot_id(TABLE)
    row = {
        "as_of_date": as_of_date,
        "run_id": run_id,
        "told_at": dt.datetime.now(dt.UTC),
        "status": status,
        "serves": warehouse.newest_partition(TABLE, snapshot) if snapshot is not None else None,
        "snapshot_id": snapshot,
        "reason": reason,
    }
    warehouse.append("shelf_status", [row])
