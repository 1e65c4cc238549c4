"""Late touches: a late event reopens the days of the impressions that it may give or take an outcome, and no other."""

import datetime as dt

import pytest

from feature_jobs.acts import acts
from feature_jobs.impressions import impressions
from feature_jobs.late_touches import touched_days

pytestmark = pytest.mark.spark


@pytest.mark.parametrize(
    ("late", "touched"),
    [
        ([], []),
        ([("click", "u", "i", 0)], []),  # in time
        ([("click", "u", "i", 1)], [1, 2]),
        ([("click", "v", "i", 1)], []),
        ([("click", "u", "j", 1)], []),
        ([("impression", "u", "i", 1)], [1, 2]),  # may take the outcome of another
        ([("click", "w", "i", 1)], [3]),
    ],
)
def test_the_days_that_a_late_event_touches(tiny_shop, frame, event, late, touched):
    """The longest label window of this shop is two days."""
    shop = tiny_shop(days=0)
    shown = [event("impression", "u", "i", day) for day in (1, 2, 9)] + [event("impression", "w", "i", 3)]
    rows = [event(kind, user, item, 4 - days) for kind, user, item, days in late]
    for row in rows:
        row["as_of_date"] = dt.date(2026, 2, 5)
    events = frame(shop, "events", rows)
    before = impressions(frame(shop, "events", shown), shop)
    found = touched_days(before, impressions(events, shop), acts(events, shop), shop).collect()
    assert sorted(row.as_of_date.day - 1 for row in found) == touched
