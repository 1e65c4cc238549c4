"""Every feature and label of random shops against SQL in another engine, and against a world that ends at the day."""

import datetime as dt
import itertools
import os

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from benchmarks import sql_features
from benchmarks.sql_features import TABLES, make_tables
from feature_jobs import user_sequences as user_sequences_module
from feature_jobs.activity import activity
from feature_jobs.acts import acts
from feature_jobs.attribute_features import attribute_features
from feature_jobs.attribution import attributed_outcomes
from feature_jobs.favourites import favourites
from feature_jobs.impressions import impressions
from feature_jobs.item_days import item_days
from feature_jobs.item_features import item_features
from feature_jobs.item_scenario_features import item_scenario_features
from feature_jobs.labels import labels
from feature_jobs.own_items import own_items
from feature_jobs.sessions import sessions
from feature_jobs.training_examples import training_examples
from feature_jobs.user_category_days import user_category_days
from feature_jobs.user_category_features import user_category_features
from feature_jobs.user_days import user_days
from feature_jobs.user_features import user_features
from feature_jobs.user_scenario_features import user_scenario_features
from feature_jobs.user_sequences import user_scenario_sequences, user_sequences
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.raw_logs import Source
from nightshelf.rebuy import Rebuy
from nightshelf.tables import table_specs
from nightshelf.tasks import Sampled, Task

pytestmark = pytest.mark.spark

DAYS = [dt.date(2026, 2, n) for n in range(3, 9)]
NIGHT = DAYS[-1]


TASKS = {
    "stars": Task(event="click", given="click", value="rating", kind="regression", label_window="1h"),
    "soon": Task(event="cart", on="any_item", label_window="12h"),
    "back": Task(event="click", given="click", on="any_item", label_window="3d", not_before="15m"),
}
CHOICES = {
    "name": "choices", "path": "raw/*.csv", "format": "csv", "scenario": "home_feed", "late_by_days": 2,
    "columns": {"user_id": "u", "item_id": "i", "event_ts": "t"},
    "event_type": {"column": "a", "map": {"c": "click", "a": "cart", "p": "purchase"}},
}  # fmt: skip
# What a shop file may say otherwise
SHOPS = {
    "the tiny shop": {},
    "first touch, no user table": {"attribution": "first_touch", "users": None},
    "no impressions": {"sources": [Source.model_validate(CHOICES)], "negatives": Sampled(sampled=2)},
    "clicks come again": {"rebuy": Rebuy(event="click", days=30)},
}
OF_THE_NIGHT = {"training_examples", "user_category_features", "user_scenario_features", "attribute_features"}
# Random worlds of each; Sail makes one in a fifth of Spark's time
WORLDS = 3 if os.environ.get("NIGHTSHELF_TEST_ENGINE") == "sail" else 1


@pytest.fixture
def world(tiny_shop, frame, random_log):
    """Return make(seed, until, backwards, shift, change) → rows of a random shop as known on the day `until`.

    They are moved by `shift` days; `change` is laid over the shop. Events of a type that no source writes are left out.
    """

    def make(seed, until=NIGHT, backwards=False, shift=0, change=None):
        shop = tiny_shop(days=0)
        shop = shop.model_copy(update={"tasks": {**shop.tasks, **TASKS}, **(change or {})})
        log = [{**row, "event_id": f"e{n:03d}"} for n, row in enumerate(random_log(seed))]
        log = [row for row in log if row["as_of_date"] <= until and row["event_type"] in shop.event_types]
        log = log[:: -1 if backwards else 1]
        days = [dt.date(2026, 2, n) for n in range(1, 10) if dt.date(2026, 2, n) <= until]
        items = [
            {"as_of_date": day, "item_id": f"i{n}", "category_2": f"c{n % 2}", "category_3": f"c{n % 3}",
             "brand": ["x", None, "y"][n % 3], "price": 10.0 + n - day.day % (n + 2),
             "launch_date": dt.date(2026, 2, 2) if n == 2 else None}
            for day in days for n in range(5) if (day.day <= 5 or n != 4) and (day.day > 3 or n != 3)
        ]  # fmt: skip
        users = [
            {"as_of_date": day, "user_key": f"u{n}", "user_age_band": "ab"[n % 2]} for day in days for n in range(3)
        ]
        names = [("item", f"i{n}") for n in range(6)] + [("user", f"u{n}") for n in range(4)]
        names += [("category_3", f"c{n}") for n in range(2)] + [("brand", "x"), ("query_token", "thing")]
        names += [("category_2", "c0"), ("category_2", "c1"), ("user_age_band", "a"), ("user_age_band", "b")]
        words = [{"feature": f, "value": v, "index": OOV_BUCKETS + n + 1} for n, (f, v) in enumerate(names)]
        words[5]["since"] = dt.date(2026, 2, 2)  # i5, which no catalogue has
        rows = {"events": log, "items": items, "users": users, "vocabularies": words}
        for table in rows.values():
            for row in table:
                for name, value in row.items():
                    if isinstance(value, dt.date) and shift:
                        row[name] = value + dt.timedelta(days=shift)
        return shop, {name: frame(shop, name, content) for name, content in rows.items()}

    return make


