"""Raw rows of a source → judged events: typed, in our names, each with the reason that sets it aside, or none.

Two steps: `read_events` reads one source and applies the rules that need a row alone; `complete_verdicts` adds those that
need the catalogue and puts the user's key in the place of the id. What compares rows with each other comes after: bots,
orphans, duplicates.
"""

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_jobs.numbers import number_text, parse_number
from feature_jobs.pseudonyms import mask_letters_and_digits, masked_texts, user_keys
from feature_jobs.raw_files import event_date_of
from feature_jobs.raw_rows import read_raw_rows
from feature_jobs.rules import INTEGERS, OTHER_DAYS, TEXTS, Rule, judge, row_rules, shop_rules
from feature_jobs.timestamps import parse_timestamp
from nightshelf.config import Shop
from nightshelf.raw_logs import EVENT_COLUMNS, NUMBERS, Source, ValueMap

# Longer raw rows are cut in quarantine: enough to see what is wrong, and no 10 MB field in a table.
_RAW_LENGTH = 2000
VALUES = tuple(name for name in EVENT_COLUMNS if name not in ("user_id", "event_ts"))
# What, with its time, makes two rows one event: everything but the day of arrival.
IDENTITY = ("source", "scenario", "event_type", "user_key", *VALUES)
_READ = (
    "as_of_date",
    "file",
    "raw",
    "verdict",
    "source",
    "scenario",
    "event_type",
    "event_date",
    "event_ts",
    "user_id",
    *VALUES,
)
JUDGED = (
    "row_id",
    "as_of_date",
    "source",
    "file",
    "reason",
    "evidence",
    "raw",
    "event_id",
    "event_date",
    "event_ts",
    "scenario",
    "event_type",
    "user_key",
    *VALUES,
)


def read_events(
    spark: SparkSession, shop: Shop, source: Source, files: list[str], days: list[dt.date]
) -> list[DataFrame]:
    """Return one row per raw row of these files of a source, with its `verdict` (reason, evidence) or null.

    `as_of_date` is the day on which the log arrived (the {event_date} of its path). Where the files hold all days it is
    the row's own day in the shop's time zone; there, rows of other days than `days` get the verdict other_days, and they
    and rows without a time are counted on the last of `days`.

    Raises:
        InputError: a file lacks a column that the source names, or cannot be read.
    """
    wanted = dict(source.columns)
    for name, value in (("event_type", source.event_type), ("scenario", source.scenario)):
        if isinstance(value, ValueMap):
            wanted[name] = value.column
    layouts = read_raw_rows(spark, files, source, wanted, f"sources.{source.name}")
    return [_judge_rows(_typed(_as_values(rows, wanted), shop, source), shop, source, days) for rows in layouts]


def _as_values(rows: DataFrame, wanted: dict[str, str]) -> DataFrame:
    """Rename the raw columns to <name>_value; an empty text is an absent one, an id that a file has as a float its digits."""
    kinds = dict(rows.dtypes)

    def as_value(name: str) -> Column:
        """Return the value of a column, null where there is none."""
        if kinds[name] in ("string", "binary"):
            return F.nullif(F.trim(F.col(name).cast("string")), F.lit(""))
        if kinds[name] in ("double", "float") and name not in (*NUMBERS, "event_ts"):
            # Ids are so where a table had gaps; engines differ in exponents
            return F.when(~F.isnan(name), F.regexp_replace(number_text(F.col(name)), r"\.0$", ""))
        return F.col(name)

    values = [as_value(name) for name in wanted]
    return rows.select(
        "file_path", "raw", "is_parsable", *(v.alias(f"{name}_value") for v, name in zip(values, wanted, strict=True))
    )


def _typed(rows: DataFrame, shop: Shop, source: Source) -> DataFrame:
    kind = rows.schema["event_ts_value"].dataType
    columns = {
        "source": F.lit(source.name),
        "event_ts": parse_timestamp(F.col("event_ts_value"), kind, source.timestamp, shop.timezone),
        "event_type": _mapped("event_type", source.event_type),
        "scenario": _mapped("scenario", source.scenario),
    }
    for name in (*TEXTS, *NUMBERS):
        text = F.col(f"{name}_value").cast("string") if name in source.columns else F.lit(None).cast("string")
        columns[name] = text if name in TEXTS else parse_number(text)
    rows = rows.withColumns(columns)
    return rows.withColumn("event_date", F.to_date(F.from_utc_timestamp("event_ts", shop.timezone)))


