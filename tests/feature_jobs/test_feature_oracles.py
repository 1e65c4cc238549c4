"""Features and labels of random shops against SQL in another engine, and against a world that ends at the day."""

import datetime as dt

import duckdb
import pandas as pd
import pytest

from feature_jobs.attribution import attributed_outcomes
from feature_jobs.impressions import impressions
from feature_jobs.item_features import item_features
from feature_jobs.item_scenario_features import item_scenario_features
from feature_jobs.labels import labels
from feature_jobs.user_features import user_features
from feature_jobs.user_sequences import user_sequences

pytestmark = pytest.mark.spark

DAYS = [dt.date(2026, 2, n) for n in range(3, 9)]
RATE = "(count(*) filter (kind = '{0}') + m * mean) / (count(*) filter (kind = 'impression') + m)"


@pytest.fixture
def world(tiny_shop, frame, random_log):
    """Return make(seed, until, backwards) → the frames of a random shop as known on the day `until`."""

    def make(seed, until=DAYS[-1], backwards=False):
        shop = tiny_shop(days=0)
        log = [row for row in random_log(seed) if row["as_of_date"] <= until][:: -1 if backwards else 1]
        days = [dt.date(2026, 2, n) for n in range(1, 10) if dt.date(2026, 2, n) <= until]
        items = [
            {"as_of_date": day, "item_id": f"i{n}", "category_2": f"c{n % 2}", "category_3": f"c{n % 3}",
             "price": 10.0 + n - day.day % (n + 2)}
            for day in days for n in range(5) if not (n == 4 and day.day > 5)
        ]  # fmt: skip
        users = [
            {"as_of_date": day, "user_key": f"u{n}", "user_age_band": "ab"[n % 2]} for day in days for n in range(3)
        ]
        names = [("item", f"i{n}") for n in range(6)] + [("user", f"u{n}") for n in range(4)]
        names += [("category_3", f"c{n}") for n in range(2)]
        names += [("category_2", "c0"), ("category_2", "c1"), ("user_age_band", "a"), ("user_age_band", "b")]
        words = [{"feature": f, "value": v, "index": n + 1} for n, (f, v) in enumerate(names)]
        events = frame(shop, "events", log)
        return {
            "shop": shop, "log": pd.DataFrame(log), "item_rows": pd.DataFrame(items), "events": events,
            "impressions": impressions(events, shop), "items": frame(shop, "items", items),
            "users": frame(shop, "users", users), "vocabularies": frame(shop, "vocabularies", words),
        }  # fmt: skip

    return make


def compute(w, dates):
    """Return every snapshot table of `dates` as sorted rows."""
    shop, events, shown, words = w["shop"], w["events"], w["impressions"], w["vocabularies"]
    of_items = item_features(events, shown, w["items"], words, shop, dates)
    outcomes = attributed_outcomes(shown, events, shop, hindsight=False)
    tables = {
        "user": user_features(events, shown, w["items"], w["users"], words, shop, dates),
        "item": of_items,
        "item_scenario": item_scenario_features(shown, outcomes, of_items, shop, dates),
        "sequence": user_sequences(events, shown, w["items"], words, shop, dates),
    }
    return {name: sorted(map(tuple, table.collect()), key=str) for name, table in tables.items()}


@pytest.mark.parametrize("seed", [1])
def test_a_day_is_the_same_whether_the_future_exists_or_not(world, seed):
    """At once over the whole log, or from the rows that had arrived by the day, in another order: equal."""
    day = DAYS[2]
    at_once = compute(world(seed), DAYS[2:5])
    alone = compute(world(seed, until=day, backwards=True), [day])
    for name, rows in alone.items():
        assert rows == [row for row in at_once[name] if row[0] == day], name
        assert rows, name


