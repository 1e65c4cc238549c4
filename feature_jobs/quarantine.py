"""The rows set aside: those with a reason of their own, and all rows of bots."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.events import VALUES
from feature_jobs.raw_rows import union
from feature_jobs.rules import BOT, BY_SOMEBODY, OTHER_DAYS, UNKNOWN_ITEM

_EVENT = ("event_ts", "source", "scenario", "event_type", "user_key", *VALUES)


def quarantine(judged: DataFrame, bots: DataFrame) -> DataFrame:
    """Return the quarantine table: as_of_date, source, reason, file, raw, evidence.

    Args:
        judged: JUDGED rows (feature_jobs.events.complete_verdicts).
        bots: what feature_jobs.bots.find_bots found; the raw column of their rows is the event in our names, as JSON.
    """
    others = judged.where(f"not {BY_SOMEBODY}").where(F.col("reason") != OTHER_DAYS)
    unknown = judged.where(F.col("reason") == UNKNOWN_ITEM).join(
        F.broadcast(bots), ["user_key", "as_of_date"], "left_anti"
    )
    by_bots = judged.where(BY_SOMEBODY).join(F.broadcast(bots), ["user_key", "as_of_date"])
    by_bots = by_bots.withColumns(
        {
            "reason": F.lit(BOT),
            "raw": F.to_json(F.struct(*_EVENT)),
            "evidence": F.col("bot_evidence"),
        }
    )
    columns = ["as_of_date", "source", "reason", "file", "raw", "evidence"]
    return union([rows.select(columns) for rows in (others, unknown, by_bots)])
