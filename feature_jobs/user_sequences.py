"""User sequences: the last events of each user, as the ranker's attention reads them."""

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from feature_jobs.vocabularies import add_index
from feature_jobs.windows import LONGEST_WINDOW
from nightshelf.config import Shop
from nightshelf.features import SEQUENCE_LENGTH, sequence_events
from nightshelf.tables import table_specs


def history(events: DataFrame) -> DataFrame:
    """Return the events worth remembering: every outcome, and `searched`, the first result of an own query."""
    outcomes = events.where("event_type <> 'impression'")
    searched = events.where("event_type = 'impression' and query is not null and position = 1")
    return outcomes.unionByName(searched.withColumn("event_type", F.lit("searched")))


def user_sequences(events: DataFrame, vocabularies: DataFrame, shop: Shop, dates: list[dt.date]) -> DataFrame:
    """Return one row per as_of_date of `dates` and user: the last 50 events of the 30 days of arrival up to it.

    A user's events are collected once, and each day takes its part. Order: event time, then event_id.

    Args:
        events: rows that arrived in the 30 days up to each of `dates`.
        vocabularies: the night's.
        shop: gives the places of event types and scenarios, and the time zone.
        dates: the wanted days.
    """
    rows = add_index(history(events), vocabularies, "item", "item_id", "item_index")
    event = F.struct(
        F.col("event_ts").alias("ts"),
        "event_id",
        F.col("as_of_date").alias("day"),
        "item_index",
        _place("event_type", sequence_events(shop)).alias("event_type_index"),
        _place("scenario", list(shop.scenarios)).alias("scenario_index"),
    )
    users = rows.groupBy("user_key").agg(F.sort_array(F.collect_list(event)).alias("all"))
    days = F.explode(F.array(*(F.lit(date) for date in dates))).alias("as_of_date")
    window = F.filter(
        "all",
        lambda e: (e["day"] <= F.col("as_of_date")) & (F.datediff(F.col("as_of_date"), e["day"]) < LONGEST_WINDOW),
    )
    known = users.select("user_key", "all", days).withColumn("window", window).where(F.size("window") > 0)
    known = known.withColumn(
        "last", F.slice("window", -F.least(F.size("window"), F.lit(SEQUENCE_LENGTH)), SEQUENCE_LENGTH)
    )
    known = known.withColumn("end", F.to_utc_timestamp(F.date_add("as_of_date", 1).cast("timestamp"), shop.timezone))
    known = add_index(known, vocabularies, "user", "user_key", "user_index")
    age = F.transform("last", lambda e: (F.unix_micros("end") - F.unix_micros(e["ts"])) / F.lit(86400e6))
    lists = {f"{name}es": _field("last", name) for name in ("item_index", "event_type_index", "scenario_index")}
    return conform(known.withColumns({**lists, "age_days": age}), table_specs(shop)["user_sequences"])


def _place(column: str, names: list[str]) -> Column:
    """Return 1 + the place of the column's value in the list; 0 if it is not there."""
    return F.array_position(F.array(*(F.lit(name) for name in names)), F.col(column)).cast("int")


def _field(array: str, name: str) -> Column:
    return F.transform(array, lambda e: e[name])
