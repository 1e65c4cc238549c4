"""A shop whose surfaces change between two nights: one is renamed, one is gone, one is new. The night goes on without a hand."""

import datetime as dt
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nightshelf.config import Shop, load_shop
from pipelines.night import run_night
from pipelines.shelf_plan import POPULARITY, plan_shelves
from pipelines.sql import connect
from pipelines.stage import night_of
from pipelines.warehouse import Warehouse

FIRST, NIGHT, NEXT = (dt.date(2026, 2, day) for day in (3, 6, 7))
BEFORE = {"h": "home", "n": "news", "b": "basket"}
AFTER = {"h": "home", "n": "magazine", "o": "outlet"}  # news has another name, the basket is gone, the outlet opens
RECIPE = {"name": "small", "embedding_size": 4, "max_epochs": 2, "history_length": 10}
USERS, ITEMS = 50, 20
pytestmark = pytest.mark.night


def write_shop(folder: Path, pages: dict[str, str]) -> Shop:
    recipe = folder / "small.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    kinds = {"show": "impression", "clk": "click", "pay": "purchase"}
    columns = {"user_id": "uid", "item_id": "sku", "event_ts": "ts", "request_id": "rid", "position": "pos"}
    told = {
        "shop": "surfaces",
        "home": str(folder / "home"),
        "timezone": "UTC",
        "history_days": 6,
        "sources": [
            {
                "name": "clicks",
                "path": "raw/{event_date}.jsonl",
                "format": "jsonl",
                "scenario": {"column": "page", "map": pages},
                "event_type": {"column": "action", "map": kinds},
                "columns": columns,
                "timestamp": {"format": "epoch_s"},
            }
        ],
        "tasks": {
            "click": {"event": "click", "label_window": "1h"},
            "purchase": {"event": "purchase", "given": "click", "label_window": "1d"},
        },
        "scenarios": {name: {"top_n": 5, "utility": {"click": 1}} for name in pages.values()},
        "checks": {"psi_fail": None},  # windows that fill up drift in a shop's first week
        "model": str(recipe),
        "spark": {"master": "local[2]", "driver_memory": "1g", "shuffle_partitions": 2},
    }
    (folder / "surfaces.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    return load_shop(folder / "surfaces.yaml")


def write_day(write_log: Callable[..., None], shop: Shop, day: dt.date, pages: dict[str, str]) -> None:
    """Write requests of each user on some pages, whose clicks prefer the first items; one item is bought the next morning."""
    draw, rows = random.Random(str(day)), []
    midnight = int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp())
    for user in range(USERS):
        base: dict[str, Any] = {"uid": f"u{user}"}
        yesterday = random.Random(f"{day - dt.timedelta(days=1)} {user}").randrange(ITEMS)
        rows.append({**base, "sku": f"i{yesterday}", "action": "pay", "page": "h", "ts": midnight + 8 * 3600 + user})
        for hour, page in enumerate(pages, 18):
            if draw.random() < 0.3:
                continue
            at = midnight + hour * 3600 + 30 * user
            there = [random.Random(f"{day} {user}").randrange(ITEMS), *draw.sample(range(ITEMS), 5)]
            for place, item in enumerate(dict.fromkeys(there), 1):
                shown = {**base, "sku": f"i{item}", "page": page, "rid": f"{day}-{user}-{page}", "pos": place}
                rows.append({**shown, "action": "show", "ts": at})
                if place == 1 or draw.random() < 0.8 / (1 + item / 2):
                    rows.append({**shown, "action": "clk", "ts": at + place})
    write_log(shop.home / "raw" / f"{day}.jsonl", rows)


@pytest.mark.histories
def test_a_night_after_scenarios_were_renamed_removed_and_added_serves_those_of_the_shop_file(
    tmp_path: Path, spark: object, write_log: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    shop = write_shop(tmp_path, BEFORE)
    for n in range((NIGHT - FIRST).days + 1):
        write_day(write_log, shop, FIRST + dt.timedelta(days=n), BEFORE)
    run_night(shop, NIGHT, last="publish")
    told = ("events", "impressions", "acts")
    before = {table: Warehouse(shop).files(table, [NIGHT]) for table in told}

    shop = write_shop(tmp_path, AFTER)
    write_day(write_log, shop, NEXT, AFTER)
    run_night(shop, NEXT, last="validate_examples")
    # As in a night that trains nothing, or whose challenger does not pass: the champion reads what is made no more
    assert plan_shelves(night_of(shop, NEXT, "plan")).model_version == POPULARITY
    assert "'user_in_news_impression_count_30d', which this shop file no longer makes" in caplog.text
    run_night(shop, NEXT, first="retrieve", last="publish")

    tables = connect(Warehouse(shop))

    def ask(query: str) -> list[tuple[Any, ...]]:
        return tables.execute(query.format(day=f"as_of_date = DATE '{NEXT}'")).fetchall()

    served = (
        "SELECT scenario, count(DISTINCT user_key), max(rank) FROM recommendations WHERE {day} GROUP BY 1 ORDER BY 1"
    )
    assert ask(served) == [(name, USERS + 1, 5) for name in sorted(AFTER.values())]
    assert ask("SELECT DISTINCT model_version FROM recommendations WHERE {day}") == [("2",)]
    (promotion,) = ask("SELECT challenger, champion, promoted, reason FROM promotions WHERE {day}")
    assert promotion == ("2", "1", True, "promoted: every check held (there was no champion to compare with)")
    assert ask("SELECT DISTINCT role FROM model_metrics WHERE {day}") == [("challenger",)]
    assert "the champion, version 1, is measured no more" in caplog.text

    by_scenario = (
        "item_scenario_features",
        "user_scenario_features",
        "user_scenario_sequences",
        "item_days",
        "user_days",
    )
    for table in by_scenario:
        found = {name for (name,) in ask(f"SELECT DISTINCT scenario FROM {table} WHERE {{day}}")}
        assert found == set(AFTER.values()), table
    shown = ask("SELECT count(*) FROM events WHERE event_type = 'impression'")
    assert ask("SELECT sum(item_impression_count_30d)::BIGINT FROM item_features WHERE {day}") == shown
    left_out = (
        "SELECT scenario, count(*) FROM training_examples WHERE scenario IN ('basket', 'news') GROUP BY 1 ORDER BY 1"
    )
    counts = ", ".join(f"{name} ({count})" for name, count in ask(left_out))
    assert f"training_examples of scenarios that the shop file has no more are left out: {counts}" in caplog.text
    assert {table: Warehouse(shop).files(table, [NIGHT]) for table in told} == before
