"""What is counted alike of users, items, categories, brands and their pairs: `nightshelf.features.statistics`.

Sums over the spread rows of days (feature_jobs.windows), and the columns that are made of them.
"""

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

from feature_jobs.rates import shrunk_rate
from feature_jobs.windows import LONGEST_WINDOW
from nightshelf.config import Shop
from nightshelf.features import HALF_LIFE_DAYS, WINDOWS, outcome_events

LAST_OUTCOME = "last_outcome_distance"


def logged(shop: Shop) -> dict[str, str]:
    """Return event type → column of a table of days, where an outcome counts where its own log tells of it."""
    return {kind: f"{kind}_count" for kind in ["impression", *outcome_events(shop)]}


def attributed(shop: Shop) -> dict[str, str]:
    """Return the same, where an outcome counts in the scenario of the impression that it belongs to."""
    return {"impression": "impression_count"} | {event: f"{event}_attributed" for event in outcome_events(shop)}


def sums(counted: Mapping[str, str]) -> list[Column]:
    """Return the aggregates over spread rows that `statistics` needs, of event type → column of counts."""
    is_outcome = F.greatest(F.lit(0), *(F.col(c) for event, c in counted.items() if event != "impression")) > 0
    last = F.min(F.when(is_outcome, F.col("distance"))).alias(LAST_OUTCOME)
    return [*window_counts(counted), *decayed_counts(counted), last]


def window_counts(counted: Mapping[str, str]) -> list[Column]:
    """Return the aggregates `<event>_<days>` over spread rows."""
    return [
        F.sum(F.when(F.col("distance") < days, F.col(column)).otherwise(0)).cast("double").alias(f"{event}_{days}")
        for event, column in counted.items()
        for days in WINDOWS
    ]


def decayed_counts(counted: Mapping[str, str]) -> list[Column]:
    """Return the aggregates `<event>_decayed` over spread rows: a day's events weigh half a half-life later.

    Whole billionths, so that the order of adding leaves no trace.
    """
    weight = F.pow(F.lit(0.5), F.col("distance") / HALF_LIFE_DAYS)
    return [
        (F.sum(F.round(F.col(column) * weight * 1e9).cast("long")) / 1e9).alias(f"{event}_decayed")
        for event, column in counted.items()
    ]


def sum_names(shop: Shop) -> list[str]:
    """Return the names of the sums that are 0 where nothing was counted."""
    return [f"{kind}_{part}" for kind in logged(shop) for part in (*WINDOWS, "decayed")]


def statistics(name: str, shop: Shop, prior: Mapping[str, Column]) -> dict[str, Column]:
    """Return the columns `<name>_…` over rows of `sums`.

    Args:
        name: begins the names of the columns.
        shop: gives event types.
        prior: event type → the rate that its rate is shrunk to.
    """
    kinds = logged(shop)
    columns = {f"{name}_{kind}_count_{days}d": F.col(f"{kind}_{days}") for kind in kinds for days in WINDOWS}
    columns |= {f"{name}_{kind}_decayed_count_30d": F.col(f"{kind}_decayed") for kind in kinds}
    shown = F.col(f"impression_{LONGEST_WINDOW}")
    for event in outcome_events(shop):
        columns[f"{name}_{event}_rate_30d"] = shrunk_rate(F.col(f"{event}_{LONGEST_WINDOW}"), shown, prior[event])
    columns[f"{name}_recency_days"] = F.coalesce(LAST_OUTCOME, F.lit(LONGEST_WINDOW))
    return columns


def own_rates(name: str, shop: Shop) -> dict[str, Column]:
    """Return event type → the column of the rate that `statistics` made under that name."""
    return {event: F.col(f"{name}_{event}_rate_30d") for event in outcome_events(shop)}


def overall_rates(shop: Shop) -> dict[str, Column]:
    """Return event type → the column of `mean_rates`."""
    return {event: F.col(f"mean_{event}") for event in outcome_events(shop)}
