"""Each rule of each table's suite, broken by one row or one night; the others hold."""

import dataclasses
import datetime as dt
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightshelf.closed_days import Closed
from nightshelf.errors import GateError
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.log_tables import log_tables
from pipelines.arrow_schema import arrow_schema
from pipelines.feature_suites import index_sizes
from pipelines.table_suites import spec_rules
from pipelines.usual import FEWEST_NIGHTS, usual
from pipelines.validate import stop_on_failure
from pipelines.validate_events import check_log_table
from pipelines.validate_examples import check_feature_table
from pipelines.warehouse import DAY_FOLDER

DAY = dt.date(2026, 2, 5)
NAN = float("nan")
LAST_ID = OOV_BUCKETS + 9
# What a table's rows refer to.
PARENTS = {
    "events": ["users"], "impressions": ["users", "item_features"], "user_features": ["users"], "user_sequences": ["users"],
    "item_features": ["items"], "item_scenario_features": ["item_features"], "training_examples": ["users"],
    "candidates": ["items", "users"], "user_days": ["users"], "acts": ["users"],
}  # fmt: skip


def check(night, table):
    if table in {spec.name for spec in log_tables(night.shop)}:
        return check_log_table(night, table)
    return check_feature_table(night, table, index_sizes(night))


def faults(rows):
    return {(row["severity"], row["expectation"], row["column_name"]) for row in rows if not row["success"]}


def changed(night, **limits):
    """Return the night of a shop with other limits."""
    shop = night.shop
    return dataclasses.replace(night, shop=shop.model_copy(update={"checks": shop.checks.model_copy(update=limits)}))


