"""The measures of drift and leaks against scipy and scikit-learn, and what must hold of them whatever the samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from pipelines.drift import drift_of_categories, drift_of_numbers, has_died, kolmogorov_smirnov, stump_auc

VALUES = arrays(np.float32, st.integers(2, 60), elements=st.integers(-4, 4).map(float))
RNG = np.random.default_rng(0)


@settings(max_examples=60, deadline=None)
@given(VALUES, VALUES)
def test_kolmogorov_smirnov_is_scipys(one, other):
    assert kolmogorov_smirnov(one, other) == pytest.approx(ks_2samp(one, other, method="asymp").statistic, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_equal_samples_have_no_drift(values):
    for drift in (drift_of_numbers(values, values), drift_of_categories(values + 4, values + 4)):
        assert (drift.psi, drift.js, drift.ks or 0) == (0, 0, 0)
        assert not has_died(values, values)


@settings(max_examples=60, deadline=None)
@given(VALUES, VALUES, st.randoms())
def test_the_order_of_rows_and_the_unit_change_nothing(one, other, chance):
    shuffled = one.copy()
    chance.shuffle(shuffled)
    expected = drift_of_numbers(one, other)
    assert drift_of_numbers(shuffled, other) == expected
    moved = drift_of_numbers(one * 3 + 7, other * 3 + 7)
    assert moved.psi == pytest.approx(expected.psi)
    assert 0 <= expected.js <= 1
    assert expected.psi >= 0


def test_psi_and_jensen_shannon_by_hand():
    reference, current = np.repeat([0, 1], [60, 40]), np.repeat([0, 1, 2], [30, 60, 10])
    drift = drift_of_categories(reference, current)
    p, q = np.array([0.6, 0.4, 0.005]), np.array([0.3, 0.6, 0.1])  # half a row stands in for none
    assert drift.psi == pytest.approx(float(np.sum((q - p) * np.log(q / p))))
    assert drift.js == pytest.approx(jensenshannon([0.6, 0.4, 0], [0.3, 0.6, 0.1], base=2))
    assert drift.bins == 3


def test_numbers_are_compared_in_tenths_of_the_reference():
    reference = np.arange(1000.0)
    drift = drift_of_numbers(reference, reference[:500])
    p, q = np.full(10, 0.1), np.repeat([0.2, 0.001], 5)
    assert drift.psi == pytest.approx(float(np.sum((q - p) * np.log(q / p))), rel=0.01)
    assert drift.ks == pytest.approx(0.5)


def test_samples_of_one_source_stay_below_the_noise():
    """Of a hundred pairs, those above the bound that one in a thousand passes: hardly any; a shifted one is far above."""
    from pipelines.feature_drift import _noise

    passed = 0
    for _ in range(100):
        one, other = RNG.normal(size=3000), RNG.normal(size=700)
        drift = drift_of_numbers(one, other)
        passed += drift.psi > _noise(drift, 3000, 700)
    assert passed <= 2
    moved = drift_of_numbers(RNG.normal(size=3000), RNG.normal(0.5, size=700))
    assert moved.psi > 5 * _noise(moved, 3000, 700)


def test_a_feature_has_died_only_if_chance_cannot_explain_it():
    varied, zeros = RNG.integers(0, 2, 1000), np.zeros(100)
    assert has_died(varied, zeros)
    assert not has_died(np.r_[np.zeros(990), np.ones(10)], zeros)
    assert not has_died(np.zeros(1000), zeros)
    assert not has_died(varied, RNG.integers(0, 2, 100))


@pytest.mark.parametrize("seed", range(4))
def test_the_stump_is_a_decision_tree_of_depth_one(seed):
    """Classes weighed alike, the tree's split by Gini need not be the best one for AUC: it may not be better."""
    chance = np.random.default_rng(seed)
    positive = chance.random(400) < 0.2
    values = chance.normal(positive * chance.choice([0.0, 1.0, 3.0]), 1)
    tree = DecisionTreeClassifier(max_depth=1, class_weight="balanced").fit(values[:, None], positive)
    learned = roc_auc_score(positive, tree.predict_proba(values[:, None])[:, 1])
    best = max(max(auc, 1 - auc) for auc in (roc_auc_score(positive, values > threshold) for threshold in values[:-1]))
    assert learned - 1e-9 <= stump_auc(values, positive)
    assert stump_auc(values, positive) == pytest.approx(best)


def test_a_feature_that_holds_the_label_is_told_and_others_are_not():
    positive = RNG.random(2000) < 0.05
    assert stump_auc(positive * 1.0, positive) == 1
    assert stump_auc(-2.0 * positive, positive) == 1
    assert stump_auc(RNG.normal(size=2000), positive) < 0.7
