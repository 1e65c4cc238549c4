"""The items that a two-tower model proposes to each user: a search over the whole catalogue, in blocks of users."""

from collections.abc import Iterator

import numpy as np
import torch

from training.retrieval.catalogue import Catalogue
from training.retrieval.cells import item_search
from training.retrieval.item_regression import fit_blend
from training.retrieval.journeys import Journeys
from training.retrieval.recipe import RetrievalRecipe
from training.retrieval.train_two_tower import read_windows
from training.retrieval.trends import trends
from training.retrieval.two_tower import TwoTower

_NOON = 12 * 3600.0
_USERS = 4096  # whose histories are read at once


@torch.inference_mode()
def retrieve_items(
    model: TwoTower,
    recipe: RetrievalRecipe,
    journeys: Journeys,
    catalogue: Catalogue,
    midnights: np.ndarray,
    is_sold: np.ndarray | None = None,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield blocks of users with the items that they have not turned to yet, those first that they are the likeliest to.

    Args:
        model, recipe, journeys, catalogue, midnights: as in its training; the items are proposed for the noon after the last.
        is_sold: [I], which items may be proposed; None: all.

    Yields:
        Which users; item numbers, int64 [B, recipe.candidates], -1 where there are no more; their scores, float32.
    """
    device = next(model.parameters()).device
    hidden, vectors = model.items(torch.from_numpy(catalogue.fields).to(device))
    sold = np.arange(len(catalogue.fields)) if is_sold is None else np.flatnonzero(is_sold)
    trend = torch.from_numpy(trends(journeys, len(vectors), midnights, recipe.trend_half_lives_days)[-1]).to(device)
    vectors[:, -1] += trend @ model.trend
    vectors = vectors[torch.from_numpy(sold).to(device)]
    search = None
    ends = journeys.starts[1:]
    windows = np.stack([np.maximum(journeys.starts[:-1], ends - recipe.history_length), ends], axis=1)
    seen = _seen(journeys, sold, len(catalogue.fields))
    part = recipe.item_regression
    blend = part and fit_blend(part, seen, len(windows), len(sold))
    for start in range(0, len(windows), _USERS):
        users = slice(start, min(start + _USERS, len(windows)))
        histories = read_windows(journeys, windows[users], device)
        states = model.states(
            hidden[histories.item],
            histories.event,
            histories.scenario,
            histories.seconds,
            histories.is_act,
        )
        asked = torch.from_numpy(midnights[-1] + _NOON - journeys.seconds[ends[users] - 1]).to(device)
        cut = slice(*np.searchsorted(seen[0], [users.start, users.stop]))
        own = seen[:, cut] - np.array([[start], [0]])
        towards = model.users(states[:, -1], asked)
        if blend:
            places, scores = blend.of(towards, vectors, own, recipe.candidates)
        else:
            search = search or item_search(vectors, recipe.candidates, towards, recipe.least_recall)
            places, scores = search.of(
                towards, (torch.from_numpy(own[0]).to(device), torch.from_numpy(own[1]).to(device))
            )
        # Place -1 takes what is appended behind all items: no item
        yield users, np.append(sold, -1)[places.numpy()], scores.numpy()


def _seen(journeys: Journeys, sold: np.ndarray, items: int) -> np.ndarray:
    """Return the pairs of a user and the place in `sold` of an item of his, int64 [2, P], by user."""
    place = np.full(items, -1)
    place[sold] = np.arange(len(sold))
    pairs = np.stack([journeys.user, place[journeys.item]])
    return np.unique(pairs[:, pairs[1] >= 0], axis=1)
