"""A day in the shop for one chunk of users: who comes, what is shown, what is clicked, put into the cart and bought."""

from dataclasses import dataclass

import numpy as np

from simulation import behaviour
from simulation.behaviour import CART, CHECKOUT, HOME_FEED, PRODUCT_PAGE, SEARCH, Chances
from simulation.catalogue import QUERIES_PER_LEAF, Catalogue, ItemDay
from simulation.people import (
    FAVOURITE_MASS,
    INTENT_NONE,
    SESSION_FOLLOWS_INTENT,
    People,
    UserState,
    draw_leaves,
    favourite_weights,
    taste,
)
from simulation.policy import Shelves, fill_requests, placement_chance
from simulation.rows import ADD, CLICK, IMPRESSION, ORDER, Rows, make_rows, stack, take

BASKET_DAYS = 3  # how long a cart is remembered as the context of cart and checkout
BASKET_RULES = 0.7
NO_REQUEST_DAYS = 4  # outcomes come at most three days after their impression

_SCENARIO_SHARES = np.array([0.38, 0.20, 0.17, 0.09, 0.05, 0.11])
_SIZES = np.array([[6, 14], [5, 15], [5, 8], [5, 6], [5, 5], [6, 12]])
MEAN_SIZE = float(_SCENARIO_SHARES @ _SIZES.mean(axis=1))
ACTIVE_SHARE = 0.27  # of all users on an average day
_WEEKDAY = np.array([0.94, 0.92, 0.95, 0.97, 1.03, 1.12, 1.10])
_HOURS = np.array([2, 1, 1, 1, 1, 2, 4, 7, 9, 9, 9, 10, 12, 11, 9, 9, 9, 10, 12, 15, 18, 18, 13, 6], float)
_WEEKEND_HOURS = np.array([4, 2, 1, 1, 1, 1, 2, 4, 7, 10, 12, 13, 13, 13, 13, 13, 13, 12, 12, 13, 14, 14, 11, 7], float)


@dataclass(frozen=True)
class Clock:
    """One simulated day in the shop's time zone."""

    day: int  # number of the day; 0 = first simulated day
    weekday: int  # 0 = Monday
    starts: np.ndarray  # first moments of this day and of those after it, milliseconds UTC

    @property
    def length(self) -> int:
        """Return the day's length in milliseconds (23, 24 or 25 hours)."""
        return int(self.starts[1] - self.starts[0])


@dataclass(frozen=True)
class Requests:
    """The day's requests [R] of a chunk, by user and time."""

    user: np.ndarray
    scenario: np.ndarray
    context: np.ndarray  # leaf, or leaf_count: none
    ts: np.ndarray
    size: np.ndarray


def draw_requests(
    catalogue: Catalogue,
    people: People,
    state: UserState,
    season: np.ndarray,
    clock: Clock,
    impressions_per_user_day: float,
    rng: np.random.Generator,
) -> Requests:
    """Draw who comes, when, to which scenarios, and with what in mind."""
    present = (people.arrival_day <= clock.day) & (clock.day < people.leave_day)
    active = np.flatnonzero(present & (rng.random(people.size) < people.activity * _WEEKDAY[clock.weekday]))
    mean = impressions_per_user_day / (ACTIVE_SHARE * MEAN_SIZE)
    visits = np.minimum(1 + rng.poisson(max(0.0, mean - 1), len(active)), 60)
    user = np.repeat(active, visits)
    scenario = rng.choice(len(_SCENARIO_SHARES), len(user), p=_SCENARIO_SHARES)
    low, high = _SIZES[scenario, 0], _SIZES[scenario, 1]
    hours = _WEEKEND_HOURS if clock.weekday >= 5 else _HOURS
    start = (rng.choice(24, len(active), p=hours / hours.sum()) + rng.random(len(active))) / 24 * clock.length
    gap = 20_000 + rng.exponential(150_000, len(user))
    since = np.cumsum(gap)
    first = np.cumsum(visits) - visits
    offset = np.repeat(start, visits) + since - np.repeat(since[first], visits)
    return Requests(
        user=user,
        scenario=scenario,
        context=_draw_contexts(catalogue, people, state, season, clock.day, active, visits, scenario, rng),
        ts=clock.starts[0] + np.minimum(offset, clock.length - 1000).astype(np.int64),
        size=rng.integers(low, high + 1),
    )


