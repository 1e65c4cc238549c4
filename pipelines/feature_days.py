"""The tables that keep a partition a day, and which of their days a night writes."""

import datetime as dt

from pipelines.stage import Night

# What is made of the logs of a day alone.
OF_LOGS = ("impressions", "acts")
SUMS = ("user_days", "item_days", "user_category_days", "sessions")
# Features as known at the end of a day; the tables that are left have a partition of the night alone.
SNAPSHOTS = (
    "user_features",
    "item_features",
    "item_scenario_features",
    "user_sequences",
    "user_scenario_sequences",
)


def missing_days(night: Night, tables: tuple[str, ...], days: list[dt.date]) -> list[dt.date]:
    """Return the night and those of `days` that one of the tables lacks, whole or a column of it, oldest first."""
    have = [_whole(night, table, days) for table in tables]
    return [day for day in days if day == night.as_of_date or any(day not in whole for whole in have)]


def _whole(night: Night, table: str, days: list[dt.date]) -> set[dt.date]:
    """Return the days whose files have all columns: the shop file, or nightshelf, may have gained one since."""
    import pyarrow.parquet as pq

    wanted = set(night.warehouse.specs[table].column_names)
    return {
        day
        for day in set(night.warehouse.partitions(table)).intersection(days)
        if all(wanted <= set(pq.read_schema(file).names) for file in night.warehouse.files(table, [day]))
    }
