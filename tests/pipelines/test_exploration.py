"""Which items places are given to by chance, and what the kept chances tell of another order."""

import numpy as np
import pyarrow as pa
import pytest

from nightshelf.config import Scenario
from pipelines.candidate_lists import EVERYBODY, pack_candidates
from pipelines.first_look import first_look, worth_to_anybody
from pipelines.kept_away import Exclusions
from pipelines.recommend import nothing_to_explore
from pipelines.rerank import EXPLORE, Groups, chance_of
from pipelines.shelves import Shelves, Stockroom, fill_shelves

ITEMS = [f"i{n:03}" for n in range(100)]
USERS = [f"u{n}" for n in range(400)]
NEW = range(90, 100)
SCENARIO = Scenario(top_n=5, utility={"click": 1}, rerank={"explore": 0.3})


def stockroom(own=(), items=ITEMS, new=NEW, blocked=()):  # type: ignore[no-untyped-def]
    """Return what shelves are filled from: all items are popular, some new, some proposed to users (`own`: of them and items)."""
    rows = [(EVERYBODY, item, "popular", -float(n)) for n, item in enumerate(items)]
    rows += [(EVERYBODY, items[n], "fresh", 1.0) for n in new]
    rows += [(user, item, "related", 1.0) for user, item in own]
    users, proposed, generators, scores = zip(*rows, strict=True)
    table = pa.table({"user_key": users, "item_id": proposed, "generator": generators, "because": [None] * len(rows)})
    table = table.append_column("scenario", pa.array(["*"] * len(rows)))
    table = table.append_column("generator_score", pa.array(scores, pa.float32()))
    away = np.isin(np.arange(len(items)), list(blocked))
    lists = pack_candidates([table], USERS, list(items))
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
        (stockroom(items=ITEMS[:40], new=range(5)), "all 40 items that it may show are scored in full for everybody"),
        (stockroom(items=ITEMS[:41], new=range(5)), None),
    ],
)
def test_why_no_place_goes_to_chance_is_told(room: Stockroom, why: str | None) -> None:
    assert nothing_to_explore("home", SCENARIO, room) == why
