"""Stage validate_events over tables written by hand."""

import dataclasses
import datetime as dt

import pytest

from nightshelf.closed_days import Closed
from nightshelf.errors import GateError
from pipelines import validate_events

DAY = dt.date(2026, 2, 5)
LOGS = ("events", "quarantine", "waiting_events", "source_counts", "source_schemas", "items", "users")


def test_good_tables_pass_and_every_result_is_kept(night, publish_good):
    publish_good(night, *LOGS)
    message = validate_events.run(night).message
    kept = night.warehouse.read("data_checks", [DAY])
    assert message == f"{kept.num_rows} checks held"
    assert set(kept["table_name"].to_pylist()) == {*LOGS, "source_counts.sources"}
    keys = list(zip(*(kept[name].to_pylist() for name in night.warehouse.specs["data_checks"].keys), strict=True))
    assert len(set(keys)) == kept.num_rows > 70
    assert_every_column_has_its_rule(night, kept.to_pylist(), LOGS)
    validate_events.run(night)
    assert night.warehouse.read("data_checks", [DAY]).num_rows == kept.num_rows


def assert_every_column_has_its_rule(night, rows, tables):
    for table in tables:
        own = [row for row in rows if row["table_name"] == table]
        assert own[0]["expectation"] == "row_count"
        assert "columns_as_declared" in {row["expectation"] for row in own}
        not_null = {row["column_name"] for row in own if row["expectation"] == "not_null"}
        assert not_null == {c.name for c in night.warehouse.specs[table].columns if not c.nullable}


def test_a_wrong_event_stops_the_night_and_is_kept(night, publish, publish_good, good_rows, broken):
    publish_good(night, *LOGS)
    publish(night, "events", good_rows(night.shop, "events", {"scenario": "lobby"}))
    told = r"check known_values on events\.scenario 2026-02-05: observed 1 unexpected: lobby, expected"
    with pytest.raises(GateError, match=told):
        validate_events.run(night)
    assert broken(night) == {("fail", "known_values", "scenario")}


def test_an_empty_day_stops_the_night_unless_the_shop_was_closed(night, publish_good):
    publish_good(night, "items", "users")
    with pytest.raises(GateError, match="row_count on events 2026-02-05: observed 0, expected min 1"):
        validate_events.run(night)
    closed = night.shop.model_copy(update={"closed": Closed(dates=frozenset({DAY}))})
    assert validate_events.run(dataclasses.replace(night, shop=closed)).message.endswith("checks held")


@pytest.mark.parametrize(
    ("change", "rule", "observed"),
    [
        ({"rows_read": 11}, "none on source_counts.sources.unaccounted_rows", "source=order_log"),
        ({"quarantined": 5, "kept": 4}, "few_rows_set_aside on source_counts.sources.quarantined_share", "source=order_log"),
        (None, "row_count on source_counts.sources", "observed 2, expected min 3"),
    ],
)  # fmt: skip
def test_lost_rows_a_missing_source_and_much_quarantine_stop_the_night(
    night, publish, publish_good, good_rows, change, rule, observed
):
    publish_good(night, *LOGS)
    counts = good_rows(night.shop, "source_counts", change)
    publish(night, "source_counts", counts if change else counts[1:])
    with pytest.raises(GateError, match=rule) as error:
        validate_events.run(night)
    assert observed in str(error.value)


def test_a_source_without_events_warns(night, publish, publish_good, good_rows, broken):
    publish_good(night, *LOGS)
    publish(night, "source_counts", good_rows(night.shop, "source_counts", {"kept": 0, "duplicates": 9}))
    validate_events.run(night)
    assert broken(night) == {("warn", "source_has_events", "kept")}
