"""Features that know what they should help to predict: each alone, by one threshold, on a sample of tonight's examples."""

from typing import TYPE_CHECKING

from nightshelf.config import Shop
from nightshelf.features import dense_features, index_features
from nightshelf.tasks import Task
from pipelines.feature_drift import FEWEST
from pipelines.validate import expect, none_above_zero

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation


def leak_facts(shop: Shop, examples: "pd.DataFrame", most: float) -> "pd.DataFrame":
    """Return one row per feature and binary task: the AUC of the best stump, and whether it is too good to be true."""
    import pandas as pd

    from pipelines.drift import stump_auc

    rows = []
    for name, task in shop.tasks.items():
        known = _known_rows(examples, name, task)
        positive = known[f"label_{name}"].to_numpy() > 0
        if task.kind != "binary" or min(positive.sum(), (~positive).sum()) < FEWEST:
            continue
        for feature in dense_features(shop):
            rows.append((feature.name, name, stump_auc(known[feature.name].to_numpy(), positive)))
        for feature in index_features(shop):
            rows.append((feature.name, name, _stump_of_ids(known[feature.name].to_numpy(), positive)))
    facts = pd.DataFrame(rows, columns=["feature", "task", "auc"]).round({"auc": 4})
    return facts.assign(knows_the_label=(facts["auc"] > most).astype(int))


def leak_suite(facts: "pd.DataFrame") -> "list[Expectation]":
    """Return the rules for leak_facts."""
    counted = expect("TableRowCountToBeBetween", "row_count", min_value=len(facts), max_value=len(facts))
    return [counted, none_above_zero("knows_the_label")]


def _known_rows(examples: "pd.DataFrame", name: str, task: Task) -> "pd.DataFrame":
    """Return the rows on which a task is decided: mature, and where it follows another, those with that outcome.

    In scenarios that never have the task's outcome nothing is to be known: what tells a cart from a page would pass for a leak.
    """
    rows = examples[examples[f"mask_{name}"] == 1]
    rows = rows if task.given is None else rows[rows[f"label_{task.given}"] > 0]
    return rows[rows.groupby("scenario")[f"label_{name}"].transform("max") > 0]


def _stump_of_ids(ids: "np.ndarray", positive: "np.ndarray") -> float:
    """Return the stump's AUC where an id has no order: on the half of the rows whose ids' rates the other half gives."""
    import numpy as np

    from pipelines.drift import stump_auc

    first = np.arange(len(ids)) % 2 == 0
    rows = np.bincount(ids[first], minlength=int(ids.max()) + 1)
    hits = np.bincount(ids[first], weights=positive[first], minlength=len(rows))
    mean = positive[first].mean()
    rates = (hits + mean) / (rows + 1)
    rest = ~first
    if min(positive[rest].sum(), (~positive[rest]).sum()) == 0:
        return 0.5
    return stump_auc(rates[ids[rest]], positive[rest])
