"""Candidates: which items are worth ranking for whom. Each generator is one function; scores compare within one only."""

import datetime as dt
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from feature_jobs.item_graph import MIN_USERS
from feature_jobs.item_quality import chosen_by, expected_utility, item_quality
from feature_jobs.rates import expected_choices
from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.dates import day_bounds_utc
from nightshelf.features import event_worth, fact_relations, outcome_events
from nightshelf.tables import table_specs
from nightshelf.tasks import Sampled

EVERYBODY = "*"
EVERYWHERE = "*"
POPULAR_PER_SCENARIO = 100
FRESH_ITEMS, FRESH_DAYS = 30, 30  # the age that an item has if nobody knows it is above that
TOP_CATEGORIES, ITEMS_PER_CATEGORY = 6, 20
TOP_BRANDS, ITEMS_PER_BRAND = 3, 10
RECENT_ITEMS, NEIGHBOURS_PER_ITEM, WALKS_PER_STEP = 20, 15, 8
ITEMS_OF_WALKS = {"related": 60, "graph_walk": 30, "next_item": 30}
# Of a step over one item, and what each of the user's last items counts of the one after it.
STEPS, LAST_ITEMS, LAST_KEEPS = {1: 1.0, 2: 0.5}, 5, 0.7
OWN_ITEMS = 20
_MOST_HEADS = 2**24  # leaves 2**39 for a pull, which is in millionths
# Interest in an item halves in a week.
HALF_LIFE_DAYS = 7.0


@dataclass(frozen=True)
class CandidateInputs:
    """The night's tables: `acts` of the last 30 days, `items` the catalogue, the others the partition of the night.

    `own_items` are those of feature_jobs/own_items.py, in a shop with `rebuy`.
    """

    acts: DataFrame
    items: DataFrame
    item_features: DataFrame
    item_scenario_features: DataFrame
    item_graph: DataFrame
    own_items: DataFrame | None = None


def candidates(inputs: CandidateInputs, shop: Shop, as_of_date: dt.date) -> DataFrame:
    """Return the items of all generators: `popular` per scenario and `fresh` for everybody, the others per user.

    All items are in the catalogue of the night; what is out of stock is left to the shelf's own rules, but of the few new ones
    those alone are proposed that some shelf may show.
    """
    quality = item_quality(inputs.items, inputs.item_features, shop).persist()  # both are read by several generators
    interest = recent_interest(inputs.acts, quality, shop, as_of_date).persist()
    ties = item_ties(item_edges(inputs.item_graph, shop), quality).persist()
    frames = [
        popular(inputs.item_scenario_features, quality, shop),
        fresh(quality, as_of_date),
        *([] if inputs.own_items is None else [rebuy(inputs.own_items, quality)]),
        own_history(interest),
        affinity(interest, quality, "category_3", "affinity", TOP_CATEGORIES, ITEMS_PER_CATEGORY),
        affinity(interest, quality, "brand", "brand", TOP_BRANDS, ITEMS_PER_BRAND),
        related(interest, ties),
        graph_walk(interest, ties),
        next_item(inputs.acts, quality, shop, as_of_date),
    ]
    every = frames[0]
    for frame in frames[1:]:
        every = every.unionByName(frame)
    return conform(every.withColumn("as_of_date", F.lit(as_of_date)), table_specs(shop)["candidates"])


def popular(item_scenario_features: DataFrame, quality: DataFrame, shop: Shop) -> DataFrame:
    """Return each scenario's items of highest expected utility there; an item never shown there has its own rate.

    Where impressions are drawn, those that are chosen there most often; an item never chosen there by its choices elsewhere.
    """
    shown, own = chosen_by("item_scenario", shop), chosen_by("item", shop)
    there = item_scenario_features.select("scenario", "item_id", *shown.values())
    rows = quality.withColumn("scenario", F.explode(F.array(*(F.lit(name) for name in shop.scenarios))))
    rows = rows.join(there, ["scenario", "item_id"], "left")
    for event, column in shown.items():
        if isinstance(shop.negatives, Sampled):
            readily = expected_choices(
                F.coalesce(column, F.lit(0.0)), F.col(own[event]), Window.partitionBy("scenario")
            )
        else:
            readily = F.coalesce(column, own[event])
        rows = rows.withColumn(column, readily)
    score = F.lit(0.0)
    for name in shop.scenarios:
        score = F.when(F.col("scenario") == name, expected_utility(name, shop, shown)).otherwise(score)
    best = _top(rows.withColumn("score", score), ["scenario"], POPULAR_PER_SCENARIO)
    return _shape(best.withColumn("user_key", F.lit(EVERYBODY)), "popular")


