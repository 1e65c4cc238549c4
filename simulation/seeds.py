"""Random numbers that depend on a seed, a purpose, a day and a chunk of users, and on nothing that was drawn before."""

import zlib

import numpy as np


def random_for(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """Return the generator of one purpose, e.g. `random_for(7, "visits", day, chunk)`."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *numbers])
