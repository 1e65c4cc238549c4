"""The rules of `exclude`, by name: what a scenario's shelf must not show to a user."""

import re

OUT_OF_STOCK = "out_of_stock"
_ACTED = re.compile(r"([a-z][a-z0-9_]*)_([1-9]\d{0,2})d")
_ALSO = {"purchased": "purchase"}


def acted_on(rule: str) -> tuple[str, int] | None:
    """Return the event type and the days of a rule such as `like_90d`; None for `out_of_stock`.

    `purchased_30d` is `purchase_30d`.

    Raises:
        ValueError: there is no such rule.
    """
    if rule == OUT_OF_STOCK:
        return None
    match = _ACTED.fullmatch(rule)
    if not match:
        raise ValueError(f"{rule!r} is no rule; write {OUT_OF_STOCK}, or an event type with days, e.g. purchase_30d")
    return _ALSO.get(match[1], match[1]), int(match[2])