@pytest.mark.parametrize("seed", [3])
def test_user_features_agree_with_sql(world, seed):
    w = world(seed)
    found = user_features(w["events"], w["impressions"], w["items"], w["users"], w["vocabularies"], w["shop"], DAYS)
    log, items, days = w["log"], w["item_rows"], pd.DataFrame({"t": DAYS})  # noqa: F841 (DuckDB reads them by name)
    expected = duckdb.sql(f"""
        with acts as (
            select t::date t, user_key, event_type kind, t::date - a.as_of_date::date distance, a.event_date,
                   ln(1 + coalesce(i.price, a.price)) log_price
            from days join log a on a.as_of_date::date between t::date - 29 and t::date
            left join items i on i.as_of_date = a.as_of_date and i.item_id = a.item_id),
        prior as (
            select t, count(*) filter (kind = 'click') / count(*) filter (kind = 'impression') mean,
                   greatest(20, least(1000, 2 / mean)) m
            from acts group by t)
        select t as_of_date, user_key,
               count(*) filter (kind = 'click' and distance < 7) user_click_count_7d,
               count(*) filter (kind = 'impression' and distance < 1) user_impression_count_1d,
               count(*) filter (kind = 'purchase') user_purchase_count_30d,
               {RATE.format("click")} user_click_rate_30d,
               coalesce(avg(log_price) filter (kind <> 'impression'), 0) user_mean_log_price_30d,
               coalesce(min(t - event_date::date) filter (kind <> 'impression'), 30) user_recency_days
        from acts join prior using (t) group by t, user_key, m, mean order by 1, 2""").df()
    _assert_equal(found, expected, ["as_of_date", "user_key"])


@pytest.mark.parametrize("seed", [5])
def test_exposure_agrees_with_sql(world, seed):
    w = world(seed)
    found = user_sequences(w["events"], w["impressions"], w["items"], w["vocabularies"], w["shop"], DAYS)
    log, items, words = w["log"], w["item_rows"], w["vocabularies"].toPandas()  # noqa: F841
    days = pd.DataFrame({"t": DAYS})  # noqa: F841 (DuckDB reads them by name)
    expected = duckdb.sql("""
        with daily as (
            select user_key, a.as_of_date::date d, index category, count(*) n
            from log a join items i on i.as_of_date = a.as_of_date and i.item_id = a.item_id
            join words on feature = 'category_3' and value = i.category_3
            where event_type = 'impression' group by all)
        select t::date as_of_date, user_key, list(category order by d, category) shown_category_indexes,
               list(n order by d, category) shown_counts, list(t::date - d order by d, category) shown_age_days
        from daily join days on d <= t::date and t::date - d < 30 group by all order by 1, 2""").df()
    shown = found.where("size(shown_counts) > 0").toPandas().sort_values(["as_of_date", "user_key"])
    assert len(expected) == len(shown) > 0
    for name in expected.columns[1:]:
        assert [list(v) for v in shown[name]] == [list(v) for v in expected[name]], name


@pytest.mark.parametrize("seed", [4])
def test_item_features_agree_with_sql(world, seed):
    w = world(seed)
    found = item_features(w["events"], w["impressions"], w["items"], w["vocabularies"], w["shop"], DAYS)
    log, items, days = w["log"], w["item_rows"], pd.DataFrame({"t": DAYS})  # noqa: F841 (DuckDB reads them by name)
    expected = duckdb.sql(f"""
        with acts as (
            select t::date t, item_id, event_type kind, t::date - a.as_of_date::date distance
            from days join log a on a.as_of_date::date between t::date - 29 and t::date),
        prior as (
            select t, count(*) filter (kind = 'click') / count(*) filter (kind = 'impression') mean,
                   greatest(20, least(1000, 2 / mean)) m, max(distance) oldest
            from acts group by t),
        named as (
            select t::date t, item_id, arg_max(i.price, i.as_of_date) price, max(i.price) highest
            from days join items i on i.as_of_date::date <= t::date group by t, item_id),
        everything as (
            select t, item_id from acts union
            select t::date, item_id from days join items i on i.as_of_date::date = t::date)
        select e.t as_of_date, e.item_id,
               count(*) filter (kind = 'click' and distance < 7) item_click_count_7d,
               count(*) filter (kind = 'impression') item_impression_count_30d,
               {RATE.format("click")} item_click_rate_30d,
               coalesce(ln(1 + price), 0) item_log_price,
               coalesce(1 - price / highest, 0) item_discount,
               coalesce(case when max(distance) > 7 or max(distance) = oldest then 365 else max(distance) end, 0) item_age_days
        from everything e join prior using (t)
        left join acts on acts.t = e.t and acts.item_id = e.item_id
        left join named on named.t = e.t and named.item_id = e.item_id
        group by e.t, e.item_id, m, mean, price, highest, oldest order by 1, 2""").df()
    _assert_equal(found, expected, ["as_of_date", "item_id"])


