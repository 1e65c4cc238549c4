"""What a table usually holds: the rows and the empty values of its last nights, from Iceberg's manifests."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from nightshelf.dates import days_back
from pipelines.stage import Night

NIGHTS = 7
# With fewer earlier nights nothing is usual yet.
FEWEST_NIGHTS = 3
_LOOK_BACK_DAYS = 60
# Their rows hang on how many scenarios there are, and on how long each has been there.
_BY_SCENARIO = ("item_scenario_features", "user_scenario_features", "user_scenario_sequences")


@dataclass(frozen=True)
class Usual:
    """The median of the last nights: rows, and for each column the share of its values that are null."""

    rows: float
    null_shares: Mapping[str, float]


def counted_day(night: Night, table: str) -> dt.date:
    """Return the partition whose rows are held against those before it: the night's; of examples the newest ripe one."""
    root = next(task for task in night.shop.tasks.values() if task.given is None)
    return night.as_of_date - dt.timedelta(days=root.window_days if table == "training_examples" else 0)


def usual(night: Night, table: str) -> Usual | None:
    """Return what a table's partitions of the NIGHTS open days before counted_day held; None if there are too few of them.

    A closed day is compared with nothing, and what is told by scenario with no night that had one which is gone.
    """
    day = counted_day(night, table)
    if night.shop.is_closed(day):
        return None
    before = [d for d in days_back(day, _LOOK_BACK_DAYS)[:-1] if not night.shop.is_closed(d)]
    found = sorted(night.warehouse.statistics(table, before).items())[-NIGHTS:]
    nights = [statistics for date, statistics in found if table not in _BY_SCENARIO or _is_of_shop(night, table, date)]
    if len(nights) < FEWEST_NIGHTS:
        return None
    names = set.intersection(*(set(nulls) for _, nulls in nights))
    shares = {name: median(nulls[name] / rows for rows, nulls in nights) for name in names}
    return Usual(median(rows for rows, _ in nights), shares)


def _is_of_shop(night: Night, table: str, day: dt.date) -> bool:
    """Say whether the shop file has all scenarios of a partition."""
    from pyarrow import dataset

    scenarios = dataset.dataset(night.warehouse.files(table, [day])).to_table(columns=["scenario"])["scenario"]
    return set(scenarios.unique().to_pylist()) <= set(night.shop.scenarios)
