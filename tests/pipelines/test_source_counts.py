"""The books of the cleaning: what is refused, and what the refusal says."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightshelf.errors import EngineError, InputError
from pipelines.source_counts import SourceDay, as_table, check_books, count_rows

DAY = dt.date(2026, 2, 2)


def books(**rows):
    return {(DAY, "home_log"): SourceDay(**{"rows_read": 10, "kept": 10, **rows})}


@pytest.fixture
def shop(tiny_shop):
    return tiny_shop(days=0)


def test_books_that_agree_pass(shop):
    check_books(books(kept=7, quarantined=1, duplicates=1, other_days=1, reasons={"bot": 1}), shop, DAY)


def test_a_lost_row_is_an_engines_fault(shop):
    with pytest.raises(EngineError, match="home_log 2026-02-02: 10 rows read but 9 accounted for"):
        check_books(books(kept=9), shop, DAY)
    check_books(books(taken_back=2, kept=12), shop, DAY)
    with pytest.raises(EngineError, match="10 rows read and 2 taken back but 11 accounted for"):
        check_books(books(taken_back=2, kept=11), shop, DAY)


def test_too_many_set_aside_names_the_most_frequent_reason(shop):
    bad = books(kept=7, quarantined=3, reasons={"too_late": 2, "bot": 1}, examples={"too_late": "{a}", "bot": "{b}"})
    with pytest.raises(
        InputError, match=r"3 of 10 rows .*max_share = 0.2; most often too_late \(2 rows\), e.g. '\{a\}'"
    ):
        check_books(bad, shop, DAY)


def test_rows_that_the_source_expects_do_not_count(shop):
    orders = next(source for source in shop.sources if source.name == "order_log")
    told = orders.model_copy(update={"without_user": "expected"})
    shop = shop.model_copy(update={"sources": [told]})
    aside = {"without_user": 6, "missing_key_field": 1}
    rows = {"rows_read": 10, "kept": 3, "quarantined": 7, "expected": 6, "reasons": aside}
    key = (DAY, "order_log")
    with pytest.raises(
        InputError, match=r"1 of 4 rows .* missing_key_field \(1 rows\).* `without_user: expected` there if"
    ):
        check_books({key: SourceDay(**rows, examples={"missing_key_field": "x"})}, shop, DAY)
    check_books({key: SourceDay(**rows | {"rows_read": 11, "kept": 4})}, shop, DAY)


def test_a_column_that_every_readable_row_lacks_is_told(shop):
    bad = books(kept=0, quarantined=10, reasons={"missing_key_field": 9, "unparsable": 1}, absent={"uid": 9})
    with pytest.raises(InputError, match="column 'uid' is absent in every row"):
        check_books(bad, shop, DAY)


def test_an_empty_day_is_told_unless_the_shop_was_closed(tiny_shop):
    empty = books(kept=0, rows_read=0)
    remedy = r"write `closed: \{dates: \[2026-02-02\]\}`"
    with pytest.raises(InputError, match=f"empty day: the logs of 2026-02-02 hold no usable event .*{remedy}"):
        check_books(empty, tiny_shop(days=0), DAY)
    check_books(empty, tiny_shop(days=0, closed={"dates": [DAY]}), DAY)


def test_counts_come_from_the_files(shop, tmp_path):
    def write(name, **columns):
        (tmp_path / name / "_day=x").mkdir(parents=True)
        pq.write_table(
            pa.table({"as_of_date": [DAY] * len(columns["source"]), **columns}),
            tmp_path / name / "_day=x" / "a.parquet",
        )
        return tmp_path / name

    home = "home_log"
    judged = write("judged", source=[home] * 5, reason=pa.array([None, None, None, "other_days", "bot"]))
    kept = write("kept", source=[home])
    again = write("again", source=[home] * 2)
    aside = write("aside", source=[home], reason=["bot"], evidence=pa.array([None], pa.string()), raw=["x"])
    taken = write("taken", source=[home] * 3)
    found = count_rows(judged, taken, kept, again, aside, shop, [DAY])
    assert found[DAY, home] == SourceDay(5, 3, 1, 1, 0, 2, 1, {"bot": 1}, {"bot": "x"}, {})
    assert found[DAY, "order_log"] == SourceDay()
    assert as_table(found).num_rows == 3
    nothing = [tmp_path / "no"] * 5
    assert count_rows(*nothing, shop, [DAY])[DAY, home].rows_read == 0
