"""The users table: the shop's user table and every user that the logs have shown up to that day."""

import datetime as dt
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_jobs.pseudonyms import user_keys
from feature_jobs.raw_files import event_date_of
from feature_jobs.raw_rows import read_raw_rows, union
from feature_jobs.rules import is_test_user
from nightshelf.raw_logs import Dimension

_CONSENT = "_consent"


def read_members(
    spark: SparkSession, users: Dimension, files: list[str], key_path: Path, test_users: list[str]
) -> DataFrame:
    """Return the shop's user table: user_key, user_<attribute> …, `seen_on` (the file's day; null if undated).

    Test accounts and rows without an id are left out; the last row of an id counts. Who has not consented, where the shop
    asks for it, has no attributes.

    Raises:
        InputError: a file lacks a column that the shop file names, or cannot be read.
    """
    attributes = [name for name in users.columns if name != "user_id"]
    day = event_date_of(users.path, F.col("file_path")) if "{event_date}" in users.path else F.lit(None).cast("date")
    layouts = []
    wanted = {**users.columns, **({_CONSENT: users.consent} if users.consent else {})}
    for rows in read_raw_rows(spark, files, users, wanted, "users"):
        text = {name: F.nullif(F.trim(F.col(name).cast("string")), F.lit("")) for name in wanted}
        if users.consent:
            agreed = F.lower(text[_CONSENT]).isin("true", "1", "yes", "y")
            text |= {name: F.when(agreed, text[name]) for name in attributes}
        members = rows.where("is_parsable").select(
            text["user_id"].alias("user_id"),
            F.struct(*(text[name].alias(f"user_{name}") for name in attributes), F.lit(True).alias("_")).alias(
                "member"
            ),
            F.struct("file_path", "place").alias("arrival"),
            day.alias("seen_on"),
        )
        layouts.append(members.where(F.col("user_id").isNotNull() & ~is_test_user(F.col("user_id"), test_users)))
    last = union(layouts).groupBy("user_id", "seen_on").agg(F.max_by("member", "arrival").alias("member"))
    return last.select(user_keys(key_path)(F.col("user_id")).alias("user_key"), "seen_on", "member.*").drop("_")


def users(
    members: DataFrame | None, events: DataFrame, before: DataFrame, days: list[dt.date], attributes: list[str]
) -> DataFrame:
    """Return as_of_date, user_key and user_<attribute> of every user known at the end of each day.

    Args:
        members: what `read_members` returned, or None if the shop has no user table.
        events: events of `days`.
        before: published partitions of this table from before or between `days`; whoever is in one stays known.
        days: the days to write.
        attributes: names of the user_<attribute> columns.
    """
    record = F.struct(*attributes, F.lit(True).alias("_"))
    nothing = F.lit(None).cast(_record_type(attributes)).alias("record")
    sightings = [
        events.select("user_key", F.col("as_of_date").alias("seen_on"), nothing).distinct(),
        before.select("user_key", F.col("as_of_date").alias("seen_on"), record.alias("record")),
    ]
    if members is not None:
        sightings.append(members.select("user_key", "seen_on", record.alias("record")))
    dates = F.array(*(F.lit(day) for day in days))
    known = F.filter(dates, lambda day: F.coalesce(day >= F.col("seen_on"), F.lit(True)))
    seen = union(sightings).withColumn("as_of_date", F.explode(known))
    # A user table without days is today's, and newer than all others. Engines rank null differently: none may decide
    told = (F.coalesce(F.col("record").getField(name), F.lit("")) for name in attributes)
    order = F.struct(F.coalesce("seen_on", F.lit(dt.date.max)), *told, "record")
    newest = F.max(F.when(F.col("record").isNotNull(), order)).alias("newest")
    return (
        seen.groupBy("as_of_date", "user_key").agg(newest).select("as_of_date", "user_key", "newest.record.*").drop("_")
    )


def _record_type(attributes: list[str]) -> str:
    return f"struct<{', '.join([*(f'{name}: string' for name in attributes), '_: boolean'])}>"
