"""What a two-tower model learns from: an act, and an act that came after it.

At a point of a user's history any act of the next days may be the target, not the next one alone (the dense all-action loss
of PinnerFormer, Pancha et al. 2022, made for embeddings that are computed once a night), as long as it is on an item that the
user had not turned to until then: what the user knows already, other generators propose.
"""

from dataclasses import dataclass

import numpy as np

from training.retrieval.journeys import DAY_SECONDS, Journeys

_TRIES = 3


@dataclass(frozen=True)
class Targets:
    """One epoch: m pairs of acts, by user.

    source: int64 [m], rows of the acts whose moment it is. target: int64 [m], rows of acts later on. windows: int64 [U, 2], for
    each user the rows from and up to which its history is read; all its sources lie there.
    """

    source: np.ndarray
    target: np.ndarray
    windows: np.ndarray


def draw_targets(
    journeys: Journeys, length: int, horizon_days: float, per_user: int, generator: np.random.Generator
) -> Targets:
    """Draw an epoch's pairs: of each user a window of acts, in it some sources, each with a target.

    Args:
        journeys: the acts.
        length: acts of a window, at most.
        horizon_days: how long after its source a target may be.
        per_user: pairs of a user, at most.
        generator: where the draws come from.
    """
    starts, counts = journeys.starts[:-1], np.diff(journeys.starts)
    slack = np.maximum(counts - length, 0)
    begin = starts + (generator.random(len(starts)) * (slack + 1)).astype(np.int64)
    windows = np.stack([begin, np.minimum(begin + length, journeys.starts[1:])], axis=1)
    until = _until(journeys, horizon_days)
    rows = np.arange(len(journeys))
    in_window = (rows >= windows[journeys.user, 0]) & (rows < windows[journeys.user, 1])
    source = rows[in_window & (until > rows + 1)]
    source = source[_some_of_each(journeys.user[source], per_user, generator)]
    target = np.full(len(source), -1)
    for _ in range(_TRIES):
        left = np.flatnonzero(target < 0)
        at = source[left]
        drawn = at + 1 + (generator.random(len(at)) * (until[at] - at - 1)).astype(np.int64)
        is_new = journeys.first[drawn] > at
        target[left[is_new]] = drawn[is_new]
    return Targets(source[target >= 0], target[target >= 0], windows)


def _until(journeys: Journeys, horizon_days: float) -> np.ndarray:
    """Return for each act the row behind its user's last act within the horizon: int64 [n]."""
    seconds = journeys.seconds - journeys.seconds.min(initial=0)
    user_apart = seconds.max(initial=0) + horizon_days * DAY_SECONDS + 1
    at = journeys.user * user_apart + seconds
    return np.searchsorted(at, at + horizon_days * DAY_SECONDS, side="right")


def _some_of_each(user: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """Return places in `user` [m], sorted, in ascending order: at most so many of each user, drawn at random."""
    chance = generator.random(len(user))
    order = np.lexsort((chance, user))
    begins = np.r_[True, user[order][1:] != user[order][:-1]] if len(user) else np.zeros(0, bool)
    place = np.arange(len(user)) - np.maximum.accumulate(np.where(begins, np.arange(len(user)), 0))
    return np.sort(order[place < most])
