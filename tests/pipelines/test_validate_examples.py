"""Stage validate_examples over tables written by hand: classes, label rates, drift and leaks of what will be learned."""

import dataclasses
import datetime as dt

import numpy as np
import pytest

from nightshelf.closed_days import Closed
from nightshelf.daily_tables import daily_tables
from nightshelf.errors import GateError, InputError
from nightshelf.feature_tables import feature_tables
from nightshelf.features import dense_features, index_features
from pipelines import validate_examples
from pipelines.validate import stop_on_failure

DAY = dt.date(2026, 2, 5)


def judge(night):
    """Return the stage's message on labels, drift and leaks alone."""
    rows = [*validate_examples.check_labels(night), *validate_examples.check_drift_and_leaks(night)]
    return stop_on_failure(rows)


def test_good_tables_pass_and_a_broken_one_stops_the_night(night, publish, publish_good, good_rows, broken):
    publish_good(night)
    message = validate_examples.run(night).message
    rows = night.warehouse.read("data_checks", [DAY]).to_pylist()
    assert message == f"{len(rows)} checks held"
    tables = {"impressions", *(s.name for s in [*daily_tables(night.shop), *feature_tables(night.shop)]), "candidates"}
    parts = {f"training_examples.{part}" for part in ("classes", "rates", "leaks")}
    assert {row["table_name"] for row in rows} == tables | parts | {"feature_drift", "candidate_quotas"}
    for table in tables:
        own = [row for row in rows if row["table_name"] == table]
        assert own[0]["expectation"] == "row_count"
        assert "columns_as_declared" in {row["expectation"] for row in own}
        not_null = {row["column_name"] for row in own if row["expectation"] == "not_null"}
        assert not_null == {c.name for c in night.warehouse.specs[table].columns if not c.nullable}

    drift = night.warehouse.snapshot_id("feature_drift")
    broken_rows = good_rows(night.shop, "training_examples", {"item_discount": float("nan")})
    publish(night, "training_examples", broken_rows)
    with pytest.raises(GateError, match=r"within_range on training_examples\.item_discount"):
        validate_examples.run(night)
    assert broken(night) == {("fail", "within_range", "item_discount")}
    assert night.warehouse.snapshot_id("feature_drift") == drift  # broken values have no distribution


def test_a_first_night_with_one_day_of_logs_is_told_what_it_lacks(night):
    with pytest.raises(InputError, match=r"no training examples of 2026-02-05: .* needs two days of logs"):
        validate_examples.run(night)


def test_one_class_stops_the_first_task_and_warns_for_the_next(night, publish, good_rows):
    rows = good_rows(night.shop, "training_examples")
    publish(night, "training_examples", [{**row, "label_cart": 0.0} for row in rows])
    assert "positives_cart some_anywhere" in judge(night)
    publish(night, "training_examples", [{**row, "label_click": 0.0} for row in rows])
    with pytest.raises(GateError, match=r"some_anywhere on training_examples\.classes\.positives_click"):
        judge(night)


def test_an_unusual_label_rate_warns(night, publish, good_rows):
    row, rows = good_rows(night.shop, "training_examples")[0], []
    for back, share in ((0, 0.9), (1, 0.2), (2, 0.2)):
        label = [float(n < 50 * share) for n in range(50)]
        day = {"event_date": DAY - dt.timedelta(days=back), "scenario": "search"}
        rows += [{**row, **day, "label_click": label[n], "impression_id": f"{back}-{n}"} for n in range(50)]
    publish(night, "training_examples", rows)
    broken = [row for row in validate_examples.check_labels(night) if row["column_name"] == "unusual"]
    told = "unusual=1 scenario=search task=click rate=0.9 usual_rate=0.2"
    assert [(row["severity"], row["success"], row["observed"]) for row in broken] == [("warn", False, told)]


