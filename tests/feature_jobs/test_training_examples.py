"""Training examples: yesterday's features, what was never seen, weights of drawn rows."""

import datetime as dt

import pytest
from pyspark.sql import functions as F

from feature_jobs.acts import acts
from feature_jobs.attribution import attributed_outcomes
from feature_jobs.impressions import impressions
from feature_jobs.labels import labels
from feature_jobs.training_examples import training_examples

NIGHT = dt.date(2026, 2, 10)


@pytest.mark.spark
def test_examples_carry_the_features_of_the_day_before(tiny_shop, frame, event):
    shop = tiny_shop(days=0)
    log = [event("impression", user, "i", day, position=None) for user in ("u", "v") for day in range(10)]
    log += [event("impression", "u", "i", 9, 23.5)]  # immature for a click
    events = frame(shop, "events", log)
    done = acts(events, shop)
    shown = impressions(events, shop).withColumn("sampling_rate", F.lit(0.25))
    no_outcome = attributed_outcomes(shown, done, shop, hindsight=True)
    labelled = labels(shown, done, no_outcome, shop, NIGHT)
    dates = [NIGHT - dt.timedelta(days=n) for n in range(10)]
    of_users = [
        {
            "as_of_date": d,
            "user_key": "u",
            "user_index": 5,
            "user_recency_days": 0.0,
            "user_click_count_1d": float(d.day),
        }
        for d in dates
    ]
    of_items = [
        {
            "as_of_date": d,
            "item_id": "i",
            "item_index": 6,
            "item_click_count_7d": 10.0 + d.day,
            "item_click_rate_30d": 0.25,
        }
        for d in dates
    ]
    there = [{"as_of_date": NIGHT, "scenario": "home_feed", "item_id": "i", "item_scenario_impression_count_30d": 1.0}]
    snapshots = [
        frame(shop, table, rows)
        for table, rows in [("user_features", of_users), ("item_features", of_items), ("item_scenario_features", there)]
    ]
    rows = training_examples(labelled, *snapshots, shop, dt.date(2026, 2, 1), NIGHT).collect()
    # Ten days of events: the first one has no day before it.
    assert sorted((row["user_key"], row["event_date"].day) for row in rows) == [
        (u, d) for u in "uv" for d in range(2, 11)
    ]
    for row in rows:
        known = row["event_date"].day - 1
        assert row["feature_date"] == row["event_date"] - dt.timedelta(days=1)
        assert row["weekday"] == row["event_date"].isoweekday()  # the 8th is a Sunday
        assert row["item_click_count_7d"] == 10 + known
        assert (row["user_index"], row["user_click_count_1d"]) == ((5, known) if row["user_key"] == "u" else (0, 0))
        # Of the item in its scenario nothing is known before the night, which is after every impression
        assert row["item_scenario_impression_count_30d"] == 0
        assert (row["item_scenario_click_rate_30d"], row["item_scenario_recency_days"]) == (0.25, 30)  # the item's own
        assert row["user_recency_days"] == (0 if row["user_key"] == "u" else 30)
        assert (row["position"], row["sample_weight"], row["labels_as_of"]) == (0, 4.0, NIGHT)
        assert row["as_of_date"] == row["event_date"]
