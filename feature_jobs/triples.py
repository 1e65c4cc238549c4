"""The shop's own graph: triples of head, relation and tail from a file."""

import datetime as dt

from pyspark.sql import DataFrame, SparkSession

from feature_jobs.raw_files import find_files
from feature_jobs.raw_rows import read_raw_rows
from nightshelf.config import Shop
from nightshelf.errors import InputError
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
