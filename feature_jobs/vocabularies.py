"""Vocabularies: the ids of categorical values, which never change from night to night."""

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.features import attribute_columns, index_features
from nightshelf.tables import table_specs


def vocabularies(
    previous: DataFrame, events: DataFrame, items: DataFrame, users: DataFrame, shop: Shop, as_of_date: dt.date
) -> DataFrame:
    """Keep the ids of the night before and give new values the next ones, in alphabetical order. Ids start at 1.

    Args:
        previous: the vocabularies of an earlier night, or no rows.
        events, items, users: rows of every day that the night reads; only users with an event get an id.
    """
    found = [_values("user", events, "user_key"), _values("item", events, "item_id"), _values("item", items, "item_id")]
    found += [_values(feature, items, feature) for feature in item_columns(shop) if feature != "item"]
    found += [_values(f"user_{name}", users, f"user_{name}") for name in attribute_columns(shop)]
    values = found[0]
    for frame in found[1:]:
        values = values.unionByName(frame)
    kept = previous.select("feature", "value", "index")
    fresh = values.where("value is not null").distinct().join(kept, ["feature", "value"], "left_anti")
    last = kept.groupBy("feature").agg(F.max("index").alias("last"))
    place = F.row_number().over(Window.partitionBy("feature").orderBy("value"))
    fresh = fresh.withColumn("place", place).join(F.broadcast(last), "feature", "left")
    fresh = fresh.select("feature", "value", (F.coalesce("last", F.lit(0)) + F.col("place")).alias("index"))
    every = kept.unionByName(fresh).withColumn("as_of_date", F.lit(as_of_date))
    return conform(every, table_specs(shop)["vocabularies"])


def item_columns(shop: Shop) -> list[str]:
    """Return the vocabularies of items; each but `item` bears the name of its column in the table items."""
    return [f.vocabulary for f in index_features(shop) if f.owner == "item" and f.vocabulary]


def add_index(frame: DataFrame, words: DataFrame, feature: str, column: str, index: str) -> DataFrame:
    """Add the int32 column `index`: the id in vocabulary `feature` of the value in `column`, 0 if unknown."""
    ids = words.where(F.col("feature") == feature).select(F.col("value").alias(column), F.col("index").alias("_id"))
    return frame.join(ids, column, "left").withColumn(index, _or_zero(F.col("_id"))).drop("_id")


def _or_zero(ids: Column) -> Column:
    return F.coalesce(ids, F.lit(0)).cast("int")


def _values(feature: str, frame: DataFrame, column: str) -> DataFrame:
    return frame.select(F.lit(feature).alias("feature"), F.col(column).alias("value"))
