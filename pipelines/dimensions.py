"""The tables items and users of the days that `clean` writes: from the shop's own tables, or from what its logs show."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.features import attribute_columns
from nightshelf.logs import get_logger
from pipelines.arrivals import find_listings
from pipelines.clean_job import CleanJob

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from feature_jobs.items import Faults


def write_items_of_catalogue(job: CleanJob) -> "DataFrame | None":
    """Write the items of each day; return which items the catalogues of the window knew.

    Returns:
        item_id, as_of_date; None if there is no catalogue to read, as on days when the shop was closed.

    Raises:
        InputError: a day on which the shop was not closed has no catalogue, or one lacks a column or cannot be read, or more of
            its rows than `quarantine.max_share` are faulty.
    """
    from feature_jobs.items import faults_of, items, known_items, read_catalogue
    from feature_jobs.storage import write_table

    assert job.shop.items is not None
    listings, files = find_listings(job.shop, job.shop.items, "items", job.days, job.list_files)
    if not files:
        return None
    catalogue = read_catalogue(job.spark, job.shop.items, [file for of_day in files.values() for file in of_day])
    _tell_faults(faults_of(catalogue), job.shop)
    spec = job.night.warehouse.specs["items"]
    write_table(items(catalogue, listings), spec, job.folders["items"], ["item_id"])
    return known_items(catalogue, job.days, job.shop.history_days)


def _tell_faults(faults: "Faults", shop: Shop) -> None:
    """Warn of the faulty rows of a catalogue, or refuse it if they are too many."""
    if not faults.faulty or not shop.items:
        return
    kinds = ", ".join(f"{count} × {example}" for count, example in faults.kinds.values())
    told = f"{faults.faulty} of {faults.rows} rows of {shop.items.path} are faulty: {kinds}"
    if faults.faulty > shop.quarantine.max_share * faults.rows:
        most = f"more than quarantine.max_share = {shop.quarantine.max_share:g}"
        raise InputError(f"items: {told}; {most}; correct that file, or `items` in the shop file")
    get_logger("clean").warning(
        "items: %s; rows without an id or with such a price are left out, other values that cannot be read are empty",
        told,
    )


def write_items_of_events(job: CleanJob, kept: Path) -> None:
    """Write the items that events of the window name, where the shop has no catalogue; `kept`: the folder of the days' events."""
    from pyspark.sql.functions import lit

    from feature_jobs.items import items_from_events
    from feature_jobs.storage import write_table

    window = job.shop.history_days
    first = job.days[0] - dt.timedelta(days=window - 1)
    earlier = {
        day for day in job.night.warehouse.partitions("events") if first <= day < job.days[-1] and day not in job.days
    }
    events = _written_events(job, kept).unionByName(job.published("events", earlier))
    spec = job.night.warehouse.specs["items"]
    lacking = [name for name in spec.column_names if name not in ("as_of_date", "item_id", "price")]
    found = items_from_events(events, job.days, window)
    write_table(found.withColumns({name: lit(None) for name in lacking}), spec, job.folders["items"], ["item_id"])


def _written_events(job: CleanJob, kept: Path) -> "DataFrame":
    from feature_jobs.storage import read_table

    return read_table(job.spark, job.night.warehouse.specs["events"], [str(file) for file in kept.rglob("*.parquet")])


def write_users(job: CleanJob, kept: Path) -> None:
    """Write the users known at the end of each day: the user table's, earlier nights', and those whom the logs show.

    Args:
        job: the attempt, whose folder of users is written.
        kept: the folder of the days' events.

    Raises:
        InputError: a day on which the shop was not closed has no user table, or one lacks a column or cannot be read.
    """
    from feature_jobs.storage import write_table
    from feature_jobs.users import read_members, users

    shop, members = job.shop, None
    if shop.users:
        _, files = find_listings(shop, shop.users, "users", job.days, job.list_files)
        of_days = [file for day, files in files.items() if day is None or day >= job.days[0] for file in files]
        members = (
            read_members(job.spark, shop.users, of_days, job.key_path, shop.quarantine.test_users) if of_days else None
        )
    written = [day for day in job.night.warehouse.partitions("users") if day not in job.days]
    latest = {max(before) for day in job.days if (before := [other for other in written if other < day])}
    attributes = [f"user_{name}" for name in attribute_columns(shop)]
    known = users(members, _written_events(job, kept), job.published("users", latest), job.days, attributes)
    write_table(known, job.night.warehouse.specs["users"], job.folders["users"], ["user_key"])
