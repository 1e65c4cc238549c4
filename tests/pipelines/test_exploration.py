"""Which items places are given to by chance, and what the kept chances tell of another order."""

import re
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from nightshelf.scenarios import Scenario
from pipelines.candidate_lists import EVERYBODY, pack_candidates
from pipelines.first_look import first_look, worth_to_anybody
from pipelines.kept_away import Exclusions
from pipelines.recommend import nothing_to_explore
from pipelines.rerank import EXPLORE, PLACED_BY, Groups, chance_of, explore, interleave
from pipelines.shelves import Shelves, Stockroom, fill_shelves

ITEMS = [f"i{n:03}" for n in range(100)]
USERS = [f"u{n}" for n in range(400)]
NEW = range(90, 100)
SCENARIO = Scenario(top_n=5, utility={"click": 1}, rerank={"explore": 0.3})


def stockroom(own=(), items=ITEMS, new=NEW, blocked=(), quotas=None):  # type: ignore[no-untyped-def]
    """Return what shelves are filled from: all items are popular, some new, some proposed to users (`own`: of them and items)."""
    rows = [(EVERYBODY, item, "popular", -float(n)) for n, item in enumerate(items)]
    rows += [(EVERYBODY, items[n], "fresh", 1.0) for n in new]
    rows += [(user, item, "related", 1.0) for user, item in own]
    users, proposed, generators, scores = zip(*rows, strict=True)
    table = pa.table({"user_key": users, "item_id": proposed, "generator": generators, "because": [None] * len(rows)})
    table = table.append_column("scenario", pa.array(["*"] * len(rows)))
    table = table.append_column("generator_score", pa.array(scores, pa.float32()))
    away = np.isin(np.arange(len(items)), list(blocked))
    lists = pack_candidates([table], USERS, list(items), quotas)
    return Stockroom(lists, Exclusions({}, {}, away), Groups({}), "2026-02-05", chance_of(USERS))


def shelves_of(room: Stockroom, score=lambda users, items: (200 - items) / 200) -> Shelves:  # type: ignore[no-untyped-def]
    """Return the shelves of all users."""
    users = np.arange(len(USERS))

    def predict(items):  # type: ignore[no-untyped-def]
        return {"click": np.where(items >= 0, score(users[:, None], items), np.nan)}

    anybody = worth_to_anybody({"home": SCENARIO}, {"home": lambda items: {"click": np.ones(items.shape)}}, len(ITEMS))
    look = first_look(users, SCENARIO, room.lists, predict, anybody, "home")
    return fill_shelves(users, "home", SCENARIO, room, predict, look)


def test_what_is_new_is_explored_whoever_else_proposes_it() -> None:
    found = shelves_of(stockroom(own=[(user, ITEMS[n]) for user in USERS[::2] for n in NEW[:5]]))
    drawn, is_even = found.placed_by == EXPLORE, found.users % 2 == 0
    assert drawn.mean() == pytest.approx(0.3, abs=0.04)
    for whose in (is_even, ~is_even):
        assert set(found.items[drawn & whose].tolist()) == set(NEW)
    assert set(found.items[~drawn].tolist()) <= set(range(5))


