"""How sure a metric is: percentile bounds over resampled users (Efron 1979). Users are drawn, not rows: rows of one user
are alike, and bounds over rows would be too narrow."""

import numpy as np
from scipy.sparse import csr_array

REPLICATES = 200
_CHUNK = 4_000_000  # numbers held at once while weights of rows are drawn up
_QUANTILES = 1000


def user_draws(users: int, seed: int, replicates: int = REPLICATES) -> np.ndarray:
    """Return how often each user is drawn in each replicate: float64 [replicates, users] (Poisson, mean 1)."""
    return np.random.default_rng(seed).poisson(1.0, (replicates, users)).astype(np.float64)


def ratio_bounds(numerator: np.ndarray, denominator: np.ndarray, draws: np.ndarray) -> tuple[float, float] | None:
    """Return the 95 % bounds of Σ numerator / Σ denominator, both given as sums per user [users]."""
    top, bottom = draws @ numerator.astype(np.float64), draws @ denominator.astype(np.float64)
    return percentile_bounds(top[bottom > 0] / bottom[bottom > 0])


def auc_bounds(label: np.ndarray, score: np.ndarray, user: np.ndarray, draws: np.ndarray) -> tuple[float, float] | None:
    """Return the 95 % bounds of the AUC, about the same as from the scores themselves: they are cut into quantiles first.

    A replicate then costs one product of its draws with the users' counts in _QUANTILES bins; ties in a bin count half.
    """
    order = np.argsort(score, kind="stable")
    s, y, u = score[order], label[order] > 0, user[order]
    if not y.any() or y.all():
        return None
    place = np.arange(len(s)) * _QUANTILES // len(s)
    quantile = np.maximum.accumulate(place[np.searchsorted(s, s)])  # equal scores share a bin
    shape = (draws.shape[1], _QUANTILES)
    positive, negative = (
        draws @ csr_array((np.ones(rows.sum()), (u[rows], quantile[rows])), shape) for rows in (y, ~y)
    )
    below = np.cumsum(negative, axis=1) - negative
    wins = (positive * (below + 0.5 * negative)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return percentile_bounds(wins / (positive.sum(axis=1) * negative.sum(axis=1)))


def paired_bootstrap(
    challenger: np.ndarray, champion: np.ndarray, weight: np.ndarray, seed: int = 0, replicates: int = 1000
) -> dict[str, float] | None:
    """Compare two models by users: the weighted mean difference (challenger - champion) with its 95 % bounds.

    Users whose metric is not defined for either are left out. None if nobody is left.
    """
    kept = np.isfinite(challenger) & np.isfinite(champion) & (weight > 0)
    if not kept.any():
        return None
    gain, mass = ((challenger - champion) * weight)[kept], weight[kept].astype(float)
    rng, ratios = np.random.default_rng(seed), []
    step = max(1, _CHUNK // len(gain))
    for start in range(0, replicates, step):
        draws = rng.poisson(1.0, (min(step, replicates - start), len(gain))).astype(np.float32)
        bottom = draws @ mass
        ratios.append((draws @ gain)[bottom > 0] / bottom[bottom > 0])
    bounds = percentile_bounds(np.concatenate(ratios)) or (float("nan"), float("nan"))
    return {
        "difference": float(gain.sum() / mass.sum()),
        "lower": bounds[0],
        "upper": bounds[1],
        "users": int(kept.sum()),
    }


def percentile_bounds(values: np.ndarray) -> tuple[float, float] | None:
    """Return the 2.5th and 97.5th percentile of the defined values; None below ten."""
    values = values[np.isfinite(values)]
    if len(values) < 10:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
