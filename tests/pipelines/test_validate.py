import dataclasses
import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightshelf.config import Closed, Shop
from nightshelf.errors import GateError
from nightshelf.features import dense_features, index_features
from pipelines import validate, validate_events, validate_examples
from pipelines.audit import audit_shelves
from pipelines.stage import Night
from pipelines.validate import check_table, expect, none_above_zero, within
from pipelines.warehouse import Warehouse

DAY = dt.date(2026, 2, 5)
HOURS = 24


@pytest.fixture
def night(tiny_shop: Callable[..., Shop]) -> Night:
    shop = tiny_shop(days=0)
    return Night(shop, DAY, Warehouse(shop), "2026-02-05-check-1")


def publish(night: Night, table: str, rows: list[dict[str, Any]], day: dt.date = DAY) -> None:
    spec = night.warehouse.specs[table]
    full = [
        {"as_of_date": day, **{name: row.get(name) for name in spec.column_names if name != "as_of_date"}}
        for row in rows
    ]
    night.warehouse.publish_arrow(table, pa.Table.from_pylist(full), [day], uuid.uuid4().hex)


def events(change: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return one event an hour of the shop's day (Shanghai), each source once in three; `change` is laid over the last."""
    start = dt.datetime(2026, 2, 4, 16, tzinfo=dt.UTC)
    kinds = [
        ("home_log", "home_feed", "impression"),
        ("search_log", "search", "click"),
        ("order_log", "home_feed", "cart"),
    ]
    rows = []
    for hour in range(HOURS):
        source, scenario, kind = kinds[hour % 3]
        base = {
            "event_id": f"e{hour}",
            "event_date": DAY,
            "event_ts": start + dt.timedelta(hours=hour),
            "user_key": "u",
            "item_id": "i1",
        }
        rows.append({**base, "source": source, "scenario": scenario, "event_type": kind, "position": 1, "price": 2.5})
    rows[-1].update(change or {})
    return rows


def source_counts(**change: Any) -> list[dict[str, Any]]:
    base = {"rows_read": 10, "kept": 8, "quarantined": 1, "duplicates": 1, "other_days": 0}
    rows = [{"source": name, **base} for name in ("home_log", "order_log", "search_log")]
    rows[-1].update(change)
    return rows


def run_events(night: Night, rows: list[dict[str, Any]], counts: list[dict[str, Any]]) -> str:
    publish(night, "events", rows)
    publish(night, "source_counts", counts)
    return validate_events.run(night).message


def broken(night: Night) -> set[tuple[str, str, str]]:
    rows = night.warehouse.read("data_checks", [DAY]).to_pylist()
    return {(row["severity"], row["expectation"], row["column_name"]) for row in rows if not row["success"]}


def test_good_events_pass_and_every_result_is_kept(night: Night) -> None:
    message = run_events(night, events(), source_counts())
    kept = night.warehouse.read("data_checks", [DAY])
    assert message == f"{kept.num_rows} checks held"
    assert set(kept["table_name"].to_pylist()) == {"events", "source_counts"}
    keys = list(zip(*(kept[name].to_pylist() for name in night.warehouse.specs["data_checks"].keys), strict=True))
    assert len(set(keys)) == kept.num_rows > 20
    validate_events.run(night)
    assert night.warehouse.read("data_checks", [DAY]).num_rows == kept.num_rows


@pytest.mark.parametrize(
    ("change", "rule", "column"),
    [
        ({"scenario": "lobby"}, "known_values", "scenario"),
        ({"event_type": "wink"}, "known_values", "event_type"),
        ({"source": "other_log"}, "known_values", "source"),
        ({"user_key": None}, "not_null", "user_key"),
        ({"event_id": "e0"}, "unique", "event_id"),
        ({"position": 0}, "within_range_min", "position"),
        ({"price": -1.0}, "within_range_min", "price"),
        ({"price": float("nan")}, "within_range_max", "price"),
        ({"price": float("inf")}, "within_range_max", "price"),
        ({"propensity": 1.5}, "within_range_max", "propensity"),
        ({"event_date": DAY + dt.timedelta(days=1)}, "no_event_max", "from_the_future"),
    ],
)
def test_a_wrong_event_stops_the_night(night: Night, change: dict[str, Any], rule: str, column: str) -> None:
    with pytest.raises(GateError, match=rf"check {rule} on events\.{column} 2026-02-05: observed .+, expected"):
        run_events(night, events(change), source_counts())
    assert ("fail", rule, column) in broken(night)


def test_an_empty_day_stops_the_night_unless_the_shop_was_closed(night: Night, tiny_shop: Callable[..., Shop]) -> None:
    with pytest.raises(GateError, match="row_count_at_least_a_tenth on events 2026-02-05: observed 0, expected min 1"):
        validate_events.run(night)
    closed = tiny_shop(days=0, closed={"dates": [str(DAY)]})
    assert validate_events.run(Night(closed, DAY, night.warehouse, "r")).message.endswith("checks held")


def test_far_fewer_events_than_usual_stop_the_night_and_half_as_many_warn(night: Night) -> None:
    for back in (1, 2, 3):
        publish(night, "source_counts", source_counts(rows_read=50, kept=48), DAY - dt.timedelta(days=back))
    assert validate_events.trailing_rows(night) == 64
    assert "row_count_as_usual" in run_events(night, events(), source_counts())
    for back in (1, 2, 3):
        publish(night, "source_counts", source_counts(rows_read=1000, kept=998), DAY - dt.timedelta(days=back))
    with pytest.raises(GateError, match="row_count_at_least_a_tenth on events"):
        validate_events.run(night)


def test_a_missing_hour_warns_and_is_named(night: Night) -> None:
    assert "1 warnings: events.hour no_hour_missing" in run_events(night, events()[:-1], source_counts())
    rows = night.warehouse.read("data_checks", [DAY]).to_pylist()
    assert [r["observed"] for r in rows if r["expectation"] == "no_hour_missing"] == ["1 missing: 2026-02-05 15"]


@pytest.mark.parametrize(
    ("counts", "rule", "observed"),
    [
        (source_counts(rows_read=11), "none on source_counts.unaccounted_rows", "source=search_log"),
        (
            source_counts(quarantined=5, kept=4),
            "few_rows_set_aside on source_counts.quarantined_share",
            "source=search_log",
        ),
        (source_counts()[1:], "row_count on source_counts", "observed 2, expected min 3"),
    ],
)
def test_lost_rows_a_missing_source_and_much_quarantine_stop_the_night(
    night: Night, counts: list[dict[str, Any]], rule: str, observed: str
) -> None:
    with pytest.raises(GateError, match=rule) as error:
        run_events(night, events(), counts)
    assert observed in str(error.value)


def example_rows(shop: Shop, **change: Any) -> list[dict[str, Any]]:
    """Return 12 examples in two scenarios and two splits with both classes each; `change` is laid over the last."""
    features = {f.name: 1 for f in index_features(shop)} | {f.name: 0.5 for f in dense_features(shop)}
    rows = []
    for n in range(12):
        labels = {f"label_{task}": float(n // 4 % 2) for task in shop.tasks} | {
            f"mask_{task}": 1.0 for task in shop.tasks
        }
        when = {"event_date": DAY, "feature_date": DAY - dt.timedelta(days=1)}
        place = {"split": ("train", "validation")[n % 2], "scenario": ("home_feed", "search")[n // 2 % 2]}
        rows.append({"impression_id": f"e{n}", "sample_weight": 1.0, **when, **place, **features, **labels})
    rows[-1].update(change)
    return rows


def test_good_examples_pass(night: Night) -> None:
    publish(night, "training_examples", example_rows(night.shop))
    assert validate_examples.run(night).message.endswith("checks held")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"impression_id": "e0"}, "none on training_examples.keys.repeated_ids"),
        ({"feature_date": DAY}, "none_max on training_examples.knows_the_future"),
        ({"label_click": 2.0}, "within_range_max on training_examples.label_click"),
        ({"label_click": float("nan")}, "within_range_max on training_examples.label_click"),
        ({"label_click": 0.5}, "labels_are_0_or_1 on training_examples.classes.fractions_click"),
        ({"mask_cart": 0.0, "label_cart": 1.0}, "none_max on training_examples.masked_outcome_cart"),
        ({"user_recency_days": float("inf")}, "observed unusable_values=1 feature=user_recency_days"),
        ({"user_recency_days": float("nan")}, "observed unusable_values=1 feature=user_recency_days"),
        ({"item_index": -1}, "observed negative_ids=1 feature=item_index"),
    ],
)
def test_an_example_that_cannot_be_learnt_from_stops_the_night(night: Night, change: dict[str, Any], told: str) -> None:
    publish(night, "training_examples", example_rows(night.shop, **change))
    with pytest.raises(GateError, match=told):
        validate_examples.run(night)


