"""Windows that end on many days, from daily totals in one pass.

A feature of day T knows the T-w+1..T days of arrival. Each daily total is sent to every wanted T whose longest window
holds it; a sum by T under a condition on the distance then gives all windows of all days at once. One day at a time or a
whole history at a time, the sums are the same.
"""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from nightshelf.features import WINDOWS

LONGEST_WINDOW = max(WINDOWS)


def spread_over_dates(daily: DataFrame, dates: list[dt.date], days: int = LONGEST_WINDOW) -> DataFrame:
    """Repeat each row, known on `day`, for every as_of_date of `dates` in day..day+days-1; adds the column `distance`.

    Args:
        daily: rows with the date column `day`.
        dates: the wanted days.
        days: the longest window.
    """
    if len(dates) == 1:  # as on most nights: nothing is repeated
        rows = daily.withColumn("as_of_date", F.lit(dates[0])).withColumn("distance", F.datediff("as_of_date", "day"))
        return rows.where(F.col("distance").between(0, days - 1))
    first, last = F.lit(min(dates)), F.lit(max(dates))
    start = F.greatest(F.col("day"), first)
    end = F.least(F.date_add("day", days - 1), last)
    every = F.when(start <= end, F.sequence(start, end))
    spread = daily.select("*", F.explode(every).alias("as_of_date")).where(F.col("as_of_date").isin(dates))
    return spread.withColumn("distance", F.datediff("as_of_date", "day"))


def carry_forward(snapshots: DataFrame, known: list[dt.date], dates: list[dt.date]) -> DataFrame:
    """Give each day of `dates` the snapshot of the latest day of `known` up to it (a closed day has none of its own)."""
    latest = [(max(day for day in known if day <= date), date) for date in dates if any(day <= date for day in known)]
    if not latest:
        return snapshots.limit(0)
    targets = snapshots.sparkSession.createDataFrame(latest, "as_of_date date, target date")
    joined = snapshots.join(F.broadcast(targets), "as_of_date")
    return joined.withColumn("as_of_date", F.col("target")).drop("target")
