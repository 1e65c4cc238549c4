"""Sales that were cancelled: by hand, and a random log against a stack in plain Python."""

import datetime as dt
import random

import pyarrow as pa
import pytest

from feature_jobs.cancellations import find_cancelled, set_aside_cancelled
from feature_jobs.events import JUDGED

pytestmark = pytest.mark.spark

START = dt.datetime(2026, 2, 2, tzinfo=dt.UTC)
TYPES = {
    "row_id": pa.int64(), "as_of_date": pa.date32(), "event_date": pa.date32(), "event_ts": pa.timestamp("us", "UTC"),
    "position": pa.int32(), "quantity": pa.int32(),
    **dict.fromkeys(("price", "propensity", "dwell_seconds", "rating"), pa.float64()),
}  # fmt: skip
SCHEMA = pa.schema([(name, TYPES.get(name, pa.string())) for name in JUDGED])


def row(number, minute, quantity, user="u", item="i", day=0, reason=None, source="till"):
    """Return a sale, or with a negative quantity its cancellation, at that minute; it arrives on that day."""
    moment = START + dt.timedelta(minutes=minute)
    is_negative = quantity is not None and quantity < 0
    return {
        **dict.fromkeys(JUDGED), "row_id": number, "as_of_date": START.date() + dt.timedelta(days=day), "source": source,
        "reason": "cancellation" if is_negative else reason, "event_ts": moment, "event_date": moment.date(),
        "scenario": "counter", "event_type": "purchase", "user_key": user, "item_id": item, "quantity": quantity,
    }  # fmt: skip


@pytest.fixture
def judged(spark):
    """Return make(rows) → the frame."""

    def make(rows):
        return spark.createDataFrame(pa.Table.from_pylist(rows, SCHEMA))

    return make


def cancelled(frame):
    return {found.row_id: found.cancelled_by for found in find_cancelled(frame, ["till"]).collect()}


def test_a_cancellation_takes_back_the_latest_sale_before_it_that_none_has_taken(judged):
    rows = [
        *[row(0, 0, 2), row(1, 10, 2), row(2, 20, -2), row(3, 30, 2)],  # the second
        *[row(10, 0, -1, item="later"), row(11, 1, 1, item="later")],  # nothing was sold yet
        *[row(20, 0, 10, item="part"), row(21, 1, -2, item="part")],  # most of it was kept
        *[row(30, 0, None, item="one"), row(31, 0, -1, item="one")],  # a sale that tells no number is of one
        *[row(40, 0, 1, item="twice"), row(41, 5, 1, item="twice"), row(42, 9, -1, item="twice"), row(43, 9, -1, item="twice")],
        *[row(50, 0, 1, item="copies"), row(51, 0, 1, item="copies"), row(52, 9, -1, item="copies")],
        *[row(60, 0, 1, item="x"), row(61, 9, -1, item="x", user="v"), row(62, 9, -1, item="x", day=1)],
        *[row(70, 0, 1, item="waits", reason="unknown_item"), row(71, 0, 1, item="bad", reason="test_user")],
        *[row(72, 9, -1, item="waits"), row(73, 9, -1, item="bad")],
        *[row(80, 0, 1, item="web", source="web"), row(81, 9, -1, item="web", source="web")],
    ]  # fmt: skip
    found = cancelled(judged(rows))
    assert sorted(found) == [1, 30, 41, 50, 51, 70]
    assert found[1] == "cancelled at 2026-02-02 00:20:00"


def test_no_row_is_lost_and_what_was_cancelled_shows_as_an_event(judged):
    frame = judged([row(0, 0, 2), row(1, 10, 2), row(2, 20, -2)])
    rows = sorted(set_aside_cancelled(frame, find_cancelled(frame, ["till"])).collect(), key=lambda found: found.row_id)
    assert [found.reason for found in rows] == [None, "cancelled", "cancellation"]
    assert '"item_id":"i"' in rows[1].raw
    assert rows[0].raw is None


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_log_agrees_with_a_stack(judged, seed):
    draw = random.Random(seed)
    minutes, pieces = draw.sample(range(10**4), 120), [-2, -1, 1, 1, 2, 2]
    rows = [
        row(n, minute, draw.choice(pieces), item=f"i{draw.randrange(5)}", day=draw.randrange(2))
        for n, minute in enumerate(minutes)
    ]
    draw.shuffle(rows)
    open_sales, taken = {}, set()
    for one in sorted(rows, key=lambda one: (one["event_ts"], one["quantity"] < 0)):
        stack = open_sales.setdefault((one["as_of_date"], one["item_id"], abs(one["quantity"])), [])
        if one["quantity"] > 0:
            stack.append(one["row_id"])
        elif stack:
            taken.add(stack.pop())
    assert len(taken) > 15
    assert set(cancelled(judged(rows))) == taken