def test_one_class_stops_the_first_task_and_warns_for_the_next(night: Night) -> None:
    rows = example_rows(night.shop)
    publish(night, "training_examples", [{**row, "label_cart": 0.0} for row in rows])
    assert "positives_cart some_anywhere" in validate_examples.run(night).message
    publish(night, "training_examples", [{**row, "label_click": 0.0} for row in rows])
    with pytest.raises(GateError, match=r"some_anywhere on training_examples\.classes\.positives_click"):
        validate_examples.run(night)


def test_one_split_alone_stops_the_night(night: Night) -> None:
    publish(night, "training_examples", [{**row, "split": "train"} for row in example_rows(night.shop)])
    with pytest.raises(GateError, match=r"both_splits on training_examples\.split .+ 1 missing: validation"):
        validate_examples.run(night)


def varied_examples(shop: Shop, seed: int, moved: float = 0.0) -> list[dict[str, Any]]:
    """Return 1,000 examples whose features are noise, those of the validation split `moved` by so much."""
    chance, rows = np.random.default_rng(seed), []
    for n in range(1000):
        late = n % 4 == 0
        features = {f.name: float(chance.normal() + moved * late) for f in dense_features(shop)}
        ids = {f.name: int(chance.integers(0, 9)) for f in index_features(shop)}
        (row,) = example_rows(shop, impression_id=f"e{n}", split="validation" if late else "train", **features, **ids)[
            -1:
        ]
        labels = {f"label_{task}": float(chance.random() < 0.4) for task in shop.tasks}
        rows.append({**row, **labels, "scenario": ("home_feed", "search")[n // 4 % 2]})
    return rows


def test_noise_neither_drifts_nor_leaks(night: Night) -> None:
    publish(night, "training_examples", varied_examples(night.shop, 1))
    assert validate_examples.run(night).message.endswith("checks held")
    drift = night.warehouse.read("feature_drift", [DAY]).to_pylist()
    features = {f.name for f in [*index_features(night.shop), *dense_features(night.shop)]}
    assert {row["name"] for row in drift if row["kind"] == "feature"} == features
    labels = {(row["name"], row["scenario"]) for row in drift if row["kind"] == "label"}
    assert labels == {(task, scenario) for task in night.shop.tasks for scenario in night.shop.scenarios}
    assert {(row["reference_rows"], row["rows"]) for row in drift if row["kind"] == "feature"} == {(750, 250)}


def test_a_feature_that_knows_the_label_stops_the_night(night: Night) -> None:
    rows = varied_examples(night.shop, 1)
    for row in rows:
        row["user_recency_days"] = 3 - row["label_click"]
    publish(night, "training_examples", rows)
    with pytest.raises(
        GateError,
        match=r"none on training_examples\.leaks\.knows_the_label .+feature=user_recency_days task=click auc=1\.0",
    ):
        validate_examples.run(night)


def test_an_id_that_knows_the_label_stops_the_night(night: Night) -> None:
    rows = varied_examples(night.shop, 1)
    for row in rows:
        row["brand_index"] = 2 * (row["brand_index"] // 2) + int(row["label_click"])  # odd ids were clicked
    publish(night, "training_examples", rows)
    with pytest.raises(GateError, match=r"leaks\.knows_the_label .+feature=brand_index task=click"):
        validate_examples.run(night)


def test_a_feature_that_has_died_stops_the_night(night: Night) -> None:
    rows = varied_examples(night.shop, 1)
    publish(
        night,
        "training_examples",
        [{**row, "item_age_days": row["item_age_days"] * (row["split"] == "train")} for row in rows],
    )
    with pytest.raises(GateError, match=r"none on feature_drift\.died .+died=1 name=item_age_days"):
        validate_examples.run(night)


def test_after_a_closed_day_empty_windows_are_no_drift(night: Night) -> None:
    closed = night.shop.model_copy(update={"closed": Closed(dates=frozenset({DAY - dt.timedelta(days=1)}))})
    rows = varied_examples(night.shop, 1)
    for row in rows:
        if row["split"] == "validation":
            row["user_click_count_1d"] = 0.0
        else:
            row |= {"event_date": DAY - dt.timedelta(days=2), "feature_date": DAY - dt.timedelta(days=3)}
    publish(night, "training_examples", rows)
    with pytest.raises(GateError, match=r"died=1 name=user_click_count_1d"):
        validate_examples.run(night)
    assert validate_examples.run(dataclasses.replace(night, shop=closed)).message.endswith("checks held")


def test_drift_warns_and_by_the_shops_limit_stops_the_night(night: Night) -> None:
    publish(night, "training_examples", varied_examples(night.shop, 1, moved=1.0))
    assert "feature_drift.drifts none" in validate_examples.run(night).message
    strict = night.shop.model_copy(update={"checks": night.shop.checks.model_copy(update={"psi_fail": 0.5})})
    with pytest.raises(GateError, match=r"none on feature_drift\.drifts_far"):
        validate_examples.run(dataclasses.replace(night, shop=strict))


def test_the_reference_is_what_the_promoted_model_learned(night: Night) -> None:
    """Tonight's splits agree with each other, and both have moved away from the night whose model serves."""
    before = DAY - dt.timedelta(days=2)
    moved = [{**row, "item_age_days": row["item_age_days"] + 9} for row in varied_examples(night.shop, 2)]
    publish(night, "training_examples", varied_examples(night.shop, 1), before)
    publish(night, "training_examples", moved)
    decision = {"challenger": "1", "champion": "", "promoted": True, "reason": "", "evidence": "{}"}
    publish(night, "promotions", [decision], before)
    validate_examples.run(night)
    drift = {
        row["name"]: row for row in night.warehouse.read("feature_drift", [DAY]).to_pylist() if row["kind"] == "feature"
    }
    assert {row["reference_date"] for row in drift.values()} == {before}
    assert [name for name, row in drift.items() if row["psi"] - row["psi_noise"] > 0.25] == ["item_age_days"]
    publish(night, "promotions", [{**decision, "promoted": False}], before)
    validate_examples.run(night)
    drift = night.warehouse.read("feature_drift", [DAY]).to_pylist()
    assert {row["reference_date"] for row in drift} == {DAY}


def drafts(**change: Any) -> list[dict[str, Any]]:
    """Return full shelves of three for two users in two scenarios; `change` is laid over the last row."""
    rows = [
        {
            "scenario": scenario,
            "user_key": user,
            "rank": rank,
            "item_id": f"i{rank}",
            "score": 1 / rank,
            "p_click": 0.1,
            "source": "popular",
            "reason": "Bought often.",
        }
        for scenario in ("home_feed", "search")
        for user in ("a", "b")
        for rank in (1, 2, 3)
    ]
    rows[-1].update(change)
    return rows


def audit(night: Night, rows: list[dict[str, Any]]) -> str:
    publish(night, "items", [{"item_id": f"i{n}"} for n in (1, 2, 3, 4)])
    publish(night, "users", [{"user_key": "a"}, {"user_key": "b"}])
    publish(night, "shelf_drafts", rows)
    return audit_shelves(night, night.warehouse.files("shelf_drafts", [DAY]))


def test_good_shelves_pass_the_audit(night: Night) -> None:
    assert audit(night, drafts()).endswith("checks held")


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (drafts(rank=4), "ranks_with_gaps"),
        (drafts(rank=2), "ranks_with_gaps"),
        (drafts(item_id="i1"), "repeated_items"),
        (drafts(score=0.9), "rising_scores"),
        (drafts(score=float("nan")), "odd_scores"),
        (drafts(p_click=1.1), "odd_probabilities"),
        (drafts(reason=" "), "empty_reasons"),
        (drafts(item_id="gone"), "unknown_items"),
        (drafts()[:-3], "users_without_shelf"),
        ([*drafts(), {**drafts()[-1], "rank": 4, "item_id": "i4", "score": 0.1}], "too_long"),
    ],
)
def test_a_faulty_shelf_is_not_published(night: Night, rows: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(GateError):
        audit(night, rows)
    assert ("fail", "none", fault) in broken(night)
    observed = [
        r["observed"] for r in night.warehouse.read("data_checks", [DAY]).to_pylist() if r["column_name"] == fault
    ]
    assert observed == [f"{fault}=1 scenario=search"]


def test_a_scenario_without_shelves_is_not_published(night: Night) -> None:
    with pytest.raises(GateError, match="row_count on shelf_drafts 2026-02-05: observed 1, expected min 2"):
        audit(night, drafts()[:6])


def test_results_of_other_tables_of_the_night_stay(night: Night) -> None:
    audit(night, drafts())
    publish(night, "training_examples", example_rows(night.shop))
    validate_examples.run(night)
    tables = set(night.warehouse.read("data_checks", [DAY])["table_name"].to_pylist())
    parts = ("", ".keys", ".features", ".classes", ".leaks")
    assert {"shelf_drafts", "feature_drift", *(f"training_examples{part}" for part in parts)} == tables


def test_a_suite_must_begin_with_a_row_count(night: Night) -> None:
    import pandas as pd

    with pytest.raises(ValueError, match="must begin with a row count"):
        check_table(night, "events", pd.DataFrame({"x": [1]}), [none_above_zero("x")])


def test_an_exception_inside_a_rule_is_a_failure_that_says_so(night: Night) -> None:
    import pandas as pd

    suite = [expect("TableRowCountToBeBetween", "row_count", min_value=1), *within("gone", 0, 1)]
    rows = check_table(night, "events", pd.DataFrame({"x": [1]}), suite)
    assert [row["success"] for row in rows] == [True, False, False]
    assert rows[1]["observed"].startswith('the rule could not run: Error: The column "gone"')


@pytest.mark.spark
def test_spark_batches_give_the_same_results(night: Night, spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = events({"price": float("nan"), "scenario": "lobby"})
    for _ in range(2):
        with pytest.raises(GateError):
            run_events(night, rows, source_counts())
    small = {
        (r["expectation"], r["column_name"]): r["success"]
        for r in night.warehouse.read("data_checks", [DAY]).to_pylist()
    }
    monkeypatch.setattr(validate, "PANDAS_ROWS", 1)
    with pytest.raises(GateError):
        validate_events.run(night)
    large = {
        (r["expectation"], r["column_name"]): r["success"]
        for r in night.warehouse.read("data_checks", [DAY]).to_pylist()
    }
    assert small == large
    assert not np.all(list(large.values()))
