"""Learned quotas against all quotas there are, on cases so small that all can be tried."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.learn_quotas import effective_outcomes, even_outcomes, is_reached, learn_quotas, own_share

GENERATORS, LONGEST = 3, 4


@st.composite
def cases(draw):  # type: ignore[no-untyped-def]
    """Return ranks, worth, costs: whole numbers and halves, so that sums are exact."""
    count = draw(st.integers(1, 9))
    ranks = draw(
        st.lists(
            st.lists(st.integers(0, LONGEST), min_size=GENERATORS, max_size=GENERATORS), min_size=count, max_size=count
        )
    )
    worth = draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))
    costs = draw(
        st.lists(
            st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=LONGEST, max_size=LONGEST),
            min_size=GENERATORS,
            max_size=GENERATORS,
        )
    )
    return np.array(ranks), np.array(worth, float), np.array(costs)


@st.composite
def cases_without_overlap(draw):  # type: ignore[no-untyped-def]
    """Return ranks, worth, costs of outcomes that one generator alone had proposed, the worth falling with the rank."""
    ranks, worth = [], []
    for generator in range(GENERATORS):
        falling = sorted(draw(st.lists(st.integers(0, 9), min_size=LONGEST, max_size=LONGEST)), reverse=True)
        for place, value in enumerate(falling, 1):
            ranks.append([place if generator == other else 0 for other in range(GENERATORS)])
            worth.append(value)
    return np.array(ranks), np.array(worth, float), np.ones((GENERATORS, LONGEST))


def reached(ranks: np.ndarray, worth: np.ndarray, quotas: object) -> float:
    """Return the worth of the outcomes within some quotas, one by one."""
    return sum(
        value
        for row, value in zip(ranks, worth, strict=True)
        if any(0 < r <= q for r, q in zip(row, quotas, strict=True))
    )


def cost_of(costs: np.ndarray, quotas: object) -> float:
    return sum(float(row[:quota].sum()) for row, quota in zip(costs, quotas, strict=True))


def best_for(ranks: np.ndarray, worth: np.ndarray, costs: np.ndarray, budget: float) -> float:
    """Return the most worth that any quotas within a budget reach."""
    every = itertools.product(range(LONGEST + 1), repeat=GENERATORS)
    return max(reached(ranks, worth, quotas) for quotas in every if cost_of(costs, quotas) <= budget)


def learned(case, **told):  # type: ignore[no-untyped-def]
    least, most = np.zeros(GENERATORS, int), np.full(GENERATORS, LONGEST)
    return learn_quotas(*case, **{"least": least, "most": most, "block": 1, **told})


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([0.3, 0.6, 0.8, 0.99, 1.0]))
def test_they_keep_the_share_and_reach_nearly_what_any_quotas_of_their_cost_do(case, kept) -> None:  # type: ignore[no-untyped-def]
    ranks, worth, costs = case
    quotas = learned(case, kept=kept)
    total = reached(ranks, worth, [LONGEST] * GENERATORS)
    assert reached(ranks, worth, quotas) >= kept * total - 1e-6
    best = best_for(ranks, worth, costs, cost_of(costs, quotas))
    assert reached(ranks, worth, quotas) >= (1 - 1 / math.e) * best - 1e-9


@settings(max_examples=60, deadline=None)
@given(cases_without_overlap(), st.integers(0, GENERATORS * LONGEST))
def test_where_nobody_proposes_the_same_they_are_the_best_for_any_budget(case, budget) -> None:  # type: ignore[no-untyped-def]
    ranks, worth, costs = case
    quotas = learned(case, kept=1.0, at_most=budget)
    assert cost_of(costs, quotas) <= budget
    assert reached(ranks, worth, quotas) == best_for(ranks, worth, costs, budget)


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 12), st.integers(0, LONGEST), st.integers(0, LONGEST))
def test_they_stay_within_their_bounds_and_the_budget(case, budget, one, other) -> None:  # type: ignore[no-untyped-def]
    least, most = np.array([min(one, other), 0, 0]), np.array([max(one, other), LONGEST, 1])
    quotas = learned(case, least=least, most=most, at_most=budget)
    assert (least <= quotas).all()
    assert (quotas <= most).all()
    assert cost_of(case[2], quotas) <= max(budget, cost_of(case[2], least))


def test_a_step_looks_past_ranks_that_reach_nothing() -> None:
    ranks = np.array([[4, 0, 0], [0, 1, 0], [0, 2, 0]])
    case = ranks, np.array([40.0, 1.0, 1.0]), np.ones((3, 4))
    assert learned(case, at_most=4).tolist() == [4, 0, 0]
    assert learned(case, kept=1.0).tolist() == [4, 2, 0]
    assert learned(case, kept=0.9).tolist() == [4, 0, 0]


def test_what_another_generator_has_reached_is_not_paid_for_twice() -> None:
    case = np.array([[1, 1, 0], [2, 2, 0], [0, 3, 0]]), np.ones(3), np.array([[0.5] * 4, [1.0] * 4, [1.0] * 4])
    assert learned(case, kept=1.0).tolist() == [2, 3, 0]  # the third outcome has its own price, all three ranks
    assert learned(case, kept=0.6).tolist() == [2, 0, 0]


def test_quotas_end_at_whole_blocks_or_where_the_proposals_do() -> None:
    case = np.array([[2, 0, 0], [0, 4, 0]]), np.ones(2), np.ones((3, 7))
    assert learned(case, most=np.array([7, 4, 7]), block=3, kept=1.0).tolist() == [3, 4, 0]


def test_many_outcomes_outweigh_a_prior_and_unequal_ones_count_as_fewer() -> None:
    assert effective_outcomes(10.0, 10.0) == 10
    assert effective_outcomes(10 * 1.0 + 20.0, 10 * 1.0 + 400.0) == pytest.approx(900 / 410)
    assert effective_outcomes(0.0, 0.0) == 0
    assert (own_share(0, 10), own_share(10, 10), own_share(990, 10)) == (0, 0.5, 0.99)


def test_even_outcomes_are_reached_as_far_as_candidates_are_scored() -> None:
    costs = np.array([[1.0, 1.0, 0.0], [1.0, 0.5, 0.5]])
    ranks, worth = even_outcomes(costs)
    assert worth.sum() == pytest.approx(1)
    assert worth[is_reached(ranks, np.array([2, 0]))].sum() == pytest.approx(2 / 4)
    assert worth[is_reached(ranks, np.array([1, 2]))].sum() == pytest.approx(2.5 / 4)
