import numpy as np
import pytest
from sklearn.metrics import dcg_score

from training.utility_weights import discounted_gain, search_weights

WORTH = np.array([1.0, 20.0])


def drawn(users: int, noise: float, seed: int = 1) -> tuple[np.ndarray, ...]:
    """Return predictions, labels and users: clicks as they are predicted, purchases told by `noise` instead where it is 1."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), 12)
    click, purchase = rng.uniform(0.02, 0.5, len(user)), rng.uniform(0.0, 0.2, len(user))
    labels = np.stack([rng.random(len(user)) < click, rng.random(len(user)) < purchase * (1 - noise)], axis=1)
    told = purchase if not noise else rng.uniform(0.0, 0.2, len(user))
    return np.stack([click, told], axis=1), labels.astype(np.float32), user


def test_a_users_gain_is_scikit_learns_dcg() -> None:
    predictions, labels, user = drawn(9, 0.0)
    found = discounted_gain(predictions[:, 0], labels @ WORTH, user)
    for number in range(9):
        own = user == number
        expected = dcg_score([(labels @ WORTH)[own]], [predictions[own, 0]])
        assert found[number] == pytest.approx(expected)


def test_weights_that_are_right_stay() -> None:
    predictions, labels, user = drawn(6000, 0.0)
    found = search_weights(predictions, labels, WORTH, WORTH, user)
    assert not found.is_better
    assert found.found == pytest.approx(found.now, abs=0.01)
    assert found.weights[1] / found.weights[0] == pytest.approx(20, rel=1.1)


def test_a_task_that_is_predicted_by_chance_loses_its_weight() -> None:
    predictions, labels, user = drawn(3000, 0.98)
    found = search_weights(predictions, labels, WORTH, WORTH, user)
    assert found.weights[1] <= 2
    assert found.is_better
    assert found.difference is not None
    assert found.difference[1] < found.found - found.now < found.difference[2]


def test_without_any_outcome_nothing_is_found() -> None:
    predictions, labels, user = drawn(20, 0.0)
    found = search_weights(predictions, 0 * labels, WORTH, WORTH, user)
    assert (found.is_better, found.difference, found.weights.tolist()) == (False, None, WORTH.tolist())
