"""Label rates: how often each task's outcome follows an impression, by scenario and day, and whether that is as before."""

from typing import TYPE_CHECKING

from nightshelf.checks import Checks
from nightshelf.config import Shop
from pipelines.validate import Row, expect, none_above_zero

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

# A day that should have brought fewer outcomes than this says nothing.
FEWEST_EXPECTED = 10


def rates_query(shop: Shop) -> str:
    """Return SQL for one row per scenario and event_date: the mature examples and the positives of each task."""
    counts = []
    for task in shop.tasks:
        counts.append(f"count(*) FILTER (WHERE mask_{task} = 1) AS mature_{task}")
        counts.append(f"count(*) FILTER (WHERE mask_{task} = 1 AND label_{task} > 0) AS positives_{task}")
    return f"SELECT scenario, event_date, {', '.join(counts)} FROM batch_files GROUP BY ALL ORDER BY ALL"


def rate_facts(shop: Shop, days: "pd.DataFrame", checks: Checks) -> "pd.DataFrame":
    """Return a row per scenario and task: the rate of its newest mature day, the median of the days before, and a verdict.

    Args:
        shop: gives the tasks and the closed days, which are left out.
        days: what rates_query found.
        checks: gives label_rate_warn.
    """
    import pandas as pd

    rows: list[Row] = []
    days = days[[not shop.is_closed(day) for day in days["event_date"]]]
    for scenario, of_scenario in days.groupby("scenario", observed=True):
        for task in shop.tasks:
            rows += _fact(str(scenario), task, of_scenario, checks)
    return pd.DataFrame(rows, columns=["scenario", "task", "rate", "usual_rate", "unusual"])


def _fact(scenario: str, task: str, days: "pd.DataFrame", checks: Checks) -> list[Row]:
    known = days[days[f"mature_{task}"] > 0].sort_values("event_date")
    if len(known) < 2 or checks.label_rate_warn is None:
        return []
    rates = known[f"positives_{task}"] / known[f"mature_{task}"]
    usual, rate = float(rates.iloc[:-1].median()), float(rates.iloc[-1])
    expected = usual * float(known[f"mature_{task}"].iloc[-1])
    seen = float(known[f"positives_{task}"].iloc[-1])
    times = checks.label_rate_warn
    is_high = seen >= FEWEST_EXPECTED and rate > times * usual
    is_low = expected >= FEWEST_EXPECTED and rate < usual / times
    told = {"rate": round(rate, 5), "usual_rate": round(usual, 5)}
    return [{"scenario": scenario, "task": task, **told, "unusual": int(is_high or is_low)}]


def rates_suite(facts: "pd.DataFrame") -> "list[Expectation]":
    """Return the rules for rate_facts."""
    counted = expect("TableRowCountToBeBetween", "row_count", min_value=len(facts), max_value=len(facts))
    return [counted, none_above_zero("unusual", "warning")]