# A row that breaks many rules at once → the rules that stop the night for it, each with its columns.
BROKEN = [
    (
        "events",
        {
            "event_id": "e0", "event_type": "wink", "scenario": "lobby", "source": "other_log", "position": 0, "quantity": -1,
            "price": -1.0, "propensity": 1.5, "dwell_seconds": -1.0, "event_date": DAY + dt.timedelta(days=1),
        },
        {
            "unique": ["event_id"], "known_values": ["event_type", "scenario", "source"], "not_from_the_future": ["event_date"],
            "within_range": ["position", "quantity", "price", "propensity", "dwell_seconds"],
        },
    ),
    (
        "events",
        {"event_id": None, "scenario": None, "price": NAN, "dwell_seconds": float("inf")},
        {"not_null": ["event_id", "scenario"], "within_range": ["price", "dwell_seconds"]},
    ),
    ("quarantine", {"source": "other_log", "reason": ""}, {"known_values": ["source"], "not_empty": ["reason"]}),
    ("source_counts", {"source": "home_log", "kept": -1}, {"unique": ["source"], "within_range": ["kept"]}),
    ("source_counts", {"source": "other_log"}, {"known_values": ["source"]}),
    (
        "source_schemas",
        {"column_name": "uid", "share": 1.5, "rows": 0},
        {"unique": ["source, column_name"], "within_range": ["share", "rows"]},
    ),
    ("items", {"item_id": "i1", "price": -1.0}, {"unique": ["item_id"], "within_range": ["price"]}),
    ("items", {"item_id": " "}, {"not_empty": ["item_id"]}),
    ("users", {"user_key": "u1"}, {"unique": ["user_key"]}),
    (
        "impressions",
        {
            "impression_id": "e0", "scenario": "lobby", "position": 0, "propensity": 1.5, "sampling_rate": 1.5,
            "event_date": DAY + dt.timedelta(days=1),
        },
        {
            "unique": ["impression_id"], "known_values": ["scenario"], "not_from_the_future": ["event_date"],
            "within_range": ["position", "propensity", "sampling_rate"],
        },
    ),
    ("impressions", {"sampling_rate": 0.0}, {"above_zero": ["sampling_rate"]}),
    (
        "vocabularies",
        {"index": OOV_BUCKETS + 1, "bucket": 17, "since": DAY + dt.timedelta(days=1)},
        {"unique": ["feature, index"], "within_range": ["bucket"], "not_from_the_future": ["since"]},
    ),
    (
        "vocabularies",
        {"index": 3, "evicted_on": DAY + dt.timedelta(days=1)},
        {"within_range": ["index"], "not_from_the_future": ["since"]},
    ),
    ("vocabularies", {"index": 100}, {"dense": ["index"]}),
    (
        "acts",
        {"event_type": "wink", "scenario": "lobby", "price": -1e31},
        {"known_values": ["scenario", "event_type"], "within_range": ["price"]},
    ),
    ("user_days", {"click_count": -1, "priced": -1}, {"within_range": ["click_count", "priced"]}),
    (
        "user_features",
        {
            "user_key": "u1", "user_index": LAST_ID + 1, "user_click_count_7d": -1.0, "user_click_rate_30d": -0.1,
            "user_recency_days": 366.0, "user_mean_log_price_30d": NAN,
        },
        {
            "unique": ["user_key"],
            "within_range": [
                "user_index", "user_click_count_7d", "user_click_rate_30d", "user_recency_days", "user_mean_log_price_30d",
            ],
        },
    ),
    (
        "item_features",
        {
            "item_index": -1, "price_band": 11, "item_discount": 1.1, "item_age_days": -1.0, "brand_index": None,
            "item_log_price": float("inf"), "item_click_rate_30d": NAN,
        },
        {
            "within_range": [
                "item_index", "price_band", "item_discount", "item_age_days", "item_log_price", "item_click_rate_30d",
            ],
            "not_null": ["brand_index"],
        },
    ),
    (
        "item_scenario_features",
        {"scenario": "lobby", "item_scenario_impression_count_30d": -1.0},
        {"known_values": ["scenario"], "within_range": ["item_scenario_impression_count_30d"]},
    ),
    (
        "user_sequences",
        {
            "item_indexes": [1, LAST_ID + 1], "event_type_indexes": [1, 6], "scenario_indexes": [3, 1], "age_days": [NAN],
            "shown_category_indexes": [1, None], "shown_counts": [1], "own_item_indexes": [1], "own_counts": [-1.0],
        },
        {
            "within_range": ["item_indexes", "event_type_indexes", "scenario_indexes", "age_days", "own_counts"],
            "no_null_entry": ["shown_category_indexes"], "equal_lengths": ["age_days", "shown_counts", "own_age_days"],
        },
    ),
    ("item_graph", {"weight": 1.1, "tail": "i1"}, {"within_range": ["weight"], "no_loop": ["tail"]}),
    ("item_graph", {"weight": 0.0, "relation": "co_wink"}, {"above_zero": ["weight"], "known_values": ["relation"]}),
    (
        "training_examples",
        {
            "impression_id": "e0", "feature_date": DAY, "sample_weight": 0.0, "propensity": 1.5,
            "inverse_propensity": 0.5, "hour": 24, "weekday": 0,
            "label_click": 0.5, "label_spend": -1.0, "mask_cart": 0.5, "mask_purchase": 0.0, "label_purchase": 1.0,
            "item_index": LAST_ID + 1, "user_recency_days": float("inf"), "brand_index": None,
        },
        {
            "unique": ["impression_id"], "not_from_the_future": ["feature_date"],
            "above_zero": ["sample_weight"], "0_where_masked": ["label_purchase"], "not_null": ["brand_index"],
            "within_range": [
                "propensity", "inverse_propensity", "hour", "weekday", "label_click", "label_spend", "mask_cart",
                "item_index", "user_recency_days",
            ],
        },
    ),
    (
        "training_examples",
        {"sample_weight": NAN, "label_click": NAN, "label_spend": float("inf")},
        {"within_range": ["sample_weight", "label_click", "label_spend"]},
    ),
    (
        "normalization",
        {"feature": "luck", "deviation": 0.0, "mean": NAN, "edges": [1.0, 1.0], "fitted_until": DAY},
        {
            "known_values": ["feature"], "above_zero": ["deviation"], "within_range": ["mean"], "rising": ["edges"],
            "not_from_the_future": ["fitted_until"],
        },
    ),
    (
        "candidates",
        {"scenario": "lobby", "generator": " ", "generator_score": NAN},
        {
            "known_values": ["scenario"], "every_scenario": ["scenario"], "not_empty": ["generator"],
            "within_range": ["generator_score"],
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("table", "change", "told"), BROKEN)
def test_a_row_that_breaks_rules_stops_the_night(night, publish, publish_good, good_rows, table, change, told):
    """Each rule by its own name, on its own column, and no other."""
    publish_good(night, "vocabularies", *PARENTS.get(table, []))
    publish(night, table, good_rows(night.shop, table, change))
    rows = check(night, table)
    stops = {fault for fault in faults(rows) if fault[0] == "fail" and "mostly_in_" not in fault[1]}
    assert stops == {("fail", rule, column) for rule, columns in told.items() for column in columns}
    with pytest.raises(GateError, match=f"on {table}"):
        stop_on_failure(rows)


@pytest.mark.parametrize(
    ("table", "change", "rule", "column"),
    [
        ("items", {"stock": -1}, "within_range", "stock"),
        ("user_features", {"user_click_rate_30d": 1.5}, "seldom_above_1", "user_click_rate_30d"),
        ("events", {"event_ts": dt.datetime(2026, 2, 4, 16, tzinfo=dt.UTC)}, "no_hour_missing", "event_ts"),
    ],
)
def test_what_is_odd_warns(night, publish, publish_good, good_rows, table, change, rule, column):
    publish_good(night, "vocabularies", *PARENTS.get(table, []))
    publish(night, table, good_rows(night.shop, table, change))
    assert faults(check(night, table)) == {("warn", rule, column)}


def test_one_split_alone_stops_the_night(night, publish, publish_good, good_rows):
    publish_good(night, "vocabularies", "users")
    publish(
        night,
        "training_examples",
        [row for row in good_rows(night.shop, "training_examples") if row["event_date"] < DAY],
    )
    assert faults(check(night, "training_examples")) == {("fail", "train_and_test", "split")}


def test_ids_of_a_later_night_are_known(night, publish, publish_good, good_rows):
    publish_good(night, "vocabularies", "users")
    publish(night, "user_features", good_rows(night.shop, "user_features", {"user_index": LAST_ID + 1}))
    assert faults(check(night, "user_features")) == {("fail", "within_range", "user_index")}
    rows = good_rows(night.shop, "vocabularies")
    later = {"feature": "user", "value": "u10", "index": LAST_ID + 1}
    publish(night, "vocabularies", [*rows, later], DAY + dt.timedelta(days=1))
    assert faults(check(night, "user_features")) == set()


def test_an_empty_table_stops_the_night_but_where_it_may_be(night, publish_good):
    publish_good(night, "vocabularies")
    assert ("fail", "row_count", "") in faults(check(night, "user_features"))
    may_be = ("item_graph", "quarantine", "user_category_days", "user_category_features", "attribute_features")
    assert [faults(check(night, table)) for table in may_be] == [set()] * len(may_be)


def test_files_with_other_columns_or_types_than_declared_stop_the_night(night):
    schema = arrow_schema(night.warehouse.specs["users"])
    folder = night.warehouse.new_run_dir("users", "odd") / f"{DAY_FOLDER}={DAY}"
    folder.mkdir()
    odd = schema.remove(schema.get_field_index("user_age_band"))
    pq.write_table(pa.Table.from_pylist([{"as_of_date": DAY, "user_key": "u1"}], odd), folder / "part.parquet")
    night.warehouse.publish("users", folder.parent, [DAY], {})
    (row,) = [row for row in check_rules_of_spec(night, "users") if row["expectation"] == "columns_as_declared"]
    assert (row["severity"], row["success"], row["observed"]) == ("fail", False, "1 missing: user_age_band string")


def check_rules_of_spec(night, table):
    from pipelines.rules import check_rules

    return check_rules(night, table, [rule for rule in spec_rules(night, table) if "null" not in rule.name])


def publish_nights(night, publish, rows, nights, table="items", **values):
    for back in range(1, nights + 1):
        day = DAY - dt.timedelta(days=back)
        publish(night, table, [{"item_id": f"i{n}", "price": 1.0, **values} for n in range(rows)], day)


@pytest.mark.parametrize(
    ("before", "tonight", "told"),
    [
        (200, 200, set()),
        (200, 101, set()),
        (200, 99, {"row_count_as_usual"}),
        (200, 401, {"row_count_as_usual"}),
        (200, 19, {"row_count_as_usual", "row_count_roughly_as_usual"}),
        (100, 1001, {"row_count_as_usual", "row_count_roughly_as_usual"}),
    ],
)
def test_rows_are_held_against_those_of_the_last_nights(night, publish, before, tonight, told):
    publish_nights(night, publish, before, FEWEST_NIGHTS)
    publish(night, "items", [{"item_id": f"i{n}", "price": 1.0} for n in range(tonight)])
    rows = check(night, "items")
    severities = {"row_count_as_usual": "warn", "row_count_roughly_as_usual": "fail"}
    assert faults(rows) == {(severities[name], name, "") for name in told}


def test_few_rows_only_warn_and_few_nights_say_nothing(night, publish):
    publish_nights(night, publish, 50, FEWEST_NIGHTS)
    publish(night, "items", [{"item_id": "i0", "price": 1.0}])
    roughly = ("warn", "row_count_roughly_as_usual", "")
    assert faults(check(night, "items")) == {("warn", "row_count_as_usual", ""), roughly}
    publish(night, "items", [], DAY - dt.timedelta(days=1))
    assert faults(check(night, "items")) == set()


def test_closed_days_and_nights_older_than_the_last_seven_do_not_count(night, publish):
    """Of the last eight nights four are closed and small; before them lie three of 300 rows, and others of 900."""
    closed = {DAY - dt.timedelta(days=back) for back in (1, 2, 3, 4)}
    for back, rows in enumerate((1, 1, 1, 1, 200, 300, 300, 300, 300, 400, 400, 900, 900, 900), start=1):
        publish(night, "items", [{"item_id": f"i{n}"} for n in range(rows)], DAY - dt.timedelta(days=back))
    publish(night, "items", [{"item_id": "i1"}])
    shop = night.shop.model_copy(update={"closed": Closed(dates=frozenset(closed))})
    rows = check(dataclasses.replace(night, shop=shop), "items")
    told = [row["expected"] for row in rows if row["expectation"] == "row_count_roughly_as_usual"]
    assert told == ["30 to 3000, 0.1 to 10 times the 300 of the last nights"]
    shop = night.shop.model_copy(update={"closed": Closed(dates=frozenset(closed | {DAY}))})
    assert faults(check(dataclasses.replace(night, shop=shop), "items")) == set()


def test_examples_are_counted_where_they_are_ripe(night, publish, publish_good, good_rows):
    """Tonight's partition is still growing; that of the day before is held against those before it."""
    publish_good(night, "vocabularies", "users")
    row = good_rows(night.shop, "training_examples")[0]
    for back, rows in ((0, 0), (1, 40), (2, 300), (3, 300), (4, 300)):
        day = DAY - dt.timedelta(days=back)
        dates = {"event_date": day, "feature_date": day - dt.timedelta(days=1)}
        publish(
            night, "training_examples", [{**row, **dates, "impression_id": f"{back}-{n}"} for n in range(rows)], day
        )
    (fault,) = {fault for fault in faults(check(night, "training_examples")) if "row_count" in fault[1]}
    assert fault == ("warn", "row_count_as_usual", "")


def test_examples_of_a_scenario_that_is_gone_count_among_the_rows_of_a_day(night, publish, publish_good, good_rows):
    """The day before was still all of it, as were those before."""
    publish_good(night, "vocabularies", "users")
    row = {**good_rows(night.shop, "training_examples")[0], "scenario": "news"}
    for back in (1, 2, 3, 4):
        day = DAY - dt.timedelta(days=back)
        dates = {"event_date": day, "feature_date": day - dt.timedelta(days=1)}
        rows = [{**row, **dates, "impression_id": f"{back}-{n}"} for n in range(300)]
        publish(night, "training_examples", rows, day)
    found = check(night, "training_examples")
    assert not [fault for fault in faults(found) if "as_usual" in fault[1] or fault[1] == "known_values"]
    assert [row["observed"] for row in found if row["expectation"] == "row_count_as_usual"] == ["300"]


def test_what_is_told_by_scenario_is_not_held_against_nights_that_had_one_which_is_gone(night, publish):
    publish_nights(night, publish, 200, FEWEST_NIGHTS, "item_scenario_features", scenario="search")
    assert usual(night, "item_scenario_features").rows == 200
    publish_nights(night, publish, 200, 1, "item_scenario_features", scenario="news")
    assert usual(night, "item_scenario_features") is None


def test_limits_of_the_shop_file_count_and_null_lifts_them(night, publish):
    publish_nights(night, publish, 200, FEWEST_NIGHTS)
    publish(night, "items", [{"item_id": f"i{n}", "price": 1.0} for n in range(150)])
    assert faults(check(night, "items")) == set()
    strict = changed(night, rows_fail=(0.9, 2.0))
    assert faults(check(strict, "items")) == {("fail", "row_count_roughly_as_usual", "")}
    names = {row["expectation"] for row in check(changed(night, rows_warn=None, rows_fail=None), "items")}
    assert not {name for name in names if name.startswith("row_count_")}


@pytest.mark.parametrize(
    ("empty", "told"),
    [(0, set()), (19, set()), (21, {"filled_as_usual"}), (81, {"filled_as_usual", "filled_roughly_as_usual"})],
)
def test_empty_values_are_held_against_those_of_the_last_nights(night, publish, empty, told):
    publish_nights(night, publish, 100, FEWEST_NIGHTS)
    publish(night, "items", [{"item_id": f"i{n}", "price": None if n < empty else 1.0} for n in range(100)])
    severities = {"filled_as_usual": "warn", "filled_roughly_as_usual": "fail"}
    assert faults(check(night, "items")) == {(severities[name], name, "price") for name in told}


def many(rows, column, unknown):
    """Return 1,000 copies of the first row, of which so many name what nobody knows, under keys of their own."""
    keys = ("event_id", "impression_id", "value", "generator")
    return [
        {**rows[0], **{key: uuid.uuid4().hex for key in keys}, column: "nobody" if n < unknown else rows[0][column]}
        for n in range(1000)
    ]


@pytest.mark.parametrize(
    ("table", "column", "parent"),
    [
        ("events", "user_key", "users"),
        ("impressions", "user_key", "users"),
        ("impressions", "item_id", "item_features"),
        ("item_scenario_features", "item_id", "item_features"),
        ("user_features", "user_key", "users"),
        ("user_sequences", "user_key", "users"),
        ("candidates", "item_id", "items"),
    ],
)
def test_users_and_items_that_the_other_table_lacks_warn_and_stop(
    night, publish, publish_good, good_rows, table, column, parent
):
    publish_good(night, "vocabularies", *PARENTS[table])
    for unknown, told in (
        (1, set()),
        (2, {("warn", f"in_{parent}", column)}),
        (51, {("warn", f"in_{parent}", column), ("fail", f"mostly_in_{parent}", column)}),
    ):
        publish(night, table, many(good_rows(night.shop, table), column, unknown))
        found = {fault for fault in faults(check(night, table)) if f"in_{parent}" in fault[1]}
        assert found == told


def test_every_item_of_the_catalogue_has_features(night, publish, publish_good, good_rows):
    publish_good(night, "vocabularies", "item_features")
    publish(night, "items", [*good_rows(night.shop, "items"), {"item_id": "i3"}])
    told = {("warn", "in_item_features", "item_id"), ("fail", "mostly_in_item_features", "item_id")}
    assert faults(check(night, "item_features")) == told


def test_edges_lead_to_known_items_and_own_triples_mostly(night, publish, publish_good, good_rows):
    publish_good(night, "vocabularies")
    rows = good_rows(night.shop, "item_graph")
    publish(night, "item_graph", [rows[0], {**rows[1], "tail": "nowhere"}])
    told = {("warn", "in_vocabularies", "tail"), ("fail", "mostly_in_vocabularies", "tail")}
    assert faults(check(night, "item_graph")) == told
    publish(night, "item_graph", [{**rows[0], "head": "nowhere"}, rows[1]])
    assert faults(check(night, "item_graph")) == {("warn", "own_triples", "head")}


def test_examples_of_users_and_items_seen_before_have_features(night, publish, publish_good, good_rows):
    """Who was shown nothing before may lack them; whoever was may not."""
    before = DAY - dt.timedelta(days=1)
    publish_good(night, "vocabularies", "users", "training_examples")
    assert faults(check(night, "training_examples")) == set()
    publish(night, "impressions", good_rows(night.shop, "impressions"), before)
    publish(night, "user_features", [{"user_key": "u1"}], before)
    told = {("warn", "in_item_features", "item_id"), ("fail", "mostly_in_item_features", "item_id")}
    assert faults(check(night, "training_examples")) == told
    publish(night, "item_features", [{"item_id": "i1"}], before)
    assert faults(check(night, "training_examples")) == set()
    publish(night, "user_features", [{"user_key": "u2"}], before)
    assert ("fail", "mostly_in_user_features", "user_key") in faults(check(night, "training_examples"))
