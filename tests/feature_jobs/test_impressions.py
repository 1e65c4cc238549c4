"""Impressions: logged ones as they are; drawn negatives with a sampling rate that is true."""

from collections import defaultdict

import pytest

from feature_jobs.impressions import impressions

pytestmark = pytest.mark.spark


def test_logged_impressions_are_taken_as_they_are(tiny_shop, frame, event):
    shop = tiny_shop(days=0)
    shown = event("impression", "u", "i", 1, request_id="r", position=3, propensity=0.25)
    rows = impressions(frame(shop, "events", [shown, event("click", "u", "i", 1)]), shop).collect()
    assert len(rows) == 1
    assert rows[0]["impression_id"] == shown["event_id"]
    assert (rows[0]["position"], rows[0]["propensity"], rows[0]["sampling_rate"]) == (3, 0.25, 1.0)


@pytest.mark.parametrize("items", [5, 30, 120])
def test_drawn_negatives_are_what_they_say(tiny_shop, frame, event, items):
    """Pools below and above the bound between sorting and drawing, and one with fewer items than asked for."""
    shop = tiny_shop(days=0, negatives={"sampled": 4})
    log = [
        event("click", f"u{n % 9}", f"i{n % items}", n % 2, scenario=["home_feed", "search"][n % 3 == 0])
        for n in range(300)
    ]
    log += [event("cart", "u1", "i2", 0)]
    found = impressions(frame(shop, "events", log), shop).collect()
    again = impressions(frame(shop, "events", log[::-1]), shop).collect()
    assert sorted(map(tuple, found), key=str) == sorted(map(tuple, again), key=str)
    pool, own = defaultdict(set), defaultdict(set)
    for row in log:
        own[row["as_of_date"], row["user_key"]].add(row["item_id"])
        if row["event_type"] == "click":
            pool[row["as_of_date"], row["scenario"]].add(row["item_id"])
    positives = {row["impression_id"] for row in found if "-" not in row["impression_id"]}
    assert positives == {row["event_id"] for row in log if row["event_type"] == "click"}
    drawn = defaultdict(list)
    for row in found:
        if "-" in row["impression_id"]:
            drawn[row["impression_id"].split("-")[0]].append(row)
    for click in log[:300]:
        day = click["as_of_date"]
        possible = pool[day, click["scenario"]] - own[day, click["user_key"]]
        negatives = drawn[click["event_id"]]
        assert {row["item_id"] for row in negatives} <= possible
        assert len({row["item_id"] for row in negatives}) == len(negatives) == min(4, len(possible))
        assert all(row["sampling_rate"] == pytest.approx(len(negatives) / len(possible)) for row in negatives)


def test_every_possible_negative_is_drawn_equally_often(tiny_shop, frame, event):
    shop = tiny_shop(days=0, negatives={"sampled": 4})
    log = [event("click", f"u{n}", f"i{n % 100}", 0) for n in range(3000)]
    found = (
        impressions(frame(shop, "events", log), shop).where("sampling_rate < 1").groupBy("item_id").count().collect()
    )
    counts = [row["count"] for row in found]
    assert len(counts) == 100
    assert sum(counts) == 12_000
    # Each count is binomial with mean 120 and deviation about 11: chi-square over 100 items stays near 99.
    assert sum((count - 120) ** 2 / 120 for count in counts) < 160
