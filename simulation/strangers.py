"""Who is in the logs and no customer: test accounts and bots; and a customer who looks like a bot and is none."""

from collections.abc import Callable

import numpy as np

from simulation.dirt import code_of
from simulation.rows import ABSENT, CLICK, IMPRESSION, Rows, make_rows, stack

# User numbers of those who are no customers; names in rawlogs.user_names. Bots follow after the last customer.
TEST_USERS = {-2: "test_1", -3: "qa-7"}
FEWEST_ROWS = 100  # a smaller home feed log stays free of strangers
_MOST = 8  # a bot is at most one row in so many of the home feed log, so that no small log becomes useless
_HOUR = 3_600_000
_BINGE_CLICKS, _BINGE_ITEMS = 80, 60

Moments = Callable[[int, int, int, np.random.Generator], np.ndarray]


def strangers(
    home_rows: int, on_sale: np.ndarray, users: int, day: int, starts: np.ndarray, rng: np.random.Generator
) -> Rows:
    """Return the rows that strangers add to a home feed log of `home_rows` rows: test accounts, the day's bot, a binge.

    Args:
        home_rows: rows that the log has without them.
        on_sale: items that are on sale.
        users: users of the shop.
        day: day number; each day has its kind of bot.
        starts: first moments of this day and the next, milliseconds UTC.
        rng: where chance comes from.
    """
    start, end, request = int(starts[0]), int(starts[1]), day * 10**12 + 9 * 10**11
    parts = [make_rows(0)]
    if home_rows >= FEWEST_ROWS:
        accounts = np.repeat(list(TEST_USERS), 3)
        moments = _any_time(len(accounts), start, end, rng)
        parts.append(_rows(accounts, rng.choice(on_sale, len(accounts)), moments, IMPRESSION, "test_user", request))
    kind = day % len(_BOTS)
    count, breadth, event, moments_of = _BOTS[kind]
    if count * _MOST <= home_rows and breadth <= len(on_sale):
        goods = rng.permutation(on_sale)[:breadth]
        touched = rng.choice(goods, count) if count > breadth else goods
        bot = np.full(count, users + kind)
        parts.append(_rows(bot, touched, moments_of(count, start, end, rng), event, "bot", request + 10**6))
        person = np.full(_BINGE_CLICKS, rng.integers(0, users))
        liked = rng.choice(rng.choice(on_sale, _BINGE_ITEMS), _BINGE_CLICKS)
        parts.append(_rows(person, liked, _by_bursts(_BINGE_CLICKS, start, end, rng), CLICK, "", request + 2 * 10**6))
    rows = stack(parts)
    rows["event_day"][:] = day
    rows["arrival"][:] = day
    return rows


def _any_time(count: int, start: int, end: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(start, end, count)


def _by_the_clock(count: int, start: int, end: int, rng: np.random.Generator) -> np.ndarray:
    """Return moments that are a minute and a half apart, give or take three per cent."""
    return start + 10 * _HOUR + np.cumsum(rng.normal(90_000, 2_700, count)).astype(np.int64)


def _by_bursts(count: int, start: int, end: int, rng: np.random.Generator) -> np.ndarray:
    """Return moments as a person has them: three visits, gaps of ten seconds in the middle and sometimes of minutes."""
    visits = start + np.array([9, 13, 20]) * _HOUR
    gaps = np.minimum(rng.lognormal(np.log(10_000), 1.2, count), 120_000)
    return visits[np.arange(count) * 3 // count] + np.cumsum(gaps).astype(np.int64) % (3 * _HOUR)


# Rows, different items, what it does, when
_BOTS: tuple[tuple[int, int, int, Moments], ...] = (
    (100, 40, CLICK, _any_time),  # never asleep
    (600, 150, CLICK, _any_time),  # too fast
    (120, 30, CLICK, _by_the_clock),  # regular
    (250, 250, CLICK, _by_bursts),  # walks the catalogue
    (1200, 150, IMPRESSION, _any_time),  # reads all and clicks nothing
)


def _rows(user: np.ndarray, item: np.ndarray, ts: np.ndarray, kind: int, defect: str, request: int) -> Rows:
    return make_rows(
        len(user),
        source=0,
        kind=kind,
        scenario=0,
        user=user,
        item=item,
        ts=ts,
        request=request + np.arange(len(user)),
        position=1,
        propensity=0.001 if kind == IMPRESSION else ABSENT,
        defect=code_of(defect),
    )
