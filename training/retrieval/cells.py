"""The items with the largest inner products, nearly all of them for a small part of the products: for large catalogues.

k-means puts the items into cells (an inverted file: Sivic and Zisserman, ICCV 2003; by faiss, Douze et al. 2024), and a
search goes through those cells alone whose centres have the largest inner products with the user. Some users of the night,
searched exactly, tell how many cells that must be for the recall that was asked for.
"""

import math
from typing import NamedTuple

import faiss
import numpy as np
import torch

from nightshelf.logs import get_logger
from nightshelf.parallel import cores
from training.retrieval.nearest import NearestItems, best_first
from training.workers import torch_workers

_CELLS = 2.0  # times the root of the number of items
_LEARNT_FROM = 64  # items a cell that k-means sees
_ROUNDS = 8
_SAMPLED = 256  # users who tell how many cells are needed
_MOST_CELLS = 0.25  # a search through more of them is no faster than the exact one
_STEP = 1.25  # times as many cells as were too few
_USERS = 512  # that one thread searches for at once
_MORE = 128  # items more than k that are looked for: so many of the found ones may be seen before


def item_search(
    items: torch.Tensor, k: int, users: torch.Tensor, least_recall: float
) -> "NearestItems | NearestInCells":
    """Return a search of the k nearest items, exact or at least with the recall that is asked for.

    Args:
        items: vectors, float32 [I, D].
        k: how many are found for each user.
        users: vectors of some users [U, D], like those that will be asked for.
        least_recall: the share of the k nearest items that are to be found, on average over users; 1: all of them.

    It is exact on an accelerator, and where cells would not find so many items in much less time.
    """
    exact, count = NearestItems(items, k), round(_CELLS * math.sqrt(len(items)))
    most, log = math.floor(_MOST_CELLS * count), get_logger("retrieve")
    if least_recall >= 1 or items.device.type != "cpu" or len(items) < 4 * k or not most or not len(users):
        return exact
    sampled = users[torch.linspace(0, len(users) - 1, min(_SAMPLED, len(users))).long()]
    cells, wanted = NearestInCells(items, exact, k, count, sampled), exact.of(sampled)[0].numpy()
    while (found := _recalls(cells.near(sampled, k)[0], wanted)).lowest < least_recall and cells.searched < most:
        cells.searched = min(most, math.ceil(cells.searched * _STEP))
    part = f"{cells.searched:,} of {count:,} cells hold {found.mean:.4f} of the nearest items of {len(sampled)} users"
    if found.lowest < least_recall:
        log.warning("the search is exact: %s, and not %s", part, least_recall)
        return exact
    log.info("approximate search: %s", part)
    return cells


class NearestInCells:
    """A catalogue in cells; `searched` says through how many of them a search goes."""

    def __init__(self, items: torch.Tensor, exact: NearestItems, k: int, count: int, users: torch.Tensor) -> None:
        """Put items, float32 [I, D], into `count` cells; `exact` serves the users for whom cells do not do.

        Numbers in which users, float32 [U, D], lie far from 0 tell items apart more than others: each weighs as much as its
        root mean square over users.
        """
        faiss.omp_set_num_threads(cores())
        self._exact, self._k, self._total, self.searched = exact, k, len(items), 1
        spread = users.square().mean(0).sqrt()
        self._weight = spread.clamp(min=1e-6 * float(spread.max()) or 1.0)
        weighted = (items * self._weight).numpy()
        sizes = {"min_points_per_centroid": 1, "max_points_per_centroid": _LEARNT_FROM}
        means = faiss.Kmeans(items.shape[1], count, niter=_ROUNDS, seed=1, **sizes)
        means.train(weighted)
        self._centres = means.centroids.T.copy()
        # Items lie in the cell whose centre is the nearest; searched are the cells with the largest inner products
        self._index = faiss.IndexIVFFlat(means.index, items.shape[1], count, faiss.METRIC_INNER_PRODUCT)
        self._index.add(weighted)

    def of(
        self, users: torch.Tensor, seen: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return k items as `NearestItems.of` does, but for those that lie in other cells.

        Whoever saw more items than most, or finds fewer than k in the cells, is searched for exactly.
        """
        nothing = torch.zeros(0, dtype=torch.int64)
        seen_user, seen_item = (part.numpy() for part in seen or (nothing, nothing))
        counts = np.bincount(seen_user, minlength=len(users))
        more = int(min(_MORE, counts.max(initial=0)))
        numbers = np.empty((len(users), self._k), np.int64)
        scores = np.empty((len(users), self._k), np.float32)
        starts = np.searchsorted(seen_user, np.arange(len(users) + 1))

        def block(rows: np.ndarray) -> None:
            """Search the cells for some users, and fill their rows of `numbers` and `scores` with what they have not seen."""
            faiss.omp_set_num_threads(1)  # of this thread's searches
            found, score = self.near(users[rows], self._k + more)
            able = found >= 0
            for place in np.flatnonzero(counts[rows]):
                own = seen_item[starts[rows[place]] : starts[rows[place] + 1]]
                able[place] &= ~np.isin(found[place], own)
            numbers[rows], scores[rows] = best_first(able, found, score, self._k)

        # Neighbours search the same cells, which then lie in the cache
        nearest = ((users / self._weight).numpy() @ self._centres).argmax(axis=1)
        order = np.argsort(nearest, kind="stable")
        with torch_workers() as pool:
            list(pool.map(block, [order[start : start + _USERS] for start in range(0, len(users), _USERS)]))
        short = np.flatnonzero((counts > more) | (numbers[:, -1] < 0))
        if len(short):
            known = np.isin(seen_user, short)
            own = torch.from_numpy(np.searchsorted(short, seen_user[known])), torch.from_numpy(seen_item[known])
            numbers[short], scores[short] = (part.numpy() for part in self._exact.of(users[short], own))
        return torch.from_numpy(numbers), torch.from_numpy(scores)

    def near(self, users: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return up to k items of the cells that are searched, -1 where there are fewer, and scores, both [U, k]."""
        asked = (users / self._weight).numpy()
        nearness = asked @ self._centres
        cells = np.argpartition(-nearness, self.searched - 1, axis=1)[:, : self.searched]
        coarse = np.take_along_axis(nearness, cells, axis=1)
        self._index.nprobe = self.searched
        scores, numbers = self._index.search_preassigned(asked, k, cells, coarse)
        return numbers, scores


class _Recall(NamedTuple):
    """The mean over sampled users, and what that of all users is not below, but by bad luck (two standard errors)."""

    mean: float
    lowest: float


def _recalls(found: np.ndarray, wanted: np.ndarray) -> _Recall:
    """Return which share of the items of `wanted` [U, k] are among those of `found` [U, k]; -1 is no item."""
    row = np.arange(len(wanted))[:, None] * (int(max(wanted.max(), found.max())) + 1)
    is_found = np.isin(row + wanted, (row + found)[found >= 0]) & (wanted >= 0)
    shares = is_found.sum(1) / np.maximum(1, (wanted >= 0).sum(1))
    return _Recall(float(shares.mean()), float(shares.mean() - 2 * shares.std() / math.sqrt(len(shares))))
