"""Sessions: a user's events between two pauses, over all scenarios, among what arrived on one day."""

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.dates import parse_duration
from nightshelf.features import outcome_events
from nightshelf.tables import table_specs


def sessions(acts: DataFrame, impressions: DataFrame, shop: Shop) -> DataFrame:
    """Return one row per day of arrival, user and session; a pause longer than the shop's session_gap ends one.

    Events are first summed up by user, scenario and minute: a gap is never shorter than that, and the rows that a user's
    order needs are a tenth. Drawn negatives happen when their positive does, and are not counted.

    Args:
        acts, impressions: of the wanted days of arrival.
        shop: gives session_gap and event types.
    """
    kinds = ["impression", *outcome_events(shop)]
    shown = impressions.where("sampling_rate = 1").select(
        "as_of_date", "user_key", "scenario", F.col("impression_ts").alias("ts"), F.lit("impression").alias("kind")
    )
    done = acts.select(
        "as_of_date", "user_key", "scenario", F.col("event_ts").alias("ts"), F.col("event_type").alias("kind")
    )
    minute = F.floor(F.unix_micros("ts") / F.lit(60e6)).alias("minute")
    moments = (
        done.unionByName(shown)
        .groupBy("as_of_date", "user_key", "scenario", minute)
        .agg(
            F.min("ts").alias("first"),
            F.max("ts").alias("last"),
            *(F.count_if(F.col("kind") == k).alias(k) for k in kinds),
        )
    )
    of_user = Window.partitionBy("as_of_date", "user_key").orderBy("first", "last", "scenario")
    latest = F.max("last").over(of_user.rowsBetween(Window.unboundedPreceding, -1))
    starts = F.when(_seconds_between(latest, F.col("first")) > _gap(shop), 1).otherwise(0)
    numbered = moments.withColumn("starts", starts).withColumn("session", F.sum("starts").over(of_user) + 1)
    rows = numbered.groupBy("as_of_date", "user_key", "session").agg(
        F.min("first").alias("started_at"),
        _seconds_between(F.min("first"), F.max("last")).alias("seconds"),
        F.min_by("scenario", F.struct("first", "scenario")).alias("first_scenario"),
        F.count_distinct("scenario").alias("scenario_count"),
        *(F.sum(kind).alias(f"{kind}_count") for kind in kinds),
    )
    return conform(rows, table_specs(shop)["sessions"])


def session_days(sessions: DataFrame) -> DataFrame:
    """Return per user and `day` of arrival the number of sessions and their length in whole seconds."""
    seconds = F.sum(F.round("seconds").cast("long")).alias("session_seconds")
    days = sessions.groupBy("user_key", F.col("as_of_date").alias("day"))
    return days.agg(F.count("*").alias("sessions"), seconds)


def _seconds_between(start: Column, end: Column) -> Column:
    return (F.unix_micros(end) - F.unix_micros(start)) / F.lit(1e6)


def _gap(shop: Shop) -> float:
    return parse_duration(shop.session_gap) / dt.timedelta(seconds=1)