def compute(shop, w, dates, night):
    """Return every table of features and examples as pandas, sorted by its keys; each is made of finished ones, as at night."""
    events, items, words = w["events"], w["items"], w["vocabularies"]
    done, shown = finished(acts(events, shop)), finished(impressions(events, shop))
    happened = finished(activity(done, shown, attributed_outcomes(shown, done, shop, hindsight=False), shop))
    of_users, of_items = finished(user_days(happened, items, shop)), finished(item_days(happened, shop))
    of_categories = finished(user_category_days(happened, items, shop))
    liked = finished(favourites(done, items, shop, dates))
    visits = finished(sessions(done, shown, shop))
    users = finished(user_features(of_users, of_items, visits, liked, w["users"], words, shop, dates))
    own = own_items(done, shop.rebuy, dates) if shop.rebuy else None
    tables = {
        "sessions": visits,
        "user_features": users,
        "item_features": finished(item_features(of_items, items, words, shop, dates)),
        "user_sequences": user_sequences(done, of_categories, items, words, shop, dates, own),
        "user_scenario_sequences": user_scenario_sequences(done, items, words, shop, dates),
    }
    tonight = users.where(F.col("as_of_date") == night)
    tables["user_category_features"] = user_category_features(of_categories, tonight, shop, night)
    tables["user_scenario_features"] = user_scenario_features(of_users, tonight, shop, night)
    tables["attribute_features"] = attribute_features(items, of_items, shop, night)
    there = finished(item_scenario_features(of_items, tables["item_features"], shop, dates))
    outcomes = finished(attributed_outcomes(shown, done, shop, hindsight=True))
    labelled = finished(labels(shown, done, outcomes, shop, night))
    snapshots = (tables["user_features"], tables["item_features"], there)
    tables["item_scenario_features"] = there
    tables["training_examples"] = training_examples(labelled, *snapshots, shop, dates[0], night)
    return {name: sort(table.toPandas(), shop, name) for name, table in tables.items()}


def finished(rows):
    """Return the rows as a table that is there, as the next table finds it in the warehouse."""
    return rows.sparkSession.createDataFrame(rows.toArrow(), rows.schema)


def sort(rows, shop, table):
    spec = table_specs(shop)[table]
    return rows[spec.column_names].sort_values(["as_of_date", *spec.keys]).reset_index(drop=True)


def compute_in_sql(shop, w, dates, night):
    """Return the same tables from DuckDB."""
    with duckdb.connect() as db:
        for name, rows in {**w, "shown": impressions(w["events"], shop)}.items():
            db.register("arrow", rows.toArrow())
            db.execute(f"CREATE TABLE {name} AS FROM arrow")
        make_tables(db, shop, dates, dates[0], night)
        return {name: sort(db.sql(f"FROM {name}").df(), shop, name) for name in TABLES}


@pytest.mark.parametrize(
    "name",
    [name if name == "the tiny shop" else pytest.param(name, marks=pytest.mark.histories) for name in SHOPS],
)
def test_every_feature_and_label_agrees_with_sql(world, differences, name, monkeypatch):
    for place, length in itertools.product(
        (user_sequences_module, sql_features), ("SEQUENCE_LENGTH", "SCENARIO_SEQUENCE_LENGTH")
    ):
        monkeypatch.setattr(place, length, 7)  # random users do too little to fill longer ones

    @settings(max_examples=WORLDS, deadline=None, phases=(Phase.reuse, Phase.generate))  # a smaller world costs minutes
    @given(seed=st.integers(0, 10_000))
    def agree(seed):
        shop, rows = world(seed, change=SHOPS[name])
        assert differences(shop, compute(shop, rows, DAYS, NIGHT), compute_in_sql(shop, rows, DAYS, NIGHT)) == []

    agree()