def fresh(quality: DataFrame, as_of_date: dt.date) -> DataFrame:
    """Return the newest items that came to the shop in the last FRESH_DAYS and that some shelf may show, if there are any.

    Which of those that came on one day are first, each night draws anew, so that all get their turn; by a hash that every
    engine has, of 16 bits, which float32 keeps beside the age.
    """
    digest = F.sha2(F.concat(F.lit(f"{as_of_date} "), "item_id"), 256)
    drawn = F.conv(F.substring(digest, 1, 4), 16, 10).cast("long") / 2**16
    young = quality.where((F.col("item_age_days") <= FRESH_DAYS) & ~F.col("is_kept_away"))
    young = young.withColumn("score", drawn - F.col("item_age_days"))
    newest = young.orderBy(F.desc("score"), "item_id").limit(FRESH_ITEMS)
    return _shape(newest.withColumns({"user_key": F.lit(EVERYBODY), "scenario": F.lit(EVERYWHERE)}), "fresh")


def recent_interest(acts: DataFrame, quality: DataFrame, shop: Shop, as_of_date: dt.date) -> DataFrame:
    """Return per user and catalogue item the decayed weight of the user's acts on it.

    Returns:
        user_key, item_id, category_3, brand, weight (all acts), outcome_weight (without `searched` and `viewed`; 0 if none).
    """
    _, end = day_bounds_utc(as_of_date, shop.timezone)
    age_days = (F.lit(end).cast("long") - F.col("event_ts").cast("long")) / 86400.0
    # Whole millionths, so that the order of adding leaves no trace.
    decayed = F.round(_event_weight(shop) * F.pow(F.lit(0.5), age_days / HALF_LIFE_DAYS) * 1e6).cast("long")
    rows = acts.select("user_key", "item_id", "event_type", decayed.alias("decayed"))
    # A user's rows stay together from here on, in parts small enough that each generator sorts and sums in memory.
    rows = rows.repartition(4 * shop.spark.shuffle_partitions, "user_key")
    outcome = F.when(F.col("event_type").isin(outcome_events(shop)), F.col("decayed")).otherwise(0)
    sums = rows.groupBy("user_key", "item_id").agg(
        (F.sum("decayed") / 1e6).alias("weight"), (F.sum(outcome) / 1e6).alias("outcome_weight")
    )
    return sums.join(F.broadcast(quality.select("item_id", "category_3", "brand")), "item_id")


def rebuy(own: DataFrame, quality: DataFrame) -> DataFrame:
    """Return what the user chose before and may want again (feature_jobs/own_items.py)."""
    rows = own.join(F.broadcast(quality.select("item_id")), "item_id").withColumn("score", F.col("count"))
    return _shape(rows.withColumn("scenario", F.lit(EVERYWHERE)), "rebuy")


def own_history(interest: DataFrame) -> DataFrame:
    """Return the items of the user's own outcomes."""
    own = interest.where("outcome_weight > 0").withColumn("score", F.col("outcome_weight"))
    return _shape(_top(own, ["user_key"], OWN_ITEMS).withColumn("scenario", F.lit(EVERYWHERE)), "own_history")


