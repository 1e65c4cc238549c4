"""Item × scenario features: how an item fares where it is shown, known at the end of a day."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.rates import shrunk_rate
from feature_jobs.schema import conform
from feature_jobs.windows import LONGEST_WINDOW, spread_over_dates
from nightshelf.config import Shop
from nightshelf.features import outcome_events
from nightshelf.tables import table_specs


def item_scenario_features(
    item_days: DataFrame, item_features: DataFrame, shop: Shop, dates: list[dt.date]
) -> DataFrame:
    """Return one row per as_of_date of `dates`, scenario and item shown there in the 30 days of arrival up to it.

    An outcome counts in the scenario of the impression that it belongs to, wherever its own log says that it happened.

    Args:
        item_days: of the 30 days of arrival up to each of `dates`.
        item_features: of `dates`, for the items' own rates.
        shop: gives event types.
        dates: the wanted days.
    """
    counted = {"impression": "impression_count"} | {event: f"{event}_attributed" for event in outcome_events(shop)}
    sums = [F.sum(column).cast("double").alias(kind) for kind, column in counted.items()]
    days = item_days.withColumnRenamed("as_of_date", "day")
    rows = spread_over_dates(days, dates, LONGEST_WINDOW).groupBy("as_of_date", "scenario", "item_id").agg(*sums)
    own = item_features.select("as_of_date", "item_id", *(f"item_{event}_rate_30d" for event in outcome_events(shop)))
    rows = rows.where("impression > 0").join(own, ["as_of_date", "item_id"])
    shrunk = {
        f"item_scenario_{event}_rate_30d": shrunk_rate(
            F.col(event), F.col("impression"), F.col(f"item_{event}_rate_30d")
        )
        for event in outcome_events(shop)
    }
    rows = rows.withColumns(shrunk).withColumn("item_scenario_impression_count_30d", F.col("impression"))
    return conform(rows, table_specs(shop)["item_scenario_features"])
