"""Stage validate_events: is what clean published tonight what the shop file promises? Nothing is built on it otherwise."""

import datetime as dt
from statistics import median
from typing import TYPE_CHECKING, Any

from nightshelf.config import Shop
from nightshelf.dates import day_bounds_utc, days_back
from pipelines.stage import Night, StageResult
from pipelines.validate import (
    FINITE,
    check_table,
    expect,
    none_above_zero,
    not_nan,
    query_files,
    read_batch,
    record_checks,
    row_count,
    stop_on_failure,
    within,
)

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

TRAILING_NIGHTS = 7
_SOURCES = """
    SELECT source, kept, rows_read - kept - quarantined - duplicates - other_days AS unaccounted_rows,
        CASE WHEN rows_read > other_days THEN quarantined / CAST(rows_read - other_days AS DOUBLE) ELSE 0 END AS quarantined_share
    FROM batch_files ORDER BY source
"""
# Optional columns and the range in which a filled value makes sense; the upper bounds of price and quantity are the shop's.
_RANGES: dict[str, tuple[float, float | None]] = {
    "position": (1, 1e6),
    "quantity": (0, None),
    "price": (0, None),
    "propensity": (0, 1),
    "dwell_seconds": (0, FINITE),
}


def run(night: Night) -> StageResult:
    """Check the night's events and its sources' counts, and keep the results in data_checks.

    Raises:
        GateError: a rule of severity fail does not hold.
    """
    events = read_batch(night, "events", events_select(night.shop))
    sources = query_files(night, "source_counts", _SOURCES).to_pandas()
    rows = check_table(
        night, "events", events, events_suite(night.shop, night.as_of_date, _filled(events), trailing_rows(night))
    )
    rows += check_table(night, "source_counts", sources, sources_suite(night.shop, night.as_of_date), index=("source",))
    record_checks(night, rows)
    message = stop_on_failure(rows)
    return StageResult(
        rows_in=row_count(night.warehouse.files("events", [night.as_of_date])),
        rows_out=len(rows),
        inputs=["events", "source_counts"],
        message=message,
    )


def events_select(shop: Shop) -> str:
    """Return the SQL columns that events_suite judges."""
    plain = ["event_id", "source", "scenario", "event_type", "user_key", "item_id"]
    numbers = ["CAST(position AS DOUBLE) AS position", "CAST(quantity AS DOUBLE) AS quantity"]
    numbers += [not_nan(name) for name in ("price", "propensity", "dwell_seconds")]
    derived = [
        "CAST(event_date > as_of_date AS INT) AS from_the_future",
        "substr(CAST(event_ts AS STRING), 1, 13) AS hour",
    ]
    return ", ".join([*plain, *numbers, *derived])


def trailing_rows(night: Night) -> float:
    """Return the median number of events of the last nights that the shop was open; 0 if there was none."""
    days = [day for day in days_back(night.as_of_date, TRAILING_NIGHTS + 1)[:-1] if not night.shop.is_closed(day)]
    counts: dict[dt.date, int] = {}
    for row in night.warehouse.read("source_counts", days, ("as_of_date", "kept")).to_pylist():
        counts[row["as_of_date"]] = counts.get(row["as_of_date"], 0) + row["kept"]
    seen = [kept for kept in counts.values() if kept]  # days before the first log hold none
    return median(seen) if seen else 0.0


def _filled(events: Any) -> list[str]:
    """Return the optional columns with a value tonight: a range rule would read a column without any as broken."""
    if hasattr(events, "iloc"):
        return [name for name in _RANGES if events[name].notna().any()]
    from pyspark.sql import functions as sf

    counts = events.agg(*[sf.count(name).alias(name) for name in _RANGES]).first()
    return [name for name in _RANGES if counts[name]]


def events_suite(shop: Shop, day: dt.date, filled: list[str], trailing: float) -> "list[Expectation]":
    """Return the rules for one night's events.

    Args:
        shop: its sets of event types, scenarios, sources, and its limits.
        day: the night; on a closed day an empty table is no fault.
        filled: optional columns that have a value.
        trailing: events of a usual night, 0 if unknown.
    """
    closed = shop.is_closed(day)
    suite: list[Expectation] = [
        expect(
            "TableRowCountToBeBetween",
            "row_count_at_least_a_tenth",
            min_value=0 if closed else max(1, int(trailing * 0.1)),
        )
    ]
    if trailing and not closed:
        low, high = int(trailing * 0.5), int(trailing * 1.5)
        suite.append(
            expect("TableRowCountToBeBetween", "row_count_as_usual", min_value=low, max_value=high, severity="warning")
        )
    suite += [
        expect("ColumnValuesToNotBeNull", "not_null", column=c)
        for c in ("event_id", "source", "scenario", "event_type", "user_key", "item_id", "hour")
    ]
    suite.append(expect("ColumnValuesToBeUnique", "unique", column="event_id"))
    known = {
        "event_type": shop.event_types,
        "scenario": list(shop.scenarios),
        "source": [source.name for source in shop.sources],
    }
    suite += [
        expect("ColumnDistinctValuesToBeInSet", "known_values", column=c, value_set=values)
        for c, values in known.items()
    ]
    limits = {"price": shop.quarantine.max_price, "quantity": shop.quarantine.max_quantity}
    for name in filled:
        least, most = _RANGES[name]
        suite += within(name, least, limits[name] if most is None else most)
    if not closed:
        suite += within("from_the_future", 0, 0, "no_event")
        suite.append(
            expect(
                "ColumnDistinctValuesToContainSet",
                "no_hour_missing",
                column="hour",
                value_set=_hours(shop, day),
                severity="warning",
            )
        )
    return suite


def _hours(shop: Shop, day: dt.date) -> list[str]:
    """Return the 23, 24 or 25 hours (UTC) of the shop's day as `YYYY-MM-DD HH`."""
    start, end = day_bounds_utc(day, shop.timezone)
    hours = int((end - start) / dt.timedelta(hours=1))
    return [f"{start + dt.timedelta(hours=hour):%Y-%m-%d %H}" for hour in range(hours)]


def sources_suite(shop: Shop, day: dt.date) -> "list[Expectation]":
    """Return the rules for the counts of one night's sources: all there, rows conserved, few set aside."""
    names = [source.name for source in shop.sources]
    if shop.is_closed(day):
        return [expect("TableRowCountToBeBetween", "row_count", min_value=0, max_value=len(names))]
    worst = shop.quarantine.max_share
    return [
        expect("TableRowCountToBeBetween", "row_count", min_value=len(names), max_value=len(names)),
        expect("ColumnDistinctValuesToEqualSet", "every_source", column="source", value_set=names),
        none_above_zero("unaccounted_rows"),
        expect(
            "ColumnValuesToBeBetween", "few_rows_set_aside", column="quarantined_share", min_value=0, max_value=worst
        ),
        expect("ColumnValuesToBeBetween", "source_has_events", column="kept", min_value=1, severity="warning"),
    ]
