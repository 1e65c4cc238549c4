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
    may_stand: np.ndarray | None = None,
    barred: np.ndarray | None = None,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield blocks of users with the items that they have not turned to yet, those first that they are the likeliest to.

    Args:
        model, recipe, journeys, catalogue, midnights: as in its training; the items are proposed for the noon after the last.
        may_stand: [I], which items may be proposed; None: all.
        barred: int64 [2, P], users and items that are not proposed to them, by user, beside what they turned to; None: no others.

    Yields:
        Which users; item numbers, int64 [B, recipe.candidates], -1 where there are no more; their scores, float32.
    """
    device = next(model.parameters()).device
    hidden, vectors = model.items(torch.from_numpy(catalogue.fields).to(device))
    able = np.arange(len(catalogue.fields)) if may_stand is None else np.flatnonzero(may_stand)
    trend = torch.from_numpy(trends(journeys, len(vectors), midnights, recipe.trend_half_lives_days)[-1]).to(device)
    vectors[:, -1] += trend @ model.trend
    vectors = vectors[torch.from_numpy(able).to(device)]
    search = None
    ends = journeys.starts[1:]
    windows = np.stack([np.maximum(journeys.starts[:-1], ends - recipe.history_length), ends], axis=1)
    acted = np.stack([journeys.user, journeys.item])
    seen = _among(acted, able, len(catalogue.fields))
    away = seen if barred is None else _among(np.hstack([acted, barred]), able, len(catalogue.fields))
    part = recipe.item_regression
    blend = part and fit_blend(part, seen, len(windows), len(able))
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
        own, not_these = (_of_users(pairs, users) for pairs in (seen, away))
        towards = model.users(states[:, -1], asked)
        if blend:
            places, scores = blend.of(towards, vectors, own, not_these, recipe.candidates)
        else:
            search = search or item_search(vectors, recipe.candidates, towards, recipe.least_recall)
            whose, which = (torch.from_numpy(part).to(device) for part in not_these)
            places, scores = search.of(towards, (whose, which))
        # Place -1 takes what is appended behind all items: no item
        yield users, np.append(able, -1)[places.numpy()], scores.numpy()


def _among(pairs: np.ndarray, able: np.ndarray, items: int) -> np.ndarray:
    """Return distinct pairs of a user and an item's place in `able`, int64 [2, P], by user, of pairs of users and items."""
    place = np.full(items, -1)
    place[able] = np.arange(len(able))
    found = np.stack([pairs[0], place[pairs[1]]])
    return np.unique(found[:, found[1] >= 0], axis=1)


def _of_users(pairs: np.ndarray, users: slice) -> np.ndarray:
    """Return the pairs of some users, who are numbered anew from 0."""
    cut = slice(*np.searchsorted(pairs[0], [users.start, users.stop]))
    return pairs[:, cut] - np.array([[users.start], [0]])
