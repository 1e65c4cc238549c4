"""What the tables of `clean` must hold beyond their specs: the shop's own names, and ranges in which values make sense."""

import datetime as dt

from nightshelf.config import Shop
from nightshelf.dates import day_bounds_utc
from nightshelf.raw_logs import FINITE, LAST_POSITION
from pipelines.rules import Rule, in_range, no_rows, values_of
from pipelines.source_counts import COLUMNS


def log_rules(table: str, shop: Shop, day: dt.date) -> list[Rule]:
    """Return the rules for one night's partition of a table that `clean` writes, or of impressions."""
    suites = {
        "events": lambda: event_rules(shop, day),
        "quarantine": lambda: [_known_sources(shop), no_rows("not_empty", "reason", "reason = ''")],
        "waiting_events": lambda: event_rules(shop, day, complete=False),
        "source_counts": lambda: [_known_sources(shop), *_counts(*COLUMNS)],
        "source_schemas": lambda: [in_range("share", 0, 1), in_range("rows", 1, FINITE)],
        "items": item_rules,
        "impressions": lambda: impression_rules(shop),
    }
    return suites[table]() if table in suites else []


def event_rules(shop: Shop, day: dt.date, complete: bool = True) -> list[Rule]:
    """Return the rules for the night's events; where they are `complete`, every hour of the day has some."""
    limits = shop.quarantine
    rules = [
        values_of("known_values", "event_type", shop.event_types),
        values_of("known_values", "scenario", shop.scenarios),
        _known_sources(shop),
        in_range("position", 1, LAST_POSITION),
        in_range("quantity", 0, limits.max_quantity),
        in_range("price", 0, limits.max_price),
        in_range("propensity", 0, 1),
        in_range("dwell_seconds", 0, FINITE),
        in_range("rating", 0, FINITE),
        no_rows("not_from_the_future", "event_date", "event_date > as_of_date"),
    ]
    if complete and not shop.is_closed(day):
        hours = "list(DISTINCT substr(CAST(event_ts AS STRING), 1, 13))"
        rules.append(values_of("no_hour_missing", "event_ts", _hours(shop, day), "ContainSet", hours, "warning"))
    return rules


def item_rules() -> list[Rule]:
    """Return the rules for the night's catalogue; a stock below zero may be what was sold before it came, and counts as none."""
    return [
        in_range("price", 0, FINITE),
        in_range("stock", 0, FINITE, severity="warning"),
        no_rows("not_empty", "item_id", "trim(item_id) = ''"),
    ]


def impression_rules(shop: Shop) -> list[Rule]:
    """Return the rules for the impressions that arrived on the night's day."""
    return [
        values_of("known_values", "scenario", shop.scenarios),
        in_range("position", 1, LAST_POSITION),
        in_range("propensity", 0, 1),
        in_range("sampling_rate", 0, 1),
        no_rows("above_zero", "sampling_rate", "sampling_rate <= 0"),
        no_rows("not_from_the_future", "event_date", "event_date > as_of_date"),
    ]


def _counts(*columns: str) -> list[Rule]:
    return [in_range(column, 0, FINITE) for column in columns]


def _known_sources(shop: Shop) -> Rule:
    return values_of("known_values", "source", [source.name for source in shop.sources])


def _hours(shop: Shop, day: dt.date) -> list[str]:
    """Return the 23, 24 or 25 hours (UTC) of the shop's day as `YYYY-MM-DD HH`."""
    start, end = day_bounds_utc(day, shop.timezone)
    hours = int((end - start) / dt.timedelta(hours=1))
    return [f"{start + dt.timedelta(hours=hour):%Y-%m-%d %H}" for hour in range(hours)]
