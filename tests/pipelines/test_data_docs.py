"""The page of a night's checks: whole, without a network, with every rule and the nights before."""

import datetime as dt
import logging
import re

import pytest

from nightshelf.paths import data_docs_file
from pipelines import data_docs
from pipelines.validate import record_checks

DAY = dt.date(2026, 2, 5)


def result(rule, success=True, severity="fail", day=DAY, table="items", column="price"):
    row = {"as_of_date": day, "table_name": table, "expectation": rule, "column_name": column, "severity": severity}
    return {**row, "success": success, "observed": "7 <b>", "expected": "max 5"}


def page(night):
    return data_docs_file(night.shop, DAY).read_text()


def test_the_page_shows_every_rule_and_loads_nothing(night):
    broken = [result("within_range", False), result("row_count_as_usual", False, "warn", column="")]
    record_checks(night, [result("not_null"), *broken, result("unique", table="users", column="user_key")])
    text = page(night)
    assert not re.search(r"<(script|link|img|iframe)|https?:|url\(|@import", text)
    assert set(re.findall(r'href="([^"]*)"', text)) == {"#items"}
    assert all(text.count(f"<td>{rule}</td>") == 2 for rule in ("within_range", "row_count_as_usual"))
    assert all(text.count(f"<td>{rule}</td>") == 1 for rule in ("not_null", "unique"))
    assert "7 &lt;b&gt;" in text
    assert "One row per item of the catalogue of that day." in text
    assert re.search(r'id="items" open>.*1 of 3 held, 1 warnings, 1 failed', text, re.S)
    assert re.search(r'id="users">.*1 of 1 held<', text, re.S)
    assert text.index('id="items"') < text.index('id="users"')


def test_the_history_of_a_rule_ends_with_the_night(night):
    for back, success in ((3, False), (2, True)):
        night.warehouse.append("data_checks", [result("not_null", success, day=DAY - dt.timedelta(days=back))])
    rows = [*night.warehouse.read("data_checks").to_pylist(), result("not_null"), result("unique", False, "warn")]
    nights = [DAY - dt.timedelta(days=back) for back in (3, 2, 0)]
    (table,) = data_docs.tables_of(rows, DAY, nights, night.warehouse.specs)
    assert [check["history"] for check in table["checks"]] == [["fail", "held", "held"], ["none", "none", "warn"]]
    assert table["worst"] == ["fail", "held", "warn"]
    record_checks(night, rows[-2:])
    assert "2026-02-02: failed" in page(night)
    assert "2026-02-06" not in page(night)


def test_the_same_results_give_the_same_bytes_and_no_other_file(night):
    record_checks(night, [result("not_null"), result("unique", table="users")])
    first = page(night)
    record_checks(night, [result("not_null")])
    assert page(night) == first
    assert [file.name for file in data_docs_file(night.shop, DAY).parent.iterdir()] == ["index.html"]


def test_a_page_that_cannot_be_written_loses_no_result(night, caplog):
    data_docs_file(night.shop, DAY).parent.parent.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        record_checks(night, [result("not_null")])
    assert "the data docs of 2026-02-05 were not written" in caplog.text
    assert night.warehouse.read("data_checks", [DAY]).num_rows == 1


@pytest.mark.parametrize("table", ["training_examples.classes", "shelf_drafts", "gone"])
def test_parts_of_tables_stand_after_them(night, table):
    rows = [result("not_null", table=name) for name in (table, "training_examples")]
    names = [found["name"] for found in data_docs.tables_of(rows, DAY, [DAY], night.warehouse.specs)]
    assert names == ["training_examples", table]
