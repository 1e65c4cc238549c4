"""Item days: what was done with each item in each scenario on a day of arrival, in sums that windows are made of."""

from pyspark.sql import DataFrame

from feature_jobs.activity import day_counts, dwell_sums
from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.tables import table_specs


def item_days(activity: DataFrame, shop: Shop) -> DataFrame:
    """Return one row per day of arrival, item and scenario.

    Args:
        activity: `activity` of the wanted days.
        shop: gives event types.
    """
    daily = activity.groupBy("as_of_date", "item_id", "scenario").agg(*day_counts(shop), *dwell_sums())
    return conform(daily, table_specs(shop)["item_days"])
