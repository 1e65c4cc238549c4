"""Item × scenario features: how an item fares where it is shown, known at the end of a day."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.scenarios import in_scenarios
from feature_jobs.schema import conform
from feature_jobs.statistics import attributed, own_rates, statistics, sums
from feature_jobs.windows import LONGEST_WINDOW, spread_over_dates
from nightshelf.config import Shop
from nightshelf.tables import table_specs


def item_scenario_features(
    item_days: DataFrame, item_features: DataFrame, shop: Shop, dates: list[dt.date]
) -> DataFrame:
    """Return one row per as_of_date of `dates`, scenario and item shown there in the 30 days of arrival up to it.

    An outcome counts in the scenario of the impression that it belongs to, wherever its own log says that it happened.

    Args:
        item_days: of the 30 days of arrival up to each of `dates`.
        item_features: of `dates`, for the items' own rates.
        shop: gives event types and scenarios.
        dates: the wanted days.
    """
    days = spread_over_dates(in_scenarios(item_days, shop).withColumnRenamed("as_of_date", "day"), dates)
    rows = days.groupBy("as_of_date", "scenario", "item_id").agg(*sums(attributed(shop)))
    rates = own_rates("item", shop)
    own = item_features.select("as_of_date", "item_id", *rates.values())
    rows = rows.where(F.col(f"impression_{LONGEST_WINDOW}") > 0).join(own, ["as_of_date", "item_id"])
    return conform(
        rows.withColumns(statistics("item_scenario", shop, rates)), table_specs(shop)["item_scenario_features"]
    )
