"""The order of a shelf against a slow one, written place by place for one user."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightshelf.errors import InputError
from nightshelf.scenarios import Rerank
from pipelines.preselection import preselected
from pipelines.rerank import Groups, highest, least_places, order

ITEMS = 12
CODES = {
    "category_1": [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, -1, -1],
    "category_2": [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, -1, -1],
    "category_3": [0, 0, 1, 2, 2, 2, 3, 3, 3, 4, -1, -1],
    "brand": [0, 1, 0, 1, 0, 1, 2, 2, 2, -1, -1, 2],
}
GROUPS = Groups(
    {name: np.array(codes, np.int32) for name, codes in CODES.items()},
    {name: [f"{name}-{code}" for code in range(max(codes) + 1)] for name, codes in CODES.items()},
)
SHARES = {"category_1": 0.2, "category_2": 0.2, "category_3": 0.4, "brand": 0.2}


def likeness(one: int, other: int) -> float:
    return sum(share for name, share in SHARES.items() if CODES[name][one] == CODES[name][other] >= 0)


def gains(shelf: list[int], scores: dict[int, float], rules: Rerank, repeated: list[int]) -> dict[int, float]:
    """Return what each item that may take the next place of a shelf gains there."""
    worth = {item: score * (1 - rules.repeats) ** repeated[item] for item, score in scores.items()}
    best = max(map(abs, worth.values()), default=1) or 1e-12
    left = [item for item in scores if item not in shelf]
    full = {
        item
        for item in left
        for column, most in rules.most_per.items()
        if CODES[column][item] >= 0 and sum(CODES[column][other] == CODES[column][item] for other in shelf) >= most
    }
    pool = [item for item in left if item not in full] or left
    alike = {item: max((likeness(item, other) for other in shelf), default=0.0) for item in pool}
    return {item: (1 - rules.diversity) * worth[item] / best - rules.diversity * alike[item] for item in pool}


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 4), st.integers(0, 15), st.integers(0, 18), st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_highest_are_the_beginning_of_a_sort_of_everything_also_among_equals(
    users: int, width: int, n: int, values: int, chance: Random
) -> None:
    drawn = [[chance.randrange(values) for _ in range(width)] for _ in range(users)]
    score = np.array([-np.inf, *range(values - 1)])[np.array(drawn, np.int64).reshape(users, width)]
    items = np.array([chance.sample(range(-1, 20), width) for _ in range(users)], np.int32).reshape(users, width)
    assert highest(score, items, n).tolist() == np.lexsort((items, -score), axis=1)[:, :n].tolist()


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.integers(0, ITEMS - 1), st.integers(1, 40).map(lambda n: n / 40), max_size=ITEMS),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.dictionaries(st.sampled_from(["category_1", "category_3", "brand"]), st.integers(1, 3), max_size=2),
    st.sampled_from([0.0, 0.5]),
    st.lists(st.integers(0, 2), min_size=ITEMS, max_size=ITEMS),
    st.integers(1, 8),
    st.randoms(),
)
def test_the_order_is_what_one_gets_place_by_place(
    scores, diversity, most_per, repeats, repeated, length, chance
) -> None:  # type: ignore[no-untyped-def]
    rules = Rerank(diversity=diversity, most_per=most_per, repeats=repeats)
    columns = list(range(ITEMS))
    chance.shuffle(columns)  # candidates come in any order
    score = np.array([[scores.get(item, -np.inf) for item in columns]])
    counts = np.array([[repeated[item] for item in columns]])
    found = order(score, np.array([columns]), length, rules, GROUPS, counts)[0]
    shelf = [columns[place] for place in found if np.isfinite(score[0, place])]
    assert len(shelf) == len(set(shelf)) == min(length, len(scores))
    for place, item in enumerate(shelf):
        gain = gains(shelf[:place], scores, rules, repeated)
        # 32-bit likeness may break ties otherwise, and what comes after hangs on which of them was taken
        assert gain.get(item) == pytest.approx(max(gain.values()), abs=2e-4)


def test_a_cap_holds_while_others_are_left_and_gives_way_before_a_hole() -> None:
    score, items = np.array([[0.9, 0.8, 0.7, 0.1, 0.05]]), np.array([[6, 7, 8, 9, 0]])
    rules = Rerank(most_per={"category_3": 1})
    assert items[0, order(score, items, 5, rules, GROUPS, np.zeros((1, 5)))[0]].tolist() == [6, 9, 0, 7, 8]


def test_items_without_a_category_are_no_group() -> None:
    score, items = np.array([[0.9, 0.8]]), np.array([[10, 11]])
    rules = Rerank(most_per={"category_3": 1}, diversity=0.5)
    assert items[0, order(score, items, 2, rules, GROUPS, np.zeros((1, 2)))[0]].tolist() == [10, 11]


def test_what_counts_for_less_counts_for_less_below_zero_too() -> None:
    score, items = np.array([[-0.2, -0.3]]), np.array([[0, 6]])
    found = order(score, items, 2, Rerank(repeats=0.9), GROUPS, np.array([[1, 0]]))
    assert items[0, found[0]].tolist() == [6, 0]


def test_a_cap_on_what_items_do_not_have_is_refused(tiny_shop) -> None:  # type: ignore[no-untyped-def]
    scenario = {"utility": {"click": 1}, "rerank": {"most_per": {"flavour": 2}}}
    with pytest.raises(InputError, match=r"most_per: 'flavour' is unknown; known: category_1, .*, attribute_colour"):
        tiny_shop(days=0, scenarios={"home_feed": scenario, "search": {"utility": {"click": 1}}})


def members(column: str, value: str) -> set[int]:
    return {item for item in range(ITEMS) if f"{column}-{CODES[column][item]}" == value}


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.integers(0, ITEMS - 1), st.integers(1, 40).map(lambda n: n / 40), min_size=1, max_size=ITEMS),
    st.sampled_from(
        [
            {"brand-0": 0.5},
            {"brand-1": 0.25, "brand-2": 0.5},
            {"brand-1": 0.4, "brand-0": 0.4},
            {"brand-0": 0.5, "brand-2": 0.5},
            {"brand-0": 0.35, "brand-1": 0.3, "brand-2": 0.35},
            {"brand-2": 1.0},
            {"unknown": 0.5},
        ]
    ),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([{}, {"brand": 1}]),
    st.integers(1, 10),
)
def test_every_head_of_a_shelf_has_the_least_share_of_each_group_while_there_are_candidates(
    scores, shares, diversity, most_per, length
) -> None:  # type: ignore[no-untyped-def]
    rules = Rerank(least={"brand": shares}, diversity=diversity, most_per=most_per)
    columns = list(range(ITEMS))
    score = np.array([[scores.get(item, -np.inf) for item in columns]])
    found = order(score, np.array([columns]), length, rules, GROUPS, np.zeros((1, ITEMS)))[0]
    shelf = [item for item in found.tolist() if item in scores]
    assert len(set(shelf)) == len(shelf) == min(length, len(scores))
    for value, share in shares.items():
        able = members("brand", value) & set(scores)
        for head in range(1, len(shelf) + 1):
            assert len(able & set(shelf[:head])) >= min(least_places(share, head), len(able))
    if not diversity and not most_per:
        for group in [
            *(members("brand", value) for value in shares),
            set(columns).difference(*(members("brand", v) for v in shares)),
        ]:
            own = [item for item in shelf if item in group]
            assert own == sorted(own, key=lambda item: (-scores[item], item))


def test_the_best_of_a_group_are_among_those_that_a_shelf_chooses_from() -> None:
    score = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, -np.inf, 0.2, 0.1, 0.05, 0.0, 0.0]])
    items, rules = np.arange(ITEMS)[None], Rerank(least={"category_1": {"category_1-1": 0.4}})
    assert preselected(score, items, 5, 5, rules, GROUPS)[0].tolist() == [7, 8, 9, 0, 1]  # two, and one more; 6 is none
    assert preselected(score, items, 5, 5, Rerank(), GROUPS)[0].tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([-np.inf, *(n / 10 for n in range(8))]), min_size=ITEMS, max_size=ITEMS),
    st.dictionaries(st.sampled_from(["category_1", "category_3", "brand"]), st.integers(1, 2), min_size=1, max_size=2),
    st.integers(1, ITEMS),
    st.sampled_from([{}, {"brand": {"brand-2": 0.5}}]),
    st.randoms(use_true_random=False),
)
def test_a_shelf_chooses_from_twice_its_cap_of_a_group_while_others_are_left(
    scores, most_per, n, least, chance
) -> None:  # type: ignore[no-untyped-def]
    columns = list(range(ITEMS))
    chance.shuffle(columns)  # candidates come in any order
    score, rules = np.array([[scores[item] for item in columns]]), Rerank(most_per=most_per, least=least)
    found = [columns[place] for place in preselected(score, np.array([columns]), n, 1, rules, GROUPS)[0]]
    needed = members("brand", "brand-2") if least else set()
    by_score = sorted(columns, key=lambda item: (-scores[item], item))
    first = [item for item in by_score if item in needed and scores[item] > -np.inf][: 1 if least else 0]
    for item in by_score:
        alike = {name: [i for i in first if CODES[name][i] == CODES[name][item] >= 0] for name in most_per}
        if item not in first and scores[item] > -np.inf and all(len(alike[c]) < 2 * most_per[c] for c in most_per):
            first.append(item)
    first = first[:n]
    assert set(found) == set((first + [item for item in by_score if item not in first])[:n])


@pytest.mark.parametrize(
    ("least", "told"),
    [
        ({"flavour": {"sweet": 0.2}}, r"least: 'flavour' is unknown; known: category_1"),
        ({"brand": {"a": 0.7, "b": 0.5}}, r"brand: the shares sum to 1.2, more than all places"),
        ({"brand": {"a": 0.0}}, r"greater than 0"),
    ],
)
def test_shares_that_cannot_be_are_refused(tiny_shop, least, told) -> None:  # type: ignore[no-untyped-def]
    scenario = {"utility": {"click": 1}, "rerank": {"least": least}}
    with pytest.raises(InputError, match=told):
        tiny_shop(days=0, scenarios={"home_feed": scenario, "search": {"utility": {"click": 1}}})
