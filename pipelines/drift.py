"""How far one sample of a feature lies from another: population stability index, Kolmogorov-Smirnov, Jensen-Shannon.

Sources: PSI, Siddiqi, "Credit Risk Scorecards" (2006), in tenths of the reference; KS, the largest distance between the
two distribution functions; JS, Lin, "Divergence measures based on the Shannon entropy" (IEEE Trans. Inf. Theory 1991),
as its square root, which is a distance from 0 (equal) to 1 (nothing in common), over the same bins as PSI.
"""

from dataclasses import dataclass

import numpy as np

_TENTHS = np.arange(0.1, 1.0, 0.1)
_NEVER = 1e-9
_MOST_VALUES = 50  # categories with a bin of their own; the rarer ones share the last


@dataclass(frozen=True)
class Drift:
    """The three measures, and the bins of the first and last; `ks` is None for categories, which have no order."""

    bins: int
    psi: float
    ks: float | None
    js: float


def drift_of_numbers(reference: np.ndarray, current: np.ndarray) -> Drift:
    """Compare two samples of numbers, each with at least one value and without NaN."""
    edges = np.unique(np.quantile(reference, _TENTHS, method="inverted_cdf"))
    counts = [
        np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        for values in (reference, current)
    ]
    return Drift(_used(*counts), _psi(*counts), kolmogorov_smirnov(reference, current), _js(*counts))


def drift_of_categories(reference: np.ndarray, current: np.ndarray) -> Drift:
    """Compare two samples of category ids, each with at least one value; frequent ones by themselves, the rest together."""
    values, frequency = np.unique(reference, return_counts=True)
    common = np.sort(values[np.argsort(-frequency, kind="stable")][:_MOST_VALUES])
    counts = []
    for ids in (reference, current):
        place = np.minimum(np.searchsorted(common, ids), len(common) - 1)
        place = np.where(common[place] == ids, place, len(common))
        counts.append(np.bincount(place, minlength=len(common) + 1))
    return Drift(_used(*counts), _psi(*counts), None, _js(*counts))


def kolmogorov_smirnov(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest distance between the empirical distribution functions of two samples."""
    one, other = np.sort(one), np.sort(other)
    values = np.concatenate([one, other])
    below = np.searchsorted(one, values, side="right") / len(one) - np.searchsorted(other, values, side="right") / len(
        other
    )
    return float(np.abs(below).max())


def has_died(reference: np.ndarray, current: np.ndarray) -> bool:
    """Say whether all of `current` is one value, which in samples of this size is no chance given the reference's values."""
    if np.any(current != current[0]):
        return False
    share = float(np.mean(reference == current[0]))
    return share ** len(current) < _NEVER


def stump_auc(values: np.ndarray, positive: np.ndarray) -> float:
    """Return the AUC of the best decision stump (one feature, one threshold, either side) for a boolean label.

    A classifier with two scores has the AUC (1 + TPR - FPR) / 2, and the best threshold is where the classes'
    distribution functions lie farthest apart: (1 + KS) / 2. Needs at least one value of each class.
    """
    return (1 + kolmogorov_smirnov(values[positive], values[~positive])) / 2


def _used(reference: np.ndarray, current: np.ndarray) -> int:
    return int(np.count_nonzero(reference + current))


def _psi(reference: np.ndarray, current: np.ndarray) -> float:
    # Half a row stands in for none: one empty bin would make the index infinite
    p = np.maximum(reference, 0.5) / reference.sum()
    q = np.maximum(current, 0.5) / current.sum()
    return float(np.sum((q - p) * np.log(q / p), where=(reference > 0) | (current > 0)))


def _js(reference: np.ndarray, current: np.ndarray) -> float:
    p, q = reference / reference.sum(), current / current.sum()
    middle = (p + q) / 2
    return float(np.sqrt(max(0.0, (_kl(p, middle) + _kl(q, middle)) / 2)))


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Kullback-Leibler divergence in bits, of p that is zero where q is."""
    some = p > 0
    return float(np.sum(p[some] * np.log2(p[some] / q[some])))
