"""Late touches: the impressions of which an event that came after they were labelled changes a label, and no others.

What a row of training_examples holds beside its labels never changes: the impression is the log's, and the features are
the snapshot of the day before its own, which knows what had arrived by that day's end (feature_jobs.attribution). So late
rows reach a partition through labels alone, and there through the acts and impressions of the same user and item (of the
same user, where a task is about any item). Which of them do is not told by a distance in time:

- A late act gives its outcome to one impression at or before it inside the label window, and to no other that it might
  have belonged to; if that one has the label already, nothing changes.
- A late impression takes the outcomes that belong to it rather than to another: a later one by `attribution`, one of the
  same scenario or request whichever came first.
- Where a task is `given` another, an act or impression that makes an impression meet the first, or no longer, moves the
  outcomes of the second between impressions before it and after it, further apart than any one window.

Therefore the labels of the few that may be meant are computed twice, with and without what came, and compared. Both at
once: an engine plans the long query of labels once, for users who bear the night in their keys.
"""

import datetime as dt
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_jobs.attribution import attributed_outcomes, decisive_time
from feature_jobs.labels import labels
from nightshelf.config import Shop
from nightshelf.dates import day_bounds_utc
from nightshelf.example_window import ExampleWindow

_SHOWN = [
    "as_of_date", "event_date", "user_key", "item_id", "impression_id", "impression_ts", "scenario", "request_id",
]  # fmt: skip
_WORLD = len("2026-02-01")


def touched_impressions(
    impressions: DataFrame, acts: DataFrame, since: dict[dt.date, dt.date], shop: Shop, window: ExampleWindow
) -> DataFrame:
    """Return as_of_date, user_key and impression_id of the examples of which a label changes by what arrived since.

    Args:
        impressions, acts: all that arrived by the night, from `reach_days` before the partitions on.
        since: partition → the night up to whose end its labels know, by which its label windows were over.
        shop: gives the tasks.
        window: the night's; what was shown up to its first_date is no example.
    """
    acts = acts.where(F.col("event_type").isin(sorted({task.event for task in shop.tasks.values()})))
    pair = ["user_key"] if any(task.on == "any_item" for task in shop.tasks.values()) else ["user_key", "item_id"]
    met = F.broadcast(_came(impressions, acts, pair, since, shop).join(acts.select(*pair), pair, "left_semi"))
    worlds = {known: [day for day in since if since[day] == known] for known in sorted(set(since.values()))}
    worlds[window.as_of_date] = list(since)
    shown = _in_each(worlds, impressions.select(*_SHOWN).join(met, pair, "left_semi"), "impression_id").persist()
    done = _in_each(worlds, acts.join(met, pair, "left_semi"), "event_id").persist()
    is_asked = reduce(
        Column.__or__,
        ((F.col("known") == F.lit(known)) & F.col("as_of_date").isin(days) for known, days in worlds.items()),
    )
    judged = shown.where(is_asked & (F.col("event_date") > F.lit(window.first_date)))
    outcomes = attributed_outcomes(shown, done, shop, hindsight=True)
    told = labels(judged, done, outcomes, shop, window.as_of_date)
    told = told.withColumns({name: F.substring(name, _WORLD + 1, 1000) for name in ("user_key", "impression_id")})
    each = [f"{kind}_{task}" for task in shop.tasks for kind in ("label", "mask")]
    differs = reduce(Column.__or__, (F.min(name) != F.max(name) for name in each)).alias("differs")
    touched = ["as_of_date", "user_key", "impression_id"]
    return told.groupBy(*touched).agg(differs).where("differs").select(*touched)


def _in_each(worlds: dict[dt.date, list[dt.date]], rows: DataFrame, key: str) -> DataFrame:
    """Repeat rows for each night (`known`) by which they had arrived, with user and key of its own: all in one pass."""
    known = F.explode(F.array(*(F.lit(night) for night in worlds))).alias("known")
    rows = rows.select("*", known).where(F.col("as_of_date") <= F.col("known"))
    return rows.withColumns({name: F.concat(F.col("known").cast("string"), F.col(name)) for name in ("user_key", key)})


def _came(
    impressions: DataFrame, acts: DataFrame, pair: list[str], since: dict[dt.date, dt.date], shop: Shop
) -> DataFrame:
    """Return the pairs of which something came that may decide on a label: since then, and soon enough."""
    _, end = day_bounds_utc(max(since), shop.timezone)
    arrived = F.col("as_of_date") > F.lit(min(since.values()))
    frames = ((impressions, "impression_ts"), (acts, "event_ts"))
    found = [rows.where(arrived & (F.col(ts) < F.lit(end + decisive_time(shop)))).select(*pair) for rows, ts in frames]
    return found[0].unionByName(found[1]).distinct()
