"""Journeys drawn at random, and drawn with a pattern worth learning."""

import numpy as np
import pytest

from training.retrieval.catalogue import Catalogue
from training.retrieval.journeys import DAY_SECONDS, Journeys
from training.retrieval.recipe import RetrievalRecipe

NOW = 1_770_000_000.0


def make_journeys(items_of_users, seed=0, days=20):
    """Return journeys whose users act on these items, in their order, at random moments of the last `days`."""
    rng = np.random.default_rng(seed)
    counts = [len(items) for items in items_of_users]
    seconds = [NOW - np.sort(rng.uniform(0, days * DAY_SECONDS, count))[::-1] for count in counts]
    total = sum(counts)
    return Journeys(
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        user_keys=[f"u{n}" for n in range(len(counts))],
        item=np.concatenate([np.asarray(items, np.int32) for items in items_of_users]),
        event=rng.integers(1, 3, total),
        scenario=rng.integers(1, 3, total),
        seconds=np.concatenate(seconds),
    )


def plain_catalogue(items):
    """Return a catalogue whose items have an id and one of four categories."""
    return Catalogue(
        np.stack([np.arange(1, items + 1), np.arange(items) % 4], axis=1), {"item": items + 1, "category": 4}
    )


@pytest.fixture
def small_recipe():
    """Return small_recipe(**changes)."""

    def make(**changes):
        plain = {
            "name": "small", "embedding_size": 8, "vector_size": 16, "history_length": 8, "users_per_batch": 64,
            "negatives": 20, "epochs": 12, "dropout": 0.0, "learning_rate": {"dense": 0.01, "embedding": 0.1},
            "horizon_days": 30, "half_life_days": 1000, "candidates": 5,
        }  # fmt: skip
        return RetrievalRecipe(**(plain | changes))

    return make


@pytest.fixture(scope="session")
def journeys_of():
    """Return make_journeys."""
    return make_journeys


@pytest.fixture
def catalogue():
    """Return plain_catalogue."""
    return plain_catalogue
