"""Raw files that came after their day was cleaned: a night reads each day once, so that somebody must hear of them."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

from nightshelf.config import Shop
from nightshelf.dates import days_back
from nightshelf.logs import get_logger
from nightshelf.paths import source_path
from pipelines.warehouse import Warehouse

# What a cleaning writes between the moment when it lists the files and its end: the first of it is nearest to that moment
_WRITTEN = ("items", "events", "users", "source_counts")


def warn_of_late_files(
    shop: Shop, as_of_date: dt.date, warehouse: Warehouse, list_files: Callable[[str], list[str]]
) -> None:
    """Warn of files of earlier days of the history that came, or changed, since their day was cleaned: no night reads them.

    Files on this machine alone tell when that was; of a copy its own time counts, not that of what it was copied from.
    """
    cleaned = warehouse.partitions("source_counts")
    for day in days_back(as_of_date, shop.history_days):
        if day == as_of_date or day not in cleaned:
            continue
        files = [file for table in _WRITTEN for file in warehouse.files(table, [day])]
        began = min(Path(file).stat().st_mtime for file in files)
        for source in shop.sources:
            pattern = source_path(shop, source.path, day)
            if not source.is_dated or ("://" in pattern and not pattern.startswith("file://")):
                continue
            late = [file for file in list_files(pattern) if _came_after(file, began)]
            if late:
                get_logger("clean").warning(
                    "%s: %d files of %s came or changed after that day was cleaned, and are not read (%s …); "
                    "`nightshelf stage clean --as-of-date %s` takes them in, and the features of the nights from then on",
                    *(source.name, len(late), day, late[0], day),
                )


def _came_after(file: str, moment: float) -> bool:
    path = Path(file.removeprefix("file://"))
    return path.is_file() and path.stat().st_ctime > moment
