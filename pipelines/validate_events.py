"""Stage validate_events: is what clean published tonight what the shop file promises? Nothing is built on it otherwise."""

import datetime as dt
from typing import TYPE_CHECKING

from nightshelf.config import Shop
from nightshelf.log_tables import log_tables
from pipelines.log_suites import log_rules
from pipelines.references import reference_rules
from pipelines.rules import check_rules
from pipelines.stage import Night, StageResult
from pipelines.table_suites import spec_rules
from pipelines.validate import (
    Row,
    check_table,
    expect,
    none_above_zero,
    query_files,
    record_checks,
    stop_on_failure,
)
from pipelines.warehouse import row_count

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

_SOURCES = """
    SELECT source, kept, rows_read + taken_back - kept - quarantined - duplicates - other_days AS unaccounted_rows,
        CASE WHEN rows_read > other_days + coalesce(expected, 0)
            THEN (quarantined - coalesce(expected, 0)) / CAST(rows_read - other_days - coalesce(expected, 0) AS DOUBLE)
            ELSE 0 END AS quarantined_share
    FROM batch_files ORDER BY source
"""


def run(night: Night) -> StageResult:
    """Check every table that clean wrote for the night, and keep the results in data_checks.

    Raises:
        GateError: a rule of severity fail does not hold.
    """
    tables = [spec.name for spec in log_tables(night.shop) if spec.name != "impressions"]
    rows = [row for table in tables for row in check_log_table(night, table)]
    sources = query_files(night, "source_counts", _SOURCES).to_pandas()
    suite = sources_suite(night.shop, night.as_of_date)
    rows += check_table(night, "source_counts.sources", sources, suite, index=("source",))
    record_checks(night, rows)
    message = stop_on_failure(rows)
    read = row_count(night.warehouse.files("events", [night.as_of_date]))
    return StageResult(rows_in=read, rows_out=len(rows), inputs=tables, message=message)


def check_log_table(night: Night, table: str) -> list[Row]:
    """Return the results of the whole suite of one table of what happened."""
    rules = [*spec_rules(night, table), *log_rules(table, night.shop, night.as_of_date), *reference_rules(night, table)]
    return check_rules(night, table, rules)


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
