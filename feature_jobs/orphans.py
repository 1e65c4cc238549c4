"""Outcomes that no impression precedes: a click on what was never shown is a lost row, a forged one, or a clock gone wrong."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def find_orphans(good: DataFrame, earlier: DataFrame | None, within: dict[str, dt.timedelta]) -> DataFrame:
    """Return row_id and orphan_evidence of the outcomes whose user was not shown their item in the time before.

    An impression counts in whichever scenario it was shown, if it had arrived by the outcome's day of arrival.

    Args:
        good: JUDGED rows that nothing else sets aside.
        earlier: user_key, item_id, event_ts and as_of_date of published impressions that may lie in that time, or None.
        within: event type → how long before the outcome its impression may lie.
    """
    shown = _shown(good.where("event_type = 'impression'"))
    if earlier is not None:
        shown = shown.unionByName(_shown(earlier))
    outcomes = good.where(F.col("event_type").isin(list(within)))
    reach = F.create_map(*(F.lit(part) for name, time in within.items() for part in (name, _micros(time))))
    age = F.unix_micros("event_ts") - F.unix_micros("shown_ts")
    precedes = (age >= 0) & (age <= reach[F.col("event_type")]) & (F.col("shown_on") <= F.col("as_of_date"))
    same = (F.col("user_key") == F.col("shown_to")) & (F.col("item_id") == F.col("shown_item"))
    orphans = outcomes.join(shown, same & precedes, "left_anti")
    words = F.create_map(*(F.lit(part) for name, time in within.items() for part in (name, str(time))))
    evidence = F.format_string("item %s was not shown to the user in %s before", "item_id", words[F.col("event_type")])
    return orphans.select("row_id", evidence.alias("orphan_evidence"))


def _shown(impressions: DataFrame) -> DataFrame:
    names = {"user_key": "shown_to", "item_id": "shown_item", "event_ts": "shown_ts", "as_of_date": "shown_on"}
    return impressions.select(*(F.col(name).alias(other) for name, other in names.items()))


def _micros(time: dt.timedelta) -> int:
    return time // dt.timedelta(microseconds=1)
