"""What ranks while no model does: chances by counts, where the impressions are drawn."""

import numpy as np
import pytest

from pipelines.predictors import chance_beside_drawn


def test_an_items_chance_beside_drawn_ones_follows_how_often_it_is_chosen() -> None:
    everywhere = np.array([30, 10, 20, 0], np.float32)
    nowhere = chance_beside_drawn(np.zeros(4, np.float32), everywhere, 4)
    # Shares of a half, a sixth and a third of what three items are chosen for
    assert nowhere == pytest.approx([1.5 / 5.5, 0.5 / 4.5, 1 / 5, 0])
    # Twenty choices there weigh as much as all that is known of elsewhere
    there = chance_beside_drawn(np.array([0, 20, 0, 0], np.float32), everywhere, 4)
    assert there == pytest.approx([0.75 / 4.75, 1.75 / 5.75, 0.5 / 4.5, 0])
    assert not chance_beside_drawn(np.zeros(2, np.float32), np.zeros(2, np.float32), 4).any()
