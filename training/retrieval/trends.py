"""How much an item is turned to of late, as a moment knew it: what came at the moment or after has no part in it."""

import numpy as np

from training.retrieval.journeys import DAY_SECONDS, Journeys


def trend_moments(midnights: np.ndarray, per_day: int) -> np.ndarray:
    """Return when trends are taken: at each midnight, and so many times until the next, at even distances.

    Args:
        midnights: seconds since 1970, ascending [days + 1].
        per_day: moments of a day; 1: the midnights alone.

    Returns:
        Seconds since 1970, float64 [days x per_day + 1].
    """
    days = np.arange(len(midnights))
    return np.interp(np.arange(days[-1] * per_day + 1) / per_day, days, midnights)


def trends(journeys: Journeys, items: int, moments: np.ndarray, half_lives_days: list[float]) -> np.ndarray:
    """Return log(1 + decayed acts on each item before each moment): float32 [moments, items, half-lives].

    Args:
        journeys: the acts.
        items: how many there are.
        moments: seconds since 1970, ascending.
        half_lives_days: after how long an act counts half.
    """
    order = np.argsort(journeys.seconds, kind="stable")
    item, seconds = journeys.item[order], journeys.seconds[order]
    ends = np.searchsorted(seconds, moments, side="left")
    since = [slice(start, end) for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True)]
    values = np.zeros((len(moments), items, len(half_lives_days)), np.float32)
    for place, half_life in enumerate(half_lives_days):
        counts, before = np.zeros(items), moments[0]
        for number, (moment, new) in enumerate(zip(moments, since, strict=True)):
            counts *= 0.5 ** ((moment - before) / DAY_SECONDS / half_life)
            weight = 0.5 ** ((moment - seconds[new]) / DAY_SECONDS / half_life)
            counts += np.bincount(item[new], weight, minlength=items)
            values[number, :, place] = np.log1p(counts)
            before = moment
    return values