@pytest.mark.histories
@pytest.mark.parametrize("seed", [1])
def test_a_day_is_the_same_whether_the_future_exists_or_not(world, seed):
    """At once over the whole log, or from the rows that had arrived by the day, in another order: equal."""
    day = DAYS[2]
    at_once, alone = compute(*world(seed), DAYS[2:5], NIGHT), compute(*world(seed, day, backwards=True), [day], day)
    for name in sorted(set(TABLES) - OF_THE_NIGHT):
        then, now = (t[name][t[name]["as_of_date"] == day].reset_index(drop=True) for t in (at_once, alone))
        pd.testing.assert_frame_equal(then, now)


@pytest.mark.histories
def test_moving_all_days_and_all_rows_moves_nothing_else(world, differences, five_partitions):
    """A week later in the year, rows backwards, in more partitions: the same. An id of an impression does not tell its day."""
    week = dt.timedelta(days=7)
    shop, rows = world(2)
    before = compute(shop, rows, DAYS, NIGHT)
    with five_partitions():
        after = compute(*world(2, shift=7, backwards=True), [day + week for day in DAYS], NIGHT + week)
    for rows in after.values():
        for column in rows:
            if pa.types.is_temporal(pa.Array.from_pandas(rows[column]).type):
                rows[column] -= week
    assert differences(shop, after, before) == []


def test_an_items_age_is_no_clock_where_nobody_knows_its_launch(ages):
    """There from the first day, or known for more than a week: old. A launch date says it better."""
    log = (("old", 0), ("new", 2), ("dated", 2), ("old", 9))
    listed = {"old": 0, "new": 2, "dated": 0, "unseen": 0, "unseen new": 3}
    assert ages(log, listed, days=(2, 4, 9, 10), launch={"dated": dt.date(2026, 1, 25)}) == {
        "old": [365, 365, 365, 365],
        "new": [0, 2, 7, 365],
        "dated": [9, 11, 16, 17],
        "unseen": [365, 365, 365, 365],
        "unseen new": [1, 6, 7],
    }


def test_what_is_silent_for_weeks_is_not_new_when_somebody_comes_back_to_it(ages):
    """It has been listed from before the window on; or, in a shop without a catalogue, it has had its id for so long."""
    log = [("busy", day) for day in range(40)] + [(item, 36) for item in ("slow", "forgotten", "new", "by chance")]
    listed = {"busy": 0, "slow": 0, "forgotten": 36, "new": 36, "by chance": 38}
    found = ages(log, listed, days=(36, 39), since={"forgotten": -30, "new": 36})
    old, new = [365, 365], [0, 3]
    assert found == {"busy": old, "slow": old, "forgotten": old, "new": new, "by chance": new}


@pytest.fixture
def ages(tiny_shop, frame, event):
    """Return make(log, listed, days, launch, since) → item → its ages on these days, of which there are as long as it is known.

    log: item and the day of an impression. listed: item → the first catalogue that has it. since: item → the day of its id.
    Days count from 2026-02-01 = 0.
    """

    def make(log, listed, days, launch=None, since=None):
        shop = tiny_shop(days=0)
        date = [dt.date(2026, 2, 1) + dt.timedelta(days=n) for n in range(max(days) + 1)]
        rows = [
            {"as_of_date": day, "item_id": item, "launch_date": (launch or {}).get(item)}
            for n, day in enumerate(date) for item, first in listed.items() if n >= first
        ]  # fmt: skip
        events = frame(shop, "events", [event("impression", "u1", item, day) for item, day in log])
        words = [
            {"feature": "item", "value": item, "index": n + 1, "since": date[0] + dt.timedelta(days=day)}
            for n, (item, day) in enumerate((since or {"nothing": 0}).items())
        ]
        done, shown = acts(events, shop), impressions(events, shop)
        happened = activity(done, shown, attributed_outcomes(shown, done, shop, hindsight=False), shop)
        of_days, items, words = (
            item_days(happened, shop),
            frame(shop, "items", rows),
            frame(shop, "vocabularies", words),
        )
        found = sorted(item_features(of_days, items, words, shop, [date[day] for day in days]).collect())
        return {name: [row.item_age_days for row in found if row.item_id == name] for name in listed}

    return make
