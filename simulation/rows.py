"""Rows of the simulated logs as columns of numbers: what happened, before it is written in six formats."""

import numpy as np

Rows = dict[str, np.ndarray]

# What happened. A cart row lands in the cart's log and an order in the checkout's, wherever the item was shown.
IMPRESSION, CLICK, ADD, ORDER = range(4)
SOURCES = ("home_feed_log", "search_log", "product_page_log", "cart_log", "checkout_log", "campaign_log")
ABSENT = -1  # in a column of integers: the row has no such value

COLUMNS: dict[str, type] = {
    "source": np.int8,  # place in SOURCES
    "kind": np.int8,
    "scenario": np.int8,  # where the item was shown, also for carts and orders
    "user": np.int64,
    "item": np.int32,
    "ts": np.int64,  # milliseconds since 1970, UTC
    "request": np.int64,
    "position": np.int16,
    "propensity": np.float32,
    "query": np.int32,  # place in Catalogue.queries
    "anchor": np.int32,
    "quantity": np.int32,
    "price": np.float64,
    "dwell": np.float32,
    "page": np.int8,  # place in CAMPAIGN_PAGES
    "defect": np.int8,  # place in dirt.DEFECTS; 0 = clean
    "event_day": np.int16,  # day number on which it happened
    "arrival": np.int16,  # day number in whose log it stands
}


def make_rows(count: int, **columns: np.ndarray | int | float) -> Rows:
    """Return `count` rows; a column not given is ABSENT (`defect`: 0)."""
    unknown = set(columns) - set(COLUMNS)
    if unknown:
        raise ValueError(f"unknown column {sorted(unknown)[0]!r}; known: {', '.join(COLUMNS)}")
    given: dict[str, np.ndarray | int | float] = {"defect": 0, **columns}
    return {
        name: np.broadcast_to(np.asarray(given.get(name, ABSENT), kind), count).copy() for name, kind in COLUMNS.items()
    }


def take(rows: Rows, which: np.ndarray) -> Rows:
    """Return the rows at these places, or where the mask is true."""
    return {name: values[which] for name, values in rows.items()}


def stack(parts: list[Rows]) -> Rows:
    """Return all rows of the parts, in their order."""
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
