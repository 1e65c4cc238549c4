"""Rows that say again what another row said: exact copies, and, where a log is known to send twice, near ones."""

import datetime as dt

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.events import IDENTITY, hash_of


def mark_duplicates(
    rows: DataFrame, published: DataFrame | None, repeats_within: dict[str, dt.timedelta] | None = None
) -> DataFrame:
    """Return rows with the column `is_duplicate`: all but the first arrival of each event.

    Duplicates are few, so only the rows whose event_id comes again are compared; the others are not moved.

    Args:
        rows: JUDGED rows without a reason.
        published: event_id and as_of_date of events of earlier days that this run does not write, or None.
        repeats_within: source → how long after a row of its log another one that differs in its time alone repeats it.
    """
    first = _repeated(rows, "event_id").groupBy("event_id").agg(F.min(F.struct("as_of_date", "row_id")).alias("first"))
    marked = rows.join(F.broadcast(first), "event_id", "left")
    is_later = F.col("as_of_date") > F.col("first.as_of_date")
    is_below = (F.col("as_of_date") == F.col("first.as_of_date")) & (F.col("row_id") > F.col("first.row_id"))
    is_again = F.coalesce(is_later | is_below, F.lit(False))
    if published is not None:
        late = rows.where("event_date < as_of_date").select("event_id")
        known = published.join(F.broadcast(late), "event_id", "left_semi")
        known = known.groupBy("event_id").agg(F.min("as_of_date").alias("known_since"))
        marked = marked.join(F.broadcast(known), "event_id", "left")
        is_again |= F.coalesce(F.col("known_since") < F.col("as_of_date"), F.lit(False))
    if repeats_within:
        marked = marked.join(_near_repeats(rows, repeats_within), "row_id", "left")
        is_again |= F.col("is_near").isNotNull()
    return marked.withColumn("is_duplicate", is_again)


def _near_repeats(rows: DataFrame, within: dict[str, dt.timedelta]) -> DataFrame:
    """Return row_id and is_near of the rows that a row of the same log and day precedes, equal but for its time.

    Each is compared with the one before it, so that of a chain of repeats the first alone stays. Days are not compared
    with each other: one night at a time or many at once, the same rows remain.
    """
    said = rows.where(F.col("source").isin(list(within))).withColumn("said", hash_of(IDENTITY))
    order = Window.partitionBy("as_of_date", "said").orderBy("event_ts", "row_id")
    gap = F.unix_micros("event_ts") - F.lag(F.unix_micros("event_ts")).over(order)
    longest = F.create_map(
        *(F.lit(part) for name, time in within.items() for part in (name, time // dt.timedelta(microseconds=1)))
    )
    gaps = _repeated(said, "said").withColumn("is_near", gap <= longest[F.col("source")])
    return gaps.where("is_near").select("row_id", "is_near")


def _repeated(rows: DataFrame, column: str) -> DataFrame:
    """Return the rows whose value in `column` comes more than once."""
    short = F.xxhash64(column).alias("short")  # a chance collision costs a comparison, not a row
    repeated = rows.groupBy(short).agg(F.count("*").alias("rows")).where("rows > 1")
    return rows.join(F.broadcast(repeated), short == F.col("short"), "left_semi")
