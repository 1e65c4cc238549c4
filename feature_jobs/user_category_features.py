"""User × category features: what a user did of late with items of each category, known at the end of the night."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from feature_jobs.statistics import logged, own_rates, statistics, sums
from feature_jobs.windows import spread_over_dates
from nightshelf.config import Shop
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
    # A user's rows move once, while they are narrow, in parts small enough to be summed up in memory: few users see a
    # category twice, so that sums before the move would be as many, and wide.
    days = user_category_days.repartition(4 * shop.spark.shuffle_partitions, "user_key")
    days = spread_over_dates(days.withColumnRenamed("as_of_date", "day"), [as_of_date])
    rows = days.groupBy("user_key", "category_3").agg(*sums(logged(shop)))
    rates = own_rates("user", shop)
    rows = rows.join(user_features.select("user_key", *rates.values()), "user_key")
    columns = statistics("user_category", shop, rates) | {"as_of_date": F.lit(as_of_date)}
    return conform(rows.withColumns(columns), table_specs(shop)["user_category_features"])
