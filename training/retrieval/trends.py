"""How much an item is turned to of late, as the night before knew it."""

import numpy as np

from training.retrieval.journeys import DAY_SECONDS, Journeys


def trends(journeys: Journeys, items: int, midnights: np.ndarray, half_lives_days: list[float]) -> np.ndarray:
    """Return log(1 + decayed acts on each item before each midnight): float32 [midnights, items, half-lives].

    Args:
        journeys: the acts.
        items: how many there are.
        midnights: seconds since 1970, ascending.
        half_lives_days: after how long an act counts half.
    """
    night = np.searchsorted(midnights, journeys.seconds, side="right")
    values = np.zeros((len(midnights), items, len(half_lives_days)), np.float32)
    for place, half_life in enumerate(half_lives_days):
        counts, before = np.zeros(items), midnights[0]
        for number, midnight in enumerate(midnights):
            counts *= 0.5 ** ((midnight - before) / DAY_SECONDS / half_life)
            new = night == number
            weight = 0.5 ** ((midnight - journeys.seconds[new]) / DAY_SECONDS / half_life)
            counts += np.bincount(journeys.item[new], weight, minlength=items)
            values[number, :, place] = np.log1p(counts)
            before = midnight
    return values