def _draw_contexts(
    catalogue: Catalogue,
    people: People,
    state: UserState,
    season: np.ndarray,
    day: int,
    active: np.ndarray,
    visits: np.ndarray,
    scenario: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw each request's context: the session's intent; where one is needed, the basket or a fresh wish."""
    weights = favourite_weights(state, state.drift)
    none = catalogue.leaf_count
    fresh = draw_leaves(weights, state.favourites, season, active, rng)
    fresh[rng.random(len(active)) < INTENT_NONE] = none
    session = np.where(rng.random(len(active)) < SESSION_FOLLOWS_INTENT, state.intent[active], fresh)
    user, context = np.repeat(active, visits), np.repeat(session, visits)
    needed = np.isin(scenario, (SEARCH, PRODUCT_PAGE, CART, CHECKOUT))
    lost = np.flatnonzero(needed & (context == none))
    context[lost] = draw_leaves(weights, state.favourites, season, user[lost], rng)
    basket = (
        np.isin(scenario, (CART, CHECKOUT))
        & (day - state.cart_day[user] <= BASKET_DAYS)
        & (rng.random(len(user)) < BASKET_RULES)
    )
    return np.where(basket, state.cart_leaf[user], context)


def expected_contexts(scenario: int, wishes: np.ndarray, intent: np.ndarray, state: UserState, day: int) -> np.ndarray:
    """Return the chance of each context of a scenario's requests on `day` [U, L + 1]; the twin of the drawing above.

    `wishes` is the taste [U, L], `intent` the chance of each intent on that day [U, L + 1].
    """
    leaves = wishes.shape[1]
    chance = SESSION_FOLLOWS_INTENT * intent
    chance[:, :leaves] += (1 - SESSION_FOLLOWS_INTENT) * (1 - INTENT_NONE) * wishes
    chance[:, leaves] += (1 - SESSION_FOLLOWS_INTENT) * INTENT_NONE
    if scenario in (SEARCH, PRODUCT_PAGE, CART, CHECKOUT):
        chance[:, :leaves] += chance[:, leaves:] * wishes
        chance[:, leaves] = 0
    if scenario in (CART, CHECKOUT):
        basket = np.flatnonzero(day - state.cart_day <= BASKET_DAYS)
        chance[basket] *= 1 - BASKET_RULES
        chance[basket, state.cart_leaf[basket]] += BASKET_RULES
    return chance


def pair_signals(
    catalogue: Catalogue,
    people: People,
    state: UserState,
    item_day: ItemDay,
    day: int,
    user: np.ndarray,
    item: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return the signals of behaviour.SIGNALS for pairs of users (places in the chunk) and items, shapes broadcast."""
    leaf = catalogue.leaf[item]
    weights = favourite_weights(state, state.drift)
    likes, share, rest = state.favourites[user], weights[user], 1 - FAVOURITE_MASS
    wish = ((likes == leaf[..., None]) * share).sum(axis=-1) + rest * item_day.season[leaf]
    category_season = np.bincount(catalogue.category, item_day.season)
    wish_of_category = ((likes // 9 == leaf[..., None] // 9) * share).sum(axis=-1) + rest * category_season[leaf // 9]
    who = people.first + user
    item_key = who * catalogue.size + item
    period = catalogue.rebuy_days[leaf]
    return {
        "taste": behaviour.taste_signal(wish),
        "category": behaviour.category_signal(wish_of_category),
        "brand": people.loyalty[user] * (people.brands[user] == catalogue.brand[item][..., None]).any(axis=-1),
        "price_fit": behaviour.price_signal(
            catalogue.price_z[item], item_day.discount[item], people.price_level[user], people.price_sensitivity[user]
        ),
        "colour": (people.colour[user] == catalogue.colour[item]).astype(np.float32),
        "residual": np.einsum("...k,...k->...", people.residual[user], catalogue.residual[item]),
        "discount": item_day.discount[item],
        "quality": catalogue.quality[item],
        "novelty": item_day.novelty[item],
        "bait": catalogue.bait[item],
        "cheap": behaviour.cheap_signal(item_day.price[item]),
        "theme": item_day.theme[item],
        "considered": behaviour.considered_signal(
            state.clicked.days_since(item_key, day), state.carted.days_since(item_key, day)
        ),
        "rebuy": behaviour.rebuy_signal(state.bought.days_since(item_key, day), period),
        "owned": behaviour.owned_signal(state.bought_leaf.days_since(who * catalogue.leaf_count + leaf, day), period),
    }


def show_items(
    catalogue: Catalogue,
    people: People,
    lists: Shelves,
    item_day: ItemDay,
    requests: Requests,
    request_prefix: int,
    rng: np.random.Generator,
) -> tuple[Rows, np.ndarray]:
    """Return the day's impressions, and for each the context of its request."""
    request, position, item = fill_requests(
        catalogue, people, lists, requests.scenario, requests.user, requests.context, requests.size, rng
    )
    scenario = requests.scenario[request]
    leaf_of_request = np.minimum(requests.context, catalogue.leaf_count - 1)
    query = leaf_of_request * QUERIES_PER_LEAF + rng.integers(0, QUERIES_PER_LEAF, len(leaf_of_request))
    anchor = lists.draw(leaf_of_request, rng)
    rows = make_rows(
        len(request),
        source=scenario,
        kind=IMPRESSION,
        scenario=scenario,
        user=people.first + requests.user[request],
        item=item,
        ts=requests.ts[request] + position,
        request=request_prefix + request,
        position=position,
        query=np.where(scenario == SEARCH, query[request], -1),
        anchor=np.where(scenario == PRODUCT_PAGE, anchor[request], -1),
        page=item_day.page,
        price=item_day.price[item],
    )
    home = scenario == HOME_FEED
    rows["propensity"][home] = placement_chance(
        catalogue, people, lists, request[home], position[home], requests.user[request][home], item[home]
    )
    return rows, requests.context[request]


def react(shown: Rows, chance: Chances, clock: Clock, rng: np.random.Generator) -> Rows:
    """Draw what follows the impressions: clicks in seconds, carts in minutes, orders in hours to days."""
    examined = behaviour.examination(shown["scenario"], shown["position"])
    clicked = np.flatnonzero(rng.random(len(examined)) < examined * chance.click)
    clicks = take(shown, clicked) | {"kind": np.full(len(clicked), CLICK, np.int8)}
    clicks["ts"] = clicks["ts"] + _delay(8, 0.9, 2000, len(clicked), rng)
    dwell = np.exp(3.0 + 0.9 * rng.standard_normal(len(clicked)) + 0.8 * chance.purchase[clicked])
    clicks["dwell"] = np.where(clicks["scenario"] == PRODUCT_PAGE, np.round(dwell, 1), -1).astype(np.float32)
    put = np.flatnonzero(rng.random(len(clicked)) < chance.cart[clicked])
    adds = take(clicks, put) | {"kind": np.full(len(put), ADD, np.int8), "source": np.full(len(put), CART, np.int8)}
    adds["ts"] = adds["ts"] + _delay(90, 1.0, 60_000, len(put), rng)
    adds["quantity"] = 1 + rng.poisson(0.25, len(put)).astype(np.int32)
    paid = np.flatnonzero(rng.random(len(put)) < chance.purchase[clicked[put]])
    orders = take(adds, paid) | {
        "kind": np.full(len(paid), ORDER, np.int8),
        "source": np.full(len(paid), CHECKOUT, np.int8),
    }
    orders["ts"] = orders["ts"] + _delay(3 * 3600, 1.3, 170_000, len(paid), rng)
    rows = stack([shown, clicks, take(adds, adds["scenario"] != CHECKOUT), orders])
    rows["event_day"][:] = clock.day + np.searchsorted(clock.starts, rows["ts"], side="right") - 1
    return rows


def _delay(median_seconds: float, spread: float, most: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw log-normal delays in milliseconds."""
    return (1000 * np.minimum(most, median_seconds * np.exp(spread * rng.standard_normal(count)))).astype(np.int64)


def end_day(
    catalogue: Catalogue, people: People, state: UserState, today: Rows, day: int, rng: np.random.Generator
) -> None:
    """Remember in `state` what happened today: looked at, in the cart, bought, and intents that a purchase ended."""
    state.last_visit[today["user"][today["kind"] == IMPRESSION] - people.first] = day
    by_kind = {kind: take(today, today["kind"] == kind) for kind in (CLICK, ADD, ORDER)}
    item_keys = {kind: rows["user"] * catalogue.size + rows["item"] for kind, rows in by_kind.items()}
    orders, adds = by_kind[ORDER], by_kind[ADD]
    state.clicked = state.clicked.record(item_keys[CLICK], day, day - 7).without(item_keys[ORDER])
    state.carted = state.carted.record(item_keys[ADD], day, day - 7).without(item_keys[ORDER])
    state.bought = state.bought.record(item_keys[ORDER], day, day - 90)
    leaf = catalogue.leaf[orders["item"]].astype(np.int64)
    state.bought_leaf = state.bought_leaf.record(orders["user"] * catalogue.leaf_count + leaf, day, day - 90)
    by_time = np.argsort(adds["ts"], kind="stable")
    adder = adds["user"][by_time] - people.first
    state.cart_leaf[adder] = catalogue.leaf[adds["item"][by_time]]
    state.cart_day[adder] = day
    buyer = orders["user"] - people.first
    done = (state.intent[buyer] == leaf) & (catalogue.rebuy_days[leaf] == 0)
    follow = catalogue.complements[leaf, rng.integers(0, 2, len(leaf))]
    state.intent[buyer[done]] = np.where(rng.random(len(leaf)) < 0.6, follow, catalogue.leaf_count)[done]


def expected_taste(state: UserState, season: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Return the wishes [U, L] of users whose drift is `drift`."""
    return taste(favourite_weights(state, drift), state.favourites, season)
