"""What a user may want again: on how many days it was chosen, of late above all, and for how long that is remembered."""

import datetime as dt

import pytest

from feature_jobs.acts import acts
from feature_jobs.own_items import own_items
from nightshelf.features import OWN_HALF_LIFE_DAYS, OWN_LENGTH
from nightshelf.rebuy import Rebuy

pytestmark = pytest.mark.spark

FIRST = dt.date(2026, 2, 2)  # day 1 of `event`
MONTH = FIRST + dt.timedelta(days=30)


def found(shop, frame, log, dates, days=365):
    rows = own_items(acts(frame(shop, "events", log), shop), Rebuy(event="purchase", days=days), dates).collect()
    return {(row["as_of_date"], row["user_key"], row["item_id"]): (row["count"], row["age_days"]) for row in rows}


def test_a_day_counts_once_and_half_as_much_a_half_life_later(tiny_shop, frame, event):
    shop, later = tiny_shop(days=0), FIRST + dt.timedelta(days=int(OWN_HALF_LIFE_DAYS))
    log = [event("purchase", "u", "milk", 1, hour) for hour in (8, 9)]  # two receipts of one day
    log += [event("purchase", "u", "milk", 2), event("click", "u", "tea", 2), event("purchase", "v", "tea", 2)]
    a_day_less = 0.5 ** ((OWN_HALF_LIFE_DAYS - 1) / OWN_HALF_LIFE_DAYS)
    assert found(shop, frame, log, [FIRST, later]) == {
        (FIRST, "u", "milk"): (1.0, 0),
        (later, "u", "milk"): (pytest.approx(0.5 + a_day_less, abs=1e-6), 59),
        (later, "v", "tea"): (pytest.approx(a_day_less, abs=1e-6), 59),
    }


def test_what_lies_further_back_than_the_shop_remembers_is_forgotten(tiny_shop, frame, event):
    shop, log = tiny_shop(days=0), [event("purchase", "u", "milk", 1), event("purchase", "u", "tea", 2)]
    assert set(found(shop, frame, log, [MONTH], days=30)) == {(MONTH, "u", "tea")}
    assert len(found(shop, frame, log, [MONTH], days=31)) == 2


def test_of_many_items_those_of_most_days_are_kept(tiny_shop, frame, event):
    """Of what was chosen on as many days the newest, then the first by name."""
    shop = tiny_shop(days=0)
    log = [event("purchase", "u", f"i{n:03d}", 1) for n in range(OWN_LENGTH)]
    log += [event("purchase", "u", item, 2) for item in ("i063", "new")]
    kept = {item for _, _, item in found(shop, frame, log, [MONTH])}
    assert kept == {"new", "i063", *(f"i{n:03d}" for n in range(OWN_LENGTH - 2))}
