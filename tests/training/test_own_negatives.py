"""Some drawn negatives give way to items of the user's own that others chose that day, and training makes up for it."""

import numpy as np
import pytest

from training.own_negatives import Rows, own_negatives

USERS, ITEMS, DAYS, FIRST_ID = 60, 200, 6, 100
OWN = 12


@pytest.fixture
def rows():
    """Return receipts of some days: ten things of each user, each beside four others of what was sold that day; own lists."""
    rng = np.random.default_rng(3)
    own = np.array([np.zeros(OWN, int), *(FIRST_ID + rng.choice(ITEMS, OWN, False) for _ in range(USERS))])
    own[5, :3] = [0, 3, 16]  # padding, and ids that rare items share
    columns = []
    for day in range(DAYS):
        bought = [
            rng.choice(np.unique([*own[user + 1, 3:], *range(FIRST_ID, FIRST_ID + 50)]), 10, False)
            for user in range(USERS)
        ]
        sold = np.unique(np.concatenate(bought))
        for user, items in enumerate(bought):
            others = rng.choice(np.setdiff1d(sold, items), 40, False)
            columns += [(7000 + day, 1, user, user + 1, item, 1) for item in items]
            columns += [(7000 + day, 1, user, user + 1, item, 0) for item in others]
    columns = np.array(columns)[rng.permutation(len(columns))]
    return rows_of(columns), own


def test_a_quarter_of_a_users_negatives_are_own_items_that_the_user_does_not_choose(rows):
    rows, own = rows
    swaps = own_negatives(rows, own)
    out, into, item = swaps.out, swaps.into, given(rows, swaps)
    assert not rows.chosen[out].any() and rows.chosen[into].all() and len(np.unique(out)) == len(out)
    assert (rows.day[out] >= rows.day[into]).all() and (rows.scenario[out] == rows.scenario[into]).all()
    sold = {}
    for day, what in zip(rows.day[rows.chosen], rows.item[rows.chosen], strict=True):
        sold.setdefault(what, []).append(day)
    newest = [
        max(day for day in sold[what] if day <= today) for what, today in zip(item[out], rows.day[out], strict=True)
    ]
    assert rows.day[into].tolist() == newest and (rows.day[into] < rows.day[out]).any()
    assert (own[rows.history[out]] == item[out][:, None]).any(axis=1).all()
    assert item[out].min() >= FIRST_ID
    at = list(zip(rows.user[out], rows.day[out], item[out], strict=True))
    assert len(set(at)) == len(at)
    bought = set(zip(rows.user[rows.chosen], rows.day[rows.chosen], rows.item[rows.chosen], strict=True))
    assert not [1 for user, day, what in at if (user, day, what) in bought or (user, day + 1, what) in bought]
    of_visit = np.bincount(np.unique(rows.user[out] * 10000 + rows.day[out], return_inverse=True)[1])
    assert of_visit.max() <= 10 and of_visit.mean() > 3


def test_what_is_made_up_for_is_how_often_an_item_is_drawn():
    """Of 400 alike, each with twenty negatives of a pool of sixty; three of their own items are in it, three were before."""
    rng, users, size = np.random.default_rng(1), 400, 60
    pool, before, own = FIRST_ID + np.arange(size), FIRST_ID + size + np.arange(20), np.zeros((users + 1, 6), int)
    columns = [(6999, 1, users, 0, item, 1) for item in before] + [(7000, 1, users, 0, item, 1) for item in pool]
    for user in range(users):
        mine, bought = np.split(rng.choice(pool, 5, False), [3])
        own[user + 1] = [*mine, *rng.choice(before, 3, False)]
        columns += [(7000, 1, user, user + 1, item, 1) for item in bought]
        columns += [(7000, 1, user, user + 1, item, 0) for item in rng.choice(np.setdiff1d(pool, bought), 20, False)]
    rows = rows_of(np.array(columns))
    swaps = own_negatives(rows, own)
    item, drawn = given(rows, swaps), (rows.history > 0) & ~rows.chosen
    assert len(swaps.out) == 5 * users
    assert (swaps.of_pool[rows.history == 0] == 1).all() and (swaps.of_own[rows.history == 0] == 0).all()
    is_own, is_there = (own[rows.history] == item[:, None]).any(axis=1), item < FIRST_ID + size
    kinds = ((is_own & is_there, 3, 1), (is_own & ~is_there, 3, 0), (~is_own & is_there, size - 3 - 2, 1))
    for kind, items, chance in kinds:
        some = drawn & kind
        times = swaps.of_pool[some] * chance + swaps.of_own[some]
        assert times.std() < 1e-6
        assert some.sum() / (users * items) == pytest.approx(times.mean() * 20 / size, rel=0.05)


def test_where_nothing_is_chosen_or_nobody_wants_anything_again_all_stays():
    for item, chosen in (([0, 0, 0], [False, False, False]), ([20, 21, 22], [True, False, False])):
        rows = rows_of(
            np.array([[7000, 1, 0, 0, what, is_chosen] for what, is_chosen in zip(item, chosen, strict=True)])
        )
        found = own_negatives(rows, np.zeros((1, 4), int))
        assert (found.out.size, found.into.size) == (0, 0)
        assert (found.of_pool.tolist(), found.of_own.tolist()) == ([1, 1, 1], [0, 0, 0])


def rows_of(columns):
    """Return rows in the types that examples have."""
    types = (np.int64, np.int16, np.int64, np.int64, np.int32, bool)
    return Rows(*(values.astype(kind) for values, kind in zip(columns.T, types, strict=True)))


def given(rows, swaps):
    """Return the items of all rows, those that give way replaced."""
    item = rows.item.copy()
    item[swaps.out] = rows.item[swaps.into]
    return item
