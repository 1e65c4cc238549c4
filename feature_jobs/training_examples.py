"""Training examples: labelled impressions with what was known the day before."""

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_jobs.labels import is_mature
from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.dates import day_bounds_utc
from nightshelf.features import MOST_INVERSE_PROPENSITY, dense_features, root_task
from nightshelf.tables import table_specs


def training_examples(
    labelled: DataFrame,
    user_features: DataFrame,
    item_features: DataFrame,
    item_scenario_features: DataFrame,
    shop: Shop,
    first_date: dt.date,
    as_of_date: dt.date,
) -> DataFrame:
    """Return the impressions whose root task is mature, each joined with the features of the day before its own.

    Each stays in the partition of its arrival. Who or what was never seen by then has `Feature.unseen`.

    Args:
        labelled: impressions with their labels.
        user_features, item_features, item_scenario_features: of the day before each impression's.
        shop: gives the tasks.
        first_date: the first day that has features; impressions count from the day after it.
        as_of_date: the night, up to whose end the labels know.
    """
    _, end = day_bounds_utc(as_of_date, shop.timezone)
    rows = labelled.where((F.col("event_date") > F.lit(first_date)) & is_mature(shop.tasks[root_task(shop)], end))
    rows = rows.withColumn("feature_date", F.date_sub("event_date", 1))
    # The users first: where they are too many to send to every core, the examples move while they are still narrow.
    for features, keys in (
        (user_features, ["user_key"]),
        (item_scenario_features, ["scenario", "item_id"]),
        (item_features, ["item_id"]),
    ):
        rows = rows.join(features.withColumnRenamed("as_of_date", "feature_date"), ["feature_date", *keys], "left")
    spec = table_specs(shop)["training_examples"]
    shown_at = F.from_utc_timestamp("impression_ts", shop.timezone)
    inverse = F.least(1 / F.col("propensity"), F.lit(MOST_INVERSE_PROPENSITY))
    computed = {
        "labels_as_of": F.lit(as_of_date),
        "sample_weight": 1 / F.col("sampling_rate"),
        "inverse_propensity": F.when(F.col("propensity") > 0, inverse).otherwise(1),
        "hour": F.hour(shown_at),
        "weekday": F.pmod(F.dayofweek(shown_at) + 5, F.lit(7)) + 1,  # for weekday(), Sail's Sunday is -1
    }
    numeric = [c.name for c in spec.columns if c.type in ("int32", "float32") and c.name not in computed]
    unseen = {feature.name: feature.unseen for feature in dense_features(shop)}
    filled = {name: F.coalesce(name, *_stand_ins(unseen.get(name, 0.0))) for name in numeric}
    return conform(rows.withColumns({**filled, **computed}), spec)


def _stand_ins(unseen: float | str) -> list[Column]:
    return [F.col(unseen), F.lit(0.0)] if isinstance(unseen, str) else [F.lit(unseen)]