def affinity(
    interest: DataFrame, quality: DataFrame, group: str, generator: str, groups_per_user: int, items_per_group: int
) -> DataFrame:
    """Return the best items of the groups (category or brand) that the user's weight lies in."""
    known = interest.where(F.col(group).isNotNull())
    liked = known.groupBy("user_key", group).agg(F.sum("weight").alias("liking"))
    first = Window.partitionBy("user_key").orderBy(F.desc(F.round("liking", 6)), group)
    liked = liked.withColumn("place", F.row_number().over(first)).where(F.col("place") <= groups_per_user)
    best = _top(quality.where(F.col(group).isNotNull()).withColumn("score", F.col("utility")), [group], items_per_group)
    rows = liked.drop("place").join(F.broadcast(best.select(group, "item_id", "utility")), group)
    rows = rows.withColumns({"score": F.col("liking") * F.col("utility"), "because": F.col(group)})
    return _shape(rows.withColumn("scenario", F.lit(EVERYWHERE)), generator)


def item_edges(item_graph: DataFrame, shop: Shop) -> DataFrame:
    """Return the edges from item to item: all but what the catalogue says of an item."""
    return item_graph.where(~F.col("relation").isin(list(fact_relations(shop))))


def related(interest: DataFrame, ties: DataFrame) -> DataFrame:
    """Return the items that edges tie to the user's strongest recent items; `because` is the strongest of those."""
    return _walked(_strongest_items(interest), ties, "related")


def graph_walk(interest: DataFrame, ties: DataFrame) -> DataFrame:
    """Return the items two edges away from the user's strongest recent items, which no edge ties to these themselves.

    Short walks reach what too few users share to be tied (Eksombatchai et al., "Pixie", WWW 2018). The weight of a walk is the
    product of its edges', and walks to one item add up.
    """
    first = _top(ties, ["head"], WALKS_PER_STEP, tie="tail")
    second = first.select(F.col("head").alias("middle"), F.col("tail").alias("end"), F.col("score").alias("onwards"))
    walks = first.withColumnRenamed("tail", "middle").join(F.broadcast(second), "middle").where("head <> end")
    weight = F.round(F.col("score") * F.col("onwards") / 1e6).cast("long")
    far = walks.groupBy("head", F.col("end").alias("tail")).agg(F.sum(weight).alias("score"))
    far = far.join(ties.select("head", "tail"), ["head", "tail"], "left_anti").where("score > 0")
    return _walked(_strongest_items(interest), _top(far, ["head"], NEIGHBOURS_PER_ITEM, tie="tail"), "graph_walk")


def next_item(acts: DataFrame, quality: DataFrame, shop: Shop, as_of_date: dt.date) -> DataFrame:
    """Return what users turned to after the items that the user turned to last; `because` is the strongest of those.

    A first-order Markov chain of items, in which steps over one item count half (FPMC without its factors: Rendle et al., WWW
    2010).
    A step that MIN_USERS users made weighs as many of them as there are, the older the less, over the root of the product of
    all steps from the one item and to the other one.
    """
    _, end = day_bounds_utc(as_of_date, shop.timezone)
    own = acts.where(F.col("event_type").isin(outcome_events(shop)))
    own = own.join(F.broadcast(quality.select("item_id")), "item_id").select("user_key", "item_id", "event_ts")
    in_time = Window.partitionBy("user_key").orderBy("event_ts", "item_id")
    turns = own.withColumn("before", F.lag("item_id").over(in_time))
    turns = turns.where("before is null or before <> item_id").drop("before").persist()
    age_days = (F.lit(end).cast("long") - F.col("event_ts").cast("long")) / 86400.0
    weight = F.pow(F.lit(0.5), age_days / HALF_LIFE_DAYS)
    steps = [
        turns.select(
            "user_key",
            F.col("item_id").alias("head"),
            F.lead("item_id", length).over(in_time).alias("tail"),
            F.round(weight * share * 1e6).cast("long").alias("weight"),
        )
        for length, share in STEPS.items()
    ]
    every = reduce(DataFrame.unionByName, steps).where("tail is not null and head <> tail")
    of_users = every.groupBy("user_key", "head", "tail").agg(F.max("weight").alias("weight"))
    pairs = of_users.groupBy("head", "tail").agg(F.sum("weight").alias("weight"), F.count("*").alias("users"))
    pairs = pairs.where(F.col("users") >= MIN_USERS)
    total = F.sqrt(F.sum("weight").over(Window.partitionBy("head")) * F.sum("weight").over(Window.partitionBy("tail")))
    ties = pairs.select("head", "tail", F.round(F.col("weight") / total * 1e6).cast("long").alias("score"))
    newest = turns.groupBy("user_key", F.col("item_id").alias("head")).agg(F.max("event_ts").alias("last"))
    place = F.row_number().over(Window.partitionBy("user_key").orderBy(F.desc("last"), "head"))
    last = newest.withColumn("place", place).where(F.col("place") <= LAST_ITEMS)
    last = last.select("user_key", "head", F.pow(F.lit(LAST_KEEPS), F.col("place") - 1).alias("weight"))
    return _walked(last, _top(ties.where("score > 0"), ["head"], NEIGHBOURS_PER_ITEM, tie="tail"), "next_item")


