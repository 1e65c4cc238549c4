"""Lifts beside an anchor against sums made row by row, and item shelves against a sort of everything."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshelf.scenarios import Rerank, Scenario
from nightshelf.shelf_tables import shelf_tables
from pipelines.anchor_lifts import _PAIR_SMOOTHING, Lifts, Shown, Ties, fit_lifts, ties_between
from pipelines.categories import Categories
from pipelines.item_reasons import UNTIED, tie_reasons, tie_sources
from pipelines.item_shelves import ItemShelves, fill_item_shelves
from pipelines.kept_away import Exclusions
from pipelines.recommend_items import draft_item_shelves
from pipelines.rerank import Groups

PATHS = [
    *[("a", "a/x", "a/x/1")] * 3, *[("a", "a/x", "a/x/2")] * 2, *[("a", "a/y", None)] * 2,
    *[("b", "b/z", "b/z/3")] * 3, *[(None, None, None)] * 2,
]  # fmt: skip
ITEMS = len(PATHS)
CATALOGUE = pa.table(
    {f"category_{level + 1}": pa.array([path[level] for path in PATHS], pa.string()) for level in range(3)}
    | {"item_id": [f"i{n:02}" for n in range(ITEMS)], "title": [None if n % 3 else f"Title {n}" for n in range(ITEMS)]}
)
CATEGORIES = Categories.of(CATALOGUE)
NAMES = ["goes_with", "co_purchase", "co_click"]
pairs = st.tuples(st.integers(0, ITEMS - 1), st.integers(0, ITEMS - 1))


def ties(edges: dict[tuple[int, int], int]) -> Ties:
    chosen = sorted((head, tail, relation) for (head, tail), relation in edges.items() if head != tail)
    columns = [[f"i{row[at]:02}" for row in chosen] for at in (0, 1)]
    graph = pa.table(
        {
            "head": pa.chunked_array([pa.array(columns[0], pa.string())]),
            "tail": pa.chunked_array([pa.array(columns[1], pa.string())]),
            "relation": pa.chunked_array([pa.array([NAMES[row[2]] for row in chosen], pa.string())]),
        }
    )
    return ties_between(graph, NAMES, CATALOGUE["item_id"].to_pylist())


def shared_levels(one: int, other: int) -> int:
    levels = 0
    while levels < 3 and PATHS[one][levels] == PATHS[other][levels] is not None:
        levels += 1
    return levels


def by_hand(rows: list[tuple], known: dict[tuple[int, int], int], anchor: int, item: int) -> float:  # type: ignore[type-arg]
    """Return the lift of an item beside an anchor, from rows of anchor, item, later or not, shown and outcomes."""
    rate = sum(row[4] for row in rows) / max(sum(row[3] for row in rows), 1e-12)

    def expected(row: tuple) -> float:  # type: ignore[type-arg]
        own = [other for other in rows if other[1] == row[1]]
        return row[3] * (sum(o[4] for o in own) + 50 * rate) / (sum(o[3] for o in own) + 50)

    def shrunk(chosen: list[tuple], prior: float, smoothing: float, base: float = 1.0) -> float:  # type: ignore[type-arg]
        return (sum(r[4] for r in chosen) + smoothing * prior) / (sum(expected(r) for r in chosen) * base + smoothing)

    beside = [row for row in rows if row[0] >= 0 and row[0] != row[1]]

    def of_pair(one: int, other: int) -> float:
        near = shared_levels(one, other)
        prior = shrunk([row for row in beside if shared_levels(row[0], row[1]) == near], 1.0, 20)
        same = [row for row in beside if PATHS[row[0]] == PATHS[one] and PATHS[row[1]] == PATHS[other]]
        return shrunk(same, prior, 10) if same else prior

    relation = known.get((anchor, item)) if anchor != item else None
    if relation is None:
        return of_pair(anchor, item)
    tied = [row for row in beside if known.get((row[0], row[1])) == relation and (relation == 0 or row[2])]
    base = sum(expected(row) * of_pair(row[0], row[1]) for row in tied)
    return of_pair(anchor, item) * (sum(row[4] for row in tied) + 20) / (base + 20)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-1, ITEMS - 1), st.integers(0, ITEMS - 1), st.booleans(), st.integers(1, 40), st.integers(0, 9)),
        max_size=30,
    ),
    st.dictionaries(pairs, st.integers(0, 2), max_size=20),
    pairs,
)  # fmt: skip
def test_lifts_are_sums_that_one_can_make_by_hand(rows, edges, pair):
    known = {key: value for key, value in edges.items() if key[0] != key[1]}
    columns = list(zip(*rows, strict=True)) or [()] * 5
    seen = Shown(*(np.array(c, kind) for c, kind in zip(columns, (int, int, bool, float, float), strict=True)))
    now = ties(known)
    lifts = fit_lifts(seen, CATEGORIES.of_item, CATEGORIES.tree, now)
    anchor, item = pair
    relation = now.of(np.array([anchor]), np.array([item]))[0]
    found = lifts.row(CATEGORIES.of_item[anchor])[CATEGORIES.of_item[item]] * lifts.by_relation[relation]
    assert found == pytest.approx(by_hand(rows, known, anchor, item), rel=1e-9)


def lifts_of(rng: np.random.Generator) -> Lifts:
    size = len(CATEGORIES.tree)
    keys = np.flatnonzero(rng.random(size * size) < 0.5)
    some = rng.uniform(0.2, 3, len(keys))
    by_relation = np.array([1.0, *rng.uniform(0.5, 3, len(NAMES))])
    return Lifts(CATEGORIES.tree, keys, some, some, some, some, rng.uniform(0.2, 3, 4), by_relation)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.booleans(), min_size=ITEMS, max_size=ITEMS),
    st.dictionaries(pairs, st.integers(0, 2), max_size=30),
    st.integers(1, 6),
)
def test_a_shelf_is_what_a_sort_of_everything_gives(seed, stocked, edges, top_n):
    rng, allowed = np.random.default_rng(seed), np.array(stocked)
    lifts, now = lifts_of(rng), ties(edges)
    worth = rng.integers(0, 4, ITEMS) / 4  # with equal ones
    found = {}
    scenario = Scenario(top_n=top_n, utility={"click": 1})
    for shelves in fill_item_shelves(scenario, worth, allowed, CATEGORIES.of_item, lifts, now, Groups({})):
        rows = zip(shelves.anchors, shelves.ranks, shelves.items, shelves.scores, shelves.rank_by_score, strict=True)
        for anchor, rank, item, score, by_score in rows:
            assert rank == by_score == len(found.setdefault(anchor, [])) + 1
            found[anchor].append((item, round(float(score), 9)))
    for anchor in range(ITEMS):
        row = lifts.row(CATEGORIES.of_item[anchor])
        relation = now.of(np.full(ITEMS, anchor), np.arange(ITEMS))
        score = np.round(worth * row[CATEGORIES.of_item] * lifts.by_relation[relation], 9)
        shown = [item for item in range(ITEMS) if allowed[item] and item != anchor]
        expected = sorted(shown, key=lambda item: (-score[item], item))[:top_n]
        assert found.get(anchor, []) == [(item, score[item]) for item in expected]


def test_the_rules_of_the_scenario_hold_beside_an_anchor():
    groups = Groups({"category_3": CATEGORIES.of_item.astype(np.int32)})
    scenario = Scenario(top_n=4, utility={"click": 1}, rerank=Rerank(most_per={"category_3": 1}))
    worth, every = np.linspace(1, 2, ITEMS), np.ones(ITEMS, bool)
    lifts = lifts_of(np.random.default_rng(3))
    for shelves in fill_item_shelves(scenario, worth, every, CATEGORIES.of_item, lifts, ties({}), groups):
        for anchor in np.unique(shelves.anchors):
            shelf = shelves.items[shelves.anchors == anchor]
            assert len(set(CATEGORIES.of_item[shelf])) == len(shelf) == 4


def test_a_cap_holds_beside_an_anchor_where_one_brand_has_the_best_of_the_catalogue():
    size = 200
    brand = np.where(np.arange(size) < 150, 0, np.arange(size))  # the best 150 are of one
    groups, scenario = Groups({"brand": brand.astype(np.int32)}), Scenario(top_n=10, utility={"click": 1})
    scenario = scenario.model_copy(update={"rerank": Rerank(most_per={"brand": 1})})
    category, nothing = np.zeros(size, np.int64), np.zeros(0, np.int64)
    lifts = Lifts(np.zeros((1, 3), np.int64), nothing, *[np.zeros(0)] * 4, np.ones(4), np.ones(1))
    untied, worth = Ties(nothing, nothing, [], size), np.linspace(2, 1, size)
    for shelves in fill_item_shelves(scenario, worth, np.ones(size, bool), category, lifts, untied, groups):
        for anchor in np.unique(shelves.anchors):
            of_others = [item for item in range(150, 162) if item != anchor][:9]
            assert shelves.items[shelves.anchors == anchor].tolist() == [int(anchor == 0), *of_others]


def test_what_costs_more_than_it_earns_costs_less_where_it_is_acted_on_more_often():
    category, tree = np.array([0, 1, 1, 2, 2]), np.array([[0, -1, -1], [1, -1, -1], [2, -1, -1]])
    lifts = Lifts(tree, np.array([1, 2]), np.array([4.0, 0.5]), *[np.zeros(2)] * 3, np.ones(4), np.ones(1))
    nothing, scenario = np.zeros(0, np.int64), Scenario(top_n=4, utility={"click": 1, "hide": -1})
    untied, worth = Ties(nothing, nothing, [], 5), np.array([0.1, 0.1, -0.1, 0.1, -0.1])
    parts = fill_item_shelves(scenario, worth, np.ones(5, bool), category, lifts, untied, Groups({}))
    shelf = next(of for of in parts if 0 in of.anchors)
    assert shelf.items.tolist() == [1, 3, 2, 4]
    assert shelf.scores.tolist() == pytest.approx([0.4, 0.05, -0.025, -0.2])
    assert shelf.lifts.tolist() == [4, 0.5, 4, 0.5]


def test_an_edge_that_the_outcomes_themselves_made_says_nothing():
    """Ten clicks beside an anchor make an edge; only what comes after the edge tells whether it leads anywhere."""
    rows = [(0, item, False, 10.0, 10.0 if item == 7 else 1.0) for item in range(5, 10)]
    seen = Shown(*(np.array(c, kind) for c, kind in zip(zip(*rows), (int, int, bool, float, float), strict=True)))  # noqa: B905
    known = ties({(0, 7): 2})
    assert fit_lifts(seen, CATEGORIES.of_item, CATEGORIES.tree, known).by_relation[3] == 1.0
    later = Shown(seen.anchor, seen.item, np.ones(5, bool), seen.shown, seen.outcomes)
    assert fit_lifts(later, CATEGORIES.of_item, CATEGORIES.tree, known).by_relation[3] > 1.0


def test_a_night_without_acts_examples_and_graph_has_shelves_too(night, publish):
    """As on the first night of a shop that was closed, or whose logs tell of no such act."""
    publish(night, "items", CATALOGUE.to_pylist())
    scenarios = {**night.shop.scenarios, "search": Scenario(top_n=3, utility={"click": 1}, anchor="click")}
    night = dataclasses.replace(night, shop=night.shop.model_copy(update={"scenarios": scenarios}))
    worth, blocked = {"search": np.linspace(1, 2, ITEMS)}, np.arange(ITEMS) == ITEMS - 1
    items = night.warehouse.read("items", [night.as_of_date]).sort_by("item_id")
    assert draft_item_shelves(night, items, worth, Exclusions({}, {}, blocked), Groups({}), "1") == 3 * ITEMS
    rows = night.warehouse.read("item_shelf_drafts", [night.as_of_date]).to_pylist()
    shelf = sorted((row["rank"], row["item_id"], row["lift"]) for row in rows if row["anchor_item_id"] == "i00")
    assert shelf == [(1, "i10", 1.0), (2, "i09", 1.0), (3, "i08", 1.0)]
    assert night.warehouse.read("anchor_lifts", [night.as_of_date]).num_rows == 0


def test_reasons_say_what_ties_the_item_to_the_anchor():
    anchors, items = np.array([0, 0, 1, 0, 0, 0, 0, 10]), np.array([7, 4, 8, 1, 3, 5, 9, 11])
    relations, lift = np.array([1, 2, 3, 0, 0, 0, 0, 0]), np.array([1, 1, 1, 2, 1.5, 1.5, 1.5, 2])
    shelves = ItemShelves(anchors, anchors, items, lift, lift, relations, anchors)
    size, of_item = len(CATEGORIES.tree), CATEGORIES.of_item
    keys = np.sort([of_item[0] * size + of_item[3], of_item[0] * size + of_item[5]])
    more = keys == of_item[0] * size + of_item[3]  # beside 0, only goods like 3 were clicked more than expected
    lifts = Lifts(CATEGORIES.tree, keys, keys, keys, np.where(more, 3.0, 1.0), np.full(2, 2.0), np.ones(4), np.ones(4))
    source = tie_sources(shelves, CATEGORIES, lifts, len(NAMES))
    assert [[*NAMES, *UNTIED][at] for at in source] == [
        "goes_with", "co_purchase", "co_click", "same_category", "category", "near_category", "popular", "popular"
    ]  # fmt: skip
    assert tie_reasons("product_page", shelves, source, CATALOGUE, CATEGORIES, NAMES).to_pylist() == [
        "Goes with Title 0",
        "Shoppers of Title 0 bought this too",
        "Shoppers of i01 looked at this too",
        "Also in 1",
        "2 goes with 1",
        "Also in a",
        "Popular in product page",
        "Popular in product page",
    ]
    none = Lifts(CATEGORIES.tree, keys[:0], keys[:0], keys[:0], keys[:0], keys[:0], np.ones(4), np.ones(4))
    assert [[*NAMES, *UNTIED][at] for at in tie_sources(shelves, CATEGORIES, none, 3)][4] == "near_category"


def test_the_tables_description_of_a_lift_has_the_smoothing_that_is_used(tiny_shop):
    (spec,) = (spec for spec in shelf_tables(tiny_shop(days=0)) if spec.name == "anchor_lifts")
    (lift,) = (column for column in spec.columns if column.name == "lift")
    assert f"(outcomes + {_PAIR_SMOOTHING:g} × " in lift.meaning and f"(expected + {_PAIR_SMOOTHING:g})" in lift.meaning
