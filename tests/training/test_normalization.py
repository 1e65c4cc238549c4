import numpy as np

from nightshelf import parallel
from training.normalization import CLIP, fit_normalization


def test_blocks_of_rows_make_the_scales_of_the_chosen_rows_together(monkeypatch):
    monkeypatch.setattr(parallel, "_ROWS", 7)
    rng = np.random.default_rng(0)
    raw = rng.lognormal(3, 2, (40, 2)).astype(np.float32)
    chosen = rng.random(40) < 0.5
    chosen[14:21] = False  # a block of which no row was chosen
    names = ["user_click_count_7d", "item_log_price"]
    spec = fit_normalization(raw, names, chosen)
    values = np.stack([np.log1p(raw[:, 0].astype(np.float64)), raw[:, 1]], axis=1)
    mean, std = values[chosen].mean(0), values[chosen].std(0)
    np.testing.assert_allclose(spec.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(spec.std, std, rtol=1e-5)
    np.testing.assert_allclose(
        spec.apply(raw, names), np.clip((values - mean) / std, -CLIP, CLIP), rtol=1e-4, atol=1e-5
    )
