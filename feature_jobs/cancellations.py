"""Sales that were cancelled in the log of the day on which they arrived: each cancellation takes one back."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.events import IDENTITY, JUDGED, hash_of
from feature_jobs.quarantine import as_event
from feature_jobs.rules import UNKNOWN_ITEM
from nightshelf.raw_logs import CANCELLATION, CANCELLED

# One log's sales of so many pieces of an item to a user: what a cancellation of as many may mean
_SALE = ("as_of_date", "source", "event_type", "user_key", "item_id", "pieces")


def find_cancelled(judged: DataFrame, sources: list[str]) -> DataFrame:
    """Return row_id and cancelled_by of the rows that a cancellation takes back: the latest sale before it that none has taken.

    A sale or a cancellation that the log says twice is one, and all rows that say a cancelled sale go together. Only rows of
    one day of arrival meet, so that one night at a time or many at once, the same rows are found.

    Args:
        judged: JUDGED rows (feature_jobs.events.complete_verdicts).
        sources: the logs in which a negative quantity cancels.
    """
    is_known_kind = F.col("reason").isNull() | F.col("reason").isin(UNKNOWN_ITEM, CANCELLATION)
    rows = judged.where(F.col("source").isin(sources) & is_known_kind).select(
        *_SALE[:-1],
        F.coalesce(F.abs("quantity"), F.lit(1)).alias("pieces"),
        "event_ts",
        hash_of(("event_ts", *IDENTITY)).alias("said"),
        F.coalesce(F.col("reason") == CANCELLATION, F.lit(False)).alias("cancels"),
        "row_id",
    )
    said = rows.drop("row_id").distinct()
    # As brackets close: a sale stands as deep as sales are open, and the next row as deep as it, if any, is its cancellation
    in_time = ("event_ts", "cancels", "said")
    opened = F.sum(F.when(F.col("cancels"), -1).otherwise(1)).over(Window.partitionBy(*_SALE).orderBy(*in_time))
    said = said.withColumn("depth", opened + F.col("cancels").cast("int"))
    taken_at = F.lead("event_ts").over(Window.partitionBy(*_SALE, "depth").orderBy(*in_time))
    taken = said.withColumn("taken_at", taken_at).where(~F.col("cancels") & F.col("taken_at").isNotNull())
    evidence = F.concat(F.lit("cancelled at "), F.col("taken_at").cast("string")).alias("cancelled_by")
    sales = rows.where(~F.col("cancels"))
    found = sales.join(taken.select("as_of_date", "said", evidence), ["as_of_date", "said"])
    return found.select("row_id", "cancelled_by")


def set_aside_cancelled(judged: DataFrame, cancelled: DataFrame) -> DataFrame:
    """Return the judged rows, those that `find_cancelled` found with their reason and evidence; no row is lost."""
    cancelled = F.broadcast(cancelled)
    sales = as_event(judged.join(cancelled, "row_id"), CANCELLED, "cancelled_by")
    return judged.join(cancelled, "row_id", "left_anti").unionByName(sales.select(*JUDGED))
