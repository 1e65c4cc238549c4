"""When a task's rate in a scenario is unlike that of the days before."""

import datetime as dt

import pandas as pd
import pytest

from nightshelf.checks import Checks
from nightshelf.closed_days import Closed
from pipelines.label_rates import rate_facts

DAYS = [dt.date(2026, 2, n) for n in (2, 3, 4, 5)]


def days_of(shop, positives, mature=100):
    """Return a row per day of DAYS for search: of `mature` impressions so many are clicked, none anything else."""
    counts = {f"{kind}_{task}": 0 for task in shop.tasks for kind in ("mature", "positives")}
    rows = [
        {**counts, "scenario": "search", "event_date": day, "mature_click": mature, "positives_click": n}
        for day, n in zip(DAYS, positives, strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("tonight", "before", "told"),
    [(40, 20, 0), (90, 20, 1), (0, 20, 1), (4, 20, 1), (5, 20, 0), (9, 2, 0), (0, 9, 0), (10, 0, 1)],
)
def test_a_rate_is_unusual_beyond_four_times_or_a_quarter_if_there_are_enough(night, tonight, before, told):
    facts = rate_facts(night.shop, days_of(night.shop, [before, before, 50, tonight]), Checks())
    (row,) = facts.to_dict("records")
    assert row == {
        "scenario": "search", "task": "click", "rate": tonight / 100, "usual_rate": before / 100, "unusual": told,
    }  # fmt: skip


def test_null_lifts_the_limit_and_closed_or_immature_days_do_not_count(night):
    days = days_of(night.shop, [20, 20, 20, 90])
    assert rate_facts(night.shop, days, Checks(label_rate_warn=None)).empty
    closed = night.shop.model_copy(update={"closed": Closed(dates=frozenset({DAYS[-1]}))})
    assert rate_facts(closed, days, Checks())["rate"].tolist() == [0.2]
    days.loc[3, "mature_click"] = 0
    assert rate_facts(night.shop, days, Checks())["rate"].tolist() == [0.2]
    assert rate_facts(night.shop, days[:1], Checks()).empty
