import numpy as np
import pytest

from benchmarks.fusion import valued


def test_an_item_that_stands_on_two_shelves_counts_once_where_it_is_worth_most():
    worth = np.array([[[5.0, 4, 3, 2]], [[1.0, 2, 3, 4]]])  # two scenarios, one user, four items
    alike = valued(np.array([[[0, 1]], [[1, 0]]]), worth)
    assert alike == {"each": pytest.approx(12 / 4), "together": pytest.approx(9 / 4), "items": 2}
    apart = valued(np.array([[[0, 1]], [[3, -1]]]), worth)
    assert apart == {"each": pytest.approx(13 / 4), "together": pytest.approx(13 / 4), "items": 3}