@pytest.fixture
def varied(good_rows):
    """Return varied(shop, seed, moved=0): 1,000 examples whose features are noise, those of the test `moved` so far."""

    def make(shop, seed, moved=0.0, night=DAY):
        chance, rows = np.random.default_rng(seed), []
        row = good_rows(shop, "training_examples")[-1]
        for n in range(1000):
            late = n % 4 == 0
            features = {f.name: float(chance.normal() + moved * late) for f in dense_features(shop)}
            features |= {f.name: int(chance.integers(0, 9)) for f in index_features(shop)}
            labels = {f"label_{task}": float(chance.random() < 0.4) for task in shop.tasks}
            day = night - dt.timedelta(days=0 if late else 4)
            place = {"event_date": day, "feature_date": day - dt.timedelta(days=1)}
            place["scenario"] = ("home_feed", "search")[n // 4 % 2]
            rows.append({**row, **features, **labels, **place, "impression_id": f"e{n}"})
        return rows

    return make


def test_noise_neither_drifts_nor_leaks(night, publish, varied):
    publish(night, "training_examples", varied(night.shop, 1))
    assert judge(night).endswith("checks held")
    drift = night.warehouse.read("feature_drift", [DAY]).to_pylist()
    features = {f.name for f in [*index_features(night.shop), *dense_features(night.shop)]}
    assert {row["name"] for row in drift if row["kind"] == "feature"} == features
    labels = {(row["name"], row["scenario"]) for row in drift if row["kind"] == "label"}
    assert labels == {(task, scenario) for task in night.shop.tasks for scenario in night.shop.scenarios}
    assert {(row["reference_rows"], row["rows"]) for row in drift if row["kind"] == "feature"} == {(750, 250)}


def test_a_feature_that_knows_the_label_stops_the_night(night, publish, varied):
    rows = varied(night.shop, 1)
    for row in rows:
        row["user_recency_days"] = 3 - row["label_click"]
    publish(night, "training_examples", rows)
    with pytest.raises(
        GateError,
        match=r"none on training_examples\.leaks\.knows_the_label .+feature=user_recency_days task=click auc=1\.0",
    ):
        judge(night)


def test_an_id_that_knows_the_label_stops_the_night(night, publish, varied):
    rows = varied(night.shop, 1)
    for row in rows:
        row["brand_index"] = 2 * (row["brand_index"] // 2) + int(row["label_click"])  # odd ids were clicked
    publish(night, "training_examples", rows)
    with pytest.raises(GateError, match=r"leaks\.knows_the_label .+feature=brand_index task=click"):
        judge(night)


def test_a_feature_that_has_died_stops_the_night(night, publish, varied):
    rows = varied(night.shop, 1)
    publish(
        night,
        "training_examples",
        [{**row, "item_age_days": row["item_age_days"] * (row["event_date"] < DAY)} for row in rows],
    )
    with pytest.raises(GateError, match=r"none on feature_drift\.died .+died=1 name=item_age_days"):
        judge(night)


def test_that_nothing_is_new_in_the_shop_is_no_death(night, publish, varied):
    publish(
        night,
        "training_examples",
        [
            row | {"item_age_days": 365.0 if row["event_date"] >= DAY or n % 2 else 3.0}
            for n, row in enumerate(varied(night.shop, 1))
        ],
    )
    judge(night)


def test_that_nobody_is_new_is_no_death(night, publish, varied):
    rows = varied(night.shop, 1)
    for n, row in enumerate(rows):  # the rate of those who were seen is one and the same
        row["user_purchase_rate_30d"] = 0.0 if row["event_date"] < DAY and n % 2 else 0.25
    publish(night, "training_examples", rows)
    judge(night)
    drift = {row["name"]: row["died"] for row in night.warehouse.read("feature_drift", [DAY]).to_pylist()}
    assert not drift["user_purchase_rate_30d"]


def test_after_a_closed_day_empty_windows_are_no_drift(night, publish, varied):
    closed = night.shop.model_copy(update={"closed": Closed(dates=frozenset({DAY - dt.timedelta(days=1)}))})
    rows = varied(night.shop, 1)
    for row in rows:
        if row["event_date"] == DAY:
            row["user_click_count_1d"] = 0.0
    publish(night, "training_examples", rows)
    with pytest.raises(GateError, match=r"died=1 name=user_click_count_1d"):
        judge(night)
    assert judge(dataclasses.replace(night, shop=closed)).endswith("checks held")


def test_drift_warns_and_by_the_shops_limit_stops_the_night(night, publish, varied):
    publish(night, "training_examples", varied(night.shop, 1, moved=1.0))
    assert "feature_drift.drifts none" in judge(night)
    strict = night.shop.model_copy(update={"checks": night.shop.checks.model_copy(update={"psi_fail": 0.5})})
    with pytest.raises(GateError, match=r"none on feature_drift\.drifts_far"):
        judge(dataclasses.replace(night, shop=strict))


def test_the_reference_is_what_the_promoted_model_learned(night, publish, varied):
    """Tonight's splits agree with each other, and both have moved away from the night whose model serves."""
    before = DAY - dt.timedelta(days=6)
    night = dataclasses.replace(night, shop=night.shop.model_copy(update={"history_days": 6}))
    for day in (before, DAY):
        publish(night, "events", [{"event_id": "old"}], day - dt.timedelta(days=5))
    moved = [{**row, "item_age_days": row["item_age_days"] + 9} for row in varied(night.shop, 2)]
    publish(night, "training_examples", varied(night.shop, 1, night=before), before)
    publish(night, "training_examples", moved)
    decision = {"challenger": "1", "champion": "", "promoted": True, "reason": "", "evidence": "{}"}
    publish(night, "promotions", [decision], before)
    judge(night)
    drift = {
        row["name"]: row for row in night.warehouse.read("feature_drift", [DAY]).to_pylist() if row["kind"] == "feature"
    }
    assert {row["reference_date"] for row in drift.values()} == {before}
    assert [name for name, row in drift.items() if row["psi"] - row["psi_noise"] > 0.25] == ["item_age_days"]
    publish(night, "promotions", [{**decision, "promoted": False}], before)
    judge(night)
    drift = night.warehouse.read("feature_drift", [DAY]).to_pylist()
    assert {row["reference_date"] for row in drift} == {DAY}
