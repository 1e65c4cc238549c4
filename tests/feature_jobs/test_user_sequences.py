"""User sequences: oldest first, the last 50, known by the day, aged to its end."""

import datetime as dt

import pytest

from feature_jobs.activity import activity
from feature_jobs.acts import acts
from feature_jobs.attribution import attributed_outcomes
from feature_jobs.impressions import impressions
from feature_jobs.user_category_days import user_category_days
from feature_jobs.user_sequences import user_sequences
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.features import SEQUENCE_LENGTH, sequence_events

pytestmark = pytest.mark.spark

DAYS = [dt.date(2026, 2, day) for day in (2, 3, 4)]


@pytest.fixture
def words(frame):
    def make(shop):
        values = [("user", "u", 7), ("item", "i1", 1), ("item", "i2", 2), ("category_3", "c", 3)]
        return frame(shop, "vocabularies", [{"feature": f, "value": v, "index": n} for f, v, n in values])

    return make


def sequences(shop, frame, words, log, dates, items=()):
    events = frame(shop, "events", log)
    done, shown = acts(events, shop), impressions(events, shop)
    happened = activity(done, shown, attributed_outcomes(shown, done, shop, hindsight=False), shop)
    catalogue = frame(shop, "items", items)
    of_categories = user_category_days(happened, catalogue, shop)
    return user_sequences(done, of_categories, catalogue, words(shop), shop, dates).collect()


def test_events_are_taken_in_order_up_to_the_day(tiny_shop, frame, event, words):
    shop = tiny_shop(days=0)
    log = [
        event("cart", "u", "i2", 2, 0.5),
        event("click", "u", "i1", 1, 12),
        event("click", "u", "i2", 1, 13, as_of_date=DAYS[2]),  # arrived two days late
        event("impression", "u", "i1", 2, 23, scenario="search", query="q", position=1),
        event("impression", "u", "i2", 2, 23, scenario="search", query="q", position=2),
        event("impression", "u", "i2", 2, 23, position=1),
        event("impression", "u", "i2", 2, 23.5, scenario="search", anchor_item_id="i1", position=1),
        event("impression", "u", "i2", 2, 23.5, scenario="search", anchor_item_id="i1", position=2),
        event("click", "new", "unknown", 3, 12),
    ]
    rows = sequences(shop, frame, words, log, DAYS)
    found = {(row["user_key"], row["as_of_date"]): row for row in rows}
    assert set(found) == {("u", day) for day in DAYS} | {("new", DAYS[2])}
    place = {name: 1 + n for n, name in enumerate(sequence_events(shop))}
    last = found["u", DAYS[2]]
    assert last["user_index"] == 7
    assert last["item_indexes"] == [1, 2, 2, 1, 1]
    assert last["event_type_indexes"] == [place[n] for n in ("click", "click", "cart", "searched", "viewed")]
    assert last["scenario_indexes"] == [1, 1, 1, 2, 2]
    assert last["age_days"] == pytest.approx([2.5, 2 + 11 / 24, 1 + 23.5 / 24, 1 + 1 / 24, 1 + 0.5 / 24])
    assert found["u", DAYS[0]]["item_indexes"] == [1]
    assert found["u", DAYS[1]]["item_indexes"] == [1, 2, 1, 1]
    assert 1 <= found["new", DAYS[2]]["item_indexes"][0] <= OOV_BUCKETS  # an item without an id of its own


def test_the_last_events_are_kept(tiny_shop, frame, event, words):
    shop = tiny_shop(days=0)
    log = [event("click", "u", f"i{1 + (n == 0)}", 1, 1 + n / 60) for n in range(SEQUENCE_LENGTH + 1)]
    rows = sequences(shop, frame, words, log, [DAYS[0], DAYS[0] + dt.timedelta(days=30)])
    assert len(rows) == 1  # after 30 days of arrival nothing is left
    assert rows[0]["item_indexes"] == [1] * SEQUENCE_LENGTH


def test_many_clicks_leave_the_last_purchases_in(tiny_shop, frame, event, words):
    """Fifty places among five kinds: ten are each one's own, and the clicks before the last ten are the newest to be had."""
    shop = tiny_shop(days=0)
    log = [event("purchase", "u", "i2", 0, 1 + n / 60) for n in range(12)]
    log += [event("click", "u", "i1", 1, 1 + n / 60) for n in range(80)]
    (row,) = sequences(shop, frame, words, log, [DAYS[0]])
    assert row["item_indexes"] == [2] * 10 + [1] * 40
    assert row["age_days"] == sorted(row["age_days"], reverse=True)
    assert row["age_days"][9:11] == pytest.approx([2 - (1 + 11 / 60) / 24, 1 - (1 + 40 / 60) / 24])


def test_exposure_counts_impressions_by_day_and_category(tiny_shop, frame, event, words):
    shop = tiny_shop(days=0)
    log = [
        event("impression", "u", item, day, 1 + n) for n, (item, day) in enumerate([("i1", 1), ("i1", 1), ("i2", 2)])
    ]
    items = [{"as_of_date": day, "item_id": "i1", "category_3": "c"} for day in DAYS]
    items += [{"as_of_date": day, "item_id": "i2"} for day in DAYS]  # of no category
    rows = sequences(shop, frame, words, log, [DAYS[1]], items)
    assert [row["shown_category_indexes"] for row in rows] == [[3]]
    assert [row["shown_counts"] for row in rows] == [[2]]
    assert rows[0]["shown_age_days"] == [1.0]
    assert rows[0]["item_indexes"] == []
