"""Stage validate_examples: can tonight's training examples be learnt from, and do they know nothing of the future?"""

from typing import TYPE_CHECKING

from nightshelf.config import Shop
from nightshelf.features import dense_features, index_features
from pipelines.feature_drift import drift_facts, drift_suite, feature_drift, sample_examples
from pipelines.leaks import leak_facts, leak_suite
from pipelines.stage import Night, StageResult
from pipelines.validate import (
    FINITE,
    Row,
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
from pipelines.warehouse import arrow_schema

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation


_KEYS_QUERY = """SELECT count(*) - count(impression_id) AS missing_ids,
    count(impression_id) - count(DISTINCT impression_id) AS repeated_ids FROM batch_files"""


def run(night: Night) -> StageResult:
    """Check the night's training examples and the classes of each task, and keep the results in data_checks.

    Raises:
        GateError: a rule of severity fail does not hold.
    """
    examples = read_batch(night, "training_examples", examples_select(night.shop))
    classes = query_files(night, "training_examples", classes_query(night.shop)).to_pandas()
    keys = query_files(night, "training_examples", _KEYS_QUERY).to_pandas()
    rows = check_table(night, "training_examples", examples, examples_suite(night.shop))
    rows += check_table(night, "training_examples.keys", keys, keys_suite())
    rows += check_table(
        night, "training_examples.features", feature_facts(night), features_suite(night.shop), index=("feature",)
    )
    rows += check_table(night, "training_examples.classes", classes, classes_suite(night.shop), index=("scenario",))
    if all(row["success"] or row["severity"] == "warn" for row in rows):  # broken values have no distribution
        rows += _check_drift_and_leaks(night)
    record_checks(night, rows)
    message = stop_on_failure(rows)
    read = row_count(night.warehouse.files("training_examples", [night.as_of_date]))
    return StageResult(rows_in=read, rows_out=len(rows), inputs=["training_examples"], message=message)


def _check_drift_and_leaks(night: Night) -> list[Row]:
    import pyarrow as pa

    sample = sample_examples(night, night.as_of_date)
    drift = feature_drift(night, sample)
    night.warehouse.publish_arrow(
        "feature_drift",
        pa.Table.from_pylist(drift, arrow_schema(night.warehouse.specs["feature_drift"])),
        [night.as_of_date],
        night.run_id,
    )
    limits = night.shop.checks
    leaks = leak_facts(night.shop, sample, limits.stump_auc_fail)
    rows = check_table(night, "feature_drift", drift_facts(drift, limits), drift_suite(drift), index=("name", "psi"))
    return rows + check_table(
        night, "training_examples.leaks", leaks, leak_suite(leaks), index=("feature", "task", "auc")
    )


def examples_select(shop: Shop) -> str:
    """Return the SQL columns that examples_suite judges."""
    columns = ["split", "scenario", not_nan("sample_weight")]
    columns.append("CAST(feature_date >= event_date OR event_date > as_of_date AS INT) AS knows_the_future")
    for task in shop.tasks:
        columns += [
            f"mask_{task}",
            not_nan(f"label_{task}"),
            f"CAST(mask_{task} = 0 AND label_{task} <> 0 AS INT) AS masked_outcome_{task}",
        ]
    return ", ".join(columns)


def examples_suite(shop: Shop) -> "list[Expectation]":
    """Return the rules for one night's training examples."""
    labels = [f"label_{task}" for task in shop.tasks]
    masks = [f"mask_{task}" for task in shop.tasks]
    filled = ["scenario", "split", "knows_the_future", "sample_weight", *labels, *masks]
    suite: list[Expectation] = [expect("TableRowCountToBeBetween", "row_count", min_value=1)]
    suite += [expect("ColumnValuesToNotBeNull", "not_null", column=c) for c in filled]
    suite.append(
        expect("ColumnDistinctValuesToEqualSet", "both_splits", column="split", value_set=["train", "validation"])
    )
    suite.append(
        expect("ColumnDistinctValuesToBeInSet", "known_values", column="scenario", value_set=list(shop.scenarios))
    )
    suite += within("knows_the_future", 0, 0, "none")
    suite += within("sample_weight", 0, FINITE)
    for name, task in shop.tasks.items():
        suite += within(f"mask_{name}", 0, 1)
        suite += within(f"label_{name}", 0, 1 if task.kind == "binary" else FINITE)
        suite += within(f"masked_outcome_{name}", 0, 0, "none")
    return suite


def keys_suite() -> "list[Expectation]":
    """Return the rules for the keys, which SQL has counted: millions of texts are no load for a frame."""
    counted = expect("TableRowCountToBeBetween", "row_count", min_value=1, max_value=1)
    return [counted, none_above_zero("missing_ids"), none_above_zero("repeated_ids")]


def feature_facts(night: Night) -> "pd.DataFrame":
    """Return one row per feature: how many of its values are unusable (null, NaN, infinite), how many ids are negative."""
    import pandas as pd

    indexes = [feature.name for feature in index_features(night.shop)]
    dense = [feature.name for feature in dense_features(night.shop)]
    counts = [f"count(*) FILTER (WHERE {name} IS NULL), count(*) FILTER (WHERE {name} < 0)" for name in indexes]
    counts += [
        f"count(*) FILTER (WHERE {name} IS NULL OR isnan({name}) OR abs({name}) > {FINITE}), 0" for name in dense
    ]
    values = [
        column[0].as_py()
        for column in query_files(night, "training_examples", f"SELECT {', '.join(counts)} FROM batch_files").columns
    ]
    return pd.DataFrame({"feature": [*indexes, *dense], "unusable_values": values[::2], "negative_ids": values[1::2]})


def features_suite(shop: Shop) -> "list[Expectation]":
    """Return the rules for feature_facts: no feature has a value that training could not take."""
    features = len(index_features(shop)) + len(dense_features(shop))
    counted = expect("TableRowCountToBeBetween", "row_count", min_value=features, max_value=features)
    return [counted, none_above_zero("unusable_values"), none_above_zero("negative_ids")]


def classes_query(shop: Shop) -> str:
    """Return SQL for one row per scenario: the positives, negatives and odd labels of each task among its mature examples."""
    counts = []
    for task in shop.tasks:
        counts += [
            f"count(*) FILTER (WHERE mask_{task} = 1 AND label_{task} > 0) AS positives_{task}",
            f"count(*) FILTER (WHERE mask_{task} = 1 AND label_{task} = 0) AS negatives_{task}",
            f"count(*) FILTER (WHERE mask_{task} NOT IN (0, 1) OR label_{task} NOT IN (0, 1)) AS fractions_{task}",
        ]
    return f"SELECT scenario, {', '.join(counts)} FROM batch_files GROUP BY scenario ORDER BY scenario"


def classes_suite(shop: Shop) -> "list[Expectation]":
    """Return the rules for the classes: each task has both somewhere; a scenario that lacks one is a warning.

    A task that follows another (`given`) may be rare in a small shop, so that its lack is a warning too.
    """
    suite: list[Expectation] = [
        expect("TableRowCountToBeBetween", "row_count", min_value=1, max_value=len(shop.scenarios))
    ]
    suite.append(
        expect(
            "ColumnDistinctValuesToContainSet",
            "every_scenario",
            column="scenario",
            value_set=list(shop.scenarios),
            severity="warning",
        )
    )
    for name, task in shop.tasks.items():
        severity = "warning" if task.given else "critical"
        sides = ("positives", "negatives") if task.kind == "binary" else ("positives",)
        for side in sides:
            column = f"{side}_{name}"
            suite.append(expect("ColumnSumToBeBetween", "some_anywhere", column=column, min_value=1, severity=severity))
            suite.append(
                expect(
                    "ColumnValuesToBeBetween", "some_in_every_scenario", column=column, min_value=1, severity="warning"
                )
            )
        if task.kind == "binary":
            suite.append(
                expect(
                    "ColumnSumToBeBetween", "labels_are_0_or_1", column=f"fractions_{name}", min_value=0, max_value=0
                )
            )
    return suite
