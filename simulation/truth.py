"""The truth behind a simulated shop's logs: the expected utility of any item for any user, scenario and day."""

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.paths import truth_dir
from simulation import behaviour
from simulation.behaviour import CHECKOUT, FIRST_EXAMINED, SCENARIOS
from simulation.catalogue import Catalogue, ItemDay, items_on
from simulation.people import CHUNK, DRIFT_KEEPS, INTENT_NONE, People, UserState, expected_intent
from simulation.plan import Plan, catalogue_of, day_folder, load_plan, people_of
from simulation.rawlogs import user_names
from simulation.statefile import load_state
from simulation.traffic import expected_contexts, expected_taste, pair_signals

_USERS_AT_ONCE = 100
_TASKS = ("click", "cart", "purchase")
_LEVELS = 5


@dataclass(frozen=True)
class Knowledge:
    """What a model may know: everything, or only what the visible data can teach."""

    residual: bool = True
    intent: bool = True


EVERYTHING = Knowledge()
VISIBLE = Knowledge(residual=False, intent=False)


@dataclass(frozen=True)
class Truth:
    """A simulated shop's truth. Rows of users follow the ids given, columns of items follow `item_ids`."""

    shop: Shop
    plan: Plan
    folder: Path

    @property
    def catalogue(self) -> Catalogue:
        """Return all goods that are ever sold."""
        return catalogue_of(self.plan)

    @property
    def item_ids(self) -> list[str]:
        """Return the item ids in the order of the columns."""
        return self.catalogue.skus.to_pylist()

    def user_ids(self) -> list[str]:
        """Return the raw ids of all users in the order of their numbers."""
        return user_names(np.arange(self.plan.users)).to_pylist()

    def utility(self, user_ids: list[str], scenario: str, day: dt.date) -> np.ndarray:
        """Return the expected utility of showing each item first to each user [users, items].

        Utility is the sum over the scenario's tasks of weight × chance, as the shop file weighs them, in expectation
        over the day's intents, queries, anchors and baskets, from the state at the end of the day before. An item that
        is not on sale that day is valued as if it were.

        Raises:
            InputError: an unknown user or scenario, or the day before was not simulated.
        """
        if scenario not in SCENARIOS:
            raise InputError(f"scenario {scenario!r} is not simulated; known: {', '.join(SCENARIOS)}")
        return self.utilities(numbers_of(user_ids, self.plan.users), [scenario], day)[scenario]

    def utilities(
        self, users: np.ndarray, scenarios: list[str], day: dt.date, knowledge: Knowledge = EVERYTHING
    ) -> dict[str, np.ndarray]:
        """Return `utility` for several scenarios and user numbers at once, to a model with this knowledge (float32)."""
        result = {name: np.zeros((len(users), self.catalogue.size), np.float32) for name in scenarios}
        for places, name, contexts, levels in self._by_nearness(users, scenarios, day, knowledge):
            for level, utility in enumerate(levels):
                chance = (contexts @ (self.catalogue.nearness == level)).astype(np.float32)[:, self.catalogue.leaf]
                result[name][places] += chance * utility
        return result

    def anchor_utilities(self, users: np.ndarray, scenarios: list[str], day: dt.date) -> dict[str, np.ndarray]:
        """Return the expected utility of showing an item first beside an anchor, by the anchor's leaf [leaves, items].

        It is the mean over these users, each as often as a request of theirs has such an anchor on that day. An item that is not
        on sale that day is valued as if it were.
        """
        leaves = self.catalogue.leaf_count
        total = {name: np.zeros((leaves, self.catalogue.size)) for name in scenarios}
        requests = {name: np.zeros(leaves) for name in scenarios}
        for _, name, contexts, levels in self._by_nearness(users, scenarios, day, EVERYTHING):
            chance = contexts[:, :leaves].astype(np.float32)
            requests[name] += chance.sum(axis=0)
            for level, utility in enumerate(levels):
                stands = self.catalogue.nearness[:leaves, self.catalogue.leaf] == level
                total[name] += np.where(stands, chance.T @ utility, 0)
        return {name: total[name] / np.maximum(requests[name], 1e-12)[:, None] for name in scenarios}

    def _by_nearness(
        self, users: np.ndarray, scenarios: list[str], day: dt.date, knowledge: Knowledge
    ) -> Iterator[tuple[np.ndarray, str, np.ndarray, Iterator[np.ndarray]]]:
        """Yield, some users at a time and by scenario, what a request of theirs is worth in each of its contexts.

        Yields:
            Their places in `users`, the scenario, the chance of each context [U, L + 1], and for each nearness of an item to the
            context the utilities of all items [U, items].
        """
        number = self.plan.day(day)
        item_day = items_on(self.catalogue, number)
        for chunk in np.unique(users // CHUNK):
            people, (state, _) = people_of(self.plan, int(chunk)), self.state(number - 1, int(chunk))
            morning = replace(state, drift=DRIFT_KEEPS * state.drift)
            places = np.flatnonzero(users // CHUNK == chunk)
            for start in range(0, len(places), _USERS_AT_ONCE):
                some = places[start : start + _USERS_AT_ONCE]
                found = _by_nearness(
                    self.shop,
                    self.catalogue,
                    people,
                    morning,
                    item_day,
                    number,
                    users[some] - people.first,
                    scenarios,
                    knowledge,
                )
                for name, contexts, levels in found:
                    yield some, name, contexts, levels

    def state(self, day: int, chunk: int) -> tuple[UserState, dict[str, np.ndarray]]:
        """Return the state of a chunk of users at the end of a day number, and the rows that wait for later days."""
        if day >= 0 and not day_folder(self.folder, self.plan.date(day)).exists():
            raise InputError(
                f"{self.plan.date(day)} was not simulated; the truth of a day needs the state of the evening before"
            )
        return load_state(self.plan, self.folder, day, chunk)

    def by_user(self, day: int, column: Callable[[UserState], np.ndarray]) -> np.ndarray:
        """Return one of the state's columns for all users at the end of a day number."""
        return np.concatenate([column(self.state(day, chunk)[0]) for chunk in range(self.plan.chunks)])

    def outcomes(self, days: list[dt.date]) -> pa.Table:
        """Return clicks, carts and orders of these days (user, item, scenario and kind by number, ts), without dirt."""
        files = [file for day in days for file in sorted(day_folder(self.folder, day).glob("outcomes-*.parquet"))]
        if not files:
            raise InputError(f"{days[-1]}: no simulated day among the last {len(days)}; simulate it first")
        return pa.concat_tables([pq.read_table(file) for file in files])


def load_truth(shop: Shop) -> Truth:
    """Return the truth of a simulated shop.

    Raises:
        InputError: the shop was not simulated, or ranks by a task that the simulation does not know.
    """
    folder = truth_dir(shop)
    plan = load_plan(folder)
    if plan is None:
        raise InputError(f"{folder}: no truth here; only a shop from `nightshelf simulate` has one")
    for name, scenario in shop.scenarios.items():
        for task in scenario.utility:
            if task not in _TASKS:
                raise InputError(
                    f"scenarios.{name}.utility: the simulation knows no task {task!r}; known: {', '.join(_TASKS)}"
                )
    return Truth(shop, plan, folder)


def numbers_of(user_ids: list[str], users: int) -> np.ndarray:
    """Return the numbers of raw user ids.

    Raises:
        InputError: an id that is no user of the shop.
    """
    known = {name: number for number, name in enumerate(user_names(np.arange(users)).to_pylist())}
    unknown = [user for user in user_ids if user not in known]
    if unknown:
        raise InputError(
            f"user {unknown[0]!r} is no user of the simulated shop; its ids run from u0000000 to u{users - 1:07d}"
        )
    return np.array([known[user] for user in user_ids], np.int64)


def _by_nearness(
    shop: Shop,
    catalogue: Catalogue,
    people: People,
    state: UserState,
    item_day: ItemDay,
    day: int,
    users: np.ndarray,
    scenarios: list[str],
    knowledge: Knowledge,
) -> Iterator[tuple[str, np.ndarray, Iterator[np.ndarray]]]:
    """Yield the same for some users of a chunk; `state` is that of the morning."""
    signals = pair_signals(catalogue, people, state, item_day, day, users[:, None], np.arange(catalogue.size)[None, :])
    signals = {name: values.astype(np.float32) for name, values in signals.items()}
    if not knowledge.residual:
        signals["residual"] = np.zeros((1, 1), np.float32)
    some = UserState(
        **{name: value[users] if isinstance(value, np.ndarray) else value for name, value in vars(state).items()}
    )
    wishes = expected_taste(some, item_day.season, some.drift)
    intent = expected_intent(some, wishes)
    if not knowledge.intent:
        intent = np.concatenate([(1 - INTENT_NONE) * wishes, np.full((len(users), 1), INTENT_NONE)], axis=1)
    later = behaviour.later_logits(signals)
    for name in scenarios:
        scenario = SCENARIOS.index(name)
        logit = behaviour.click_logit(scenario, signals)
        worth = FIRST_EXAMINED * _worth_of_click(shop, name, *later)
        levels = (
            behaviour.sigmoid(logit + behaviour.context_logit(scenario, level)) * worth for level in range(_LEVELS)
        )
        yield name, expected_contexts(scenario, wishes, intent, some, day), levels


def _worth_of_click(shop: Shop, name: str, cart_logit: np.ndarray, buy_logit: np.ndarray) -> np.ndarray:
    """Return the utility of a click with what may follow it."""
    weights = shop.scenarios[name].utility
    scenario = SCENARIOS.index(name)
    cart = behaviour.sigmoid(cart_logit + behaviour.CART_BIAS[scenario])
    buy = behaviour.sigmoid(buy_logit + behaviour.BUY_BIAS[scenario])
    # The checkout's own clicks write no cart event, so nothing is gained by one.
    in_cart = 0.0 if scenario == CHECKOUT else weights.get("cart", 0.0)
    return weights.get("click", 0.0) + cart * (in_cart + weights.get("purchase", 0.0) * buy)
