"""Drift of every feature and label: the newest days of tonight's examples against those that the serving model learned.

The reference is the training split of the night whose model was promoted last, while its examples are there, else that
of tonight. One sample of rows serves drift and leaks alike; its rows are chosen by a hash of their ids, so that the same
night always gives the same figures.
"""

import datetime as dt
from typing import TYPE_CHECKING, Any

from nightshelf.checks import Checks
from nightshelf.config import Shop
from nightshelf.features import dense_features, index_features
from pipelines.stage import Night
from pipelines.validate import batch_of, expect, none_above_zero, query_files
from pipelines.warehouse import row_count

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

    from pipelines.drift import Drift

SAMPLE = 200_000
# Fewer rows, or fewer of one class, say nothing of a feature.
FEWEST = 50
_NORMAL_999 = 3.09

Row = dict[str, Any]


def sample_examples(night: Night, day: dt.date) -> "pd.DataFrame":
    """Return about SAMPLE rows of that night's training examples: split, scenario, feature_date, features, labels, masks."""
    import pyarrow.parquet as pq

    files = batch_of(night, "training_examples", day).files
    known = (
        set(pq.read_schema(files[0]).names) if files else set()
    )  # a night before a change of the shop file lacks some
    wanted = [
        "split",
        "scenario",
        "feature_date",
        *(f.name for f in [*index_features(night.shop), *dense_features(night.shop)]),
    ]
    wanted += [f"{kind}_{task}" for task in night.shop.tasks for kind in ("label", "mask")]
    step = max(1, row_count(files) // SAMPLE)
    columns = ", ".join(name for name in wanted if name in {*known, "split"} or not files)
    query = f"SELECT {columns} FROM batch_files WHERE hash(impression_id) % {step} = 0"
    return query_files(night, "training_examples", query, day).to_pandas()


def feature_drift(night: Night, examples: "pd.DataFrame") -> list[Row]:
    """Return the rows of the table feature_drift.

    Args:
        night: the night.
        examples: tonight's sample (sample_examples).
    """
    since = _reference_day(night)
    reference = examples if since == night.as_of_date else sample_examples(night, since)
    shop, rows = night.shop, []
    reference, current = (
        _on_open_days(shop, sample[sample["split"] == split])
        for sample, split in ((reference, "train"), (examples, "test"))
    )
    for kind, feature in [*(("id", f) for f in index_features(shop)), *(("number", f) for f in dense_features(shop))]:
        if feature.name in reference:
            values = (reference[feature.name].to_numpy(), current[feature.name].to_numpy())
            rows += _compare("feature", feature.name, "*", kind, *values, feature.unseen, feature.calm)
    for name, task in shop.tasks.items():
        for scenario in shop.scenarios:
            if f"label_{name}" in reference:
                values = (_labels(reference, name, scenario), _labels(current, name, scenario))
                rows += _compare("label", name, scenario, "id" if task.kind == "binary" else "number", *values)
    return [{"as_of_date": night.as_of_date, "reference_date": since, **row} for row in rows]


def _on_open_days(shop: Shop, rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows whose features are those of a day on which the shop was open: after a closed one counts of 1 day are 0."""
    closed = {day for day in rows["feature_date"].unique() if shop.is_closed(_date(day))}
    return rows[~rows["feature_date"].isin(closed)]


def _date(value: Any) -> dt.date:
    import pandas as pd

    return pd.Timestamp(value).date()


def _reference_day(night: Night) -> dt.date:
    promoted = night.warehouse.read("promotions", columns=("as_of_date", "promoted")).to_pylist()
    there = set(night.warehouse.partitions("training_examples"))  # an older night's examples may be gone
    days = [r["as_of_date"] for r in promoted if r["promoted"] and r["as_of_date"] < night.as_of_date]
    return max((day for day in days if day in there), default=night.as_of_date)


def _labels(rows: "pd.DataFrame", task: str, scenario: str) -> "np.ndarray":
    chosen = rows[(rows["scenario"] == scenario) & (rows[f"mask_{task}"] == 1)]
    return chosen[f"label_{task}"].to_numpy()  # type: ignore[no-any-return]


def _compare(
    what: str,
    name: str,
    scenario: str,
    kind: str,
    reference: "np.ndarray",
    current: "np.ndarray",
    unseen: float | str = 0.0,
    calm: float | None = None,
) -> list[Row]:
    from pipelines.drift import drift_of_categories, drift_of_numbers, has_died

    if min(len(reference), len(current)) < FEWEST:
        return []
    drift = (drift_of_categories if kind == "id" else drift_of_numbers)(reference, current)
    return [
        {
            "kind": what,
            "name": name,
            "scenario": scenario,
            "reference_rows": len(reference),
            "rows": len(current),
            "psi": drift.psi,
            "psi_noise": _noise(drift, len(reference), len(current)),
            "ks": drift.ks,
            "js": drift.js,
            "died": what == "feature"
            and bool((current != calm).any())
            and has_died(_of_the_seen(reference, current, unseen), current),
        }
    ]


def _of_the_seen(reference: "np.ndarray", current: "np.ndarray", unseen: float | str) -> "np.ndarray":
    """Return the values of those who had been seen, where all are seen now: that nobody is new is no death."""
    seen = reference[reference != unseen]
    return seen if len(seen) and (current != unseen).all() else reference


def _noise(drift: "Drift", reference: int, current: int) -> float:
    """Return the PSI below which 999 of 1,000 pairs of samples stay that differ by chance alone.

    Without drift PSI / (1/n + 1/m) follows chi-square with one degree less than there are bins (Yurdakul and Naranjo,
    "Statistical properties of the population stability index", Journal of Risk Model Validation 2020); its quantile is
    Wilson and Hilferty's.
    """
    degrees = max(1, drift.bins - 1)
    spread = 2 / (9 * degrees)
    quantile = degrees * (1 - spread + _NORMAL_999 * spread**0.5) ** 3
    return float(quantile * (1 / reference + 1 / current))


def drift_facts(drift: list[Row], limits: Checks) -> "pd.DataFrame":
    """Return one row per feature or label: does its PSI lie above a limit by more than chance, and has it died?"""
    import pandas as pd

    facts = pd.DataFrame(
        {
            "name": [row["name"] if row["scenario"] == "*" else f"{row['name']}/{row['scenario']}" for row in drift],
            "psi": [round(row["psi"], 3) for row in drift],
            "excess": [row["psi"] - row["psi_noise"] for row in drift],
            "died": [int(row["died"]) for row in drift],
        }
    )
    for name, most in (("drifts", limits.psi_warn), ("drifts_far", limits.psi_fail)):
        facts[name] = 0 if most is None else (facts["excess"] > most).astype(int)
    return facts.drop(columns="excess")


def drift_suite(drift: list[Row]) -> "list[Expectation]":
    """Return the rules for drift_facts."""
    counted = expect("TableRowCountToBeBetween", "row_count", min_value=len(drift), max_value=len(drift))
    return [counted, none_above_zero("drifts", "warning"), none_above_zero("drifts_far"), none_above_zero("died")]
