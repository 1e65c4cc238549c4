"""User × scenario features: what a user did of late with what each scenario showed, known at the end of the night."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.scenarios import in_scenarios
from feature_jobs.schema import conform
from feature_jobs.statistics import attributed, own_rates, statistics, sum_names, sums
from feature_jobs.windows import spread_over_dates
from nightshelf.config import Shop
from nightshelf.tables import table_specs


def user_scenario_features(
    user_days: DataFrame, user_features: DataFrame, shop: Shop, as_of_date: dt.date
) -> DataFrame:
    """Return one row per user and scenario with an event that counts there in the 30 days of arrival up to as_of_date.

    An outcome counts in the scenario of the impression that it belongs to, wherever its own log says that it happened.

    Args:
        user_days: of these days.
        user_features: of the night, for the users' own rates.
        shop: gives event types and scenarios.
        as_of_date: the night.
    """
    days = spread_over_dates(in_scenarios(user_days, shop).withColumnRenamed("as_of_date", "day"), [as_of_date])
    rows = days.groupBy("user_key", "scenario").agg(*sums(attributed(shop)))
    rows = rows.where(F.greatest(*sum_names(shop)) > 0)
    rates = own_rates("user", shop)
    rows = rows.join(user_features.select("user_key", *rates.values()), "user_key")
    columns = statistics("user_scenario", shop, rates) | {"as_of_date": F.lit(as_of_date)}
    return conform(rows.withColumns(columns), table_specs(shop)["user_scenario_features"])
