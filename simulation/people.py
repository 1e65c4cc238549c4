"""The users of the simulated shop: what stays (tastes, loyalty, purse) and what moves (drift, intent, what they bought)."""

from dataclasses import dataclass, field

import numpy as np

from simulation.catalogue import BRANDS_PER_CATEGORY, RESIDUAL_SIZE, Catalogue
from simulation.seeds import random_for

CHUNK = 10_000  # users that are simulated together; part of the shop's identity, since each chunk has its own seeds
FAVOURITES = 6
FAVOURITE_MASS = 0.88  # the rest of a user's wishes follows the season
INTENT_STAYS = 0.6
INTENT_NONE = 0.2
SESSION_FOLLOWS_INTENT = 0.75
DRIFT_KEEPS, DRIFT_STEP = 0.92, 0.2
LIFE_EVENT = 0.002
NEVER = -1000
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55+")
DEVICES = ("phone", "desktop", "tablet")


@dataclass(frozen=True)
class People:
    """A chunk of users and what never changes in them. Arrays run over the chunk's users [U]."""

    first: int  # number of the first user of the chunk
    activity: np.ndarray  # [U] chance to come on an average day
    arrival_day: np.ndarray  # [U] first day on which the user may come
    leave_day: np.ndarray  # [U] first day on which the user comes no more
    favourites: np.ndarray  # [U, FAVOURITES] leaves
    log_weight: np.ndarray  # [U, FAVOURITES] logarithm of their Dirichlet weights
    known_leaves: np.ndarray  # [U, FAVOURITES] what the older recommender takes for the favourites
    brands: np.ndarray  # [U, 4] favourite brands
    loyalty: np.ndarray  # [U]
    price_level: np.ndarray  # [U] price that suits, in standard deviations inside a leaf
    price_sensitivity: np.ndarray  # [U]
    colour: np.ndarray  # [U] favourite colour
    residual: np.ndarray  # [U, RESIDUAL_SIZE], of unit length: taste that no column shows
    age_band: np.ndarray  # [U] place in AGE_BANDS
    device: np.ndarray  # [U] place in DEVICES

    @property
    def size(self) -> int:
        """Return the number of users."""
        return len(self.activity)


class DayBook:
    """The last day on which a key (user × item, user × leaf) occurred: sorted keys, vectorised look-up."""

    def __init__(self, keys: np.ndarray | None = None, days: np.ndarray | None = None) -> None:
        self.keys = np.empty(0, np.int64) if keys is None else keys
        self.days = np.empty(0, np.int16) if days is None else days

    def record(self, keys: np.ndarray, day: int, forget_before: int) -> "DayBook":
        """Return a book in which `keys` occurred on `day`, without entries older than `forget_before`."""
        kept = (self.days >= forget_before) & ~np.isin(self.keys, keys)
        fresh = np.unique(keys)
        all_keys = np.concatenate([self.keys[kept], fresh])
        order = np.argsort(all_keys, kind="stable")
        days = np.concatenate([self.days[kept], np.full(len(fresh), day, np.int16)])
        return DayBook(all_keys[order], days[order])

    def without(self, keys: np.ndarray) -> "DayBook":
        """Return a book that has forgotten `keys`."""
        kept = ~np.isin(self.keys, keys)
        return DayBook(self.keys[kept], self.days[kept])

    def days_since(self, keys: np.ndarray, day: int) -> np.ndarray:
        """Return the days from each key's last occurrence to `day`, inf where it never occurred (float32)."""
        since = np.full(keys.shape, np.inf, np.float32)
        if len(self.keys):
            place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            found = self.keys[place] == keys
            since[found] = day - self.days[place[found]]
        return since


@dataclass
class UserState:
    """What moves in a chunk of users, as it is at the end of a day. User numbers inside the chunk: 0..U-1."""

    favourites: np.ndarray  # [U, FAVOURITES]; life events change them
    log_weight: np.ndarray  # [U, FAVOURITES]
    drift: np.ndarray  # [U, FAVOURITES] added to log_weight, mean-reverting
    intent: np.ndarray  # [U] leaf, or leaf_count: none
    cart_leaf: np.ndarray  # [U] leaf of the last item put into the cart
    cart_day: np.ndarray  # [U] when that was
    last_visit: np.ndarray  # [U] last day on which the user came; NEVER: not yet
    clicked: DayBook = field(default_factory=DayBook)  # user × item, a week
    carted: DayBook = field(default_factory=DayBook)  # user × item, a week
    bought: DayBook = field(default_factory=DayBook)  # user × item
    bought_leaf: DayBook = field(default_factory=DayBook)  # user × leaf

    @classmethod
    def fresh(cls, people: People, catalogue: Catalogue) -> "UserState":
        """Return the state before the first day."""
        users = people.size
        return cls(
            favourites=people.favourites.copy(),
            log_weight=people.log_weight.copy(),
            drift=np.zeros((users, FAVOURITES), np.float32),
            intent=np.full(users, catalogue.leaf_count, np.int16),
            cart_leaf=np.zeros(users, np.int16),
            cart_day=np.full(users, NEVER, np.int16),
            last_visit=np.full(users, NEVER, np.int16),
        )


