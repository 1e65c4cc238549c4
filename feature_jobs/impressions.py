"""Impressions: one item shown to one user in one request of one scenario; the grain of training.

A log that has impressions gives them as they are. A log that has none gives its positives, each with k negatives drawn
from what the scenario's users chose that day; the sampling rate is kept, so that probabilities can be corrected.
"""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.features import root_event
from nightshelf.tables import table_specs
from nightshelf.tasks import Sampled

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


def sampled_impressions(events: DataFrame, event_type: str, k: int) -> DataFrame:
    """Return each event of `event_type` as a shown item, and k items drawn without replacement beside it.

    They are drawn uniformly from the items of that scenario and day of arrival, less those that the user has an event
    with that day; the draw depends on event_id alone. sampling_rate is the share of the possible negatives that was
    drawn, and 1 for the positive. Where fewer than k are possible, all are taken.
    """
    positives = events.where(F.col("event_type") == event_type)
    pools = positives.groupBy(_DAY_SCENARIO).agg(F.array_sort(F.collect_set("item_id")).alias("pool"))
    rows = _with_own_items(events, positives).where(F.col("event_type") == event_type)
    rows = rows.join(F.broadcast(pools), _DAY_SCENARIO)
    inside = F.filter("own", lambda item: F.array_contains(item["scenarios"], F.col("scenario")))
    rows = rows.withColumn("possible", F.size("pool") - F.size(inside)).withColumn("own", F.col("own.item_id"))
    rows = rows.withColumn("drawn", _draw(k))
    negatives = rows.select(
        *(c for c in events.columns if c not in ("event_id", "item_id", "position", "request_id", "propensity")),
        *(
            F.lit(None).cast(t).alias(c)
            for c, t in (("position", "int"), ("request_id", "string"), ("propensity", "double"))
        ),
        F.col("event_id").alias("positive_id"),
        (F.size("drawn") / F.col("possible")).alias("sampling_rate"),
        # The inner explode would have the optimizer draw twice: once to see whether there is anything.
        F.explode_outer("drawn").alias("item_id"),
    ).where("item_id is not null")
    negatives = negatives.withColumn("event_id", F.concat_ws("-", "positive_id", "item_id")).drop("positive_id")
    return positives.withColumn("sampling_rate", F.lit(1.0)).unionByName(negatives)


def _with_own_items(events: DataFrame, positives: DataFrame) -> DataFrame:
    """Add the array `own`: the items of the user's events that day, each with the scenarios in whose pool it is."""
    pooled = positives.groupBy("as_of_date", "item_id").agg(F.collect_set("scenario").alias("scenarios"))
    that_day = Window.partitionBy("as_of_date", "user_key")
    rows = events.join(F.broadcast(pooled), ["as_of_date", "item_id"], "left")
    return rows.withColumn(
        "own", F.collect_set(F.struct("item_id", F.array_sort("scenarios").alias("scenarios"))).over(that_day)
    ).drop("scenarios")


def _draw(k: int) -> Column:
    """Return k items of `pool` that are not in `own`: a random order of a small pool, else draws with rejection."""
    by_hash = F.sort_array(
        F.transform("pool", lambda item: F.struct(F.xxhash64("event_id", item).alias("h"), item.alias("item")))
    )
    everything = F.array_except(F.transform(by_hash, lambda pair: pair["item"]), F.col("own"))
    first = _draws(F.lit(2 * k))  # nearly always enough
    drawn = F.when(F.size(first) >= k, first).otherwise(_draws(8 * (F.lit(k) + F.size("own"))))
    small = F.size("pool") <= F.greatest(F.lit(_SMALL_POOL), 4 * (F.lit(k) + F.size("own")))
    return F.slice(F.when(small, everything).otherwise(drawn), 1, k)


def _draws(tries: Column) -> Column:
    """Return what the first so many draws from `pool` find beside `own`, each item once."""
    place = lambda n: F.pmod(F.xxhash64(F.col("event_id"), n), F.size("pool").cast("long"))  # noqa: E731
    found = F.transform(F.sequence(F.lit(1), tries), lambda n: F.get("pool", place(n).cast("int")))
    return F.array_except(found, F.col("own"))
