from dataclasses import replace
from functools import partial

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshelf.exclusions import item_condition
from nightshelf.generators import GENERATOR_ORDER
from nightshelf.scenarios import Scenario
from pipelines.candidate_lists import pack_candidates
from pipelines.first_look import first_look, worth_to_anybody
from pipelines.kept_away import Exclusions
from pipelines.reasons import reason_texts
from pipelines.rerank import PLACED_BY, Groups, chance_of
from pipelines.serve import serve, serve_strangers
from pipelines.shelves import Stockroom, fill_shelves

USERS, ITEMS = [f"u{n}" for n in range(6)], [f"i{n:02}" for n in range(30)]


def candidate_table(rows: list[tuple[str, str, str, str, float]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 5
    names = ("user_key", "scenario", "item_id", "generator", "generator_score")
    table = pa.table(
        {
            name: pa.array(list(c), pa.float32() if i == 4 else pa.string())
            for i, (name, c) in enumerate(zip(names, columns, strict=True))
        }
    )
    because = [f"a/{generator}" if generator == "affinity" else None for generator in table["generator"].to_pylist()]
    return table.append_column("because", pa.array(because, pa.string()))


def stockroom(lists, out_of_stock=(), bought=(), blocked=(), items=30):  # type: ignore[no-untyped-def]
    """Return what shelves are filled from: items by number, bought as pairs of user and item numbers."""
    stock, barred = np.zeros(items, bool), np.zeros(items, bool)
    stock[list(out_of_stock)] = True
    barred[list(blocked)] = True
    pairs = np.array(sorted(user * items + item for user, item in bought), np.int64)
    names = ("category_1", "category_2", "category_3", "brand")
    groups = Groups({name: np.arange(items, dtype=np.int32) for name in names})
    return Stockroom(
        lists,
        Exclusions({"out_of_stock": stock}, {"purchased_30d": pairs}, barred),
        groups,
        "2026-02-05",
        np.arange(6000, dtype=np.uint64),
    )


def test_candidates_come_in_parts_of_any_size() -> None:
    rng = np.random.default_rng(3)
    drawn = [
        (user, where, item, generator, float(score))
        for user, where in ((f"u{n % 7}", "*") if n % 5 else ("*", "search") for n in range(400))
        for item, generator, score in [(f"i{rng.integers(33):02}", GENERATOR_ORDER[rng.integers(7)], rng.integers(9))]
    ]
    table = candidate_table(drawn).set_column(
        5, "because", pa.array([None if n % 3 else f"b{n % 11}" for n in range(400)])
    )
    whole = pack_candidates([table], USERS, ITEMS)
    assert whole.rows == 400
    assert len(whole.everybody["search"][0]) > 20
    best = {}  # by hand: the first generator's best, of users and items that are known
    for (user, _, item, generator, score), because in zip(drawn, table["because"].to_pylist(), strict=True):
        rank = (GENERATOR_ORDER.index(generator), -score)
        if user in USERS and item in ITEMS and rank < best.get((user, item), ((9, 0), None))[0]:
            best[user, item] = (rank, because)
    for number, user in enumerate(USERS):
        told = zip(
            whole.items[number].tolist(), whole.generators[number].tolist(), whole.because[number].tolist(), strict=True
        )
        found = {
            (user, ITEMS[item]): (generator, whole.texts[because]) for item, generator, because in told if item >= 0
        }
        assert found == {pair: (rank[0], because) for pair, (rank, because) in best.items() if pair[0] == user}
    for size in (1, 17, 399):
        parts = pack_candidates([table.slice(start, size) for start in range(0, 400, size)], USERS, ITEMS)
        assert all(
            np.array_equal(getattr(parts, name), getattr(whole, name)) for name in ("items", "generators", "because")
        )
        assert parts.texts == whole.texts
        assert {name: [part.tolist() for part in lists] for name, lists in parts.everybody.items()} == {
            name: [part.tolist() for part in lists] for name, lists in whole.everybody.items()
        }


own = st.tuples(
    st.sampled_from([*USERS, "stranger"]),
    st.just("*"),
    st.sampled_from([*ITEMS, "gone"]),
    st.sampled_from(["own_history", "related", "affinity"]),
    st.floats(0, 1, width=32),
)
shared = st.tuples(
    st.just("*"),
    st.sampled_from(["search", "cart", "*"]),
    st.sampled_from(ITEMS),
    st.sampled_from(["popular", "fresh"]),
    st.floats(0, 1, width=32),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(own | shared, max_size=80),
    st.sets(st.integers(0, 29), max_size=8),
    st.sets(st.tuples(st.integers(0, 5), st.integers(0, 29)), max_size=10),
    st.sets(st.integers(0, 29), max_size=4),
    st.integers(1, 8),
)
def test_a_shelf_is_what_sorting_by_hand_gives(rows, sold_out, bought, blocked, top_n) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    click, buy = (rng.integers(0, 4, (7, 30)) / 4 for _ in range(2))  # few values, so that ties happen
    scenario = Scenario(top_n=top_n, utility={"click": 1, "purchase": 3}, exclude=["out_of_stock", "purchased_30d"])
    room = stockroom(pack_candidates([candidate_table(rows)], USERS, ITEMS), sold_out, bought, blocked)
    shelves = fill_shelves(
        np.arange(6),
        "search",
        scenario,
        room,
        lambda i: {"click": click[np.arange(6)[:, None], i], "purchase": buy[np.arange(6)[:, None], i]},
    )
    for number, user in enumerate(USERS):
        wanted = {
            item
            for key, name, item, _, _ in rows
            if (key == user or (key == "*" and name in ("search", "*"))) and item in ITEMS
        }
        allowed = [
            ITEMS.index(item)
            for item in wanted
            if ITEMS.index(item) not in sold_out | blocked and (number, ITEMS.index(item)) not in bought
        ]
        best = sorted(allowed, key=lambda i: (-(click[number, i] + 3 * buy[number, i]), i))[:top_n]
        mine = shelves.users == number
        assert shelves.items[mine].tolist() == best
        assert shelves.ranks[mine].tolist() == shelves.rank_by_score[mine].tolist() == list(range(1, len(best) + 1))
    assert set(shelves.placed_by.tolist()) <= {0}
    assert set(shelves.propensity.tolist()) <= {1.0}


some_quotas = st.dictionaries(
    st.sampled_from(["own_history", "related", "affinity", "popular", "fresh"]), st.integers(0, 4)
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(own | shared, max_size=80, unique_by=lambda row: row[:4]),
    some_quotas,
    some_quotas,
    st.sets(st.integers(0, 29), max_size=8),
)
def test_a_scenario_ranks_the_best_of_each_generator_within_its_quotas(rows, for_search, for_cart, sold_out) -> None:  # type: ignore[no-untyped-def]
    worth = np.random.default_rng(2).permutation(7 * 30).reshape(7, 30) / 210
    quotas = {"search": for_search, "cart": for_cart}
    rows = [(*row[:4], float(round(row[4]))) for row in rows]  # few values, so that ties happen
    room = stockroom(pack_candidates([candidate_table(rows)], USERS, ITEMS, quotas), sold_out)
    scenario = Scenario(top_n=20, utility={"click": 1}, exclude=["out_of_stock"])

    def predict_for(users):  # type: ignore[no-untyped-def]
        of_block = lambda items: {"click": np.where(items >= 0, worth[users[:, None], items], np.nan)}  # noqa: E731
        return dict.fromkeys(quotas, of_block)

    users, both = np.arange(6), dict.fromkeys(quotas, scenario)
    anybody, predict = worth_to_anybody(both, predict_for(np.array([-1])), 30), predict_for(users)["cart"]
    look = first_look(users, scenario, room.lists, predict, anybody, "cart")
    for name, of in quotas.items():
        ranked: dict[str, set[int]] = {user: set() for user in USERS}
        for user in (*USERS, "*"):  # by hand: the heads of the lists of everybody and of the user's own
            for where, generator in {(row[1], row[3]) for row in rows if row[0] == user and row[1] in (name, "*")}:
                proposed = [
                    row for row in rows if (row[0], row[1], row[3]) == (user, where, generator) and row[2] in ITEMS
                ]
                best = sorted(proposed, key=lambda row: (-row[4], row[2]))[: of.get(generator, 99)]
                for one in USERS if user == "*" else [user]:
                    ranked[one] |= {ITEMS.index(row[2]) for row in best}
        for with_look in (look, None):
            shelves = fill_shelves(users, name, scenario, room, predict, with_look)
            for number, user in enumerate(USERS):
                expected = sorted(ranked[user] - sold_out, key=lambda item: -worth[number, item])[:20]
                assert shelves.items[shelves.users == number].tolist() == expected


def test_what_no_scenario_ranks_is_neither_kept_nor_looked_at() -> None:
    rows = [
        ("u0", "*", item, generator, float(n)) for n, item in enumerate(ITEMS) for generator in ("related", "affinity")
    ]
    lists = pack_candidates(
        [candidate_table(rows)],
        USERS,
        ITEMS,
        {"search": {"related": 3, "affinity": 0}, "cart": {"related": 5, "affinity": 1}},
    )
    assert lists.items[0].tolist() == [25, 26, 27, 28, 29]
    looked_at = []

    def predict(items):  # type: ignore[no-untyped-def]
        looked_at.append(items[0][items[0] >= 0].tolist())
        return {"click": np.where(items >= 0, items / 30, np.nan)}

    scenario = Scenario(top_n=20, utility={"click": 1})
    look = first_look(np.arange(6), scenario, lists, predict, {"search": np.ones(30), "cart": np.ones(30)}, "cart")
    fill_shelves(np.arange(6), "search", scenario, stockroom(lists), predict, look)
    assert [sorted(items) for items in looked_at] == [[25, 26, 27, 28, 29], [27, 28, 29]]


def test_of_equal_proposals_the_lower_items_are_within_a_quota() -> None:
    rows = [(user, "*", item, "related", 1.0) for user in ("u0", "*") for item in reversed(ITEMS[:9])]
    lists = pack_candidates([candidate_table(rows)], USERS, ITEMS, {"search": {"related": 2}})
    assert lists.of_users(["search"], np.array([0])).tolist() == [[0, 1]]
    assert lists.of_everybody(["search"])[0].tolist() == [0, 1]


def test_nine_scenarios_each_rank_their_own_number() -> None:
    rows = [("u0", "*", item, "related", float(n)) for n, item in enumerate(ITEMS)]
    quotas = {f"s{n}": {"related": n} for n in range(9)}
    lists = pack_candidates([candidate_table(rows)], USERS, ITEMS, quotas)
    for name, of in quotas.items():
        assert (lists.of_users([name], np.arange(6)) >= 0).sum(axis=1).tolist() == [of["related"], 0, 0, 0, 0, 0]


def test_the_unknown_user_gets_what_everybody_may_see() -> None:
    rows = [
        ("u0", "*", "i05", "related", 1.0),
        ("*", "cart", "i01", "popular", 1.0),
        ("*", "*", "i02", "fresh", 1.0),
        ("*", "search", "i03", "popular", 1.0),
    ]
    lists = pack_candidates([candidate_table(rows)], USERS, ITEMS)
    room = stockroom(lists, bought=[(0, 2)])
    scenario = Scenario(utility={"click": 1}, exclude=["purchased_30d"])
    shelves = fill_shelves(np.array([-1]), "cart", scenario, room, lambda i: {"click": i.astype(float)})
    assert shelves.items.tolist() == [2, 1]
    assert [GENERATOR_ORDER[g] for g in shelves.generators] == ["fresh", "popular"]


def test_each_scenario_excludes_by_its_own_rules() -> None:
    lists = pack_candidates(
        [candidate_table([("u0", "*", f"i0{n}", "related", 1.0) for n in range(1, 5)])], USERS, ITEMS
    )
    room = stockroom(lists)
    acted = {"like_90d": np.array([2]), "click_1d": np.array([3, 4])}  # items of user 0
    room = replace(room, exclusions=replace(room.exclusions, acted_on=acted))
    shown = {}
    for rules in ((), ("like_90d",), ("click_1d",), ("like_90d", "click_1d")):
        scenario = Scenario(utility={"click": 1}, exclude=list(rules))
        shelves = fill_shelves(np.array([0]), "cart", scenario, room, lambda i: {"click": i.astype(float)})
        shown[rules] = shelves.items.tolist()
    assert list(shown.values()) == [[4, 3, 2, 1], [4, 3, 1], [2, 1], [1]]


def test_a_reason_names_what_the_generator_found() -> None:
    rows = [("u0", "*", "i05", "affinity", 1.0), ("*", "cart", "i01", "popular", 1.0)]
    lists = pack_candidates([candidate_table(rows)], USERS, ITEMS)
    room = stockroom(lists)
    shelves = fill_shelves(
        np.array([0]),
        "cart",
        Scenario(utility={"click": 1}),
        room,
        lambda i: {"click": i.astype(float)},
    )
    assert reason_texts(shelves, "cart", lists.texts, {}).tolist() == ["You often choose affinity", "Popular in cart"]


def test_no_candidates_at_all_give_no_rows() -> None:
    lists = pack_candidates([candidate_table([])], USERS, ITEMS)
    room = stockroom(lists)
    shelves = fill_shelves(
        np.arange(6), "cart", Scenario(utility={"click": 1}), room, lambda i: {"click": i.astype(float)}
    )
    assert len(shelves.ranks) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(own | shared, max_size=80))
def test_a_first_look_that_keeps_everything_changes_nothing(rows) -> None:  # type: ignore[no-untyped-def]
    worth = np.random.default_rng(1).random((7, 30))
    scenario = Scenario(top_n=20, utility={"click": 1})  # 2 x 20 places: more than the 30 items that there are
    lists = pack_candidates([candidate_table(rows)], USERS, ITEMS)
    room = stockroom(lists, range(0, 30, 7))

    def predictions(users):  # type: ignore[no-untyped-def]
        return lambda items: {"click": np.where(items >= 0, worth[users[:, None], items], np.nan)}

    users, unknown = np.arange(6), predictions(np.array([-1]))
    predict = predictions(users)
    anybody = worth_to_anybody({"search": scenario, "cart": scenario}, {"search": unknown, "cart": unknown}, 30)
    look = first_look(users, scenario, lists, predict, anybody, "cart")
    whole = fill_shelves(users, "search", scenario, room, predict)
    chosen = fill_shelves(users, "search", scenario, room, predict, look)
    for one, other in zip(vars(whole).values(), vars(chosen).values(), strict=True):
        assert (
            np.array_equal(one, other)
            if isinstance(one, np.ndarray)
            else all(np.array_equal(one[k], other[k]) for k in one)
        )


def test_a_first_look_spares_the_model_the_worst_candidates() -> None:
    rows = [("u0", "*", item, "related", 1.0) for item in ITEMS] + [("u1", "*", "i00", "related", 1.0)]
    many = [f"i{n:03}" for n in range(200)]
    table = candidate_table([("u0", "*", item, "related", 1.0) for item in many] + rows[-1:])
    lists = pack_candidates([table], USERS, many)
    room = stockroom(lists, items=200)
    widths = []

    def predict(items):  # type: ignore[no-untyped-def]
        widths.append(items.shape[1])
        return {"click": np.where(items >= 0, items / 200, np.nan)}

    scenario = Scenario(top_n=5, utility={"click": 1})
    anybody = worth_to_anybody({"search": scenario}, {"search": predict}, 200)
    look = first_look(np.arange(6), scenario, lists, predict, anybody, "search")
    shelves = fill_shelves(np.arange(6), "search", scenario, room, predict, look)
    assert widths == [200, 200, 40]  # once for everybody, the look, and what it left
    assert shelves.items[shelves.users == 0].tolist() == [199, 198, 197, 196, 195]


def test_a_first_look_moves_from_one_scenario_to_another_by_what_items_are_worth_there() -> None:
    items = [f"i{n:03}" for n in range(200)]
    lists = pack_candidates([candidate_table([("u0", "*", item, "related", 1.0) for item in items])], USERS, items)
    room = stockroom(lists, items=200)
    scenario = Scenario(top_n=5, utility={"click": 1})
    scores = {"home": lambda items: (items + 1) / 200, "checkout": lambda items: (200 - items) / 200}  # the reverse
    predictors = {
        name: lambda items, score=score: {"click": np.where(items >= 0, score(items), np.nan)}
        for name, score in scores.items()
    }
    both = {"home": scenario, "checkout": scenario}
    look = first_look(
        np.arange(6), scenario, lists, predictors["home"], worth_to_anybody(both, predictors, 200), "home"
    )
    shelves = fill_shelves(np.arange(6), "checkout", scenario, room, predictors["checkout"], look)
    assert shelves.items[shelves.users == 0].tolist() == [0, 1, 2, 3, 4]


def test_a_cap_holds_where_one_category_has_the_best_candidates_and_others_are_left() -> None:
    items = [f"i{n:03}" for n in range(300)]
    lists = pack_candidates([candidate_table([("u0", "*", item, "related", 1.0) for item in items])], USERS, items)
    room = stockroom(lists, items=300)
    codes = {
        "category_3": np.maximum(0, np.arange(300) // 30 - 1),
        "brand": np.arange(300) % 2,
    }  # the best 60 are alike
    room = replace(room, groups=Groups({name: of.astype(np.int32) for name, of in codes.items()}))
    scenario = Scenario(top_n=20, utility={"click": 1}, rerank={"most_per": {"category_3": 4, "brand": 12}})

    def predict(items):  # type: ignore[no-untyped-def]
        return {"click": np.where(items >= 0, (300 - items) / 300, np.nan)}

    look = first_look(np.array([0]), scenario, lists, predict, {"home": np.ones(300)}, "home")
    for with_look in (look, None):
        shelves = fill_shelves(np.array([0]), "home", scenario, room, predict, with_look)
        assert shelves.items.tolist() == [category for of in (0, 60, 90, 120, 150) for category in range(of, of + 4)]


@pytest.mark.parametrize("utility", [{"click": 1, "hide": -1}, {"click": 1, "hide": -5}])
def test_where_some_outcomes_cost_something_the_items_that_are_worth_most_win(utility) -> None:  # type: ignore[no-untyped-def]
    rng, items, numbers = np.random.default_rng(5), [f"i{n:03}" for n in range(200)], np.arange(6)
    lists = pack_candidates([candidate_table([("*", "*", item, "popular", 1.0) for item in items])], USERS, items)
    room, taste = stockroom(lists, items=200), rng.uniform(0.7, 1.3, (7, 200))  # the last row: nobody in particular
    taste[-1] = 1.0
    rates = {
        name: {"click": rng.uniform(0.01, 0.2, 200), "hide": rng.uniform(0, 0.1, 200)} for name in ("home", "cart")
    }
    rates["cart"] |= {"hide": rates["home"]["hide"] + 0.01}

    def predict_for(users):  # type: ignore[no-untyped-def]
        def predict(name, found):  # type: ignore[no-untyped-def]
            of = {
                "click": rates[name]["click"][found] * taste[users[:, None], found],
                "hide": rates[name]["hide"][found],
            }
            return {task: np.where(found >= 0, values, np.nan) for task, values in of.items()}

        return {name: partial(predict, name) for name in rates}

    scenarios = {"home": Scenario(top_n=5, utility=utility), "cart": Scenario(top_n=5, utility=utility)}
    worth = worth_to_anybody(scenarios, predict_for(np.array([-1])), 200)
    assert (worth["home"] < 0).any() and (worth["home"] > 0).sum() > 20
    served = dict(serve(6, scenarios, predict_for, worth, room, Items(), "users", workers=1, leaning={"cart": 0.5}))
    unknown = {-1: np.array([-1])}
    strangers = [of for name, _, of in serve_strangers(unknown, scenarios, predict_for, worth, room, Items())]
    for shelves, name, users in [*((served[name], name, numbers) for name in rates), (strangers[0], "home", [-1])]:
        predicted = predict_for(np.array(users))[name](np.broadcast_to(np.arange(200), (len(users), 200)))
        own = sum(weight * predicted[task] for task, weight in utility.items())
        for row, user in enumerate(users):
            found = shelves.items[shelves.users == user]
            best = np.sort(own[row])[::-1]
            assert (own[row, found] > 0).all()
            if name == "home":
                assert own[row, found].tolist() == pytest.approx(best[:5].tolist(), abs=1e-6)
            assert own[row, found].sum() > 0.8 * best[:5].sum()


def explored(users: int, block: int, share: float = 0.3, seed: str = "2026-02-05", new: int = 10):  # type: ignore[no-untyped-def]
    """Return the shelves of five places of users with the same scores, served in blocks; the last items are new in the shop."""
    items = [f"i{n:03}" for n in range(70)]
    keys = [f"u{n}" for n in range(users)]
    rows = [("*", "*", item, "popular" if n < 70 - new else "fresh", 1.0) for n, item in enumerate(items)]
    room = stockroom(pack_candidates([candidate_table(rows)], keys, items), items=70)
    room = Stockroom(room.lists, room.exclusions, room.groups, seed, chance_of(keys))
    scenario = Scenario(top_n=5, utility={"click": 1}, rerank={"explore": share})

    def predict(items):  # type: ignore[no-untyped-def]
        return {"click": np.where(items >= 0, (70 - items) / 70, np.nan)}

    anybody = worth_to_anybody({"search": scenario}, {"search": predict}, 70)
    parts = []
    for start in range(0, users, block):
        numbers = np.arange(start, min(start + block, users))
        look = first_look(numbers, scenario, room.lists, predict, anybody, "search")
        parts.append(fill_shelves(numbers, "search", scenario, room, predict, look))
    columns = [{**vars(part), **part.predictions} for part in parts]
    return {name: np.concatenate([of[name] for of in columns]) for name in columns[0] if name != "predictions"}


def test_exploration_draws_evenly_and_its_propensities_are_true() -> None:
    users = 6000
    found = explored(users, 1000)
    drawn = found["placed_by"] == 2
    assert drawn.mean() == pytest.approx(0.3, abs=0.01)
    assert set(found["items"][drawn].tolist()) == set(range(60, 70))
    assert set(found["items"][~drawn].tolist()) <= set(range(5))
    assert len(
        {(user, item) for user, item in zip(found["users"].tolist(), found["items"].tolist(), strict=True)}
    ) == len(drawn)
    for rank in (1, 3, 5):
        here = found["ranks"] == rank
        counts = np.bincount(found["items"][here & drawn] - 60, minlength=10) / users
        assert counts == pytest.approx(0.03, abs=0.01)
    first = found["ranks"] == 1  # an item that came with chance p counts 1/p: on average each item counts as one
    weights = 1 / found["propensity"][first]
    for item in (0, *range(60, 70)):
        assert (weights * (found["items"][first] == item)).sum() / users == pytest.approx(1, abs=0.25)
    assert found["propensity"][first & ~drawn].tolist() == [0.7] * int((first & ~drawn).sum())
    assert found["propensity"][first & drawn].tolist() == [0.3 / 10] * int((first & drawn).sum())


def test_exploration_hangs_on_the_night_and_the_user_not_on_the_block() -> None:
    whole, other = explored(500, 500, share=0.05), explored(500, 500, share=0.05, seed="2026-02-06")
    assert not np.array_equal(whole["items"], other["items"])
    for block in (1, 37):
        parts = explored(500, block, share=0.05)
        assert [name for name in whole if not np.array_equal(whole[name], parts[name])] == []
    by_score = np.lexsort((-whole["scores"], whole["users"]))
    assert (np.diff(whole["rank_by_score"][by_score])[np.diff(whole["users"][by_score]) == 0] > 0).all()


def test_every_column_of_a_shelf_hangs_on_its_user_alone_whomever_it_is_made_with() -> None:
    rng, users, items = np.random.default_rng(8), 40, [f"i{n:03}" for n in range(150)]
    keys = [f"u{n}" for n in range(users)]
    shared = [("*", "*", item, "fresh" if n % 2 else "popular", 1.0) for n, item in enumerate(items[:60])]
    own = [
        (key, "*", items[item], str(rng.choice(["related", "fresh"])), float(rng.random()))
        for key in keys
        for item in rng.choice(150, rng.integers(60), replace=False)
    ]
    worth = rng.permutation(users * 150).reshape(users, 150) / (users * 150)
    room = stockroom(pack_candidates([candidate_table(shared + own)], keys, items), range(0, 150, 9), items=150)
    room = replace(
        room, groups=Groups({name: of % 7 for name, of in room.groups.codes.items()}), chance=chance_of(keys)
    )
    rules = {"explore": 0.3, "diversity": 0.1, "most_per": {"brand": 3}}
    scenario = Scenario(top_n=10, utility={"click": 1}, exclude=["out_of_stock"], rerank=rules)

    def columns(block):  # type: ignore[no-untyped-def]
        parts = []
        for start in range(0, users, block):
            some = np.arange(start, min(start + block, users))
            predict = lambda of: {"click": np.where(of >= 0, worth[some[:, None], of], np.nan)}  # noqa: B023, E731
            look = first_look(some, scenario, room.lists, predict, {"home": np.ones(150)}, "home")
            part = fill_shelves(some, "home", scenario, room, predict, look)
            parts.append({**vars(part), **part.predictions})
        return {name: np.concatenate([of[name] for of in parts]) for name in parts[0] if name != "predictions"}

    whole = columns(users)
    assert set(whole["placed_by"].tolist()) == {0, 1, 2}
    for block in (1, 17):
        parts = columns(block)
        assert [name for name in whole if not np.array_equal(whole[name], parts[name])] == []


def test_the_shelves_of_strangers_explore_too() -> None:
    items, numbers = [f"i{n:03}" for n in range(70)], np.arange(-2000, 0)
    rows = [("*", "*", item, "popular" if n < 60 else "fresh", 1.0) for n, item in enumerate(items)]
    room = stockroom(pack_candidates([candidate_table(rows)], USERS, items), items=70)
    scenarios = {"search": Scenario(top_n=5, utility={"click": 1}, rerank={"explore": 0.3})}

    def predict_for(users):  # type: ignore[no-untyped-def]
        return {"search": lambda items: {"click": np.where(items >= 0, (70 - items) / 70, np.nan)}}

    worth = worth_to_anybody(scenarios, predict_for(np.array([-1])), 70)

    def shelves(some):  # type: ignore[no-untyped-def]
        found = [of for _, _, of in serve_strangers({-1: some}, scenarios, predict_for, worth, room, Items())]
        assert np.concatenate([of.users for of in found]).tolist() == np.repeat(some, 5).tolist()
        placed_by, shown, propensity = (
            np.concatenate([getattr(of, column) for of in found]).reshape(-1, 5)
            for column in ("placed_by", "items", "propensity")
        )
        return placed_by == 2, shown, propensity

    drawn, shown, propensity = shelves(numbers)
    assert drawn.mean() == pytest.approx(0.3, abs=0.02)
    assert set(shown[drawn].tolist()) == set(range(60, 70)) and set(shown[~drawn].tolist()) <= set(range(5))
    assert propensity[:, 0][drawn[:, 0]].tolist() == pytest.approx([0.03] * int(drawn[:, 0].sum()))
    assert shelves(numbers[-7:-6])[1].tolist() == [shown[-7].tolist()]


class Items:
    """Makes no rows: shelves as they are."""

    def rows(self, name, shelves):  # type: ignore[no-untyped-def]
        return shelves


def test_every_shelf_of_a_user_knows_those_before_it() -> None:
    rows = [("*", "*", item, "popular", 1.0) for item in ITEMS]
    room, worth = stockroom(pack_candidates([candidate_table(rows)], USERS, ITEMS)), np.linspace(1, 0.5, 30)

    def predict_for(users):  # type: ignore[no-untyped-def]
        return dict.fromkeys(
            ("home", "search", "cart"), lambda items: {"click": np.where(items < 0, np.nan, worth[items])}
        )

    for repeats, expected in ((0.0, {name: [0, 1, 2] for name in ("home", "search", "cart")}), (0.9, None)):
        scenarios = dict.fromkeys(
            ("home", "search", "cart"), Scenario(top_n=3, utility={"click": 1}, rerank={"repeats": repeats})
        )
        expected = expected or {"home": [0, 1, 2], "search": [3, 4, 5], "cart": [6, 7, 8]}
        anybody = worth_to_anybody(scenarios, predict_for(np.array([-1])), 30)
        served = list(serve(len(USERS), scenarios, predict_for, anybody, room, Items(), "users", workers=1))
        assert {name: found.items.tolist() for name, found in served} == {
            name: items * len(USERS) for name, items in expected.items()
        }
        segments = {-1: np.array([-4, -3, -1]), -2: np.array([-2])}
        strangers = list(serve_strangers(segments, scenarios, predict_for, anybody, room, Items()))
        assert [(name, numbers.tolist(), found.items.tolist()) for name, numbers, found in strangers] == [
            (name, np.repeat(numbers, 3).tolist(), items * len(numbers))
            for numbers in segments.values()
            for name, items in expected.items()
        ]


def test_what_costs_more_than_a_scenario_allows_or_has_no_price_is_on_no_shelf() -> None:
    items = "(VALUES (1, 19.99), (0, 5.0), (-3, 5.0), (NULL, 20.5), (5, NULL)) AS items(stock, price)"
    rules = ", ".join(item_condition(rule) for rule in ("price_over_19.99", "out_of_stock"))
    assert duckdb.sql(f"SELECT {rules} FROM {items}").fetchall() == [
        (False, False),
        (False, True),
        (False, True),  # sold before they came
        (True, False),
        (True, False),
    ]
    rows = [("*", "*", item, "popular", 1.0) for item in ITEMS[:4]]
    room = stockroom(pack_candidates([candidate_table(rows)], USERS, ITEMS))
    dear = np.array([False, False, True, True, *[False] * 26])
    room = replace(room, exclusions=Exclusions({"price_over_19.99": dear}, {}, np.zeros(30, bool)))
    scenario = Scenario(top_n=3, utility={"click": 1}, exclude=["price_over_19.99"])
    shelves = fill_shelves(np.array([0]), "checkout", scenario, room, lambda items: {"click": items + 1.0})
    assert shelves.items.tolist() == [1, 0]
    assert room.exclusions.anybody(scenario.exclude)[:4].tolist() == [True, True, False, False]


def test_new_items_rise_by_their_age_and_come_into_the_full_look() -> None:
    items = [f"i{n:03}" for n in range(200)]
    rows = [("u0", "*", item, "related", 1.0) for item in items]
    room = stockroom(pack_candidates([candidate_table(rows)], USERS, items), items=200)
    age = np.full(200, np.inf)
    age[[199, 198, 197]] = 0, 5, 10
    room = replace(room, groups=replace(room.groups, age_days=age))
    worth = np.r_[np.linspace(1, 0.7, 197), 0.6, 0.6, 0.6]
    scenario = Scenario(top_n=3, utility={"click": 1}, rerank={"fresh": {"days": 10, "boost": 1.0}})

    def predict(found):  # type: ignore[no-untyped-def]
        return {"click": np.where(found < 0, np.nan, worth[found])}

    look = first_look(np.array([0]), scenario, room.lists, predict, {"home": np.ones(200)}, "home")
    shelves = fill_shelves(np.array([0]), "home", scenario, room, predict, look)
    assert shelves.items.tolist() == [199, 0, 1]  # 1.2, 1, .998; the others .9 and .6
    assert shelves.scores.tolist() == pytest.approx([0.6, 1.0, 0.998469])
    assert [PLACED_BY[place] for place in shelves.placed_by] == ["rules", "rules", "rules"]


def test_where_nothing_is_new_nothing_is_placed_by_chance() -> None:
    found = explored(50, 50, new=0)
    assert len(found["items"]) == 50 * 5
    assert set(found["placed_by"].tolist()) == {0}
    assert set(found["propensity"].tolist()) == {1.0}


def test_an_item_counts_for_less_where_an_earlier_shelf_has_it() -> None:
    rows = [("*", "*", item, "popular", 1.0) for item in ITEMS]
    room = stockroom(pack_candidates([candidate_table(rows)], USERS, ITEMS))
    scenario = Scenario(top_n=3, utility={"click": 1}, rerank={"repeats": 0.5})
    worth = np.array([1.0, 0.9, 0.6, *np.linspace(0.5, 0.1, 27)])
    shown = np.array([[0, 1, -1], [0, 0, -1]])  # the second user has the first item on two shelves

    def predict(items):  # type: ignore[no-untyped-def]
        return {"click": worth[items]}

    shelves = fill_shelves(np.array([0, 1]), "search", scenario, room, predict, None, shown)
    assert shelves.items.tolist() == [2, 0, 3, 1, 2, 3]  # .6, .5 = .5, … and .9, .6, .5: ties to the lower number
    assert shelves.scores[:3].tolist() == [0.6, 1.0, 0.5]  # the score is what it was
    assert shelves.rank_by_score[:3].tolist() == [3, 1, 4]


def test_a_scenario_of_few_examples_leans_on_the_first_score() -> None:
    """By the geometric mean of both utilities, with all of an item's predictions scaled alike, and no chance above 1."""
    rows = [(user, "*", item, "related", 1.0) for user in USERS for item in ITEMS]
    lists = pack_candidates([candidate_table(rows)], USERS, ITEMS)
    rng, scenario = np.random.default_rng(3), Scenario(top_n=20, utility={"click": 1, "spend": 0.5})
    click, spend, home = rng.uniform(0.01, 0.9, (7, 30)), rng.uniform(2, 50, (7, 30)), rng.uniform(0.01, 60, (7, 30))
    worth = {"home": rng.uniform(0.5, 1, 30), "cart": rng.uniform(0.5, 1, 30)}
    numbers = np.arange(6)[:, None]

    def predict(items):  # type: ignore[no-untyped-def]
        there = {"click": click[numbers, items], "spend": spend[numbers, items]}
        return {task: np.where(items >= 0, values, np.nan) for task, values in there.items()}

    def at_home(items):  # type: ignore[no-untyped-def]
        return {"click": np.where(items >= 0, home[numbers, items], np.nan)}

    own = click[:6] + 0.5 * spend[:6]
    first = home[:6] * worth["cart"] / worth["home"]
    scale = np.minimum((first / own) ** 0.75, 1 / click[:6])
    for leaning, expected in (({"cart": 0.75}, own * scale), ({"other": 0.75}, own), ({}, own)):
        room = stockroom(lists)
        look = first_look(np.arange(6), Scenario(utility={"click": 1}), lists, at_home, worth, "home", leaning)
        shelves = fill_shelves(np.arange(6), "cart", scenario, room, predict, look)
        at = (shelves.users, shelves.items)
        assert shelves.scores == pytest.approx(expected[at], abs=2e-6)
        summed = shelves.predictions["click"] + 0.5 * shelves.predictions["spend"]
        assert summed == pytest.approx(shelves.scores, abs=2e-6)
        assert shelves.predictions["click"].max() <= 1
        for user in range(6):
            best = expected[user, shelves.items[shelves.users == user]]
            assert (np.diff(best) <= 1e-6).all()
    assert (scale < (first / own) ** 0.75).any()
