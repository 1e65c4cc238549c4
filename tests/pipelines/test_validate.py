"""The Great Expectations room itself: what it refuses, what it tells, what it keeps."""

import datetime as dt

import pandas as pd
import pytest

from nightshelf.errors import GateError
from pipelines.rules import check_rules, in_range, no_rows, values_of
from pipelines.table_suites import row_rules
from pipelines.validate import check_table, expect, none_above_zero, record_checks, stop_on_failure

DAY = dt.date(2026, 2, 5)


def test_a_suite_must_begin_with_a_row_count(night):
    with pytest.raises(ValueError, match="must begin with a row count"):
        check_table(night, "events", pd.DataFrame({"x": [1]}), [none_above_zero("x")])
    with pytest.raises(ValueError, match="must begin with a row count"):
        check_rules(night, "users", [no_rows("not_null", "user_key", "user_key IS NULL")])


def test_an_exception_inside_a_rule_is_a_failure_that_says_so(night):
    counted = expect("TableRowCountToBeBetween", "row_count", min_value=1)
    gone = expect("ColumnMaxToBeBetween", "within_range", column="gone", min_value=0)
    rows = check_table(night, "events", pd.DataFrame({"x": [1]}), [counted, gone])
    assert [row["success"] for row in rows] == [True, False]
    assert rows[1]["observed"].startswith('the rule could not run: Error: The column "gone"')


def test_all_rules_are_told_with_what_was_seen(night, publish_good):
    publish_good(night, "items")
    rules = [
        *row_rules("items", None, night.shop.checks, 1, DAY),
        in_range("price", 6, 9),
        in_range("stock", 0, 9),
        values_of("known_values", "item_id", ["i1"]),
    ]
    rows = check_rules(night, "items", rules)
    told = [(row["expectation"], row["column_name"], row["success"], row["observed"], row["expected"]) for row in rows]
    assert told == [
        ("row_count", "", True, "2", "min 1"),
        ("within_range", "price", False, "5", "min 6, max 9"),
        ("within_range", "stock", True, "0", "min 0, max 9"),
        ("known_values", "item_id", False, "1 unexpected: i2", "i1"),
    ]


def test_results_of_other_tables_of_the_night_stay(night):
    for table in ("users", "items", "users"):
        counted = expect("TableRowCountToBeBetween", "row_count", min_value=1)
        record_checks(night, check_table(night, table, pd.DataFrame({"x": [1]}), [counted]))
    assert sorted(night.warehouse.read("data_checks", [DAY])["table_name"].to_pylist()) == ["items", "users"]


def test_the_first_failure_is_told_and_warnings_pass():
    row = {"as_of_date": DAY, "table_name": "items", "column_name": "price", "observed": "7", "expected": "max 5"}
    warning = {**row, "expectation": "within_range", "severity": "warn", "success": False}
    assert stop_on_failure([warning]) == "0 checks held, 1 warnings: items.price within_range"
    with pytest.raises(GateError, match=r"within_range on items\.price 2026-02-05: observed 7, expected max 5"):
        stop_on_failure([warning, {**warning, "severity": "fail"}])
