import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshelf.config import Scenario
from pipelines.candidate_lists import GENERATOR_ORDER, pack_candidates
from pipelines.shelves import Exclusions, fill_shelves, first_look, reason_texts, worth_to_anybody

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
    st.integers(1, 8),
)
def test_a_shelf_is_what_sorting_by_hand_gives(rows, sold_out, bought, top_n) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    click, buy = (rng.integers(0, 4, (7, 30)) / 4 for _ in range(2))  # few values, so that ties happen
    scenario = Scenario(top_n=top_n, utility={"click": 1, "purchase": 3}, exclude=["out_of_stock", "purchased_30d"])
    stock = np.zeros(30, bool)
    stock[list(sold_out)] = True
    exclusions = Exclusions(stock, np.array(sorted(u * 30 + i for u, i in bought), np.int64))
    lists = pack_candidates(candidate_table(rows), USERS, ITEMS)
    shelves = fill_shelves(
        np.arange(6),
        "search",
        scenario,
        lists,
        exclusions,
        lambda u, i: {"click": click[u[:, None], i], "purchase": buy[u[:, None], i]},
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
            if not stock[ITEMS.index(item)] and (number, ITEMS.index(item)) not in bought
        ]
        best = sorted(allowed, key=lambda i: (-(click[number, i] + 3 * buy[number, i]), i))[:top_n]
        mine = shelves.users == number
        assert shelves.items[mine].tolist() == best
        assert shelves.ranks[mine].tolist() == list(range(1, len(best) + 1))


def test_the_unknown_user_gets_what_everybody_may_see() -> None:
    rows = [
        ("u0", "*", "i05", "related", 1.0),
        ("*", "cart", "i01", "popular", 1.0),
        ("*", "*", "i02", "fresh", 1.0),
        ("*", "search", "i03", "popular", 1.0),
    ]
    lists = pack_candidates(candidate_table(rows), USERS, ITEMS)
    exclusions = Exclusions(np.zeros(30, bool), np.array([2], np.int64))
    scenario = Scenario(utility={"click": 1}, exclude=["purchased_30d"])
    shelves = fill_shelves(np.array([-1]), "cart", scenario, lists, exclusions, lambda u, i: {"click": i.astype(float)})
    assert shelves.items.tolist() == [2, 1]
    assert [GENERATOR_ORDER[g] for g in shelves.generators] == ["fresh", "popular"]


def test_a_reason_names_what_the_generator_found() -> None:
    rows = [("u0", "*", "i05", "affinity", 1.0), ("*", "cart", "i01", "popular", 1.0)]
    lists = pack_candidates(candidate_table(rows), USERS, ITEMS)
    exclusions = Exclusions(np.zeros(30, bool), np.zeros(0, np.int64))
    shelves = fill_shelves(
        np.array([0]),
        "cart",
        Scenario(utility={"click": 1}),
        lists,
        exclusions,
        lambda u, i: {"click": i.astype(float)},
    )
    assert reason_texts(shelves, "cart", lists.texts, {}).tolist() == ["You often choose affinity", "Popular in cart"]


def test_no_candidates_at_all_give_no_rows() -> None:
    lists = pack_candidates(candidate_table([]), USERS, ITEMS)
    exclusions = Exclusions(np.zeros(30, bool), np.zeros(0, np.int64))
    shelves = fill_shelves(
        np.arange(6), "cart", Scenario(utility={"click": 1}), lists, exclusions, lambda u, i: {"click": i.astype(float)}
    )
    assert len(shelves.ranks) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(own | shared, max_size=80))
def test_a_first_look_that_keeps_everything_changes_nothing(rows) -> None:  # type: ignore[no-untyped-def]
    worth = np.random.default_rng(1).random((7, 30))
    scenario = Scenario(top_n=20, utility={"click": 1})  # 2 x 20 places: more than the 30 items that there are
    lists = pack_candidates(candidate_table(rows), USERS, ITEMS)
    exclusions = Exclusions(np.arange(30) % 7 == 0, np.zeros(0, np.int64))

    def predict(users, items):  # type: ignore[no-untyped-def]
        return {"click": np.where(items >= 0, worth[users[:, None], items], np.nan)}

    users = np.arange(6)
    anybody = worth_to_anybody({"search": scenario, "cart": scenario}, {"search": predict, "cart": predict}, 30)
    look = first_look(users, scenario, lists, predict, anybody, "cart")
    whole = fill_shelves(users, "search", scenario, lists, exclusions, predict)
    chosen = fill_shelves(users, "search", scenario, lists, exclusions, predict, look)
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
    lists = pack_candidates(table, USERS, many)
    exclusions = Exclusions(np.zeros(200, bool), np.zeros(0, np.int64))
    widths = []

    def predict(users, items):  # type: ignore[no-untyped-def]
        widths.append(items.shape[1])
        return {"click": np.where(items >= 0, items / 200, np.nan)}

    scenario = Scenario(top_n=5, utility={"click": 1})
    anybody = worth_to_anybody({"search": scenario}, {"search": predict}, 200)
    look = first_look(np.arange(6), scenario, lists, predict, anybody, "search")
    shelves = fill_shelves(np.arange(6), "search", scenario, lists, exclusions, predict, look)
    assert widths == [200, 200, 40]  # once for everybody, the look, and what it left
    assert shelves.items[shelves.users == 0].tolist() == [199, 198, 197, 196, 195]


def test_a_first_look_moves_from_one_scenario_to_another_by_what_items_are_worth_there() -> None:
    items = [f"i{n:03}" for n in range(200)]
    lists = pack_candidates(candidate_table([("u0", "*", item, "related", 1.0) for item in items]), USERS, items)
    exclusions = Exclusions(np.zeros(200, bool), np.zeros(0, np.int64))
    scenario = Scenario(top_n=5, utility={"click": 1})
    scores = {"home": lambda items: (items + 1) / 200, "checkout": lambda items: (200 - items) / 200}  # the reverse
    predictors = {
        name: lambda users, items, score=score: {"click": np.where(items >= 0, score(items), np.nan)}
        for name, score in scores.items()
    }
    both = {"home": scenario, "checkout": scenario}
    look = first_look(
        np.arange(6), scenario, lists, predictors["home"], worth_to_anybody(both, predictors, 200), "home"
    )
    shelves = fill_shelves(np.arange(6), "checkout", scenario, lists, exclusions, predictors["checkout"], look)
    assert shelves.items[shelves.users == 0].tolist() == [0, 1, 2, 3, 4]
