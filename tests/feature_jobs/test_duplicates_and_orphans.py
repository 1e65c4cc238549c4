"""Rows said twice, and outcomes that nothing precedes, against the same rules in plain Python."""

import datetime as dt
import random

import pyarrow as pa
import pytest

from feature_jobs.duplicates import mark_duplicates
from feature_jobs.events import JUDGED, VALUES
from feature_jobs.orphans import find_orphans

START = dt.datetime(2026, 2, 2, tzinfo=dt.UTC)
TYPES = {
    "row_id": pa.int64(), "as_of_date": pa.date32(), "event_date": pa.date32(), "event_ts": pa.timestamp("us", "UTC"),
    "position": pa.int32(), "quantity": pa.int32(), "price": pa.float64(), "propensity": pa.float64(),
    "dwell_seconds": pa.float64(),
}  # fmt: skip
SCHEMA = pa.schema([(name, TYPES.get(name, pa.string())) for name in JUDGED])
MINUTE = dt.timedelta(minutes=1)


def row(number, second, kind="click", user="u", item="i", day=0, **values):
    """Return a good row; the id of its event follows from all that it says."""
    date = START.date() + dt.timedelta(days=day)
    said = {"source": "log", "scenario": "home_feed", "event_type": kind, "user_key": user, "item_id": item, **values}
    moment = START + dt.timedelta(seconds=second)
    named = {name: said.get(name) for name in ("source", "scenario", "event_type", "user_key", *VALUES)}
    return {
        **dict.fromkeys(JUDGED), **named, "row_id": number, "as_of_date": date, "event_date": moment.date(), "event_ts": moment,
        "event_id": repr((moment, sorted(said.items()))),
    }  # fmt: skip


@pytest.fixture
def judged(spark):
    """Return make(rows) → the frame."""

    def make(rows):
        return spark.createDataFrame(pa.Table.from_pylist(rows, SCHEMA))

    return make


def again(frame):
    return sorted(found.row_id for found in frame.where("is_duplicate").collect())


def test_copies_are_found_without_and_repeats_only_with_a_setting(judged):
    rows = [
        row(0, 0),
        row(1, 0),
        row(2, 3),
        row(3, 20),
        row(4, 3, kind="cart"),
        row(5, 2, request_id="r"),
        row(6, 4, price=1.0),
    ]
    assert again(mark_duplicates(judged(rows), None)) == [1]
    assert again(mark_duplicates(judged(rows), None, {"log": dt.timedelta(seconds=5)})) == [1, 2]
    assert again(mark_duplicates(judged(rows), None, {"other_log": dt.timedelta(seconds=5)})) == [1]


def test_of_a_chain_of_repeats_the_first_alone_stays(judged):
    rows = [row(9 - n, 4 * n) for n in range(8)]  # read in the other order
    assert again(mark_duplicates(judged(rows), None, {"log": dt.timedelta(seconds=5)})) == list(range(2, 9))


def test_days_are_not_compared(judged):
    rows = [row(0, 0), row(1, 1, day=1)]
    assert again(mark_duplicates(judged(rows), None, {"log": MINUTE})) == []


@pytest.mark.parametrize("seed", range(2))
def test_random_rows_against_plain_python(judged, seed):
    chance, within = random.Random(seed), {"log": dt.timedelta(seconds=30), "till": dt.timedelta(seconds=3)}
    rows = []
    for number in range(300):
        values = {"source": chance.choice(["log", "till", "other"]), "position": chance.choice([None, 1])}
        who = chance.choice("uvw")
        rows.append(
            row(
                number,
                chance.randrange(600),
                chance.choice(["click", "cart"]),
                who,
                day=chance.choice([0, 0, 1]),
                **values,
            )
        )
    expected = set()
    for one in rows:
        for other in rows:
            before = (other["as_of_date"], other["row_id"]) < (one["as_of_date"], one["row_id"])
            if one["event_id"] == other["event_id"] and before:
                expected.add(one["row_id"])
            alike = all(
                one[n] == other[n] for n in ("as_of_date", "source", "scenario", "event_type", "user_key", *VALUES)
            )
            gap = one["event_ts"] - other["event_ts"]
            follows = (other["event_ts"], other["row_id"]) < (one["event_ts"], one["row_id"])
            if alike and follows and gap <= within.get(one["source"], -MINUTE):
                expected.add(one["row_id"])
    chance.shuffle(rows)
    assert 20 < len(expected) < 280
    assert again(mark_duplicates(judged(rows), None, within)) == sorted(expected)


@pytest.mark.parametrize("seed", range(2))
def test_orphans_against_plain_python(judged, seed):
    chance, within = random.Random(seed), {"click": 2 * MINUTE, "purchase": 20 * MINUTE}
    kinds = ["impression", "impression", "click", "cart", "purchase"]
    rows = [
        row(
            n,
            chance.randrange(3600),
            chance.choice(kinds),
            chance.choice("uvw"),
            chance.choice("ij"),
            chance.choice([0, 1]),
        )
        for n in range(240)
    ]
    earlier = [one for one in rows if one["row_id"] % 3 == 0 and one["event_type"] == "impression"]
    mine = [one for one in rows if one not in earlier]
    expected = {
        one["row_id"]
        for one in mine
        if one["event_type"] in within
        and not any(
            other["event_type"] == "impression"
            and (other["user_key"], other["item_id"]) == (one["user_key"], one["item_id"])
            and dt.timedelta() <= one["event_ts"] - other["event_ts"] <= within[one["event_type"]]
            and other["as_of_date"] <= one["as_of_date"]
            for other in rows
        )
    }
    found = find_orphans(judged(mine), judged(earlier), within).collect()
    assert {one.row_id for one in found} == expected
    assert 10 < len(expected) < len(mine)
    told = {one.orphan_evidence for one in found}
    assert told <= {f"item {i} was not shown to the user in {t} before" for i in "ij" for t in ("0:02:00", "0:20:00")}


def test_a_shop_file_with_orphans_of_nothing_is_refused(tiny_shop):
    from nightshelf.errors import InputError

    for name in ("impression", "hover"):
        with pytest.raises(InputError, match=rf"quarantine.orphans: '{name}' is no outcome beside impressions"):
            tiny_shop(days=0, quarantine={"orphans": {name: "1h"}})
    with pytest.raises(InputError, match="'soon' is not a duration"):
        tiny_shop(days=0, quarantine={"orphans": {"click": "soon"}})
