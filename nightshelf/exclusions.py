"""The rules of `exclude`, by name: what a scenario's shelf must not show to a user."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nightshelf.config import Shop

OUT_OF_STOCK = "out_of_stock"
_PRICE = re.compile(r"price_over_(\d{1,9}(?:\.\d{1,4})?)")
_ACTED = re.compile(r"([a-z][a-z0-9_]*)_([1-9]\d{0,2})d")
_ALSO = {"purchased": "purchase"}


def common_rules(shop: "Shop") -> list[str]:
    """Return the rules that all scenarios have: what they keep away is worth no proposal."""
    return sorted(set.intersection(*(set(scenario.exclude) for scenario in shop.scenarios.values())))


def acted_on(rule: str) -> tuple[str, int] | None:
    """Return the event type and the days of a rule such as `like_90d`; None for one that asks the item alone.

    `purchased_30d` is `purchase_30d`.

    Raises:
        ValueError: there is no such rule.
    """
    if rule == OUT_OF_STOCK or _PRICE.fullmatch(rule):
        return None
    match = _ACTED.fullmatch(rule)
    if not match:
        raise ValueError(
            f"{rule!r} is no rule; write {OUT_OF_STOCK}, a price, e.g. price_over_20, or an event type with days, "
            "e.g. purchase_30d"
        )
    return _ALSO.get(match[1], match[1]), int(match[2])


def highest_price(rule: str) -> float | None:
    """Return the price above which a rule such as `price_over_20` keeps items off the shelf; None for other rules."""
    match = _PRICE.fullmatch(rule)
    return float(match[1]) if match else None


def kept_from_all(rules: list[str]) -> str:
    """Return the SQL over the table items that tells what these rules of a scenario keep away from whoever comes."""
    return " OR ".join(["false", *(item_condition(rule) for rule in rules if not acted_on(rule))])


def item_condition(rule: str) -> str:
    """Return the SQL over the table items that tells whom a rule keeps away, for a rule that asks the item alone.

    An item without a price is kept away by any `price_over_…`: nobody knows that it is cheap. A stock below zero is of pieces
    that are sold before they came: there is none to sell.
    """
    price = highest_price(rule)
    return "coalesce(stock <= 0, false)" if price is None else f"coalesce(price > {price!r}, true)"
