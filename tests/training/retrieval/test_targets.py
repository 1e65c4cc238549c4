"""What a moment may learn from: later acts of the same user, within the horizon, on items that are new to the user."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.retrieval.journeys import DAY_SECONDS
from training.retrieval.targets import draw_targets


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 12), horizon=st.floats(0.1, 40), per_user=st.integers(1, 6))
def test_a_target_is_new_and_near_and_the_users_own(journeys_of, seed, length, horizon, per_user):
    rng = np.random.default_rng(seed)
    walked = journeys_of([rng.integers(0, 6, rng.integers(1, 20)) for _ in range(8)], seed)
    targets = draw_targets(walked, length, horizon, per_user, rng)
    source, target = targets.source, targets.target
    assert (walked.user[source] == walked.user[target]).all()
    assert (target > source).all()
    assert (walked.seconds[target] - walked.seconds[source] <= horizon * DAY_SECONDS + 1e-3).all()
    for at, then in zip(source, target, strict=True):
        known = walked.item[walked.starts[walked.user[at]] : at + 1]
        assert walked.item[then] not in known
    begin, end = targets.windows.T
    assert ((source >= begin[walked.user[source]]) & (source < end[walked.user[source]])).all()
    assert (end - begin == np.minimum(np.diff(walked.starts), length)).all()
    assert np.bincount(walked.user[source], minlength=1).max(initial=0) <= per_user
    assert (np.diff(source) > 0).all()


def test_every_new_item_of_the_horizon_is_drawn_alike(journeys_of):
    walked = journeys_of([[0, 0, 1, 2, 0, 3]])
    drawn = [
        (source, walked.item[target])
        for seed in range(400)
        for d in [draw_targets(walked, 6, 100, 6, np.random.default_rng(seed))]
        for source, target in zip(d.source, d.target, strict=True)
    ]
    after_second = np.bincount([item for source, item in drawn if source == 1], minlength=4)
    assert after_second[0] == 0
    assert (after_second[1:] > 80).all()  # 400 draws among three items, a few of them given up after three tries
    assert {source for source, _ in drawn} == {0, 1, 2, 3, 4}


def test_users_of_one_act_teach_nothing(journeys_of):
    assert len(draw_targets(journeys_of([[1], [2]]), 5, 10, 3, np.random.default_rng(0)).source) == 0
