import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score, root_mean_squared_error

from training import metrics
from training.bootstrap import auc_bounds, paired_bootstrap, percentile_bounds, ratio_bounds, user_draws


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000), st.integers(2, 6))
def test_auc_is_scikit_learns_with_ties(rows, seed, levels):
    rng = np.random.default_rng(seed)
    label, score = rng.integers(0, 2, rows), rng.integers(0, levels, rows) / levels
    if label.min() == label.max():
        assert metrics.auc(label, score) is None
    else:
        assert metrics.auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_gauc_is_the_weighted_mean_of_users_aucs_with_both_classes():
    rng = np.random.default_rng(1)
    user, label, score = rng.integers(0, 30, 400), rng.integers(0, 2, 400), rng.integers(0, 9, 400) / 9
    label[user == 3] = 1  # one class: left out
    parts = [
        (roc_auc_score(label[user == u], score[user == u]), (user == u).sum())
        for u in range(30)
        if 0 < label[user == u].mean() < 1
    ]
    expected = sum(value * rows for value, rows in parts) / sum(rows for _, rows in parts)
    assert metrics.mean(*metrics.grouped_auc(label, score, user, int(user.max()) + 1)) == pytest.approx(
        expected, abs=1e-12
    )
    assert metrics.mean(*metrics.grouped_auc(np.ones(3), np.arange(3.0), np.zeros(3, int), 1)) is None


def test_ndcg_is_scikit_learns_with_ties_and_requests_without_an_outcome_do_not_count():
    rng = np.random.default_rng(2)
    request, label, score = np.repeat(np.arange(20), 12), rng.integers(0, 3, 240), rng.integers(0, 5, 240) / 5
    label[request == 7] = 0
    kept = [r for r in range(20) if label[request == r].any()]
    expected = np.mean([ndcg_score([label[request == r]], [score[request == r]], k=10) for r in kept])
    assert metrics.mean(*metrics.grouped_ndcg(label, score, request, int(request.max()) + 1)) == pytest.approx(
        expected, abs=1e-9
    )
    assert metrics.mean(*metrics.grouped_ndcg(label, score, np.full(240, -1), 0)) is None
    assert metrics.mean(*metrics.grouped_ndcg(np.zeros(4), np.zeros(4), np.zeros(4, int), 1)) is None


def test_logloss_rmse_and_pcoc():
    rng = np.random.default_rng(3)
    label, p, weight = rng.integers(0, 2, 100), rng.random(100), rng.random(100)
    assert metrics.logloss(label, p, weight) == pytest.approx(log_loss(label, p, sample_weight=weight), rel=1e-9)
    assert metrics.rmse(label, p) == pytest.approx(root_mean_squared_error(label, p), rel=1e-9)
    assert metrics.pcoc(label, p) == pytest.approx(p.sum() / label.sum())
    assert metrics.pcoc(np.zeros(5), p[:5]) is None
    assert metrics.logloss(np.zeros(0), np.zeros(0)) is None


def test_auc_bounds_hold_the_auc_and_equal_those_of_rows_repeated_by_hand():
    rng = np.random.default_rng(4)
    user, label = rng.integers(0, 40, 600), rng.integers(0, 2, 600)
    score = np.round(label * 0.3 + rng.random(600), 2)
    draws = user_draws(40, seed=5, replicates=40)
    by_hand = []
    for draw in draws:
        rows = np.repeat(np.arange(600), draw[user].astype(int))
        by_hand.append(roc_auc_score(label[rows], score[rows]))
    assert auc_bounds(label, score, user, draws) == pytest.approx(percentile_bounds(np.array(by_hand)), abs=1e-9)
    low, high = auc_bounds(label, score, user, user_draws(40, seed=6))
    assert low < metrics.auc(label, score) < high
    assert auc_bounds(np.ones(600), score, user, draws) is None


def test_ratio_bounds_cover_the_truth_about_95_times_in_100():
    rng, covered = np.random.default_rng(7), 0
    for seed in range(200):
        size = rng.integers(1, 10, 150)
        rate = rng.beta(2, 6, 150)  # users differ: mean 0.25
        low, high = ratio_bounds(rng.binomial(size, rate), size, user_draws(150, seed))
        covered += low <= 0.25 <= high
    assert 180 <= covered <= 199


def test_paired_bootstrap_finds_a_gain_and_leaves_undefined_users_out():
    rng = np.random.default_rng(8)
    champion, weight = rng.random(500), rng.integers(1, 9, 500)
    challenger = champion + 0.02 + 0.01 * rng.standard_normal(500)
    challenger[:10] = np.nan
    found = paired_bootstrap(challenger, champion, weight)
    assert 0 < found["lower"] < found["difference"] < found["upper"]
    assert found["users"] == 490
    same = paired_bootstrap(champion, champion, weight)
    assert same["difference"] == same["lower"] == same["upper"] == 0
    assert paired_bootstrap(np.full(3, np.nan), np.ones(3), np.ones(3)) is None
