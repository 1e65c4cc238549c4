"""Labels: what came of each impression within the label window of each task, and whether the window is over."""

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from nightshelf.config import Shop
from nightshelf.dates import day_bounds_utc, parse_duration
from nightshelf.tasks import Sampled, Task


def labels(
    impressions: DataFrame, acts: DataFrame, attributed: DataFrame, shop: Shop, as_of_date: dt.date
) -> DataFrame:
    """Add the float32 columns label_<task> and mask_<task> to the impressions.

    A label is 1 if an outcome of the task belongs to the impression; for a regression it is their summed value, of ratings
    the last one. A mask is 1 if the label window was over at the end of as_of_date; the label is 0 where the mask is. With
    `given`, the label is that of both happening (CTCVR in Ma 2018, arXiv:1804.07931), defined on every logged impression;
    drawn negatives and tasks on any item are defined only where `given` happened.

    Args:
        impressions: those to be labelled.
        acts: what arrived by as_of_date, from `reach_days` before the impressions on.
        attributed: `attributed_outcomes` of both, in hindsight.
        shop: gives the tasks.
        as_of_date: the night.
    """
    on_item = {name: task for name, task in shop.tasks.items() if task.on == "item"}
    on_any = {name: task for name, task in shop.tasks.items() if task.on == "any_item"}
    outcomes = attributed.groupBy("impression_id", "impression_ts", "user_key").agg(
        *(_label(name, task) for name, task in on_item.items())
    )
    # Where another task is given, only impressions with an outcome can have a label: a few of all that were shown.
    outcomes = _label_next_events(outcomes, acts, {name: task for name, task in on_any.items() if task.given})
    rows = impressions.join(outcomes.drop("impression_ts", "user_key"), "impression_id", "left")
    rows = _label_next_events(rows, acts, {name: task for name, task in on_any.items() if not task.given})
    rows = rows.withColumns({_name("label", name): F.coalesce(_name("label", name), F.lit(0.0)) for name in shop.tasks})
    _, end = day_bounds_utc(as_of_date, shop.timezone)
    rows = rows.withColumns({_name("mask", name): _mask(task, shop, end) for name, task in shop.tasks.items()})
    masked = {_name("label", name): F.col(_name("label", name)) * F.col(_name("mask", name)) for name in shop.tasks}
    return rows.withColumns({column: value.cast("float") for column, value in masked.items()})


def is_mature(task: Task, end: dt.datetime) -> Column:
    """Say whether the label window of an impression is over at `end` (UTC)."""
    return F.col("impression_ts") <= F.lit(end - task.window)


def _name(kind: str, task: str) -> str:
    return f"{kind}_{task}"


def _label(name: str, task: Task) -> Column:
    mine = F.col("rule") == name
    if task.kind == "binary":
        return F.max(F.when(mine, 1.0).otherwise(0.0)).alias(_name("label", name))
    pieces = F.coalesce(F.col("quantity"), F.lit(1)).cast("double")
    values = {"amount": F.col("price") * pieces, "quantity": pieces}
    value = values.get(str(task.value), F.col(str(task.value)).cast("double"))
    if task.value == "rating":  # who changes his mind has one opinion
        given = F.when(mine & value.isNotNull(), F.struct("event_ts", value))
        return F.coalesce(F.max_by(F.when(mine, value), given), F.lit(0.0)).alias(_name("label", name))
    # Rounded before the sum, so that the order of adding leaves no trace.
    summed = F.sum(F.when(mine, F.round(F.coalesce(value, F.lit(0.0)) * 1e4).cast("long")))
    return (F.coalesce(summed, F.lit(0)) / 1e4).alias(_name("label", name))


def _mask(task: Task, shop: Shop, end: dt.datetime) -> Column:
    defined = F.lit(True)
    if task.given and (task.on == "any_item" or isinstance(shop.negatives, Sampled)):
        defined = F.col(_name("label", task.given)) > 0
    return (is_mature(task, end) & defined).cast("float")


def _label_next_events(rows: DataFrame, acts: DataFrame, tasks: dict[str, Task]) -> DataFrame:
    """Label 1 where the user's first event after the impression comes inside the window, not before `not_before`.

    With `given`, the label is 0 where that one's is.
    """
    micros = F.unix_micros("impression_ts")
    for event in sorted({task.event for task in tasks.values()}):
        later = acts.where(F.col("event_type") == event).select("user_key", F.col("event_ts").alias("impression_ts"))
        both = rows.withColumn("is_asked", F.lit(True)).unionByName(later, allowMissingColumns=True)
        # From the latest to the earliest: the events strictly after a row are the preceding rows with a greater time.
        after = Window.partitionBy("user_key").orderBy(micros.desc()).rangeBetween(Window.unboundedPreceding, -1)
        wait = F.min(F.when(F.col("is_asked").isNull(), micros)).over(after) - micros
        rows = both.withColumn("wait", wait).where("is_asked")
        rows = rows.withColumns({_name("label", n): _in_time(t) for n, t in tasks.items() if t.event == event})
        rows = rows.drop("is_asked", "wait")
    return rows


def _in_time(task: Task) -> Column:
    soonest = int(parse_duration(task.not_before).total_seconds() * 1e6) if task.not_before else 0
    longest = int(task.window.total_seconds() * 1e6)
    is_asked = F.col(_name("label", task.given)) > 0 if task.given else F.lit(True)
    return (is_asked & (F.col("wait") >= soonest) & (F.col("wait") < longest)).cast("double")
