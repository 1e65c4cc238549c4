"""User features: what a user did of late, and who the user is, known at the end of a day."""

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_jobs.exposure import exposure
from feature_jobs.rates import item_days, mean_rates, shrunk_rate
from feature_jobs.schema import conform
from feature_jobs.vocabularies import add_index
from feature_jobs.windows import LONGEST_WINDOW, daily_counts, spread_over_dates, window_counts
from nightshelf.config import Shop
from nightshelf.features import WINDOWS, attribute_columns, outcome_events
from nightshelf.tables import table_specs


def user_features(
    events: DataFrame,
    impressions: DataFrame,
    items: DataFrame,
    users: DataFrame,
    vocabularies: DataFrame,
    shop: Shop,
    dates: list[dt.date],
) -> DataFrame:
    """Return one row per as_of_date of `dates` and user with an event in the 30 days of arrival up to it.

    Args:
        events, impressions: rows that arrived in the 30 days up to each of `dates`.
        items: the catalogue of each day of arrival, for prices.
        users: the user table as known on each of `dates`.
        vocabularies: the night's.
        shop: gives event types and attributes.
        dates: the wanted days.
    """
    kinds = ["impression", *outcome_events(shop)]
    activity = exposure(events, impressions)
    windowed = spread_over_dates(_daily_totals(activity, items, kinds), dates)
    windowed = windowed.groupBy("as_of_date", "user_key").agg(
        *window_counts(kinds),
        F.sum("log_price").alias("log_price"),
        F.sum("priced").alias("priced"),
        F.max("last_outcome").alias("last_outcome"),
    )
    means = mean_rates(item_days(activity, kinds), outcome_events(shop), dates)
    rows = windowed.join(F.broadcast(means), "as_of_date")
    rows = rows.withColumns(_columns(shop, kinds))
    rows = add_index(rows, vocabularies, "user", "user_key", "user_index")
    attributes = attribute_columns(shop)
    known = users.select("as_of_date", "user_key", *(f"user_{name}" for name in attributes))
    rows = rows.join(known, ["as_of_date", "user_key"], "left")
    for name in attributes:
        rows = add_index(rows, vocabularies, f"user_{name}", f"user_{name}", f"user_{name}_index")
    return conform(rows, table_specs(shop)["user_features"])


def _daily_totals(activity: DataFrame, items: DataFrame, kinds: list[str]) -> DataFrame:
    """Return one row per user and day of arrival, with counts and the prices of the items of the user's outcomes."""
    prices = items.select("as_of_date", "item_id", F.col("price").alias("item_price"))
    is_outcome = F.col("event_type") != "impression"
    # Only outcomes need a price: a null key finds no partner, and the impressions stay out of the join's way.
    priced = activity.withColumn("priced_item", F.when(is_outcome, F.col("item_id")))
    prices = prices.withColumnRenamed("item_id", "priced_item")
    rows = priced.join(prices, ["as_of_date", "priced_item"], "left")
    log_price = F.when(is_outcome, F.log1p(F.coalesce("item_price", "price")))
    rows = rows.withColumn("log_price", log_price)
    return rows.groupBy("user_key", F.col("as_of_date").alias("day")).agg(
        *daily_counts(kinds),
        # Whole millionths, so that the order of adding leaves no trace.
        F.coalesce(F.sum(F.round(F.col("log_price") * 1e6).cast("long")), F.lit(0)).alias("log_price"),
        F.count("log_price").alias("priced"),
        F.max(F.when(is_outcome, F.col("event_date"))).alias("last_outcome"),
    )


def _columns(shop: Shop, kinds: list[str]) -> dict[str, Column]:
    longest = LONGEST_WINDOW
    columns = {f"user_{kind}_count_{days}d": F.col(f"{kind}_{days}") for kind in kinds for days in WINDOWS}
    shown = F.col(f"impression_{longest}")
    for kind in outcome_events(shop):
        rate = shrunk_rate(F.col(f"{kind}_{longest}"), shown, F.col(f"mean_{kind}"))
        columns[f"user_{kind}_rate_30d"] = rate
    columns["user_mean_log_price_30d"] = F.when(
        F.col("priced") > 0, F.col("log_price") / 1e6 / F.col("priced")
    ).otherwise(0.0)
    columns["user_recency_days"] = F.coalesce(
        F.least(F.datediff("as_of_date", "last_outcome"), F.lit(longest)), F.lit(longest)
    )
    return columns
