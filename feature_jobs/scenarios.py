"""Scenarios: which rows of earlier days still belong to one. What was logged before a change of names bears the old ones."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from nightshelf.config import Shop


def in_scenarios(rows: DataFrame, shop: Shop) -> DataFrame:
    """Return the rows whose scenario the shop file has: what is told by scenario is told of these alone.

    What is told of a user or an item over all scenarios counts every row.
    """
    return rows.where(F.col("scenario").isin(list(shop.scenarios)))
