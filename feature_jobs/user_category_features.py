"""User × category features: what a user did of late with items of each category, known at the end of the night."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.rates import shrunk_rate
from feature_jobs.schema import conform
from feature_jobs.windows import LONGEST_WINDOW, decayed_counts, spread_over_dates, window_counts
from nightshelf.config import Shop
from nightshelf.features import WINDOWS, outcome_events
from nightshelf.tables import table_specs


def user_category_features(
    user_category_days: DataFrame, user_features: DataFrame, shop: Shop, as_of_date: dt.date
) -> DataFrame:
    """Return one row per user and third-level category with an event in the 30 days of arrival up to as_of_date.

    Args:
        user_category_days: of these days.
        user_features: of the night, for the users' own rates.
        shop: gives event types.
        as_of_date: the night.
    """
    kinds = ["impression", *outcome_events(shop)]
    # A user's rows move once, while they are narrow, in parts small enough to be summed up in memory: few users see a
    # category twice, so that sums before the move would be as many, and wide.
    days = user_category_days.repartition(4 * shop.spark.shuffle_partitions, "user_key")
    days = spread_over_dates(days.withColumnRenamed("as_of_date", "day"), [as_of_date])
    is_outcome = F.greatest(F.lit(0), *(F.col(f"{kind}_count") for kind in kinds[1:])) > 0
    rows = days.groupBy("user_key", "category_3").agg(
        *window_counts(kinds), *decayed_counts(kinds), F.min(F.when(is_outcome, F.col("distance"))).alias("distance")
    )
    own = user_features.select("user_key", *(f"user_{kind}_rate_30d" for kind in kinds[1:]))
    rows = rows.join(own, "user_key")
    columns = {f"user_category_{kind}_count_{n}d": F.col(f"{kind}_{n}") for kind in kinds for n in WINDOWS}
    columns |= {f"user_category_{kind}_decayed_count_30d": F.col(f"{kind}_decayed") for kind in kinds}
    for kind in kinds[1:]:
        done, shown = F.col(f"{kind}_{LONGEST_WINDOW}"), F.col(f"impression_{LONGEST_WINDOW}")
        columns[f"user_category_{kind}_rate_30d"] = shrunk_rate(done, shown, F.col(f"user_{kind}_rate_30d"))
    columns["user_category_recency_days"] = F.coalesce("distance", F.lit(LONGEST_WINDOW))
    rows = rows.withColumns({**columns, "as_of_date": F.lit(as_of_date)})
    return conform(rows, table_specs(shop)["user_category_features"])
