"""What an item of the catalogue is worth whoever sees it, and whether any shelf may show it: where candidates begin."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightshelf.blocked import blocked_items
from nightshelf.config import Shop
from nightshelf.exclusions import acted_on, common_rules, item_condition
from nightshelf.features import outcome_events
from nightshelf.tasks import Sampled


def item_quality(items: DataFrame, item_features: DataFrame, shop: Shop) -> DataFrame:
    """Return item_id, category_3, brand, age, rates, price of the catalogue, and `utility`: expected, of an impression.

    The rates (`chosen_by`) are the items' own over all scenarios; the weights are the mean of the scenarios'. `is_kept_away`
    tells what no shelf may show.
    """
    rates = chosen_by("item", shop)
    known = item_features.select("item_id", "item_age_days", "item_log_price", *rates.values())
    named = items.select("item_id", "category_3", "brand", is_kept_away(shop).alias("is_kept_away"))
    rows = named.join(known, "item_id")
    parts = [expected_utility(name, shop, rates) for name in shop.scenarios]
    return rows.withColumn("utility", sum(parts[1:], parts[0]) / len(parts))


def chosen_by(name: str, shop: Shop) -> dict[str, str]:
    """Return event type → the column `<name>_…` that tells how readily it follows: the rate, or the count of 30 days.

    The impressions of a log that has none are drawn from what was chosen that day: beside them an item that one user chose once
    looks as good as one that is chosen every day.
    """
    kind = "count" if isinstance(shop.negatives, Sampled) else "rate"
    return {event: f"{name}_{event}_{kind}_30d" for event in outcome_events(shop)}


def is_kept_away(shop: Shop) -> Column:
    """Return whether an item of the catalogue is blocked, or kept off the shelves by a rule that all scenarios have.

    Raises:
        InputError: the file of blocked items cannot be read.
    """
    blocked = sorted(blocked_items(shop))
    away = F.col("item_id").isin(blocked) if blocked else F.lit(False)
    for rule in common_rules(shop):
        if not acted_on(rule):
            away = away | F.expr(item_condition(rule))
    return away


def expected_utility(scenario: str, shop: Shop, rates: dict[str, str]) -> Column:
    """Return the scenario's utility of an impression: weight × rate of each task on the item, × price for a value in money.

    Args:
        scenario: its name.
        shop: gives the weights.
        rates: event type → column of its rate, or of what stands for it.
    """
    total = F.lit(0.0)
    for name, weight in shop.scenarios[scenario].utility.items():
        task = shop.tasks[name]
        if task.on == "item":
            worth = F.expm1("item_log_price") if task.value in ("amount", "price") else F.lit(1.0)
            total = total + weight * F.col(rates[task.event]) * worth
    return total
