"""User sequences: the last events of each user, as the ranker's attention reads them, and what the user was shown."""

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from feature_jobs.vocabularies import add_index
from feature_jobs.windows import LONGEST_WINDOW
from nightshelf.config import Sampled, Shop
from nightshelf.features import EXPOSURE_LENGTH, SEQUENCE_LENGTH, sequence_events
from nightshelf.tables import table_specs

# Column of the table → field of an entry
_ACTS = {"item_indexes": "item", "event_type_indexes": "event_type", "scenario_indexes": "scenario"}
_SHOWN = {"shown_category_indexes": "category", "shown_counts": "count"}


def history(events: DataFrame) -> DataFrame:
    """Return the events worth remembering: every outcome, and what a request itself tells of the user's wish.

    `searched` is the first result of an own query; `viewed` the item on whose page the request was made.
    """
    outcomes = events.where("event_type <> 'impression'")
    requests = events.where("event_type = 'impression' and position = 1")
    searched = requests.where("query is not null").withColumn("event_type", F.lit("searched"))
    viewed = requests.where("anchor_item_id is not null").withColumns(
        {"event_type": F.lit("viewed"), "item_id": F.col("anchor_item_id")}
    )
    return outcomes.unionByName(searched).unionByName(viewed)


def is_act() -> Column:
    """Say which events `history` is made of: a tenth of a log with impressions."""
    told = F.col("query").isNotNull() | F.col("anchor_item_id").isNotNull()
    return (F.col("event_type") != "impression") | (told & (F.col("position") == 1))


def user_sequences(
    events: DataFrame,
    impressions: DataFrame,
    items: DataFrame,
    vocabularies: DataFrame,
    shop: Shop,
    dates: list[dt.date],
) -> DataFrame:
    """Return one row per as_of_date of `dates` and user: the last 50 events of the 30 days of arrival up to it.

    Beside them stand the last 64 pairs of day and third-level category that the user was shown, with the number of
    impressions: what the shop took the user for. Drawn negatives are no exposure.

    A user's rows are collected once, and each day takes its part. Order: event time, then what else an event has here
    (never its hashed ids: the same logs give the same sequences); for the exposure day of arrival, then category.

    Args:
        events, impressions: rows that arrived in the 30 days up to each of `dates`.
        items: the catalogue of each day of arrival, for categories.
        vocabularies: the night's.
        shop: gives the places of event types and scenarios, and the time zone.
        dates: the wanted days.
    """
    users = _events_of_users(events, vocabularies, shop)
    if isinstance(shop.negatives, Sampled):
        users = users.withColumn("shown", F.lit(None).cast("array<struct<day:date,category:int,count:int>>"))
    else:
        users = users.join(_exposure_of_users(impressions, items, vocabularies), "user_key", "full")
    days = F.explode(F.array(*(F.lit(date) for date in dates))).alias("as_of_date")
    known = users.select("user_key", "acts", "shown", days)
    known = known.withColumns({name: _arrived(known, name) for name in ("acts", "shown")})
    known = known.withColumns({"acts": _last("acts", SEQUENCE_LENGTH), "shown": _last("shown", EXPOSURE_LENGTH)})
    known = known.where((F.size("acts") > 0) | (F.size("shown") > 0))
    known = known.withColumn("end", F.to_utc_timestamp(F.date_add("as_of_date", 1).cast("timestamp"), shop.timezone))
    known = add_index(known, vocabularies, "user", "user_key", "user_index")
    lists = {column: F.col("acts").getField(field) for column, field in _ACTS.items()}
    lists |= {column: F.col("shown").getField(field) for column, field in _SHOWN.items()}
    lists["age_days"] = F.transform("acts", lambda e: (F.unix_micros("end") - F.unix_micros(e["ts"])) / F.lit(86400e6))
    lists["shown_age_days"] = F.transform("shown", lambda e: F.datediff(F.col("as_of_date"), e["day"]).cast("double"))
    return conform(known.withColumns(lists), table_specs(shop)["user_sequences"])


def _events_of_users(events: DataFrame, vocabularies: DataFrame, shop: Shop) -> DataFrame:
    rows = add_index(history(events), vocabularies, "item", "item_id", "item")
    event = F.struct(
        F.col("event_ts").alias("ts"),
        F.col("as_of_date").alias("day"),
        _place("event_type", sequence_events(shop)).alias("event_type"),
        _place("scenario", list(shop.scenarios)).alias("scenario"),
        "item",
    )
    return rows.groupBy("user_key").agg(F.sort_array(F.collect_list(event)).alias("acts"))


def _exposure_of_users(impressions: DataFrame, items: DataFrame, vocabularies: DataFrame) -> DataFrame:
    categories = add_index(items, vocabularies, "category_3", "category_3", "category").where("category > 0")
    categories = F.broadcast(categories.select("as_of_date", "item_id", "category"))
    shown = impressions.select("as_of_date", "item_id", "user_key").join(categories, ["as_of_date", "item_id"])
    daily = shown.groupBy("user_key", F.col("as_of_date").alias("day"), "category").agg(
        F.count("*").cast("int").alias("count")
    )
    return daily.groupBy("user_key").agg(
        F.sort_array(F.collect_list(F.struct("day", "category", "count"))).alias("shown")
    )


def _arrived(users: DataFrame, array: str) -> Column:
    """Return the entries that had arrived by as_of_date, in the longest window; none of a missing list."""
    entries = F.coalesce(F.col(array), F.array().cast(users.schema[array].dataType))
    distance = lambda e: F.datediff(F.col("as_of_date"), e["day"])  # noqa: E731
    return F.filter(entries, lambda e: (distance(e) >= 0) & (distance(e) < LONGEST_WINDOW))


def _last(array: str, length: int) -> Column:
    return F.slice(array, -F.least(F.greatest(F.size(array), F.lit(1)), F.lit(length)), length)


def _place(column: str, names: list[str]) -> Column:
    """Return 1 + the place of the column's value in the list; 0 if it is not there."""
    return F.array_position(F.array(*(F.lit(name) for name in names)), F.col(column)).cast("int")