def chunk_count(users: int) -> int:
    """Return the number of chunks."""
    return -(-users // CHUNK)


def make_people(catalogue: Catalogue, users: int, chunk: int) -> People:
    """Make the users of one chunk."""
    rng = random_for(catalogue.seed, "people", chunk)
    first, count = chunk * CHUNK, min(CHUNK, users - chunk * CHUNK)
    age = rng.integers(len(AGE_BANDS), size=count)
    device = rng.choice(len(DEVICES), count, p=[0.7, 0.2, 0.1])
    favourites = _favourites(catalogue, count, age, rng)
    category = favourites // 9
    slot = rng.integers(0, FAVOURITES, (count, 4))
    brand_rank = np.minimum(rng.geometric(0.3, (count, 4)) - 1, BRANDS_PER_CATEGORY - 1)
    stranger = rng.random((count, FAVOURITES)) < 0.4
    kind = rng.random(count)
    residual = rng.standard_normal((count, RESIDUAL_SIZE))
    return People(
        first=first,
        activity=np.clip(0.33 * np.exp(0.6 * rng.standard_normal(count) - 0.18), 0.02, 0.95),
        arrival_day=np.select([kind < 0.85, kind < 0.97], [0, rng.integers(0, 28, count)], 30_000),
        leave_day=np.where(rng.random(count) < 0.1, rng.integers(5, 60, count), 32_000),
        favourites=favourites,
        log_weight=np.log(rng.gamma(0.7, 1.0, (count, FAVOURITES)) + 0.02).astype(np.float32),
        known_leaves=np.where(stranger, _popular_leaves(catalogue, (count, FAVOURITES), rng), favourites),
        brands=np.take_along_axis(category, slot, 1) * BRANDS_PER_CATEGORY + brand_rank,
        loyalty=rng.gamma(2.0, 0.5, count).astype(np.float32),
        price_level=(0.8 * rng.standard_normal(count) + 0.4 * (device == 1)).astype(np.float32),
        price_sensitivity=rng.uniform(0.3, 1.0, count).astype(np.float32),
        colour=rng.integers(8, size=count),
        residual=(residual / np.linalg.norm(residual, axis=1, keepdims=True)).astype(np.float32),
        age_band=age,
        device=device,
    )


def _popular_leaves(catalogue: Catalogue, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.minimum(
        np.searchsorted(np.cumsum(catalogue.leaf_popularity), rng.random(shape)), catalogue.leaf_count - 1
    )


def _favourites(catalogue: Catalogue, count: int, age: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw four leaves of a main category (which age predicts weakly) and two of another one."""
    tops = catalogue.leaf_count // 9
    main = np.where(rng.random(count) < 0.3, age % tops, _popular_leaves(catalogue, (count,), rng) // 9)
    side = _popular_leaves(catalogue, (count,), rng) // 9
    offsets = np.argsort(rng.random((count, 9)), axis=1)
    return np.concatenate([main[:, None] * 9 + offsets[:, :4], side[:, None] * 9 + offsets[:, 4:FAVOURITES]], axis=1)


def favourite_weights(state: UserState, drift: np.ndarray) -> np.ndarray:
    """Return the share of each favourite leaf in a user's wishes [U, FAVOURITES], which sums to FAVOURITE_MASS."""
    power = np.exp(state.log_weight + drift)
    return FAVOURITE_MASS * power / power.sum(axis=1, keepdims=True)


def taste(weights: np.ndarray, favourites: np.ndarray, season: np.ndarray) -> np.ndarray:
    """Return each user's wishes over the leaves [U, L], which sum to 1."""
    dense = np.tile((1 - FAVOURITE_MASS) * season, (len(weights), 1))
    np.add.at(dense, (np.arange(len(weights))[:, None], favourites), weights)
    return dense


def draw_leaves(
    weights: np.ndarray, favourites: np.ndarray, season: np.ndarray, who: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw a leaf from the taste of each user in `who`."""
    cumulative = np.cumsum(weights, axis=1)[who]
    point = rng.random(len(who))
    slot = (point[:, None] >= cumulative).sum(axis=1)
    other = np.minimum(np.searchsorted(np.cumsum(season), rng.random(len(who))), len(season) - 1)
    return np.where(slot < FAVOURITES, favourites[who, np.minimum(slot, FAVOURITES - 1)], other)


def begin_day(state: UserState, catalogue: Catalogue, season: np.ndarray, rng: np.random.Generator) -> UserState:
    """Return the state at the start of the next day: drift, life events, intents that stay or change."""
    users = len(state.intent)
    moved = rng.random(users) < LIFE_EVENT
    favourites = state.favourites.copy()
    favourites[moved] = _favourites(catalogue, int(moved.sum()), np.zeros(int(moved.sum()), np.int64), rng)
    drift = DRIFT_KEEPS * state.drift + DRIFT_STEP * rng.standard_normal(state.drift.shape).astype(np.float32)
    next_state = UserState(**{**vars(state), "favourites": favourites, "drift": drift})
    wish = draw_leaves(favourite_weights(next_state, drift), favourites, season, np.arange(users), rng)
    wish[rng.random(users) < INTENT_NONE] = catalogue.leaf_count
    next_state.intent = np.where(rng.random(users) < INTENT_STAYS, state.intent, wish).astype(np.int16)
    return next_state


def expected_intent(state: UserState, wishes: np.ndarray) -> np.ndarray:
    """Return the chance of each intent on the next day [U, L + 1]; the last column is `none`. `wishes`: taste [U, L]."""
    users, leaves = wishes.shape
    chance = np.zeros((users, leaves + 1))
    chance[:, :leaves] = (1 - INTENT_STAYS) * (1 - INTENT_NONE) * wishes
    chance[:, leaves] = (1 - INTENT_STAYS) * INTENT_NONE
    chance[np.arange(users), state.intent] += INTENT_STAYS
    return chance
