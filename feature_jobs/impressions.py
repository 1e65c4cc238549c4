"""Impressions: one item shown to one user in one request of one scenario; the grain of training.

A log that has impressions gives them as they are. A log that has none gives its positives, each with k negatives drawn
from what the scenario's users chose that day; the sampling rate is kept, so that probabilities can be corrected.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from nightshelf.config import Sampled, Shop
from nightshelf.tables import table_specs

# Up to this many possible negatives all of them are put in a random order; beyond it items are drawn until k differ.
_SMALL_POOL = 64
_DAY_SCENARIO = ["as_of_date", "scenario"]


def impressions(events: DataFrame, shop: Shop) -> DataFrame:
    """Return the impressions of the days of arrival in `events`.

    For a shop with `negatives: {sampled: k}` see `sampled_impressions`.
    """
    if isinstance(shop.negatives, Sampled):
        rows = sampled_impressions(events, root_event(shop), shop.negatives.sampled)
    else:
        rows = events.where("event_type = 'impression'").withColumn("sampling_rate", F.lit(1.0))
    rows = rows.withColumnsRenamed({"event_id": "impression_id", "event_ts": "impression_ts"})
    return conform(rows, table_specs(shop)["impressions"])


def root_task(shop: Shop) -> str:
    """Return the first task that needs no other: what makes an impression a positive."""
    return next(name for name, task in shop.tasks.items() if task.given is None)


def root_event(shop: Shop) -> str:
    """Return the event type of the root task."""
    return shop.tasks[root_task(shop)].event


def sampled_impressions(events: DataFrame, event_type: str, k: int) -> DataFrame:
    """Return each event of `event_type` as a shown item, and k items drawn without replacement beside it.

    They are drawn uniformly from the items of that scenario and day of arrival, less those that the user has an event
    with that day; the draw depends on event_id alone. sampling_rate is the share of the possible negatives that was
    drawn, and 1 for the positive. Where fewer than k are possible, all are taken.
    """
    positives = events.where(F.col("event_type") == event_type)
    pools = positives.groupBy(_DAY_SCENARIO).agg(F.array_sort(F.collect_set("item_id")).alias("pool"))
    own = _own_items(events, positives)
    rows = positives.join(own, ["as_of_date", "user_key"]).join(F.broadcast(pools), _DAY_SCENARIO)
    possible = F.size("pool") - F.col("own_in_pool")[F.col("scenario")]
    rows = rows.withColumn("possible", possible).withColumn("drawn", _draw(k))
    negatives = rows.select(
        *(c for c in events.columns if c not in ("event_id", "item_id", "position", "request_id", "propensity")),
        *(
            F.lit(None).cast(t).alias(c)
            for c, t in (("position", "int"), ("request_id", "string"), ("propensity", "double"))
        ),
        F.col("event_id").alias("positive_id"),
        (F.size("drawn") / F.col("possible")).alias("sampling_rate"),
        F.explode("drawn").alias("item_id"),
    )
    negatives = negatives.withColumn("event_id", F.concat_ws("-", "positive_id", "item_id")).drop("positive_id")
    return positives.withColumn("sampling_rate", F.lit(1.0)).unionByName(negatives)


def _own_items(events: DataFrame, positives: DataFrame) -> DataFrame:
    """Return per user and day the items of any event, and how many of them lie in each scenario's pool."""
    touched = events.select("as_of_date", "user_key", "item_id").distinct()
    pooled = positives.select("as_of_date", "scenario", "item_id").distinct()
    inside = touched.join(pooled, ["as_of_date", "item_id"]).groupBy("as_of_date", "user_key", "scenario").count()
    inside = inside.groupBy("as_of_date", "user_key").agg(
        F.map_from_entries(F.collect_list(F.struct("scenario", "count"))).alias("own_in_pool")
    )
    own = touched.groupBy("as_of_date", "user_key").agg(F.collect_set("item_id").alias("own"))
    return own.join(inside, ["as_of_date", "user_key"])


def _draw(k: int) -> Column:
    """Return k items of `pool` that are not in `own`: a random order of a small pool, else draws with rejection."""
    by_hash = F.array_sort(
        F.transform("pool", lambda item: F.struct(F.xxhash64("event_id", item).alias("h"), item.alias("item")))
    )
    everything = F.array_except(F.transform(by_hash, lambda pair: pair["item"]), F.col("own"))
    tries = F.sequence(F.lit(1), 8 * (F.lit(k) + F.size("own")))
    place = lambda n: F.pmod(F.xxhash64(F.col("event_id"), n), F.size("pool").cast("long"))  # noqa: E731
    drawn = F.array_except(F.transform(tries, lambda n: F.get("pool", place(n).cast("int"))), F.col("own"))
    small = F.size("pool") <= F.greatest(F.lit(_SMALL_POOL), 4 * (F.lit(k) + F.size("own")))
    return F.slice(F.when(small, everything).otherwise(drawn), 1, k)