def _mapped(name: str, value: str | ValueMap) -> Column:
    if isinstance(value, str):
        return F.lit(value)
    pairs = F.create_map(*(F.lit(text) for pair in value.map.items() for text in pair))
    return F.coalesce(F.try_element_at(pairs, F.col(f"{name}_value").cast("string")), F.lit(value.default))


def _judge_rows(rows: DataFrame, shop: Shop, source: Source, days: list[dt.date]) -> DataFrame:
    rules = row_rules(source, shop.quarantine)
    if source.is_dated:
        rows = rows.withColumn("as_of_date", event_date_of(source.path, F.col("file_path")))
    else:
        own_day = F.when(
            F.col("is_parsable") & F.col("event_date").between("2000-01-01", "2100-01-01"), F.col("event_date")
        )
        rules.insert(0, Rule(OTHER_DAYS, ~own_day.isin(days), F.lit(None)))
        rows = rows.withColumn("as_of_date", F.when(own_day.isin(days), own_day).otherwise(F.lit(days[-1])))
    file = F.substring_index("file_path", "/", -1)
    return rows.withColumns({"verdict": judge(rules), "file": file}).select(*_READ)


def complete_verdicts(rows: DataFrame, known_items: DataFrame | None, shop: Shop, key_path: Path) -> DataFrame:
    """Return the rows with all verdicts that need no other row, and without a raw user id.

    Args:
        rows: what `read_events` returned for all sources.
        known_items: feature_jobs.items.known_items, or None if the shop has no catalogue.
        shop: the shop.
        key_path: the file with the shop's key.

    Returns:
        the columns JUDGED; `raw` is filled only where `reason` is, with the user id masked.
    """
    if known_items is None:
        rows = rows.withColumn("is_known_item", F.lit(True))
    else:
        known = known_items.withColumn("is_known", F.lit(True))
        rows = rows.join(known, ["item_id", "as_of_date"], "left").withColumn(
            "is_known_item", F.col("is_known").isNotNull()
        )
    verdict = F.coalesce("verdict", judge(shop_rules(shop.quarantine.test_users)))
    # Raw text goes no further than it must: most of a row's bytes would pass by the UDF for nothing
    rows = rows.withColumn("verdict", verdict).withColumn("raw", F.when(F.col("verdict").isNotNull(), F.col("raw")))
    user_id = F.col("user_id")
    rows = rows.withColumns(
        {
            "user_key": user_keys(key_path)(user_id),
            "masked": masked_texts(key_path)(F.col("raw"), user_id),
        }
    )
    reason = F.col("verdict.reason")
    masked = F.coalesce(F.when(reason != "unparsable", F.col("masked")), mask_letters_and_digits(F.col("raw")))
    rows = rows.withColumns({name: F.col(name).try_cast("int") for name in INTEGERS})
    columns = {
        "reason": reason,
        "evidence": F.col("verdict.evidence"),
        "raw": F.when(reason != OTHER_DAYS, F.substring(masked, 1, _RAW_LENGTH)),
        "event_id": F.when(reason.isNull(), hash_of(("event_ts", *IDENTITY))),
    }
    return rows.withColumns(columns).withColumn("row_id", F.monotonically_increasing_id()).select(*JUDGED)


def hash_of(names: Iterable[str]) -> Column:
    """Return 128 bits over these columns of events, as 32 hexadecimal digits: two xxhash64 with seeds of their own.

    Spark's hash passes over nulls, so they stand in as values that no good row has.
    """
    fields = [
        F.col(n) if n == "event_ts" else F.coalesce(F.col(n), F.lit(-1 if n in NUMBERS else "\x00")) for n in names
    ]
    halves = (F.xxhash64(F.lit(seed), *fields) for seed in (1, 2))
    return F.lower(F.concat(*(F.lpad(F.hex(half), 16, "0") for half in halves)))
