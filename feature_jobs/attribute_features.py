"""Attribute features: what was done of late with the items of a category, brand or other attribute."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.item_features import known_items, logged_days
from feature_jobs.rates import mean_rates
from feature_jobs.schema import conform
from feature_jobs.statistics import LAST_OUTCOME, logged, overall_rates, statistics, sum_names, sums
from feature_jobs.vocabularies import item_columns
from nightshelf.config import Shop
from nightshelf.features import WINDOWS, outcome_events
from nightshelf.tables import table_specs


def attribute_features(items: DataFrame, item_days: DataFrame, shop: Shop, as_of_date: dt.date) -> DataFrame:
    """Return one row per category of each level, brand, or other attribute that an item of item_features bears.

    Args:
        items: the catalogues of the 30 days up to as_of_date.
        item_days: of these days.
        shop: gives event types and attributes.
        as_of_date: the night.
    """
    names, counted = [name for name in item_columns(shop) if name != "item"], logged(shop)
    days = logged_days(item_days, shop, [as_of_date])
    of_items = days.groupBy("item_id").agg(*sums(counted), F.lit(True).alias("is_logged"))
    rows = known_items(items, shop, [as_of_date]).join(of_items, "item_id", "left")
    rows = rows.where(F.col("in_catalogue") | F.col("is_logged"))
    each = F.array(*(F.struct(F.lit(name).alias("attribute"), F.col(name).alias("value")) for name in names))
    rows = rows.withColumn("borne", F.explode(each)).where("borne.value is not null")
    rows = rows.groupBy("borne.attribute", "borne.value").agg(
        *(F.sum(f"{kind}_{part}").alias(f"{kind}_{part}") for kind in counted for part in WINDOWS),
        # In whole billionths again, so that the order of adding leaves no trace
        *(
            (F.sum(F.round(F.col(f"{kind}_decayed") * 1e9).cast("long")) / 1e9).alias(f"{kind}_decayed")
            for kind in counted
        ),
        F.min(LAST_OUTCOME).alias(LAST_OUTCOME),
        F.count("*").alias("items"),
    )
    means = mean_rates(item_days, outcome_events(shop), [as_of_date])
    rows = rows.na.fill(0, sum_names(shop)).withColumn("as_of_date", F.lit(as_of_date))
    rows = rows.join(F.broadcast(means), "as_of_date")
    return conform(
        rows.withColumns(statistics("attribute", shop, overall_rates(shop))), table_specs(shop)["attribute_features"]
    )