def item_ties(edges: DataFrame, quality: DataFrame) -> DataFrame:
    """Return head, tail and score, in millionths, of the strongest neighbours in the catalogue: all relations summed up."""
    ties = edges.join(F.broadcast(quality.select(F.col("item_id").alias("tail"))), "tail")
    ties = ties.groupBy("head", "tail").agg(F.sum(F.round(F.col("weight") * 1e6).cast("long")).alias("score"))
    return _top(ties, ["head"], NEIGHBOURS_PER_ITEM, tie="tail")


def _strongest_items(interest: DataFrame) -> DataFrame:
    """Return user_key, head and weight of the items that the user's outcomes lie on."""
    own = interest.where("outcome_weight > 0").withColumn("score", F.col("outcome_weight"))
    own = _top(own, ["user_key"], RECENT_ITEMS)
    return own.select("user_key", F.col("item_id").alias("head"), F.col("outcome_weight").alias("weight"))


def _walked(own: DataFrame, ties: DataFrame, generator: str) -> DataFrame:
    """Return the items that ties lead to from the user's own; the score is the sum of weight × tie, `because` the strongest.

    Args:
        own: user_key, head, weight.
        ties: head, tail, score in millionths.
        generator: its name.
    """
    ties = ties.withColumn("head_place", F.dense_rank().over(Window.orderBy("head")).cast("long"))
    paths = own.join(F.broadcast(ties), "head")
    paths = paths.withColumn("pull", F.round(F.col("weight") * F.col("score")).cast("long"))
    # The strongest head in one number, by pull and then by name: numbers are summed up as they come, pairs would be sorted.
    strongest = F.max(F.col("pull") * _MOST_HEADS + F.col("head_place"))
    rows = paths.groupBy("user_key", F.col("tail").alias("item_id")).agg(
        (F.sum("pull") / 1e6).alias("score"), strongest.alias("strongest")
    )
    rows = _top(rows, ["user_key"], ITEMS_OF_WALKS[generator]).withColumn(
        "head_place", F.col("strongest") % _MOST_HEADS
    )
    heads = ties.select("head_place", F.col("head").alias("because")).distinct()
    rows = rows.join(F.broadcast(heads), "head_place")
    return _shape(rows.withColumn("scenario", F.lit(EVERYWHERE)), generator)


def _event_weight(shop: Shop) -> Column:
    """Return what the act's type counts."""
    weight = F.lit(0.5)
    for event, worth in event_worth(shop).items():
        weight = F.when(F.col("event_type") == event, F.lit(worth)).otherwise(weight)
    return weight


def _top(rows: DataFrame, keys: list[str], n: int, tie: str = "item_id") -> DataFrame:
    """Return the n rows of highest `score` per key; ties break by item."""
    place = F.row_number().over(Window.partitionBy(*keys).orderBy(F.desc("score"), tie))
    return rows.withColumn("place", place).where(F.col("place") <= n).drop("place")


def _shape(rows: DataFrame, generator: str) -> DataFrame:
    because = F.col("because") if "because" in rows.columns else F.lit(None).cast("string")
    return rows.select(
        "user_key", "scenario", "item_id", F.lit(generator).alias("generator"),
        F.col("score").cast("float").alias("generator_score"), because.alias("because"),
    )  # fmt: skip
