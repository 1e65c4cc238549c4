"""User category days: what each user did and saw of each third-level category on a day of arrival."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.features import outcome_events
from nightshelf.tables import table_specs


def user_category_days(activity: DataFrame, items: DataFrame, shop: Shop) -> DataFrame:
    """Return one row per day of arrival, user and category; items without a category are left out.

    Args:
        activity: `activity` of the wanted days.
        items: the catalogue of each of them, for categories.
        shop: gives event types.
    """
    categories = F.broadcast(items.where("category_3 is not null").select("as_of_date", "item_id", "category_3"))
    rows = activity.where("event_type is not null").join(categories, ["as_of_date", "item_id"])
    kinds = ["impression", *outcome_events(shop)]
    counts = [F.count_if(F.col("event_type") == kind).alias(f"{kind}_count") for kind in kinds]
    daily = rows.groupBy("as_of_date", "user_key", "category_3").agg(*counts)
    return conform(daily, table_specs(shop)["user_category_days"])
