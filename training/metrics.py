"""Metrics of predictions, over numpy arrays; exact on ties; None where a metric is not defined (e.g. one class)."""

import numpy as np


def auc(label: np.ndarray, score: np.ndarray) -> float | None:
    """Return the area under the ROC curve: P(score of a positive > of a negative) + half of the ties."""
    return mean(*grouped_auc(label, score, np.zeros(len(label), np.int64), 1))


def grouped_auc(label: np.ndarray, score: np.ndarray, group: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUC inside each group [groups], NaN with one class, and each group's number of rows.

    Their mean over users is the GAUC (Zhu et al. 2017).
    """
    order = np.lexsort((score, group))
    y, s, g = label[order] > 0, score[order], group[order]
    new = np.r_[True, (s[1:] != s[:-1]) | (g[1:] != g[:-1])] if len(y) else np.zeros(0, bool)
    starts = np.flatnonzero(new)
    positives = np.add.reduceat(y, starts, dtype=np.int64) if len(y) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[starts, len(y)])
    negatives, tie_group = sizes - positives, g[starts]
    group_negatives = np.bincount(tie_group, negatives, groups)
    below = np.cumsum(negatives) - negatives  # over all groups before; take the group's own start away
    base = np.cumsum(group_negatives) - group_negatives
    wins = positives * (below - base[tie_group] + 0.5 * negatives)
    group_positives = np.bincount(tie_group, positives, groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.bincount(tie_group, wins, groups) / (group_positives * group_negatives)
    return value, np.bincount(g, minlength=groups).astype(float)


def logloss(label: np.ndarray, probability: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """Return the mean negative log likelihood."""
    return mean(log_losses(label, probability), np.ones(len(label)) if weight is None else weight)


def log_losses(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return each row's negative log likelihood; probabilities are kept 1e-7 away from 0 and 1."""
    p = np.clip(probability.astype(float), 1e-7, 1 - 1e-7)
    return -(label * np.log(p) + (1 - label) * np.log1p(-p))


def rmse(label: np.ndarray, value: np.ndarray) -> float | None:
    """Return the root of the mean squared error."""
    square = mean((label.astype(float) - value) ** 2, np.ones(len(label)))
    return None if square is None else float(np.sqrt(square))


def pcoc(label: np.ndarray, value: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """Return predicted over observed: 1 is calibrated; None without an observed outcome."""
    w = np.ones(len(label)) if weight is None else weight
    observed = float((label * w).sum(dtype=float))
    return float((value * w).sum(dtype=float)) / observed if observed > 0 else None


def grouped_ndcg(
    label: np.ndarray, score: np.ndarray, request: np.ndarray, requests: int, top: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Return the NDCG of each request [requests] (gain = label; ties share their places' discounts), and a weight of 1 each.

    NaN without an outcome; rows of request -1 belong to none.
    """
    with_outcome = np.unique(request[(request >= 0) & (label > 0)])
    kept = np.isin(request, with_outcome, kind="table")  # the others' is not defined, and they are most
    label, score, request = label[kept].astype(float), score[kept], request[kept]
    gained = _discounted(label, score, request, requests, top)
    best = _discounted(label, label, request, requests, top)
    with np.errstate(invalid="ignore", divide="ignore"):
        return gained / best, np.ones(requests)


def _discounted(label: np.ndarray, score: np.ndarray, request: np.ndarray, requests: int, top: int) -> np.ndarray:
    order = np.lexsort((-score, request))
    y, s, g = label[order], score[order], request[order]
    if not len(y):
        return np.zeros(requests)
    start_of_group = np.r_[True, g[1:] != g[:-1]]
    starts = np.flatnonzero(start_of_group)
    place = np.arange(len(y)) - np.repeat(starts, np.diff(np.r_[starts, len(y)]))
    discount = np.where(place < top, 1 / np.log2(place + 2), 0.0)
    ties = np.flatnonzero(start_of_group | np.r_[True, s[1:] != s[:-1]])
    sizes = np.diff(np.r_[ties, len(y)])
    shared = np.repeat(np.add.reduceat(discount, ties) / sizes, sizes)
    return np.bincount(g, y * shared, requests)


def mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    """Return the weighted mean of the values that are defined; None where there are none."""
    defined = np.isfinite(values) & (weights > 0)
    total = float(weights[defined].sum(dtype=float))
    return float((values[defined] * weights[defined]).sum(dtype=float) / total) if total > 0 else None
