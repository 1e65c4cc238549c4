"""What happened, as features count it: outcomes, impressions (logged or drawn), and where outcomes belong, in one shape."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_jobs.attribution import touch_rules
from feature_jobs.scenarios import in_scenarios
from nightshelf.config import Shop
from nightshelf.features import outcome_events

_COLUMNS = {
    "as_of_date": "date",
    "event_date": "date",
    "scenario": "string",
    "user_key": "string",
    "item_id": "string",
    "event_type": "string",
    "attributed_type": "string",
    "price": "double",
    "dwell_seconds": "double",
}


def activity(acts: DataFrame, impressions: DataFrame, attributed: DataFrame, shop: Shop) -> DataFrame:
    """Return one row per outcome, per impression, and per outcome that belongs to an impression.

    The first two have an event_type (`impression` covers drawn negatives too) and the log's scenario; the third has an
    attributed_type and the scenario of the impression: a purchase in the checkout log belongs to the search result that
    led to it. An event type counts by the first rule that learns it. What belongs to an impression of a scenario that the
    shop file has no more is an outcome all the same, but has no third row.

    Args:
        acts, impressions: of the wanted days of arrival.
        attributed: `attributed_outcomes` of the same days, without hindsight.
        shop: gives event types, rules and scenarios.
    """
    events: dict[str, str] = {}
    for rule in touch_rules(shop):
        events.setdefault(rule.event, rule.name)
    belongs = F.coalesce(*(F.when(F.col("rule") == rule, F.lit(event)) for event, rule in events.items()))
    frames = [
        acts.where(F.col("event_type").isin(outcome_events(shop))),
        impressions.withColumn("event_type", F.lit("impression")),
        in_scenarios(attributed, shop)
        .where(F.col("rule").isin(list(events.values())))
        .withColumn("attributed_type", belongs)
        .drop("price", "dwell_seconds"),
    ]
    outcomes, shown, touched = (frame.select(*_shape(frame)) for frame in frames)
    return outcomes.unionByName(shown).unionByName(touched)


def day_counts(shop: Shop) -> list[Column]:
    """Return the aggregates `<event>_count` and `<event>_attributed` over rows of `activity`."""
    kinds = ["impression", *outcome_events(shop)]
    counts = [F.count_if(F.col("event_type") == kind).alias(f"{kind}_count") for kind in kinds]
    return counts + [F.count_if(F.col("attributed_type") == kind).alias(f"{kind}_attributed") for kind in kinds[1:]]


def dwell_sums() -> list[Column]:
    """Return the aggregates log_dwell_micros and dwelt over rows of `activity`."""
    dwell = F.log1p(F.when(F.col("dwell_seconds") >= 0, F.col("dwell_seconds")))
    return [sum_in_micros(dwell).alias("log_dwell_micros"), F.count(dwell).alias("dwelt")]


def sum_in_micros(value: Column) -> Column:
    """Return the sum in whole millionths, so that the order of adding leaves no trace; 0 of nothing."""
    return F.coalesce(F.sum(F.round(value * 1e6).cast("long")), F.lit(0))


def _shape(frame: DataFrame) -> list[Column]:
    null = F.lit(None)
    return [(F.col(c) if c in frame.columns else null).cast(t).alias(c) for c, t in _COLUMNS.items()]
