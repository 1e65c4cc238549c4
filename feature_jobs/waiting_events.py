"""Events of items that no catalogue knew yet: kept apart, and taken back on the day on which one knows them.

A catalogue is often older than the logs, and what happens on an item's first days is all that is known of it.
"""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.events import IDENTITY, JUDGED, hash_of
from feature_jobs.rules import UNKNOWN_ITEM
from feature_jobs.scenarios import in_scenarios
from nightshelf.config import Shop


def waiting_events(judged: DataFrame, bots: DataFrame) -> DataFrame:
    """Return the rows of people, not of bots, which are set aside for their item alone, as events.

    Args:
        judged: JUDGED rows (feature_jobs.events.complete_verdicts).
        bots: what feature_jobs.bots.find_bots found.
    """
    rows = judged.where(F.col("reason") == UNKNOWN_ITEM)
    rows = rows.join(F.broadcast(bots), ["user_key", "as_of_date"], "left_anti")
    return rows.withColumn("event_id", hash_of(("event_ts", *IDENTITY)))


def taken_back(waiting: DataFrame, known_items: DataFrame, days: list[dt.date], shop: Shop) -> DataFrame:
    """Return the waiting events whose item is first known on one of `days`, as JUDGED rows that arrived on that day.

    An event waits no longer than its source's events may be late, and in vain where the shop file has its scenario no more.
    Row ids are below 0, those of raw rows are not.

    Args:
        waiting: events of `waiting_events`, of `days` and of the days before.
        known_items: item_id, as_of_date of the items that were known on these days, as far back as `waiting` reaches.
        days: the days that are written.
        shop: gives late_by_days and scenarios.
    """
    waiting = in_scenarios(waiting, shop)
    known = known_items.join(F.broadcast(waiting.select("item_id").distinct()), "item_id", "left_semi")
    known = known.groupBy("item_id").agg(F.collect_set("as_of_date").alias("known_on"))
    pairs = (F.lit(part) for source in shop.sources for part in (source.name, source.late_by_days))
    last = F.date_add("event_date", F.create_map(*pairs)[F.col("source")])
    rows = waiting.join(F.broadcast(known), "item_id")
    first = F.array_min(F.filter("known_on", lambda day: day > F.col("as_of_date")))
    rows = rows.withColumn("first_known", first).where(F.col("first_known").isin(days) & (F.col("first_known") <= last))
    none = F.lit(None).cast("string")
    told = {
        "file": F.concat(F.lit("waiting_events "), F.col("as_of_date").cast("string")),  # should it be set aside again
        "reason": none,
        "evidence": none,
        "raw": none,
        "as_of_date": F.col("first_known"),
        "row_id": -1 - F.monotonically_increasing_id(),
    }
    return rows.withColumns(told).select(*JUDGED)
