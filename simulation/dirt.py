"""What real logs have besides events: each kind planted at a set rate, and listed with the reason it must be found by."""

import numpy as np

from simulation.rows import SOURCES, Rows, stack, take

DEFECTS = (
    "", "unparsable", "missing_key_field", "unknown_event_type", "unknown_scenario", "impossible_timestamp", "too_late",
    "negative_number", "absurd_number", "text_too_long", "unknown_item", "test_user", "bot", "duplicate",
    "near_duplicate",
)  # fmt: skip
_RATES = {
    "unparsable": 6e-4, "missing_key_field": 6e-4, "unknown_event_type": 4e-4, "unknown_scenario": 2e-3,
    "impossible_timestamp": 4e-4, "too_late": 5e-4, "negative_number": 2e-3, "absurd_number": 1e-3,
    "text_too_long": 5e-4, "unknown_item": 6e-4,
}  # fmt: skip
_DUPLICATE_RATE = 3e-3
_REPEAT_RATE, _REPEATED = 4e-3, "cart_log"  # its client sends again what was not acknowledged, with the new time
_REPEAT_AFTER_S = 3
_LATE_RATE = 4e-3  # arrives one or two days late, and is kept
_TOO_LATE_DAYS = 5
_MOST = 12  # at most one row in so many is spoilt, so that no small log becomes useless
_ONLY_IN = {
    "unparsable": ("home_feed_log", "search_log", "product_page_log", "cart_log", "campaign_log"),
    "unknown_scenario": ("campaign_log",),
    "negative_number": ("cart_log", "checkout_log"),
    "absurd_number": ("cart_log", "checkout_log"),
    "text_too_long": ("search_log",),
}
LOST_HOUR_DAY, LOST_HOUR = 5, 15  # one fortnight's day has lost an hour of every log
_LOST_EVERY_DAYS = 14


def code_of(reason: str) -> int:
    """Return the number of a defect."""
    return DEFECTS.index(reason)


def lose_hour(rows: Rows, day: int, day_start: int) -> Rows:
    """Return the rows without those of the hour that was never written."""
    if day % _LOST_EVERY_DAYS != LOST_HOUR_DAY:
        return rows
    hour = (rows["ts"] - day_start) // 3_600_000
    return take(rows, hour != LOST_HOUR)


def spoil(rows: Rows, rng: np.random.Generator) -> Rows:
    """Mark a few rows with a defect, delay a few, and repeat a few. Each spoilt row has one defect."""
    for number, source in enumerate(SOURCES):
        where = rng.permutation(np.flatnonzero(rows["source"] == number))
        free = len(where) // _MOST
        used = 0
        for reason, rate in _RATES.items():
            if source in _ONLY_IN.get(reason, SOURCES):
                count = min(rng.poisson(rate * len(where)), free - used)
                rows["defect"][where[used : used + count]] = code_of(reason)
                used += count
    rows["arrival"][:] = rows["event_day"]
    rows["arrival"][rows["defect"] == code_of("too_late")] += _TOO_LATE_DAYS
    clean = rows["defect"] == 0
    late = clean & (rng.random(len(clean)) < _LATE_RATE)
    rows["arrival"][late] += rng.integers(1, 3, int(late.sum()))
    again = take(rows, clean & ~late & (rng.random(len(clean)) < _DUPLICATE_RATE))
    again["defect"][:] = code_of("duplicate")
    said = clean & ~late & (rows["source"] == SOURCES.index(_REPEATED)) & (rng.random(len(clean)) < _REPEAT_RATE)
    repeat = take(rows, said)
    # The copy is the earlier one, so that none falls into the day after
    repeat["ts"] -= 1000 * rng.integers(1, _REPEAT_AFTER_S + 1, len(repeat["ts"]))
    repeat["defect"][:] = code_of("near_duplicate")
    return stack([rows, again, repeat])
