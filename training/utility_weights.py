"""Other weights of a shelf's tasks: do they bring more of what is worth something to the top?

An expected utility ranks best if its predictions are the chances. Where they are not (a rare task that is predicted badly, one
that is too high) other weights than the worth of its outcomes may do better. They are looked for by coordinate ascent on a grid,
on half of the users, and are held against the present ones on the other half, where nothing was chosen.
"""

from dataclasses import dataclass

import numpy as np

from training.bootstrap import paired_bootstrap

FACTORS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ROUNDS = 2


@dataclass(frozen=True)
class WeightSearch:
    """What was found.

    weights: [tasks], the present ones where none are better on the users that chose. now, found: the share of the worth of all
    outcomes that stands on top with the present weights and with those found, by the users that did not choose: discounted by
    rank, 1 = all above all else. difference: of the two, with 95 % bounds; None where nobody had an outcome.
    """

    weights: np.ndarray
    now: float
    found: float
    difference: tuple[float, float, float] | None

    @property
    def is_better(self) -> bool:
        """Say whether the weights found are better beyond chance."""
        return self.difference is not None and self.difference[1] > 0


def search_weights(
    predictions: np.ndarray, labels: np.ndarray, worth: np.ndarray, present: np.ndarray, user: np.ndarray
) -> WeightSearch:
    """Look for weights of tasks; the first task keeps its own, since a common factor changes no order.

    Args:
        predictions: of each impression and task [n, tasks].
        labels: what came of it [n, tasks].
        worth: of each task's outcome [tasks].
        present: the weights that shelves are ranked by now [tasks].
        user: whose impression it was, int64 [n]; a user's impressions are ranked together.
    """
    gain = labels @ worth
    best = discounted_gain(gain, gain, user)
    has_outcome = best > 0
    chooses = has_outcome & (np.arange(len(best)) % 2 == 0)

    def shares(weights: np.ndarray) -> np.ndarray:
        """Return each user's gain under these weights over the best that could be had [users]; 0 without an outcome."""
        found = discounted_gain(predictions @ weights, gain, user)
        return np.divide(found, best, out=np.zeros_like(best), where=has_outcome)

    def share(weights: np.ndarray, of: np.ndarray) -> float:
        """Return the mean share of the users `of` (bool [users]), weighted by their best gain; NaN if there is none."""
        return float(np.average(shares(weights)[of], weights=best[of])) if of.any() else float("nan")

    weights, reached = present.astype(float), share(present, chooses)
    for _ in range(_ROUNDS):
        for task in range(1, len(weights)):
            for factor in FACTORS:
                other = weights.copy()
                other[task] = factor * worth[task]
                if (value := share(other, chooses)) > reached:
                    weights, reached = other, value
    rest = has_outcome & ~chooses
    paired = paired_bootstrap(shares(weights), shares(present), np.where(rest, best, 0.0))
    difference = (paired["difference"], paired["lower"], paired["upper"]) if paired else None
    return WeightSearch(weights, share(present, rest), share(weights, rest), difference)


def discounted_gain(score: np.ndarray, gain: np.ndarray, user: np.ndarray) -> np.ndarray:
    """Return each user's gain [users] of impressions in the order of their scores, discounted by rank as in a DCG."""
    order = np.lexsort((-score, user))
    owner = user[order]
    place = np.arange(len(owner))
    begins = np.r_[True, owner[1:] != owner[:-1]]
    rank = place - np.maximum.accumulate(np.where(begins, place, 0))
    return np.bincount(owner, gain[order] / np.log2(rank + 2))
