"""Rates and means. A rate is outcomes per impression, pulled towards a mean where the impressions are few (empirical Bayes)."""

import datetime as dt

from pyspark.sql import Column, DataFrame, WindowSpec
from pyspark.sql import functions as F

from feature_jobs.windows import spread_over_dates

# The pull is as strong as the impressions that bring this many outcomes on average: a rare outcome needs more evidence.
PRIOR_OUTCOMES = 2
MIN_PRIOR_IMPRESSIONS, MAX_PRIOR_IMPRESSIONS = 20, 1000


def mean_rates(item_days: DataFrame, outcomes: list[str], dates: list[dt.date]) -> DataFrame:
    """Return `mean_<event>` per as_of_date of `dates`: all outcomes per impression of the 30 days of arrival up to it.

    Args:
        item_days: of these days.
        outcomes: the event types.
        dates: the wanted days.
    """
    kinds = ["impression", *outcomes]
    days = item_days.groupBy(F.col("as_of_date").alias("day")).agg(*(F.sum(f"{k}_count").alias(k) for k in kinds))
    totals = spread_over_dates(days, dates).groupBy("as_of_date").agg(*(F.sum(kind).alias(kind) for kind in kinds))
    shown = F.col("impression")
    means = [F.when(shown > 0, F.col(kind) / shown).otherwise(0.0).alias(f"mean_{kind}") for kind in outcomes]
    return totals.select("as_of_date", *means)


def shrunk_rate(outcomes: Column, shown: Column, mean: Column) -> Column:
    """Return (outcomes + m · mean) / (shown + m), with m = PRIOR_OUTCOMES / mean impressions inside its bounds."""
    wanted = F.when(mean > 0, PRIOR_OUTCOMES / mean).otherwise(F.lit(float(MAX_PRIOR_IMPRESSIONS)))
    m = F.greatest(F.least(wanted, F.lit(float(MAX_PRIOR_IMPRESSIONS))), F.lit(float(MIN_PRIOR_IMPRESSIONS)))
    return (outcomes + m * mean) / (shown + m)


def expected_choices(chosen: Column, everywhere: Column, scenario: WindowSpec) -> Column:
    """Return how often an item would be chosen if all choices were made in a scenario, whose few are pulled to those of all.

    Args:
        chosen, everywhere: how often the item was chosen in the scenario, and in all.
        scenario: the rows of all items in that scenario.
    """
    m, total = float(MIN_PRIOR_IMPRESSIONS), F.sum(everywhere).over(scenario)
    share = F.when(total > 0, everywhere / total).otherwise(0.0)
    return total * (chosen + m * share) / (F.sum(chosen).over(scenario) + m)


def mean_of_micros(total: str, count: str) -> Column:
    """Return the mean of a sum in millionths; 0 of nothing."""
    return F.when(F.col(count) > 0, F.col(total) / 1e6 / F.col(count)).otherwise(0.0)
