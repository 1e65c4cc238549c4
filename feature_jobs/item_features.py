"""Item features: what was done with an item of late, and what it is, known at the end of a day."""

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.rates import mean_of_micros, mean_rates, shrunk_rate
from feature_jobs.schema import conform
from feature_jobs.statistics import logged, overall_rates, statistics, sum_names, sums
from feature_jobs.vocabularies import add_index, item_columns
from feature_jobs.windows import LONGEST_WINDOW, spread_over_dates
from nightshelf.config import Shop
from nightshelf.features import ITEM_GROUPS, MOST_AGE_DAYS, PRICE_BANDS, outcome_events
from nightshelf.tables import table_specs

# Where no launch date is known an item is as old as its first sight, in the logs or in a catalogue. One that was seen longer
# ago, that was there when the window's logs or catalogues begin, or that had its id before that sight, is old, and how old is
# not known. Without this its age would be a clock that counts the days since the shop's first log, and what nobody asked for
# in a while would be new.
_FRESH_DAYS = 7


def item_features(
    item_days: DataFrame,
    items: DataFrame,
    vocabularies: DataFrame,
    shop: Shop,
    dates: list[dt.date],
) -> DataFrame:
    """Return one row per as_of_date of `dates` and item of the latest catalogue up to it or of its last 30 days.

    An item that left the catalogue keeps its last known attributes for as long as the window holds them.

    Args:
        item_days: of the 30 days of arrival up to each of `dates`.
        items: the catalogues of the same days.
        vocabularies: the night's.
        shop: gives event types and attributes.
        dates: the wanted days.
    """
    counts = logged_days(item_days, shop, dates)
    dwell = [F.sum(name).alias(name) for name in ("log_dwell_micros", "dwelt")]
    counts = counts.groupBy("as_of_date", "item_id").agg(*sums(logged(shop)), *dwell, F.min("day").alias("first_day"))
    counts = counts.join(F.broadcast(_first_days(item_days, dates)), "as_of_date")
    rows = counts.join(known_items(items, shop, dates), ["as_of_date", "item_id"], "full")
    rows = rows.where(F.col(f"impression_{LONGEST_WINDOW}").isNotNull() | F.col("in_catalogue"))
    rows = rows.na.fill(0, [*sum_names(shop), "log_dwell_micros", "dwelt"])
    rows = rows.join(F.broadcast(mean_rates(item_days, outcome_events(shop), dates)), "as_of_date")
    ids = vocabularies.where("feature = 'item'").select(
        F.col("value").alias("item_id"), F.col("since").alias("id_since")
    )
    rows = rows.join(ids, "item_id", "left").withColumns(_columns(shop))
    rows = rows.withColumn("price_band", _price_band())
    for name in item_columns(shop):
        rows = add_index(rows, vocabularies, name, "item_id" if name == "item" else name, f"{name}_index")
    return conform(rows, table_specs(shop)["item_features"])


def logged_days(item_days: DataFrame, shop: Shop, dates: list[dt.date]) -> DataFrame:
    """Return the days of items on which something was logged of them, spread over `dates`.

    An outcome that belongs to another scenario's impression has a row there too, without a count of its own.
    """
    is_logged = F.greatest(*(F.col(column) for column in logged(shop).values())) > 0
    return spread_over_dates(item_days.where(is_logged).withColumnRenamed("as_of_date", "day"), dates)


def known_items(items: DataFrame, shop: Shop, dates: list[dt.date]) -> DataFrame:
    """Return per as_of_date and item: the last known attributes, the highest price, whether it is still on sale.

    `first_listed` is the day of the first catalogue of the window that has it, `first_catalogue` that of the first of all.
    """
    named = ["price", "launch_date", *(name for name in item_columns(shop) if name != "item")]
    items = items.withColumnRenamed("as_of_date", "day")
    latest = F.max_by(F.struct(*named), "day").alias("latest")
    known = (
        spread_over_dates(items, dates)
        .groupBy("as_of_date", "item_id")
        .agg(
            latest,
            F.max("price").alias("highest_price"),
            F.min("day").alias("first_listed"),
            F.max("day").alias("last_day"),
        )
    )
    days = spread_over_dates(items.select("day").distinct(), dates)
    bounds = days.groupBy("as_of_date").agg(F.min("day").alias("first_catalogue"), F.max("day").alias("newest"))
    known = known.join(F.broadcast(bounds), "as_of_date")
    return known.select(
        "as_of_date",
        "item_id",
        "highest_price",
        (F.col("last_day") == F.col("newest")).alias("in_catalogue"),
        "first_listed",
        "first_catalogue",
        "latest.*",
    )


def _first_days(item_days: DataFrame, dates: list[dt.date]) -> DataFrame:
    """Return per as_of_date the first day of arrival that its window holds."""
    days = spread_over_dates(item_days.select(F.col("as_of_date").alias("day")).distinct(), dates)
    return days.groupBy("as_of_date").agg(F.min("day").alias("window_start"))


def _price_band() -> Column:
    """Return the decile of the price inside the second-level category of that day; equal prices share a band."""
    rank = F.percent_rank().over(
        Window.partitionBy("as_of_date", "category_2", F.col("price").isNull()).orderBy("price")
    )
    band = F.least(F.floor(rank * PRICE_BANDS) + 1, F.lit(PRICE_BANDS))
    return F.when(F.col("price").isNull(), 0).otherwise(band)


def _columns(shop: Shop) -> dict[str, Column]:
    columns = statistics("item", shop, overall_rates(shop))
    shown = F.col(f"impression_{LONGEST_WINDOW}")
    for kind in outcome_events(shop):
        done, mean = F.col(f"{kind}_{LONGEST_WINDOW}"), F.col(f"mean_{kind}")
        for group in ITEM_GROUPS:
            alike = Window.partitionBy("as_of_date", group)
            rate = shrunk_rate(F.sum(done).over(alike), F.sum(shown).over(alike), mean)
            # An item without a category or brand is alike to nothing but itself
            columns[f"item_{group}_{kind}_rate_30d"] = F.when(F.col(group).isNotNull(), rate).otherwise(
                columns[f"item_{kind}_rate_30d"]
            )
    columns["item_mean_log_dwell_30d"] = mean_of_micros("log_dwell_micros", "dwelt")
    columns["item_log_price"] = F.coalesce(F.log1p("price"), F.lit(0.0))
    discount = F.when(F.col("highest_price") > 0, 1 - F.col("price") / F.col("highest_price"))
    columns["item_discount"] = F.coalesce(discount, F.lit(0.0))
    columns["item_age_days"] = _age_days()
    return columns


def _age_days() -> Column:
    launched = F.datediff("as_of_date", "launch_date")
    since_launch = F.when(launched.isNotNull(), F.least(F.greatest(launched, F.lit(0)), F.lit(MOST_AGE_DAYS)))
    seen = F.least("first_day", "first_listed")
    when_all_begins = (F.col("first_day") == F.col("window_start")) | (
        F.col("first_listed") == F.col("first_catalogue")
    )
    was_there = when_all_begins | (F.col("id_since") < seen)
    age = F.datediff("as_of_date", seen)
    is_new = (age <= _FRESH_DAYS) & ~F.coalesce(was_there, F.lit(False))
    return F.coalesce(since_launch, F.when(is_new, age), F.lit(MOST_AGE_DAYS))
