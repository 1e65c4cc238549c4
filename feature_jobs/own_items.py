"""Own items: what a user chose before and may want again, remembered for longer than all else is."""

import datetime as dt

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.windows import spread_over_dates
from nightshelf.features import OWN_HALF_LIFE_DAYS, OWN_LENGTH
from nightshelf.rebuy import Rebuy


def own_items(acts: DataFrame, rebuy: Rebuy, dates: list[dt.date]) -> DataFrame:
    """Return per as_of_date of `dates` and user the OWN_LENGTH items that the user chose on most days, of late above all.

    A day on which the user chose the item counts 1, and half as much OWN_HALF_LIFE_DAYS later, however many pieces or receipts
    there were: on the logs of a grocer these sums rank what a household buys next as well as trees do that also read each
    item's own interval ("Buy It Again", Bhagat et al., KDD 2018, whose aggregate of repeats is the nearest to it).

    Args:
        acts: of the `rebuy.days` of arrival up to each of `dates`.
        rebuy: which act is meant, and how long it is remembered.
        dates: the wanted days.

    Returns:
        as_of_date, user_key, item_id, count (double), age_days (int, since the last of those days of arrival).
    """
    rows = acts.where(F.col("event_type") == rebuy.event)
    daily = rows.select("user_key", "item_id", F.col("as_of_date").alias("day")).distinct()
    daily = daily.repartition("user_key")  # a user's rows stay together from here on, however many dates there are
    # Whole millionths, so that the order of adding leaves no trace.
    weight = F.round(F.pow(F.lit(0.5), F.col("distance") / OWN_HALF_LIFE_DAYS) * 1e6).cast("long")
    known = spread_over_dates(daily, dates, rebuy.days)
    sums = known.groupBy("user_key", "as_of_date", "item_id").agg(
        (F.sum(weight) / 1e6).alias("count"), F.min("distance").alias("age_days")
    )
    first = Window.partitionBy("user_key", "as_of_date").orderBy(F.desc("count"), "age_days", "item_id")
    return sums.withColumn("place", F.row_number().over(first)).where(F.col("place") <= OWN_LENGTH).drop("place")
