"""The rows set aside: those with a reason of their own, all rows of bots, and orphans."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.events import VALUES
from feature_jobs.json_text import json_row
from feature_jobs.raw_rows import union
from feature_jobs.rules import BOT, BY_SOMEBODY, ORPHAN, OTHER_DAYS, UNKNOWN_ITEM

_EVENT = ("event_ts", "source", "scenario", "event_type", "user_key", *VALUES)


def quarantine(judged: DataFrame, bots: DataFrame, orphans: DataFrame | None = None) -> DataFrame:
    """Return the quarantine table: as_of_date, source, reason, file, raw, evidence.

    Args:
        judged: JUDGED rows (feature_jobs.events.complete_verdicts).
        bots: what feature_jobs.bots.find_bots found; the raw column of their rows is the event in our names, as JSON.
        orphans: what feature_jobs.orphans.find_orphans found, or None; shown likewise.
    """
    others = judged.where(f"not {BY_SOMEBODY}").where(F.col("reason") != OTHER_DAYS)
    unknown = judged.where(F.col("reason") == UNKNOWN_ITEM).join(
        F.broadcast(bots), ["user_key", "as_of_date"], "left_anti"
    )
    by_bots = judged.where(BY_SOMEBODY).join(F.broadcast(bots), ["user_key", "as_of_date"])
    parts = [others, unknown, as_event(by_bots, BOT, "bot_evidence")]
    if orphans is not None:
        parts.append(as_event(judged.join(orphans, "row_id"), ORPHAN, "orphan_evidence"))
    columns = ["as_of_date", "source", "reason", "file", "raw", "evidence"]
    return union([rows.select(columns) for rows in parts])


def as_event(rows: DataFrame, reason: str, evidence: str) -> DataFrame:
    """Return good rows as rows with that reason and the evidence of that column; `raw` is the event in our names, as JSON."""
    raw = json_row([rows.schema[name] for name in _EVENT])
    return rows.withColumns({"reason": F.lit(reason), "raw": raw, "evidence": F.col(evidence)})
