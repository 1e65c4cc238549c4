"""Favourites: the category and the brand that most of a user's outcomes of late are about."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.statistics import decayed_counts
from feature_jobs.windows import spread_over_dates
from nightshelf.config import Shop
from nightshelf.features import FAVOURITES, outcome_events


def favourites(acts: DataFrame, items: DataFrame, shop: Shop, dates: list[dt.date]) -> DataFrame:
    """Return as_of_date, user_key and `user_<name>` per name of FAVOURITES: the one with most decayed outcomes of 30 days.

    Ties go to the first in alphabetical order; null where no outcome tells.

    Args:
        acts: of the 30 days of arrival up to each of `dates`.
        items: the catalogue of each of those days.
        shop: gives event types.
        dates: the wanted days.
    """
    known = F.broadcast(items.select("as_of_date", "item_id", *FAVOURITES))
    rows = acts.where(F.col("event_type").isin(outcome_events(shop))).join(known, ["as_of_date", "item_id"])
    each = F.explode(F.array(*(F.struct(F.lit(n).alias("name"), F.col(n).alias("value")) for n in FAVOURITES)))
    rows = rows.select("user_key", F.col("as_of_date").alias("day"), each.alias("told")).where("told.value is not null")
    daily = rows.groupBy("user_key", "day", "told").agg(F.count("*").alias("outcome_count"))
    counts = decayed_counts({"outcome": "outcome_count"})
    liked = spread_over_dates(daily, dates).groupBy("as_of_date", "user_key", "told").agg(*counts)
    best = [
        F.min_by(
            F.when(F.col("told.name") == name, F.col("told.value")),
            F.when(F.col("told.name") == name, F.struct(-F.col("outcome_decayed"), F.col("told.value"))),
        ).alias(f"user_{name}")
        for name in FAVOURITES
    ]
    return liked.groupBy("as_of_date", "user_key").agg(*best)
