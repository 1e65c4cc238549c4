"""Late touches: the days whose impressions an event that arrived late may give or take an outcome."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from nightshelf.config import Shop


def touched_days(impressions: DataFrame, later_impressions: DataFrame, later_acts: DataFrame, shop: Shop) -> DataFrame:
    """Return the distinct as_of_date of `impressions` whose label a late event may change.

    Such an event is of the same user, on the same item (on any, if a task is about any), and no further from the
    impression than the longest label window; an impression that comes late may take an outcome from an earlier one.

    Args:
        impressions: of days whose label windows were over before the others arrived.
        later_impressions, later_acts: what has arrived since.
        shop: gives the tasks.
    """
    late = "event_date < as_of_date"
    came = later_impressions.where(late).select("user_key", "item_id", F.col("impression_ts").alias("late_ts"))
    came = came.unionByName(later_acts.where(late).select("user_key", "item_id", F.col("event_ts").alias("late_ts")))
    on_any_item = any(task.on == "any_item" for task in shop.tasks.values())
    keys = ["user_key"] if on_any_item else ["user_key", "item_id"]
    longest = max(task.window for task in shop.tasks.values()).total_seconds()
    near = F.abs(F.unix_micros("late_ts") - F.unix_micros("impression_ts")) <= int(longest * 1e6)
    shown = impressions.select("as_of_date", "impression_ts", *keys)
    return (
        shown.join(F.broadcast(came.select(*keys, "late_ts").distinct()), keys)
        .where(near)
        .select("as_of_date")
        .distinct()
    )
