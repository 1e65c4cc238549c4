"""Item graph: which items are viewed, clicked, carted, bought by the same users, what each item is, and the shop's own triples.

An edge co_<event> says that users had that event on both items; co_view, that they asked for something on both items' pages.
(Where a click opens the page, co_click tells nearly the same of it, from the click's side: neither counts in the other.)
"""

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.dates import day_bounds_utc
from nightshelf.tables import table_specs

# A user's latest items per event type; pairs grow with the square of it.
ITEMS_PER_USER = 100
# Strongest edges kept per head and relation, so that a hub does not fill the table …
EDGES_PER_HEAD = 30
# … and per tail, so that one item is not everybody's neighbour (Radovanović et al., "Hubs in space", JMLR 2010).
EDGES_PER_TAIL = 300
# An edge needs that many users; one alone is a coincidence (and would tell of that user).
MIN_USERS = 2
# What a user's last event on an item is worth halves in that time.
HALF_LIFE_DAYS = 14.0
_MOST_IDS = 2**31 - 1


def item_graph(
    acts: DataFrame, triples: DataFrame, vocabularies: DataFrame, shop: Shop, as_of_date: dt.date
) -> DataFrame:
    """Return the edges co_<event> for every outcome event type of `acts`, co_view, and the triples with weight 1.

    The weight is the cosine of the two items' vectors of users, in which a user's last event on the item, h days before
    the end of as_of_date, stands as 2 ** (-h / (2 * HALF_LIFE_DAYS)): the sum over users of both of 2 ** -(mean of both
    h / HALF_LIFE_DAYS), over the root of the product of the items' own sums. Without age it is users of both / sqrt(users
    of one × users of the other). The lift is users of both × users of the event type / (users of one × users of the
    other): 1 if the items had nothing to do with each other. Only a user's ITEMS_PER_USER latest items count in either.

    Args:
        acts: what arrived in the history window up to as_of_date.
        triples: head, relation, tail of the catalogue (item_triples) and of the shop's own graph, or no rows.
        vocabularies: the night's; the pairs are counted by id, which is several times as fast as by name.
        shop: gives the time zone and the table's spec.
        as_of_date: the night.
    """
    ids = vocabularies.where("feature = 'item'").select(F.col("value").alias("item_id"), F.col("index").alias("item"))
    chosen = _items_of_users(acts, shop, as_of_date).join(F.broadcast(ids), "item_id")
    edges = _strongest(_edges(chosen))
    for side in ("head", "tail"):
        names = F.broadcast(ids.withColumnsRenamed({"item_id": f"{side}_id", "item": side}))
        edges = edges.join(names, side).drop(side).withColumnRenamed(f"{side}_id", side)
    facts = triples.select("head", "relation", "tail", F.lit(1.0).alias("weight"), F.lit(None).alias("lift"))
    # An own triple may say what an edge says already
    every = edges.select(facts.columns).unionByName(facts)
    every = every.groupBy("head", "relation", "tail").agg(F.max("weight").alias("weight"), F.max("lift").alias("lift"))
    return conform(every.withColumn("as_of_date", F.lit(as_of_date)), table_specs(shop)["item_graph"])


def _items_of_users(acts: DataFrame, shop: Shop, as_of_date: dt.date) -> DataFrame:
    """Return event_type, user_key, item_id and `root` of a user's latest items per event type, at most ITEMS_PER_USER.

    The root is 2 ** (-age of the last event / (2 * HALF_LIFE_DAYS)).
    """
    _, end = day_bounds_utc(as_of_date, shop.timezone)
    chosen = acts.where("event_type <> 'searched'")  # its item is what the search showed first, not the user's choice
    event = F.when(F.col("event_type") == "viewed", "view").otherwise(F.col("event_type")).alias("event_type")
    items = chosen.groupBy(event, "user_key", "item_id").agg(F.max("event_ts").alias("last_ts"))
    latest = Window.partitionBy("event_type", "user_key").orderBy(F.desc("last_ts"), "item_id")
    items = items.withColumn("place", F.row_number().over(latest)).where(F.col("place") <= ITEMS_PER_USER)
    age_days = (F.lit(end).cast("long") - F.col("last_ts").cast("long")) / 86400.0
    return items.select(
        "event_type", "user_key", "item_id", F.pow(F.lit(0.5), age_days / (2 * HALF_LIFE_DAYS)).alias("root")
    )


def _edges(chosen: DataFrame) -> DataFrame:
    """Return head, relation, tail (ids), weight and lift of the pairs of items that MIN_USERS users share, both ways."""
    of_item = Window.partitionBy("event_type", "item")
    users, square = F.count("*").over(of_item), F.sum(_millionths(F.col("root") * F.col("root"))).over(of_item)
    member = F.struct("item", "root", users.alias("users"), F.sqrt(square).alias("norm"))
    baskets = chosen.select("event_type", "user_key", member.alias("member")).groupBy("event_type", "user_key")
    members = baskets.agg(F.array_sort(F.collect_list("member")).alias("members"))
    totals = members.groupBy("event_type").agg(F.count("*").alias("users"))
    pairs = members.where(F.size("members") > 1).select("event_type", "members", F.explode("members").alias("a"))
    later = F.filter("members", lambda member: member["item"] > F.col("a")["item"])
    pairs = pairs.select("event_type", "a", F.explode(later).alias("b"))
    pairs = pairs.groupBy("event_type", F.col("a.item").alias("a"), F.col("b.item").alias("b")).agg(
        F.count("*").alias("both"),
        F.sum(_millionths(F.col("a.root") * F.col("b.root"))).alias("product"),
        F.first(F.col("a.norm") * F.col("b.norm")).alias("norms"),
        F.first(F.col("a.users") * F.col("b.users")).alias("sizes"),
    )
    pairs = pairs.where(F.col("both") >= MIN_USERS).join(F.broadcast(totals), "event_type")
    ends = F.inline(F.array(*(F.struct(F.col(x).alias("head"), F.col(y).alias("tail")) for x, y in ("ab", "ba"))))
    return pairs.select(
        F.concat(F.lit("co_"), "event_type").alias("relation"),
        F.least(F.col("product") / F.col("norms"), F.lit(1.0)).cast("float").alias("weight"),
        (F.col("both") * F.col("users") / F.col("sizes")).alias("lift"),
        ends,
    )


def _millionths(value: Column) -> Column:
    """Return whole millionths, so that the order of adding leaves no trace; at least one, so that nothing is divided by 0."""
    return F.greatest(F.round(value * 1e6).cast("long"), F.lit(1))


def _strongest(edges: DataFrame) -> DataFrame:
    """Return the strongest edges of each tail, and of what is left the strongest of each head.

    Of equal ones each item keeps those to the next higher ids: with the lowest ids, all would keep the same few.
    """
    for side, other, most in (("tail", "head", EDGES_PER_TAIL), ("head", "tail", EDGES_PER_HEAD)):
        ahead = F.pmod(F.col(other) - F.col(side), F.lit(_MOST_IDS))
        strength = Window.partitionBy(side, "relation").orderBy(F.desc("weight"), ahead)
        edges = edges.withColumn("place", F.row_number().over(strength)).where(F.col("place") <= most)
    return edges.drop("place")