def test_what_others_may_draw_changes_no_place_by_score() -> None:
    """The new items are the best of every second user, who draws none of them."""
    found = shelves_of(stockroom(), lambda users, items: np.where(users % 2, 200 - items, 200 - abs(items - 90)) / 200)
    is_even = found.users % 2 == 0
    assert found.items[is_even].tolist() == [90, 89, 91, 88, 92] * (len(USERS) // 2)
    assert found.rank_by_score[is_even].tolist() == found.ranks[is_even].tolist()
    assert (found.placed_by[~is_even] == EXPLORE).any()


@pytest.mark.parametrize(
    ("room", "why"),
    [
        (stockroom(), None),
        (stockroom(new=()), "nothing that it may show is new in the shop"),
        (stockroom(blocked=NEW), "nothing that it may show is new in the shop"),
        (
            stockroom(quotas={"home": {"fresh": 0}}),
            "its quotas, of before it explored, rank nothing that is new; run validate_examples again, then recommend",
        ),
        (stockroom(items=ITEMS[:40], new=range(5)), "all 40 items that it may show are scored in full for everybody"),
        (stockroom(items=ITEMS[:41], new=range(5)), None),
    ],
)
def test_why_no_place_goes_to_chance_is_told(room: Stockroom, why: str | None) -> None:
    assert nothing_to_explore("home", SCENARIO, room) == why


QUESTION = r"^\*\*What would another order have earned.*?```sql\n(.+?)```"
DOCS = (Path(__file__).parents[2] / "docs/queries.md").read_text()
[VALUE_OF_ANOTHER_ORDER] = re.findall(QUESTION, DOCS, re.MULTILINE | re.DOTALL)
NIGHTS, PLACES, FALL = 20, 5, 0.6  # a click on an item is less likely below each new item


def click_rate(place: int) -> float:
    """Return the chance of a click with no new item above: on the best by score, the next one …, 0, 1, …; on a new one, -1."""
    return 0.6 - 0.1 * place if place >= 0 else 0.1


def log_of_shelves() -> tuple[pa.Table, pa.Table]:
    """Return recommendations and training_examples of nights of five places: b0, b1 … by score, n0 … n9 new, explored at .3."""
    rng, keys, pool = np.random.default_rng(5), [f"u{n}" for n in range(4000)], 10
    best, new = np.broadcast_to(np.arange(PLACES), (len(keys), PLACES)), np.arange(pool)[None].repeat(len(keys), axis=0)
    shelves, seen = [], []
    for night in range(NIGHTS):
        draws = explore(chance_of(keys), new, np.ones(new.shape, bool), PLACES, 0.3, f"night {night}")
        columns, explored, propensity = interleave(best, draws, 0.3, PLACES)
        names = np.where(explored, np.char.add("n", columns.astype(str)), np.char.add("b", columns.astype(str)))
        above = explored.cumsum(axis=1) - explored
        rate = np.where(explored, click_rate(-1), 0.6 - 0.1 * columns) * FALL**above
        place = {
            "scenario": ["home"] * names.size,
            "user_key": np.repeat(keys, PLACES),
            "item_id": names.ravel(),
        }
        rank, day = (
            np.tile(np.arange(1, PLACES + 1), len(keys)),
            np.full(names.size, np.datetime64("2026-02-05") + night),
        )
        by = np.where(explored, PLACED_BY[EXPLORE], PLACED_BY[0]).ravel()
        told = {"as_of_date": day, "rank": rank, "placed_by": by, "propensity": propensity.ravel()}
        shelves.append(pa.table(place | told))
        clicked = (rng.random(rate.shape) < rate).astype(np.float32).ravel()
        known = {"event_date": day + 1, "label_click": clicked, "mask_click": np.ones(names.size, np.float32)}
        seen.append(pa.table(place | {"position": rank} | known))
    elsewhere = seen[0].set_column(3, "position", pa.array(np.zeros(seen[0].num_rows, np.int64)))
    return pa.concat_tables(shelves), pa.concat_tables([*seen, elsewhere])


@pytest.fixture(scope="module")
def logged() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for name, table in zip(("recommendations", "training_examples"), log_of_shelves(), strict=True):
        connection.register(name, table)
    return connection


@pytest.mark.parametrize(
    ("order", "truth"),
    [
        ("placed_by <> 'explore'", [click_rate(place) for place in range(PLACES)]),
        (
            "item_id = CASE rank WHEN 1 THEN 'n3' ELSE 'b' || (rank - 2) END",
            [click_rate(-1), *(FALL * click_rate(place) for place in range(PLACES - 1))],
        ),
    ],
    ids=["without exploration", "a new item first"],
)
def test_every_place_of_another_order_is_valued_by_what_was_logged(
    logged: duckdb.DuckDBPyConnection, order: str, truth: list[float]
) -> None:
    found = logged.execute(VALUE_OF_ANOTHER_ORDER.replace("placed_by <> 'explore'", order)).fetchall()
    assert [row[1:3] for row in found] == [(rank, NIGHTS * 4000) for rank in range(1, PLACES + 1)]
    for (*_, other, rests_on, mean_weight), true in zip(found, truth, strict=True):
        within = 4 * (true * (1 - true) / rests_on) ** 0.5
        assert other == pytest.approx(true, abs=within)
        assert mean_weight == pytest.approx(1, abs=4 / rests_on**0.5)
    assert any(abs(row[3] - true) > 0.05 for row, true in zip(found, truth, strict=True))  # … which is not as shown
