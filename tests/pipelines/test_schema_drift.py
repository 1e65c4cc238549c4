"""When two days of one log differ, by name; and which differences stop a night."""

import datetime as dt
import logging
from dataclasses import replace

import pytest

from nightshelf.errors import InputError
from nightshelf.raw_logs import Source
from pipelines.schema_drift import (
    Column,
    Schema,
    as_rows,
    check_drift,
    check_inputs,
    differences,
    from_rows,
    raw_inputs,
    raw_log,
)

D0, D1, D2, D3 = dt.date(2026, 1, 31), dt.date(2026, 2, 1), dt.date(2026, 2, 2), dt.date(2026, 2, 3)
SOURCE = Source(
    name="log", path="raw/{event_date}.csv", format="csv", scenario="home_feed",
    event_type={"column": "act", "map": {"show": "impression"}},
    columns={"user_id": "uid", "item_id": "sku", "event_ts": "at", "price": "amount"},
)  # fmt: skip
GOOD = {"uid": "text", "sku": "integer", "at": "integer", "act": "text", "amount": "integer", "note": "text"}


def schema(day, kinds, rows=100, share=1.0):
    return Schema("log", day, rows, {name: Column(kind, share) for name, kind in kinds.items()})


def changed(**kinds):
    """Return GOOD with changes; None removes a column."""
    return {name: kind for name, kind in {**GOOD, **kinds}.items() if kind}


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({}, []),
        ({"more": "text"}, ["more added (absent → text)"]),
        ({"note": None}, ["note dropped (text → absent)"]),
        ({"at": None, "time": "integer"}, ["at renamed (at: integer → time: integer)"]),
        ({"uid": None, "sku": None, "id": "text"}, ["uid renamed (uid: text → id: text)", "sku dropped (integer → absent)"]),
        ({"at": None, "more": "list"}, ["at dropped (integer → absent)", "more added (absent → list)"]),
        ({"at": "text"}, ["at retyped (integer → text)"]),
        ({"at": "mixed"}, []),
        ({"at": "empty"}, []),
    ],
)  # fmt: skip
def test_differences_by_name(now, told):
    assert sorted(map(str, differences(schema(D1, GOOD), schema(D2, changed(**now))))) == sorted(told)


@pytest.mark.parametrize(
    ("share", "rows", "is_gone"), [(1.0, 3, True), (0.5, 10, False), (0.5, 100, True), (0.01, 100, False)]
)
def test_a_column_is_gone_only_if_chance_cannot_explain_it(share, rows, is_gone):
    before, now = schema(D1, {"a": "text", "q": "text"}, share=share), schema(D2, {"a": "text"}, rows)
    assert bool(differences(before, now)) == is_gone


@pytest.mark.parametrize("now", [{"sku": None}, {"act": None, "deed": "text"}, {"at": "text"}, {"sku": "number"}])
def test_what_is_read_and_gone_or_of_another_kind_stops_the_night(now):
    (column,) = (name for name in now if name in GOOD)
    with pytest.raises(
        InputError, match=rf"log of log changed .*{column} (dropped|renamed|retyped) .*schema_since: 2026-02-02"
    ):
        check_drift(raw_log(SOURCE), schema(D1, GOOD), schema(D2, changed(**now)))


@pytest.mark.parametrize("now", [{"more": "text"}, {"note": None}, {"note": "list"}, {"amount": "number"}])
def test_what_is_new_or_unread_or_as_good_is_a_warning(now, caplog):
    with caplog.at_level(logging.WARNING):
        check_drift(raw_log(SOURCE), schema(D1, GOOD), schema(D2, changed(**now)))
    assert next(iter(now)) in caplog.text


def test_a_schema_survives_its_table():
    first, last = schema(D1, GOOD), schema(D2, changed(note=None), 50, 0.5)
    other = replace(first, source="other")
    assert from_rows([*as_rows(last), *as_rows(first), *as_rows(other)]) == {"log": last, "other": other}


@pytest.mark.parametrize(("since", "stops"), [(None, True), (D1, True), (D2, False), (dt.date(2026, 2, 3), True)])
def test_a_kind_that_is_meant_is_told_once(since, stops):
    """Each day is compared with the one before it, but for the first day of a kind that the shop file announces."""
    logs = {
        D0: schema(D0, GOOD),
        D1: schema(D1, GOOD),
        D2: schema(D2, changed(at="text")),
        D3: schema(D3, changed(at="text")),
    }
    source, read = SOURCE.model_copy(update={"schema_since": since}), []

    def look(source, day, files):
        read.extend(files)
        return logs[day]

    def check():
        return check_inputs(
            {"log": {day: [str(day)] for day in (D1, D2, D3)}}, [raw_log(source)], {"log": logs[D0]}, look
        )

    if stops:
        with pytest.raises(InputError, match="between 2026-02-01 and 2026-02-02: at retyped"):
            check()
    else:
        assert check() == [logs[D1], logs[D2], logs[D3]]
        assert read == [str(D1), str(D2), str(D3)]


def test_a_day_without_rows_is_passed_over():
    logs = {D1: schema(D1, GOOD), D2: None, D3: schema(D3, changed(at=None))}
    with pytest.raises(InputError, match="between 2026-02-01 and 2026-02-03: at dropped"):
        check_inputs({"log": {day: [] for day in logs}}, [raw_log(SOURCE)], {}, lambda source, day, files: logs[day])


def test_items_users_and_graph_are_read_by_the_names_of_the_shop_file(tiny_shop):
    graph = {"path": "raw/graph.csv", "format": "csv", "columns": {"head": "a", "relation": "how", "tail": "b"}}
    found = {raw.name: raw for raw in raw_inputs(tiny_shop(days=0, graph=graph))}
    assert list(found) == ["home_log", "search_log", "order_log", "items", "users", "graph"]
    assert found["items"].read == {"sku", "title", "category", "brand", "price", "stock", "colour"}
    assert found["items"].numbers == {"price", "stock"}
    assert found["users"].read == {"user_id", "age_band"}
    assert found["graph"].read == {"a", "how", "b"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"price": "number"}, None),
        ({"extra": "text"}, None),
        ({"sku": "number"}, r"sku retyped \(integer → number\)"),
        ({"colour": None}, r"colour dropped"),
        ({"brand": None, "maker": "text"}, r"brand renamed"),
    ],
)
def test_a_changed_catalogue_stops_the_night_unless_the_change_is_meant(tiny_shop, change, told):
    shop = tiny_shop(days=0)
    kinds = {"sku": "integer", "price": "integer", "colour": "list", "brand": "text", "note": "boolean"}
    logs = {D1: {**kinds}, D2: {name: kind for name, kind in {**kinds, **change}.items() if kind}}

    def check(items):
        shop_now = shop.model_copy(update={"items": items})
        inputs = [raw for raw in raw_inputs(shop_now) if raw.name == "items"]
        by_day = {"items": {day: [] for day in logs}}
        return check_inputs(by_day, inputs, {}, lambda raw, day, files: replace(schema(day, logs[day]), source="items"))

    if told:
        with pytest.raises(
            InputError, match=rf"the file of items changed .*{told}.* or items in .* schema_since: 2026-02-02"
        ):
            check(shop.items)
    else:
        assert len(check(shop.items)) == 2
    assert len(check(shop.items.model_copy(update={"schema_since": D2}))) == 2
