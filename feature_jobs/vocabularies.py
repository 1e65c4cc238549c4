"""Vocabularies: the ids of categorical values, which never change from night to night while a value is seen.

0 is null. The ids 1 … OOV_BUCKETS are buckets: a value without an id of its own (rarer than the shop file's `min_count`,
or evicted) has the one that its hash names. An id that was taken from a value that nobody sees any more goes to another
value in time; `since` tells a model of an earlier night that it has learnt that id as something else.
"""

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.query_tokens import query_tokens
from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.features import QUERY_TOKEN, attribute_columns, index_features
from nightshelf.tables import table_specs

# Most words of queries are typed once.
_QUERIES_WITH_A_WORD = 3


def vocabularies(
    previous: DataFrame,
    user_days: DataFrame,
    item_days: DataFrame,
    acts: DataFrame,
    items: DataFrame,
    users: DataFrame,
    shop: Shop,
    as_of_date: dt.date,
) -> DataFrame:
    """Keep the ids of the night before, take them from values long unseen, and give new values free ones.

    New values come in alphabetical order, first to the lowest ids that are free again, then to the next ones. A value
    that comes back before another has its id gets it again, once it is frequent enough.

    Args:
        previous: the vocabularies of an earlier night, or no rows.
        user_days, item_days, acts, items, users: of every day that the night reads; only users with an event get an id.
        shop: gives the vocabularies and their limits.
        as_of_date: the night.
    """
    night, limits = F.lit(as_of_date), shop.vocabularies
    before = previous.where("since is not null")  # older tables had no buckets: their ids would be mixed up with them
    before = before.select("feature", "value", "index", "since", F.col("last_seen").alias("seen_before"), "evicted_on")
    rows = _found(user_days, item_days, acts, items, users, shop).join(before, ["feature", "value"], "full")
    is_frequent = F.coalesce(F.col("count") >= _least_count(shop), F.lit(False))
    rows = rows.where(F.col("index").isNotNull() | is_frequent)
    is_gone = F.col("count").isNull() & (F.date_add("seen_before", limits.evict_after_days) <= night)
    still_out = F.when(~is_frequent, F.col("evicted_on"))
    rows = rows.withColumn("evicted_on", F.coalesce(still_out, F.when(F.col("evicted_on").isNull() & is_gone, night)))
    rest = max(limits.reuse_after_days, shop.history_days)  # until then snapshots that training reads may hold the id
    rested = F.date_add("evicted_on", rest) <= night
    rows = rows.withColumn("kind", F.when(F.col("index").isNull(), "fresh").when(rested, "free").otherwise("kept"))
    stays = F.when(F.col("kind") == "kept", F.col("index"))  # nearly all rows: their order matters to nobody
    order = Window.partitionBy("feature", "kind", stays).orderBy("index", "value")
    rows = rows.withColumn("place", F.row_number().over(order)).persist()
    rows = rows.join(F.broadcast(_supply(rows)), "feature")
    rows = rows.where(~((F.col("kind") == "free") & (F.col("place") <= F.col("fresh"))))  # another value takes the id
    beyond = F.col("last") + F.col("place") - F.size("free")
    given = F.coalesce("index", F.get("free", F.col("place") - 1), beyond)
    computed = {
        "as_of_date": night,
        "index": given,
        "bucket": bucket_of(F.col("value")),
        "since": F.coalesce("since", night),
        "last_seen": F.greatest("seen_before", "last_seen"),
        "count": F.coalesce("count", F.lit(0)),
    }
    return conform(rows.withColumns(computed), table_specs(shop)["vocabularies"])


def _supply(rows: DataFrame) -> DataFrame:
    """Return per feature the number of fresh values, the ids that are free for them, lowest first, and the last id of all."""
    return rows.groupBy("feature").agg(
        F.count_if(F.col("kind") == "fresh").alias("fresh"),
        F.sort_array(F.collect_list(F.when(F.col("kind") == "free", F.col("index")))).alias("free"),
        F.coalesce(F.max("index"), F.lit(OOV_BUCKETS)).alias("last"),
    )


def item_columns(shop: Shop) -> list[str]:
    """Return the vocabularies of items; each but `item` bears the name of its column in the table items."""
    return [f.vocabulary for f in index_features(shop) if f.owner == "item" and f.vocabulary]


def add_index(frame: DataFrame, words: DataFrame, feature: str, column: str, index: str) -> DataFrame:
    """Add the int32 column `index`: the id in vocabulary `feature` of the value in `column`, its bucket if it has none.

    0 stands for null.
    """
    ids = words.where((F.col("feature") == feature) & F.col("evicted_on").isNull())
    ids = ids.select(F.col("value").alias(column), F.col("index").alias("_id"))
    known = F.coalesce("_id", bucket_of(F.col(column)), F.lit(0))
    return frame.join(ids, column, "left").withColumn(index, known.cast("int")).drop("_id")


def bucket_of(value: Column) -> Column:
    """Return the bucket of a text, 1 … OOV_BUCKETS, by a hash that every engine has; null for null."""
    return F.conv(F.substring(F.sha2(value, 256), 1, 8), 16, 10).cast("long") % OOV_BUCKETS + 1


def _found(
    user_days: DataFrame, item_days: DataFrame, acts: DataFrame, items: DataFrame, users: DataFrame, shop: Shop
) -> DataFrame:
    """Return feature, value, count and last_seen of every value in these rows."""
    of_items = {name: "item_id" if name == "item" else name for name in item_columns(shop)}
    of_users = {f"user_{name}": f"user_{name}" for name in attribute_columns(shop)}
    found = _summed(user_days, "user", "user_key", shop).unionByName(_summed(item_days, "item", "item_id", shop))
    words = query_tokens(acts).groupBy(F.lit(QUERY_TOKEN).alias("feature"), F.col("token").alias("value"))
    found = found.unionByName(words.agg(F.count("*").alias("count"), F.max("as_of_date").alias("last_seen")))
    for table, columns in ((items, of_items), (users, of_users)):
        if columns:
            found = found.unionByName(_counted(table, columns))
    return found.groupBy("feature", "value").agg(F.max("count").alias("count"), F.max("last_seen").alias("last_seen"))


def _summed(days: DataFrame, feature: str, column: str, shop: Shop) -> DataFrame:
    """Return feature, value, count (of events) and last_seen from a table of daily sums."""
    events = sum((F.col(f"{event}_count") for event in shop.event_types), start=F.lit(0))
    values = days.where(events > 0).groupBy(F.lit(feature).alias("feature"), F.col(column).alias("value"))
    return values.agg(F.sum(events).alias("count"), F.max("as_of_date").alias("last_seen"))


def _counted(table: DataFrame, columns: dict[str, str]) -> DataFrame:
    """Return feature, value, count (of a day's rows with the value) and last_seen, for these columns of a daily table."""
    pairs = F.inline(
        F.array(*(F.struct(F.lit(f).alias("feature"), F.col(c).alias("value")) for f, c in columns.items()))
    )
    values = table.select("as_of_date", pairs).where("value is not null").groupBy("feature", "value", "as_of_date")
    return values.agg(F.count("*").alias("count")).withColumnRenamed("as_of_date", "last_seen")


def _least_count(shop: Shop) -> Column:
    least = F.lit(1)
    for feature, count in ({QUERY_TOKEN: _QUERIES_WITH_A_WORD} | shop.vocabularies.min_count).items():
        least = F.when(F.col("feature") == feature, count).otherwise(least)
    return least
