"""Stage validate_examples: can tonight's training examples be learnt from, and do they know nothing of the future?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nightshelf.config import Shop
from nightshelf.daily_tables import daily_tables
from nightshelf.errors import InputError
from nightshelf.feature_tables import feature_tables
from pipelines.arrow_schema import arrow_schema
from pipelines.candidate_quotas import check_candidate_quotas
from pipelines.candidate_recall import check_candidate_recall
from pipelines.feature_drift import drift_facts, drift_suite, feature_drift, sample_examples
from pipelines.feature_suites import feature_rules, index_sizes
from pipelines.label_rates import rate_facts, rates_query, rates_suite
from pipelines.leaks import leak_facts, leak_suite
from pipelines.references import reference_rules
from pipelines.rules import check_rules
from pipelines.stage import Night, StageResult
from pipelines.table_suites import spec_rules
from pipelines.validate import (
    Row,
    batch_of,
    check_table,
    expect,
    query_files,
    record_checks,
    stop_on_failure,
)
from pipelines.validate_events import check_log_table
from pipelines.warehouse import row_count

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation


def run(night: Night) -> StageResult:
    """Check every table that features wrote for the night, and the classes of each task; keep the results in data_checks.

    Raises:
        InputError: there are no examples yet.
        GateError: a rule of severity fail does not hold.
    """
    if not batch_of(night, "training_examples", night.as_of_date).files:
        raise InputError(
            f"there are no training examples of {night.as_of_date}: an impression's features are those of the day before it, so "
            "that a shop's first night needs two days of logs; clean the days before, or wait for the next one"
        )
    tables = [spec.name for spec in [*daily_tables(night.shop), *feature_tables(night.shop)]]
    sizes = index_sizes(night)
    rows = check_log_table(night, "impressions")
    for table in [*tables, "candidates"]:
        rows += check_feature_table(night, table, sizes)
    rows += check_labels(night)
    rows += check_candidate_recall(night)
    rows += check_candidate_quotas(night)
    if not any(_is_broken_example(row) for row in rows):  # broken values have no distribution
        rows += check_drift_and_leaks(night)
    record_checks(night, rows)
    message = stop_on_failure(rows)
    read = row_count(batch_of(night, "training_examples", night.as_of_date).files)
    return StageResult(rows_in=read, rows_out=len(rows), inputs=["impressions", *tables, "candidates"], message=message)


def check_feature_table(night: Night, table: str, sizes: Mapping[str, float]) -> list[Row]:
    """Return the results of the whole suite of one table that features wrote; `sizes`: what index_sizes returned."""
    rules = [*spec_rules(night, table), *feature_rules(night.shop, night.warehouse.specs[table], sizes)]
    return check_rules(night, table, [*rules, *reference_rules(night, table)])


def _is_broken_example(row: Row) -> bool:
    is_broken = not row["success"] and row["severity"] == "fail"
    return is_broken and str(row["table_name"]).startswith("training_examples")


def check_labels(night: Night) -> list[Row]:
    """Return the results of the rules on the classes of each task, and on their rates by scenario."""
    shop = night.shop
    classes = query_files(night, "training_examples", classes_query(shop)).to_pandas()
    days = query_files(night, "training_examples", rates_query(shop)).to_pandas()
    rates = rate_facts(shop, days, shop.checks)
    rows = check_table(night, "training_examples.classes", classes, classes_suite(shop), index=("scenario",))
    index = ("scenario", "task", "rate", "usual_rate")
    return rows + check_table(night, "training_examples.rates", rates, rates_suite(rates), index)


def check_drift_and_leaks(night: Night) -> list[Row]:
    """Publish the night's feature_drift; return the results of the rules on it, and on features that know the label."""
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