def test_an_items_age_is_no_clock_where_nobody_knows_its_launch(tiny_shop, frame, event):
    """There from the first day, or seen for more than a week: old. A launch date says it better."""
    shop, first = tiny_shop(days=0), dt.date(2026, 2, 1)
    log = [event("impression", "u1", item, day) for item, day in (("old", 0), ("new", 2), ("dated", 2), ("old", 9))]
    launch = {"dated": dt.date(2026, 1, 25)}
    listed = [
        {"as_of_date": first + dt.timedelta(days=day), "item_id": item, "launch_date": launch.get(item)}
        for day in range(12) for item in ("old", "new", "dated", "unseen")
    ]  # fmt: skip
    events, items = frame(shop, "events", log), frame(shop, "items", listed)
    words = frame(shop, "vocabularies", [{"feature": "item", "value": "new", "index": 1}])
    days = [first + dt.timedelta(days=day) for day in (2, 4, 9, 10)]
    found = item_features(events, impressions(events, shop), items, words, shop, days).collect()
    ages = {
        name: [row.item_age_days for row in sorted(found) if row.item_id == name]
        for name in launch | {"old": 0, "new": 0, "unseen": 0}
    }
    assert ages == {
        "old": [365, 365, 365, 365],
        "new": [0, 2, 7, 365],
        "dated": [9, 11, 16, 17],
        "unseen": [0, 0, 0, 0],
    }


@pytest.mark.parametrize("seed", [5])
def test_labels_agree_with_sql(world, seed):
    w = world(seed)
    night, shop = DAYS[-1], w["shop"]
    outcomes = attributed_outcomes(w["impressions"], w["events"], shop, hindsight=True)
    found = labels(w["impressions"], w["events"], outcomes, shop, night)
    log = w["log"]  # noqa: F841 (DuckDB reads it by name)
    end = dt.datetime(2026, 2, 8, 16, tzinfo=dt.UTC)
    expected = duckdb.sql(f"""
        with shown as (select * from log where event_type = 'impression'),
        clicked as (
            select distinct s.event_id
            from log o join shown s on s.user_key = o.user_key and s.item_id = o.item_id
            where o.event_type = 'click' and s.event_ts <= o.event_ts and o.event_ts < s.event_ts + interval 1 hour
            qualify row_number() over (partition by o.event_id order by
                coalesce(s.request_id = o.request_id, false) desc, s.scenario = o.scenario desc,
                s.event_ts desc, s.event_id desc) = 1),
        bought as (
            select s.event_id, o.price * coalesce(o.quantity, 1) amount
            from log o join shown s on s.user_key = o.user_key and s.item_id = o.item_id
            where o.event_type = 'purchase' and s.event_ts <= o.event_ts and o.event_ts < s.event_ts + interval 2 day
              and s.event_id in (from clicked)
            qualify row_number() over (partition by o.event_id order by
                coalesce(s.request_id = o.request_id, false) desc, s.event_ts desc, s.event_id desc) = 1)
        select event_id impression_id,
               (event_ts + interval 1 hour <= '{end}'::timestamptz)::int mask_click,
               (event_ts + interval 2 day <= '{end}'::timestamptz)::int mask_spend,
               mask_click * (event_id in (from clicked))::int label_click,
               mask_spend * (event_id in (select event_id from bought))::int label_purchase,
               mask_spend * coalesce((select sum(amount) from bought b where b.event_id = shown.event_id), 0) label_spend
        from shown order by 1""").df()
    assert expected["label_click"].sum() > 3
    _assert_equal(found, expected, ["impression_id"])


def _assert_equal(found, expected, keys):
    """Compare the columns that `expected` has, row by row."""
    found = found.select(*expected.columns).toPandas().sort_values(keys).reset_index(drop=True)
    assert len(found) == len(expected) > 10
    for column in expected.columns:
        if column == "as_of_date":
            assert list(pd.to_datetime(found[column])) == list(pd.to_datetime(expected[column]))
        elif column in keys:
            assert list(found[column]) == list(expected[column])
        else:
            assert list(found[column]) == pytest.approx(list(expected[column]), rel=1e-5, abs=1e-6), column
