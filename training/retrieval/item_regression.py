"""Which items come with which, for small catalogues: a linear regression of what a user has on all else that the user has.

EASE (Steck 2019): each item's column is a ridge regression in closed form, without the item itself. It hears rare pairs of items
that vectors of a few dozen numbers blur. It takes items² of memory, so that large catalogues are refused.
"""

from dataclasses import dataclass

import numpy as np
import torch

from nightshelf.errors import InputError
from training.retrieval.nearest import best_first
from training.retrieval.recipe import ItemRegression

MOST_ITEMS = 10_000
_USERS = 512  # whose scores of all items are made at once
Pairs = np.ndarray  # int64 [2, P], user and item, each pair once, by user


@dataclass(frozen=True)
class Blend:
    """weights: float32 [I, I], what having an item (row) says for another (column); weight: what a deviation of it counts."""

    weights: np.ndarray
    weight: float

    def of(
        self, users: torch.Tensor, items: torch.Tensor, own: Pairs, away: Pairs, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the k items with the largest sum of inner product and regression, as `NearestItems.of` does.

        It goes by what is the users' own, and leaves out what is kept away from them. A user's regression is divided by its
        deviation over the items, so that long histories count as much as short ones.
        """
        numbers, scores = np.empty((len(users), k), np.int64), np.empty((len(users), k), np.float32)
        for start in range(0, len(users), _USERS):
            rows = slice(start, min(start + _USERS, len(users)))
            has = _has(own, rows, len(items))
            regressed = has @ self.weights
            deviation = regressed.std(axis=1, keepdims=True) + np.float32(1e-9)
            blended = (users[rows] @ items.T).cpu().numpy() + np.float32(self.weight) * regressed / deviation
            every = np.broadcast_to(np.arange(len(items)), blended.shape)
            numbers[rows], scores[rows] = best_first(_has(away, rows, len(items)) == 0, every, blended, k)
        return torch.from_numpy(numbers), torch.from_numpy(scores)


def fit_blend(part: ItemRegression, own: Pairs, users: int, items: int) -> Blend:
    """Fit the regression to what users have.

    Raises:
        InputError: the catalogue is too large for it.
    """
    if items > MOST_ITEMS:
        raise InputError(
            f"item_regression: {items:,} items would take {8 * items**2 / 1e9:,.0f} GB, and at most {MOST_ITEMS:,} are "
            "possible; leave it out of the retrieval recipe"
        )
    together = np.zeros((items, items))
    for start in range(0, users, _USERS):
        has = _has(own, slice(start, min(start + _USERS, users)), items)
        together += has.T @ has
    inverse = np.linalg.inv(together + part.ridge * np.eye(items))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return Blend(weights.astype(np.float32), part.weight)


def _has(own: Pairs, users: slice, items: int) -> np.ndarray:
    """Return 1 where one of the users has the item, float32 [B, I]."""
    cut = slice(*np.searchsorted(own[0], [users.start, users.stop]))
    has = np.zeros((users.stop - users.start, items), np.float32)
    has[own[0, cut] - users.start, own[1, cut]] = 1
    return has
