"""User days: what each user did and saw in each scenario on a day of arrival, in sums that windows are made of."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.activity import day_counts, dwell_sums, sum_in_micros
from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.tables import table_specs


def user_days(activity: DataFrame, items: DataFrame, shop: Shop) -> DataFrame:
    """Return one row per day of arrival, user and scenario.

    Args:
        activity: `activity` of the wanted days.
        items: the catalogue of each of them, for prices; an item without one has the price that the event tells.
        shop: gives event types.
    """
    is_outcome = F.col("event_type") != "impression"
    prices = items.select("as_of_date", F.col("item_id").alias("priced_item"), F.col("price").alias("item_price"))
    # Only outcomes need a price: a null key finds no partner, and the impressions stay out of the join's way.
    rows = activity.withColumn("priced_item", F.when(is_outcome, F.col("item_id")))
    rows = rows.join(prices, ["as_of_date", "priced_item"], "left")
    rows = rows.withColumn("log_price", F.when(is_outcome, F.log1p(F.coalesce("item_price", "price"))))
    daily = rows.groupBy("as_of_date", "user_key", "scenario").agg(
        *day_counts(shop),
        sum_in_micros(F.col("log_price")).alias("log_price_micros"),
        sum_in_micros(F.col("log_price") * F.col("log_price")).alias("log_price_square_micros"),
        F.count("log_price").alias("priced"),
        *dwell_sums(),
        F.max(F.when(is_outcome, F.col("event_date"))).alias("last_outcome_date"),
    )
    return conform(daily, table_specs(shop)["user_days"])
