"""Who is found to be a bot, by which limit, against the same rules in plain Python; and people whom no limit may touch."""

import datetime as dt
import itertools
import random
from statistics import median_low

import pyarrow as pa
import pytest

from nightshelf.quarantine import Bots

DAY = dt.date(2026, 2, 2)
MIDNIGHT = dt.datetime(2026, 2, 2, tzinfo=dt.UTC)
LIMITS = Bots(max_clicks_per_day=90, max_impressions_per_day=150, max_items_per_day=60, min_clicks=20)
SCHEMA = pa.schema(
    [
        ("user_key", pa.string()),
        ("as_of_date", pa.date32()),
        ("event_type", pa.string()),
        ("event_ts", pa.timestamp("us", "UTC")),
        ("item_id", pa.string()),
        ("reason", pa.string()),
    ]
)


def act(user, seconds, items=("i",), kind="click", reason=None):
    """Return the rows of one user: an event at each second of the day, on the items in turn."""
    return [
        {
            "user_key": user,
            "as_of_date": DAY,
            "event_type": kind,
            "event_ts": MIDNIGHT + dt.timedelta(seconds=second),
            "item_id": items[number % len(items)],
            "reason": reason,
        }
        for number, second in enumerate(seconds)
    ]


def many(count):
    return [f"i{number}" for number in range(count)]


@pytest.fixture
def found(spark):
    """Return find(rows, limits) → user → evidence."""
    from feature_jobs.bots import find_bots

    def find(rows, limits=LIMITS):
        judged = spark.createDataFrame(pa.Table.from_pylist(rows, SCHEMA))
        return {row.user_key: row.bot_evidence for row in find_bots(judged, limits).collect()}

    return find


def uneven(count, seed, within=36_000):
    return sorted(random.Random(seed).sample(range(within), count))


def test_each_limit_finds_its_bot_and_says_by_what(found):
    rows = [
        *act("fast", uneven(91, 1)),
        *act("reader", uneven(151, 2), kind="impression"),
        *act("walker", uneven(61, 3), many(61)),
        *act("tireless", uneven(24, 4, 3600) + [hour * 3600 + 7 for hour in range(21)]),
        *act("clock", [second * 30 + second % 3 for second in range(40)]),
    ]
    assert found(rows) == {
        "fast": "91 clicks in one day, more than 90",
        "reader": "151 impressions in one day, more than 150",
        "walker": "clicks on 61 different items in one day, more than 60",
        "tireless": "clicks in 21 hours of one day, more than 20",
        "clock": "100 % of 39 gaps between clicks are about 31.0 s, more than 80 %",
    }


def test_who_stays_at_the_limits_is_a_person(found):
    rows = [
        *act("fast", uneven(90, 1)),
        *act("reader", uneven(150, 2), kind="impression"),
        *act("walker", uneven(60, 3), many(60)),
        *act("tireless", [hour * 3600 + hour * hour * 1777 % 3600 for hour in range(20)]),
        *act("clock", [second * 30 for second in range(19)]),  # too few to tell
        *act("orders", [second // 30 * 5000 for second in range(89)]),  # three orders of thirty lines
        *act("day", [0] * 89),  # a log with dates only
    ]
    assert found(rows) == {}


def test_a_limit_that_is_null_is_none(found):
    rows = [*act("fast", uneven(91, 1)), *act("clock", [second * 30 for second in range(40)])]
    free = Bots(
        max_clicks_per_day=None,
        max_impressions_per_day=None,
        max_items_per_day=None,
        max_hours_per_day=None,
        max_even_gaps=None,
    )
    assert found(rows, free) == {}
    assert set(found(rows, free.model_copy(update={"max_even_gaps": 0.5, "min_clicks": 20}))) == {"clock"}


def test_lines_written_twice_hide_no_clock(found):
    clock = act("clock", [second * 30 for second in range(40)])
    assert set(found(clock + clock)) == {"clock"}


def test_rows_set_aside_for_another_reason_do_not_count(found):
    """Only rows that are somebody's doing do: those of unknown items, and not those of test accounts."""
    assert found(act("tester", uneven(91, 1), reason="test_user")) == {}
    assert set(found(act("ghosts", uneven(91, 1), reason="unknown_item"))) == {"ghosts"}


def by_hand(rows, limits):
    """Return the users whom the limits name, computed in plain Python."""
    bots = set()
    for user in {row["user_key"] for row in rows}:
        mine = [row for row in rows if row["user_key"] == user]
        clicks = [row for row in mine if row["event_type"] != "impression"]
        moments = sorted({row["event_ts"] for row in clicks})
        gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(moments)]
        hours = {moment.hour for moment in moments}
        middle = median_low(gaps) if gaps else 0
        even = sum(abs(gap - middle) <= 0.1 * middle for gap in gaps)
        if (
            len(clicks) > limits.max_clicks_per_day
            or len(mine) - len(clicks) > limits.max_impressions_per_day
            or len({row["item_id"] for row in clicks}) > limits.max_items_per_day
            or (len(clicks) >= limits.min_clicks and len(hours) > limits.max_hours_per_day)
            or (len(gaps) >= limits.min_clicks - 1 and even > limits.max_even_gaps * len(gaps))
        ):
            bots.add(user)
    return bots


@pytest.mark.parametrize("seed", range(3))
def test_random_users_against_plain_python(found, seed):
    chance = random.Random(seed)
    limits = Bots(
        max_clicks_per_day=40,
        max_impressions_per_day=30,
        max_items_per_day=15,
        max_hours_per_day=10,
        max_even_gaps=0.6,
        min_clicks=8,
    )
    rows = []
    for user in range(120):
        count, step = chance.randrange(2, 48), chance.choice([20, 300, 3000])
        jitter = chance.choice([0.02, 0.2, 1.0])
        seconds = [int(step * (n + chance.uniform(-jitter, jitter)) + step) % 86_000 for n in range(count)]
        kind = chance.choice(["click", "click", "click", "impression"])
        rows += act(f"u{user}", seconds, many(chance.choice([1, 5, 30])), kind)
    chance.shuffle(rows)
    expected = by_hand(rows, limits)
    assert 20 < len(expected) < 100
    assert set(found(rows, limits)) == expected
