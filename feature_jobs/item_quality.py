"""What an item of the catalogue is worth whoever sees it, and whether any shelf may show it: where candidates begin."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightshelf.blocked import blocked_items
from nightshelf.config import Shop
from nightshelf.exclusions import acted_on, common_rules, item_condition
from nightshelf.features import outcome_events


def item_quality(items: DataFrame, item_features: DataFrame, shop: Shop) -> DataFrame:
    """Return item_id, category_3, brand, age, rates, price of the catalogue, and `utility`: expected, of an impression.

    The rates are the items' own over all scenarios; the weights are the mean of the scenarios'. `is_kept_away` tells what no
    shelf may show.
    """
    rates = {event: f"item_{event}_rate_30d" for event in outcome_events(shop)}
    known = item_features.select("item_id", "item_age_days", "item_log_price", *rates.values())
    named = items.select("item_id", "category_3", "brand", is_kept_away(shop).alias("is_kept_away"))
    rows = named.join(known, "item_id")
    parts = [expected_utility(name, shop, rates) for name in shop.scenarios]
    return rows.withColumn("utility", sum(parts[1:], parts[0]) / len(parts))


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
        rates: event type → column of its rate.
    """
    total = F.lit(0.0)
    for name, weight in shop.scenarios[scenario].utility.items():
        task = shop.tasks[name]
        if task.on == "item":
            worth = F.expm1("item_log_price") if task.value in ("amount", "price") else F.lit(1.0)
            total = total + weight * F.col(rates[task.event]) * worth
    return total
