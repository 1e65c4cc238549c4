"""Who was no person on a day: too many events, too many different items, never asleep, or regular as a clock.

Rate, breadth and the spread of the times between requests are among the traits by which Tan and Kumar tell crawlers
from people ("Discovery of web robot sessions based on their navigational patterns", Data Mining and Knowledge Discovery
6, 2002). The limits stand in the shop file, so that the reason for each row is one that its owner can check.
"""

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_jobs.rules import BY_SOMEBODY
from nightshelf.quarantine import Bots

_USER_DAY = ("user_key", "as_of_date")
_EVEN = "0.1"  # of the median gap: clocks jitter, and so do networks
_HOUR = "3600000000"  # microseconds


def find_bots(judged: DataFrame, limits: Bots) -> DataFrame:
    """Return user_key, as_of_date and bot_evidence of each user who passed a limit in the logs of a day.

    Args:
        judged: JUDGED rows (feature_jobs.events.complete_verdicts).
        limits: the shop file's quarantine.bots.
    """
    rows = judged.where(BY_SOMEBODY).withColumn("is_click", F.col("event_type") != "impression")
    counts = rows.groupBy(*_USER_DAY).agg(
        F.count_if("is_click").alias("clicks"), F.count_if(~F.col("is_click")).alias("impressions")
    )
    by_rate = _first_of(_rate_limits(limits))
    rated = counts.withColumn("bot_evidence", by_rate)
    hasty = rated.where("bot_evidence is not null").select(*_USER_DAY, "bot_evidence")
    # The rest is looked at click by click, but only where there is enough to see
    suspects = rated.where(f"bot_evidence is null and clicks >= {_least(limits)}").select(*_USER_DAY)
    clicks = rows.where("is_click").join(F.broadcast(suspects), [*_USER_DAY])
    patterns = _patterns(clicks).withColumn("bot_evidence", _first_of(_pattern_limits(limits)))
    return hasty.unionByName(patterns.where("bot_evidence is not null").select(*_USER_DAY, "bot_evidence"))


def _least(limits: Bots) -> int:
    """Return the fewest clicks with which a user can pass a limit on patterns."""
    breadth = [] if limits.max_items_per_day is None else [limits.max_items_per_day + 1]
    return min([limits.min_clicks, *breadth])


def _patterns(clicks: DataFrame) -> DataFrame:
    """Return, per user and day: clicks, items, hours, gaps (their number), median_gap (microseconds), even_gaps (a share).

    Clicks of one moment (the articles of one order, a line written twice) are one, so that no gap is zero.
    """
    of_day = clicks.groupBy(*_USER_DAY).agg(
        F.count("*").alias("clicks"),
        F.countDistinct("item_id").alias("items"),
        F.array_sort(F.collect_set(F.unix_micros("event_ts"))).alias("moments"),
    )
    steps = "transform(slice(moments, 2, size(moments) - 1), (b, i) -> b - element_at(moments, i + 1))"
    gaps = of_day.withColumn("steps", F.expr(f"CASE WHEN size(moments) > 1 THEN array_sort({steps}) END"))
    gaps = gaps.withColumn("median_gap", F.expr("element_at(steps, int((size(steps) + 1) DIV 2))"))
    even = f"filter(steps, step -> abs(step - median_gap) <= {_EVEN} * median_gap)"
    return gaps.select(
        *_USER_DAY,
        "clicks",
        "items",
        F.expr(f"size(array_distinct(transform(moments, moment -> moment DIV {_HOUR} % 24)))").alias("hours"),
        F.expr("size(steps)").alias("gaps"),
        "median_gap",
        F.expr(f"size({even}) / size(steps)").alias("even_gaps"),
    )


def _rate_limits(limits: Bots) -> list[tuple[Column, Column]]:
    named = (("clicks", limits.max_clicks_per_day), ("impressions", limits.max_impressions_per_day))
    return [_more_than(name, most, f"%d {name} in one day") for name, most in named if most is not None]


def _pattern_limits(limits: Bots) -> list[tuple[Column, Column]]:
    found = []
    has_enough = F.col("clicks") >= limits.min_clicks
    if limits.max_items_per_day is not None:
        found.append(_more_than("items", limits.max_items_per_day, "clicks on %d different items in one day"))
    if limits.max_hours_per_day is not None:
        passes, words = _more_than("hours", limits.max_hours_per_day, "clicks in %d hours of one day")
        found.append((has_enough & passes, words))
    if limits.max_even_gaps is not None:
        is_even = (F.col("gaps") >= limits.min_clicks - 1) & (F.col("even_gaps") > limits.max_even_gaps)
        text = f"%.0f %% of %d gaps between clicks are about %.1f s, more than {limits.max_even_gaps * 100:g} %%"
        # Rounded before they are written: engines differ in how they write a half
        share, tenths = F.round(F.col("even_gaps") * 100), F.round(F.col("median_gap") / 1e5)
        shown = F.format_string(text, share, "gaps", tenths / 10)
        found.append((is_even, shown))
    return found


def _more_than(name: str, most: int, words: str) -> tuple[Column, Column]:
    return F.col(name) > most, F.format_string(f"{words}, more than {most}", F.col(name))


def _first_of(limits: list[tuple[Column, Column]]) -> Column:
    """Return the words of the first limit that is passed, or null."""
    if not limits:
        return F.lit(None).cast("string")
    passes, words = limits[0]
    return reduce(lambda so_far, limit: so_far.when(*limit), limits[1:], F.when(passes, words))
