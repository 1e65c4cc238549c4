"""Triples of head, relation and tail: what the catalogue says of each item, and the shop's own graph from a file.

The tail of a catalogue's triple is the name of the value behind that of its column, `brand:Acme`, so that two columns
with one word are two things.
"""

import datetime as dt

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_jobs.raw_files import find_files
from feature_jobs.raw_rows import read_raw_rows
from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.features import fact_relations
from nightshelf.paths import source_path


def read_triples(spark: SparkSession, shop: Shop, as_of_date: dt.date) -> DataFrame:
    """Return the whole rows (head, relation, tail) of the shop's graph; no rows if the shop has none.

    Raises:
        InputError: the graph's file is missing or lacks a column.
    """
    columns = ["head", "relation", "tail"]
    empty = spark.createDataFrame([], "head string, relation string, tail string")
    if shop.graph is None:
        return empty
    pattern = source_path(shop, shop.graph.path, as_of_date)
    files = find_files(spark, pattern)
    if not files:
        raise InputError(f"graph: no file at {pattern}; bring it, or take `graph` out of the shop file")
    names: dict[str, str] = dict(shop.graph.columns.items())
    for rows in read_raw_rows(spark, files, shop.graph, names, "graph"):
        empty = empty.unionByName(rows.where("is_parsable").select(*columns).dropna())
    return empty


def item_triples(items: DataFrame, item_features: DataFrame, shop: Shop) -> DataFrame:
    """Return head (item id), relation and tail (`<column>:<value>`) of every known value of the catalogue's items.

    Args:
        items: the catalogue of the night.
        item_features: of the night, for the price bands.
        shop: gives the attributes.
    """
    bands = item_features.select("item_id", F.nullif("price_band", F.lit(0)).alias("price_band"))
    facts = F.inline(
        F.array(
            *(
                F.struct(F.lit(relation).alias("relation"), F.concat(F.lit(f"{column}:"), F.col(column)).alias("tail"))
                for relation, column in fact_relations(shop).items()
            )
        )
    )
    rows = items.join(bands, "item_id", "left").select(F.col("item_id").alias("head"), facts)
    return rows.where("tail is not null")
