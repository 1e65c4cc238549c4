"""The logs of a simulated shop: their schemas, their rates, their order, their dirt, and that they can be made again."""

import datetime as dt
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from nightshelf.config import Shop, load_shop
from nightshelf.errors import InputError
from nightshelf.raw_logs import Source, ValueMap
from simulation.dirt import DEFECTS, LOST_HOUR
from simulation.simulate import simulate_shop

FIRST_DAY = dt.date(2026, 2, 1)
DAYS = [FIRST_DAY + dt.timedelta(days=day) for day in range(7)]


def shop_at(home: Path) -> Shop:
    return load_shop(Path(__file__).parents[2] / "conf/shops/demo.yaml").model_copy(update={"home": home})


def small_shop(home: Path, days: int = 3, seed: int = 5) -> Shop:
    shop = shop_at(home)
    simulate_shop(shop, FIRST_DAY, days, users=60, items=80, seed=seed)
    return shop


def digest(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    files = sorted(file for file in folder.glob(pattern) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def files_of(shop: Shop, source: Source, day: dt.date) -> list[Path]:
    return sorted(shop.home.glob(source.path.replace("{event_date}", str(day))))


def lines_of(file: Path) -> list[str]:
    return gzip.decompress(file.read_bytes()).decode().splitlines(keepends=True)


def read_clean(shop: Shop, name: str) -> pa.Table:
    """Return a source's rows as text columns, those that do not parse left out."""
    source = next(source for source in shop.sources if source.name == name)
    tables = []
    for day in DAYS:
        for file in files_of(shop, source, day):
            if source.format == "parquet":
                table = pq.read_table(file)
                tables.append(table.select(sorted(table.column_names)))
            elif source.format == "csv":
                parse = pacsv.ParseOptions(delimiter=source.csv.delimiter, invalid_row_handler=lambda row: "skip")
                header = lines_of(file)[0].strip().split(source.csv.delimiter)
                convert = pacsv.ConvertOptions(column_types={column: pa.string() for column in header})
                tables.append(pacsv.read_csv(file, parse_options=parse, convert_options=convert))
            else:
                rows = []
                for line in lines_of(file):
                    try:
                        rows.append(
                            {key: None if value is None else str(value) for key, value in json.loads(line).items()}
                        )
                    except json.JSONDecodeError:
                        continue
                tables.append(pa.Table.from_pylist(rows))
    return pa.concat_tables(tables)


def test_same_seed_gives_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (small_shop(tmp_path / name, seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert digest(first.home) == digest(again.home)
    assert digest(first.home / "raw") != digest(other.home / "raw")


def test_a_day_does_not_depend_on_the_days_that_follow_and_finished_days_are_kept(tmp_path: Path) -> None:
    short, long = small_shop(tmp_path / "short", days=2), small_shop(tmp_path / "long", days=4)
    before = digest(short.home / "raw")
    assert before.items() <= digest(long.home / "raw").items()
    stamp = (short.home / "raw/search/2026-02-01").stat().st_mtime_ns
    simulate_shop(short, FIRST_DAY, 4, users=60, items=80, seed=5)
    assert digest(short.home) == digest(long.home)
    assert (short.home / "raw/search/2026-02-01").stat().st_mtime_ns == stamp


def test_a_day_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    whole, broken = small_shop(tmp_path / "whole"), small_shop(tmp_path / "broken")
    (broken.home / "truth/days/2026-02-03").rename(broken.home / "truth/days/.2026-02-03.tmp")
    (broken.home / "raw/cart/2026-02-03/part-0000.csv.gz").unlink()
    simulate_shop(broken, FIRST_DAY, 3, users=60, items=80, seed=5)
    assert digest(broken.home) == digest(whole.home)


def test_several_chunks_give_logs_of_all_users(tmp_path: Path) -> None:
    shop = shop_at(tmp_path)
    simulate_shop(shop, FIRST_DAY, 1, users=10_050, items=80, seed=5, impressions_per_user_day=2.5)
    source = shop.sources[0]
    assert len(files_of(shop, source, FIRST_DAY)) == 2
    assert (tmp_path / "raw/users.csv").read_text().count("\n") == 10_051


def test_another_plan_at_the_same_home_is_refused(tmp_path: Path) -> None:
    shop = small_shop(tmp_path)
    with pytest.raises(InputError, match="holds the simulated shop"):
        simulate_shop(shop, FIRST_DAY, 3, users=61, items=80, seed=5)


@pytest.mark.parametrize(
    ("days", "users", "items", "rate"), [(0, 60, 80, 6.0), (1, 0, 80, 6.0), (1, 60, 3, 6.0), (1, 60, 80, -1.0)]
)
def test_sizes_out_of_range_are_refused(tmp_path: Path, days: int, users: int, items: int, rate: float) -> None:
    with pytest.raises(InputError, match="give at least 1"):
        simulate_shop(shop_at(tmp_path), FIRST_DAY, days, users, items, 5, rate)


def test_every_log_has_the_columns_and_values_that_the_shop_file_names(simulated_shop: Shop) -> None:
    for source in simulated_shop.sources:
        assert all(files_of(simulated_shop, source, day) for day in DAYS), source.name
        rows = read_clean(simulated_shop, source.name)
        assert set(source.columns.values()) <= set(rows.column_names), source.name
        assert isinstance(source.event_type, ValueMap)
        kinds = set(pc.unique(rows[source.event_type.column]).to_pylist())
        assert set(source.event_type.map) <= kinds <= {*source.event_type.map, "hover"}, source.name
    listed = pq.read_table(simulated_shop.home / "raw/items/2026-02-07.parquet")
    assert simulated_shop.items and simulated_shop.users and simulated_shop.graph
    assert {*simulated_shop.items.columns.values(), *simulated_shop.items.attributes} <= set(listed.column_names)
    for dimension in (simulated_shop.users, simulated_shop.graph):
        header = (simulated_shop.home / dimension.path).read_text().splitlines()[0].split(",")
        assert set(dimension.columns.values()) <= set(header)


def test_rates_are_those_of_a_real_shop(simulated_shop: Shop) -> None:
    stats = [json.loads(file.read_text()) for file in simulated_shop.home.glob("truth/days/*/stats.json")]
    total = {
        name: sum(day[name] for day in stats)
        for name in ("impressions", "clicks", "carts", "purchases", "active_users")
    }
    assert 5 < total["impressions"] / (7 * 2000) < 7.5
    assert 0.2 < total["active_users"] / (7 * 2000) < 0.35
    assert 0.03 < total["clicks"] / total["impressions"] < 0.12
    assert 0.008 < total["carts"] / total["impressions"] < 0.04
    assert 0.002 < total["purchases"] / total["impressions"] < 0.012


def test_what_happened_follows_the_true_chances(simulated_shop: Shop) -> None:
    """Clicks and carts in the outcome record against the sum of the chances from which they were drawn."""
    folders = [simulated_shop.home / "truth/days" / str(day) for day in DAYS]
    stats = [json.loads((folder / "stats.json").read_text()) for folder in folders]
    outcomes = pa.concat_tables([pq.read_table(folder / "outcomes-0000.parquet") for folder in folders])
    for kind, task in ((1, "click"), (2, "cart")):
        seen = np.bincount(outcomes.filter(pc.equal(outcomes["kind"], kind))["scenario"].to_numpy(), minlength=6)
        expected = np.sum([day[f"chance_{task}"] for day in stats], axis=0)
        assert np.all(np.abs(seen - expected) < 4.5 * np.sqrt(expected + 1)), task


def test_a_funnel_step_follows_the_one_before_it(simulated_shop: Shop) -> None:
    files = sorted(simulated_shop.home.glob("truth/days/*/outcomes-*.parquet"))
    outcomes = pa.concat_tables([pq.read_table(file) for file in files])
    first: dict[tuple[int, int, int], list[int]] = {}
    for user, item, scenario, kind, ts in zip(
        *(outcomes[name].to_pylist() for name in outcomes.column_names), strict=True
    ):
        times = first.setdefault((user, item, scenario), [2**62] * 4)
        times[kind] = min(times[kind], ts)
    for (_, _, scenario), (_, click, cart, order) in first.items():
        if cart < 2**62:
            assert click < cart
        if order < 2**62:
            assert (click if scenario == 4 else cart) < order


def test_orders_come_hours_later_and_in_another_log(simulated_shop: Shop) -> None:
    orders = read_clean(simulated_shop, "checkout_log")
    orders = orders.filter(pc.equal(orders["kind"], "order"))
    assert orders.num_rows > 50
    assert pc.all(pc.greater(orders["quantity"].drop_null(), 0)).as_py()
    files = sorted(simulated_shop.home.glob("truth/days/*/outcomes-*.parquet"))
    outcomes = pa.concat_tables([pq.read_table(file) for file in files]).to_pandas().sort_values("ts")
    clicks, orders = outcomes[outcomes.kind == 1], outcomes[outcomes.kind == 3]
    joined = pd.merge_asof(orders, clicks.assign(clicked=clicks.ts), on="ts", by=["user", "item", "scenario"])
    hours = (joined.ts - joined.clicked) / 3.6e6
    assert 1 < hours.median() < 6
    assert 24 < hours.quantile(0.995) < 72


def test_recorded_propensities_are_true(simulated_shop: Shop) -> None:
    """The inverse propensities of the first places count the goods: each one on sale stands for itself once."""
    feed = read_clean(simulated_shop, "home_feed_log")
    first = feed.filter(pc.and_(pc.equal(feed["pos"], "1"), pc.equal(feed["action"], "show")))
    propensity = first["prop"].drop_null().cast(pa.float64()).to_numpy()
    propensity = propensity[propensity != 0.001]  # test accounts
    listed = pq.read_table(simulated_shop.home / "raw/items/2026-02-04.parquet")
    in_stock = pc.sum(pc.greater(listed["stock"], 0)).as_py()
    estimate, error = np.mean(1 / propensity), np.std(1 / propensity) / np.sqrt(len(propensity))
    assert abs(estimate - in_stock) < 4 * error + 5
    assert error < 0.2 * in_stock


def test_earlier_places_are_clicked_more_often(simulated_shop: Shop) -> None:
    rows = read_clean(simulated_shop, "search_log")
    place = rows["rank"].cast(pa.int32()).to_numpy()
    click = np.array(rows["type"].to_pylist()) == "click"
    rate = [click[(place >= low) & (place < high)].mean() for low, high in ((1, 3), (8, 16))]
    assert rate[0] > 1.5 * rate[1]


def test_each_defect_is_listed_where_it_stands(simulated_shop: Shop) -> None:
    listed = pq.read_table(simulated_shop.home / "truth/dirt.parquet")
    found = {
        row["reason"]: row["reason_count"]
        for row in listed.group_by("reason").aggregate([("reason", "count")]).to_pylist()
    }
    # Rare kinds need a larger shop; those that hundreds of rows bear must be there.
    assert set(found) <= set(DEFECTS[1:])
    assert {"duplicate", "bot", "test_user", "unparsable", "missing_key_field", "unknown_item", "too_late"} <= set(
        found
    )
    assert found["bot"] > 500
    for source in simulated_shop.sources:
        if source.format == "parquet":
            continue
        lines = [
            line.rstrip("\n")
            for day in DAYS
            for file in files_of(simulated_shop, source, day)
            for line in lines_of(file)
        ]
        held = set(lines)
        mine = listed.filter(pc.equal(listed["source"], source.name))
        assert set(mine["raw"].to_pylist()) <= held, source.name
        repeats = len(lines) - len(held) - (len(DAYS) - 1 if source.format == "csv" else 0)
        duplicates = pc.sum(pc.equal(mine["reason"], "duplicate")).as_py() or 0
        # Lines that were cut may look alike, and nothing else does by accident.
        cut = mine.filter(pc.equal(mine["reason"], "unparsable"))["raw"].to_pylist()
        assert repeats == duplicates + len(cut) - len(set(cut)), source.name


def test_rows_not_listed_as_dirt_are_clean(simulated_shop: Shop) -> None:
    listed = pq.read_table(simulated_shop.home / "truth/dirt.parquet")
    catalogue = {
        sku
        for day in DAYS
        for sku in pq.read_table(simulated_shop.home / f"raw/items/{day}.parquet")["sku"].to_pylist()
    }
    source = simulated_shop.sources[0]
    dirty = listed.filter(pc.and_(pc.equal(listed["source"], source.name), pc.not_equal(listed["reason"], "duplicate")))
    dirty_lines = set(dirty["raw"].to_pylist())
    for number, day in enumerate(DAYS):
        start = (
            int(dt.datetime(2026, 2, 1, tzinfo=dt.timezone(dt.timedelta(hours=8))).timestamp() * 1000)
            + number * 86_400_000
        )
        for file in files_of(simulated_shop, source, day):
            for line in lines_of(file):
                if line.rstrip("\n") not in dirty_lines:
                    row = json.loads(line)
                    assert row["uid"].startswith("u") and row["sku"] in catalogue and row["action"] in ("show", "clk")
                    assert start - 2 * 86_400_000 <= row["ts"] < start + 86_400_000


def test_one_hour_is_missing_on_one_day(simulated_shop: Shop) -> None:
    source = simulated_shop.sources[0]
    counts = {}
    for day in DAYS[4:6]:
        lines = [
            json.loads(line)
            for file in files_of(simulated_shop, source, day)
            for line in lines_of(file)
            if line.endswith("}\n")
        ]
        normal = [
            row for row in lines if row["ts"] and row["uid"] and row["uid"].startswith("u") and row["uid"] != "u0002000"
        ]
        local = [
            dt.datetime.fromtimestamp(row["ts"] / 1000, dt.UTC) + dt.timedelta(hours=8)
            for row in normal
            if row["ts"] < 2**41
        ]
        counts[day] = sum(1 for moment in local if moment.date() == day and moment.hour == LOST_HOUR)
    assert counts[DAYS[4]] > 20
    assert counts[DAYS[5]] == 0


def test_some_users_never_come_and_some_items_are_new(simulated_shop: Shop) -> None:
    feed = read_clean(simulated_shop, "home_feed_log")
    assert len(set(feed["uid"].to_pylist())) < 0.98 * 2000
    first, last = (pq.read_table(simulated_shop.home / f"raw/items/{day}.parquet") for day in (DAYS[0], DAYS[-1]))
    assert set(last["sku"].to_pylist()) - set(first["sku"].to_pylist())
    assert pc.min(last["stock"]).as_py() == 0
    assert any(a != b for a, b in zip(first["price"].to_pylist(), last["price"].to_pylist(), strict=False))
