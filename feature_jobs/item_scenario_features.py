"""Item × scenario features: how an item fares where it is shown, known at the end of a day."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.attribution import touch_rules
from feature_jobs.rates import shrunk_rate
from feature_jobs.schema import conform
from feature_jobs.windows import LONGEST_WINDOW, spread_over_dates
from nightshelf.config import Shop
from nightshelf.features import outcome_events
from nightshelf.tables import table_specs

_SHOWN = "an impression"  # no rule bears such a name


def item_scenario_features(
    impressions: DataFrame, attributed: DataFrame, item_features: DataFrame, shop: Shop, dates: list[dt.date]
) -> DataFrame:
    """Return one row per as_of_date of `dates`, scenario and item shown there in the 30 days of arrival up to it.

    An outcome counts in the scenario of the impression that it belongs to, wherever its own log says that it happened: a
    purchase in the checkout log belongs to the search result that led to it.

    Args:
        impressions: rows that arrived in the 30 days up to each of `dates`.
        attributed: `attributed_outcomes` of the same days, without hindsight.
        item_features: of `dates`, for the items' own rates.
        shop: gives event types and rules.
        dates: the wanted days.
    """
    rules: dict[str, str] = {}
    for rule in touch_rules(shop):
        rules.setdefault(rule.event, rule.name)
    keys = [F.col("scenario"), F.col("item_id"), F.col("as_of_date").alias("day")]
    shown = impressions.select(*keys, F.lit(_SHOWN).alias("kind"))
    daily = shown.unionByName(attributed.select(*keys, F.col("rule").alias("kind")))
    kinds = {"impression": _SHOWN, **rules}
    totals = daily.groupBy("scenario", "item_id", "day").agg(
        *(F.count_if(F.col("kind") == name).alias(event) for event, name in kinds.items())
    )
    sums = [F.sum(event).cast("double").alias(event) for event in kinds]
    rows = spread_over_dates(totals, dates, LONGEST_WINDOW).groupBy("as_of_date", "scenario", "item_id").agg(*sums)
    own = item_features.select("as_of_date", "item_id", *(f"item_{event}_rate_30d" for event in outcome_events(shop)))
    rows = rows.where("impression > 0").join(own, ["as_of_date", "item_id"])
    shrunk = {
        f"item_scenario_{event}_rate_30d": shrunk_rate(
            F.col(event), F.col("impression"), F.col(f"item_{event}_rate_30d")
        )
        for event in outcome_events(shop)
    }
    rows = rows.withColumns(shrunk).withColumn("item_scenario_impression_count_30d", F.col("impression"))
    return conform(rows, table_specs(shop)["item_scenario_features"])
