"""Attribution: which impression an outcome belongs to. The last one (or first) that the user had of the item before it.

Labels look in hindsight: everything that arrived by the night counts. Features must never change when more arrives, so for
them an outcome belongs to an impression that had arrived when the outcome did. That is a condition on two times, which an
ordered window cannot express; the join on user and item can, and keeps only pairs inside the label window.
"""

import datetime as dt
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.features import outcome_events

_DEFAULT_WINDOW = dt.timedelta(days=1)
_PAIR = ["user_key", "item_id"]
_VALUES = ["quantity", "price", "dwell_seconds", "rating"]


@dataclass(frozen=True)
class TouchRule:
    """Outcomes of type `event` count for `window` after an impression for which the rule `given` (if any) counted."""

    name: str
    event: str
    given: str | None
    window: dt.timedelta


def touch_rules(shop: Shop) -> list[TouchRule]:
    """Return one rule per task on the item, bearing its name, and one per event type that no task learns (`event <type>`).

    An event type without a task belongs to the last impression within a day.

    Raises:
        InputError: a task is `given` one that is not about the item itself.
    """
    rules = []
    for name, task in shop.tasks.items():
        if task.given and shop.tasks[task.given].on != "item":
            raise InputError(f"tasks.{name}.given = {task.given!r} is `on: any_item`; name a task on the item itself")
        if task.on == "item":
            rules.append(TouchRule(name, task.event, task.given, task.window))
    learned = {rule.event for rule in rules}
    return rules + [TouchRule(f"event {e}", e, None, _DEFAULT_WINDOW) for e in outcome_events(shop) if e not in learned]


def reach_days(shop: Shop) -> int:
    """Return how many days before an event arrives another may have arrived whose impression or outcome it decides on.

    An event is late by some days, and a label window before it lies what it may belong to.
    """
    longest = max([rule.window for rule in touch_rules(shop)] + [task.window for task in shop.tasks.values()])
    return max(source.late_by_days for source in shop.sources) + -(-longest // dt.timedelta(days=1)) + 1


def decisive_time(shop: Shop) -> dt.timedelta:
    """Return how long after an impression the last event may happen that decides on a label of it.

    Its outcome comes within the window of the task. Whose that outcome is, other impressions of that time decide by
    whether they met the task that is given, and so on: the windows add up.
    """

    def decided(name: str) -> dt.timedelta:
        """Return how long after an impression an event may happen that decides on its label of one task."""
        task = shop.tasks[name]
        if task.given is None:
            return task.window
        before = decided(task.given)
        return max(task.window, before) if task.on == "any_item" else task.window + before

    return max(decided(name) for name in shop.tasks)


def settling_days(shop: Shop) -> int:
    """Return how many days after its own a partition of examples may at the latest be touched by what arrives.

    Of the day's last impression that is `decisive_time`, an hour more where clocks are put forward, and what is late.
    """
    longest = decisive_time(shop) + dt.timedelta(hours=1)
    return max(source.late_by_days for source in shop.sources) + -(-longest // dt.timedelta(days=1))


def attributed_outcomes(impressions: DataFrame, acts: DataFrame, shop: Shop, hindsight: bool) -> DataFrame:
    """Return one row per rule and outcome that belongs to an impression.

    An outcome that carries the request of an impression belongs to that one; an outcome without `given` prefers the
    impressions of its own scenario; else the last impression counts, or the first, as the shop's `attribution` says.

    Args:
        impressions, acts: of the wanted days of arrival, and of `reach_days` before them.
        shop: gives the rules, see `touch_rules`.
        hindsight: True also counts impressions that arrived later than the outcome.

    Returns:
        rule, impression_id, impression_ts, scenario and request_id (the impression's), user_key, item_id, event_ts,
        as_of_date (the outcome's arrival), quantity, price, dwell_seconds, rating.
    """
    shown = impressions.select(
        *_PAIR, "impression_id", "impression_ts", "scenario", "request_id",
        F.col("as_of_date").alias("known"), F.lit(None).cast("string").alias("held"),
    )  # fmt: skip
    rules, counted = touch_rules(shop), None
    while rules:
        done = {None} if counted is None else {r.name for r in touch_rules(shop)} - {r.name for r in rules}
        ready = [rule for rule in rules if rule.given in done]
        touched = _touch(shown, _outcomes(acts, ready), shop, hindsight)
        counted = touched if counted is None else counted.unionByName(touched)
        rules = [rule for rule in rules if rule not in ready]
        if rules:
            counted = counted.persist()  # read twice: here, and as a part of the result
            shown = _holders(counted)
    assert counted is not None
    return counted


def _outcomes(acts: DataFrame, rules: list[TouchRule]) -> DataFrame:
    """Repeat each outcome for every rule that it may count for; `earliest` excludes older impressions."""
    described = F.array(
        *(
            F.struct(
                F.lit(rule.event).alias("event"),
                F.lit(rule.name).alias("rule"),
                F.lit(rule.given).cast("string").alias("given"),
                (F.col("event_ts") - _seconds(rule.window)).alias("earliest"),
            )
            for rule in rules
        )
    )
    mine = F.filter(described, lambda rule: rule["event"] == F.col("event_type"))
    return acts.where(F.col("event_type").isin([rule.event for rule in rules])).select(
        *_PAIR, "event_id", "event_ts", "as_of_date", *_VALUES,
        F.col("scenario").alias("event_scenario"), F.col("request_id").alias("event_request"), F.inline(mine),
    )  # fmt: skip


def _touch(shown: DataFrame, outcomes: DataFrame, shop: Shop, hindsight: bool) -> DataFrame:
    """Join outcomes with the impressions that they may belong to (`held`: the rule that those must have met)."""
    pairs = outcomes.join(shown, _PAIR).where(
        (F.col("impression_ts") <= F.col("event_ts"))
        & (F.col("impression_ts") > F.col("earliest"))
        & F.col("held").eqNullSafe(F.col("given"))
    )
    pairs = pairs.persist()  # with and without hindsight the first round meets the same impressions
    if not hindsight:
        pairs = pairs.where(F.col("known") <= F.col("as_of_date"))
    own_row = F.col("impression_id") == F.col("event_id")  # a shop without impressions: the outcome is its own positive
    own_request = F.coalesce(F.col("request_id") == F.col("event_request"), F.lit(False))
    own_scenario = F.col("given").isNull() & (F.col("scenario") == F.col("event_scenario"))
    in_time = F.desc if shop.attribution == "last_touch" else F.asc
    best = [own_row.desc(), own_request.desc(), own_scenario.desc(), *map(in_time, ("impression_ts", "impression_id"))]
    place = F.row_number().over(Window.partitionBy("rule", "event_id").orderBy(*best))
    return pairs.withColumn("place", place).where("place = 1").select(
        "rule", "impression_id", "impression_ts", "scenario", "request_id", *_PAIR, "event_ts", "as_of_date",
        *_VALUES,
    )  # fmt: skip


def _holders(counted: DataFrame) -> DataFrame:
    """Return the impressions for which a rule counted, known from the day on which its first outcome arrived."""
    columns = [*_PAIR, "impression_id", "impression_ts", "scenario", "request_id"]
    return counted.groupBy(*columns, F.col("rule").alias("held")).agg(F.min("as_of_date").alias("known"))


def _seconds(window: dt.timedelta) -> Column:
    return F.expr(f"INTERVAL '{int(window.total_seconds())}' SECOND")
