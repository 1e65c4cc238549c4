"""Training examples: labelled impressions with what was known the day before."""

import datetime as dt

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.impressions import root_task
from feature_jobs.labels import is_mature
from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.dates import day_bounds_utc
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

    Features that are missing there are 0.

    Args:
        labelled: the impressions of the history window with their labels.
        user_features, item_features, item_scenario_features: of every day of the window.
        shop: gives the tasks.
        first_date: the first day of the window that has features; impressions count from the day after it.
        as_of_date: the night.
    """
    _, end = day_bounds_utc(as_of_date, shop.timezone)
    rows = labelled.where((F.col("event_date") > F.lit(first_date)) & is_mature(shop.tasks[root_task(shop)], end))
    rows = rows.withColumn("feature_date", F.date_sub("event_date", 1)).drop("as_of_date")
    # The users first: where they are too many to send to every core, the examples move while they are still narrow.
    for features, keys in (
        (user_features, ["user_key"]),
        (item_scenario_features, ["scenario", "item_id"]),
        (item_features, ["item_id"]),
    ):
        rows = rows.join(features.withColumnRenamed("as_of_date", "feature_date"), ["feature_date", *keys], "left")
    spec = table_specs(shop)["training_examples"]
    computed = {
        "as_of_date": F.lit(as_of_date),
        "split": F.when(F.col("event_date") < F.lit(validation_start(shop, first_date, as_of_date)), "train").otherwise(
            "validation"
        ),
        "sample_weight": 1 / F.col("sampling_rate"),
    }
    numeric = [c.name for c in spec.columns if c.type in ("int32", "float32") and c.name not in computed]
    zeros = {name: F.coalesce(F.col(name), F.lit(0)) for name in numeric}
    return conform(rows.withColumns({**zeros, **computed}), spec)


def validation_start(shop: Shop, first_date: dt.date, as_of_date: dt.date) -> dt.date:
    """Return the first day of validation: the last open one on which every task is mature; all later days belong to it too.

    So each task can be validated, and nothing later than a validated impression is trained on. Half of the days after
    first_date are always left for training, but for days on which the shop was closed.
    """
    widest = max(task.window for task in shop.tasks.values())
    day = as_of_date - dt.timedelta(days=min(widest.days, max((as_of_date - first_date).days - 1, 0) // 2))
    while shop.is_closed(day) and day > first_date:
        day -= dt.timedelta(days=1)
    return day
