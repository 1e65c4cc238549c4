"""Item graph: which items are clicked, carted, bought by the same users, and the shop's own relations."""

import datetime as dt

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.tables import table_specs

# A user's latest items per event type; pairs grow with the square of it.
ITEMS_PER_USER = 100
# Strongest edges kept per head and relation, so that a hub does not fill the table.
EDGES_PER_HEAD = 30
# An edge needs that many users; one alone is a coincidence (and would tell of that user).
MIN_USERS = 2


def item_graph(
    events: DataFrame, triples: DataFrame, vocabularies: DataFrame, shop: Shop, as_of_date: dt.date
) -> DataFrame:
    """Return the edges co_<event> for every outcome event type of `events`, and the shop's triples with weight 1.

    The weight is the cosine of the two items' sets of users: users of both / sqrt(users of one × users of the other).

    Args:
        events: what arrived in the history window up to as_of_date.
        triples: head, relation, tail of the shop's own graph, or no rows.
        vocabularies: the night's; the pairs are counted by id, which is several times as fast as by name.
        shop: gives the table's spec.
        as_of_date: the night.
    """
    ids = vocabularies.where("feature = 'item'").select(F.col("value").alias("item_id"), F.col("index").alias("item"))
    chosen = _items_of_users(events).join(F.broadcast(ids), "item_id")
    size = F.count("*").over(Window.partitionBy("event_type", "item"))
    member = F.struct("item", size.alias("users"))
    baskets = chosen.select("event_type", "user_key", member.alias("member")).groupBy("event_type", "user_key")
    members = baskets.agg(F.array_sort(F.collect_list("member")).alias("members"))
    pairs = members.where(F.size("members") > 1).select("event_type", "members", F.explode("members").alias("a"))
    later = F.filter("members", lambda member: member["item"] > F.col("a")["item"])
    pairs = pairs.select("event_type", "a", F.explode(later).alias("b"))
    pairs = pairs.select(
        "event_type",
        F.col("a.item").alias("a"),
        F.col("b.item").alias("b"),
        (F.col("a.users") * F.col("b.users")).alias("sizes"),
    )
    both = pairs.groupBy("event_type", "a", "b").agg(F.count("*").alias("both"), F.first("sizes").alias("sizes"))
    weight = (F.col("both") / F.sqrt("sizes")).cast("float").alias("weight")
    ends = F.inline(F.array(*(F.struct(F.col(x).alias("head"), F.col(y).alias("tail")) for x, y in ("ab", "ba"))))
    relation = F.concat(F.lit("co_"), "event_type").alias("relation")
    edges = both.where(F.col("both") >= MIN_USERS).select(relation, weight, ends)
    strength = Window.partitionBy("head", "relation").orderBy(F.desc("weight"), "tail")
    edges = edges.withColumn("place", F.row_number().over(strength)).where(F.col("place") <= EDGES_PER_HEAD)
    for side in ("head", "tail"):
        names = F.broadcast(ids.withColumnsRenamed({"item_id": f"{side}_id", "item": side}))
        edges = edges.join(names, side).drop(side).withColumnRenamed(f"{side}_id", side)
    own = triples.select("head", "relation", "tail").distinct().withColumn("weight", F.lit(1.0).cast("float"))
    every = edges.select(own.columns).unionByName(own).withColumn("as_of_date", F.lit(as_of_date))
    return conform(every, table_specs(shop)["item_graph"])


def _items_of_users(events: DataFrame) -> DataFrame:
    """Return the latest distinct items per user and event type, at most ITEMS_PER_USER."""
    outcomes = events.where("event_type <> 'impression'")
    items = outcomes.groupBy("event_type", "user_key", "item_id").agg(F.max("event_ts").alias("last_ts"))
    latest = Window.partitionBy("event_type", "user_key").orderBy(F.desc("last_ts"), "item_id")
    return items.withColumn("place", F.row_number().over(latest)).where(F.col("place") <= ITEMS_PER_USER).drop("place")
