"""A first look at all candidates of a block of users: scored once, in one scenario, for the shelves of all scenarios."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from nightshelf.scenarios import Scenario
from pipelines.candidate_lists import CandidateLists

# predict(item numbers [B, K]) → task → predictions [B, K] for the users of a block. Item number -1 is no item at all; what
# cannot be scored is NaN.
Predict = Callable[[np.ndarray], dict[str, np.ndarray]]
# user numbers [B] → scenario → the predictions of this block. User number -1 is the unknown user.
PredictFor = Callable[[np.ndarray], dict[str, Predict]]

_ITEMS_AT_ONCE = 8192  # that a user of whom nothing is known is asked about


@dataclass(frozen=True)
class FirstLook:
    """A cheap first score of all candidates of a block of users.

    It is the utility in one scenario, moved to another by what each item is worth there to a user of whom nothing is known.
    Scenarios with few examples lean on it in the end, too.
    """

    pairs: np.ndarray  # of user and item, `_pairs`, ascending [n]
    utility: np.ndarray  # of each pair [n]
    worth: dict[str, np.ndarray]  # scenario → [items]
    pivot: str
    scenario: Scenario  # that of `pivot`
    leaning: Mapping[str, float]  # scenario → share of the first score in the last one; others go by their own

    def score(self, name: str, scenario: Scenario, items: np.ndarray) -> np.ndarray:
        """Return the first score of items [B, K] in a scenario, -inf where an item is no candidate; -1 is no item."""
        wanted = _pairs(items, len(self.worth[name]))
        place = np.searchsorted(self.pairs, wanted).clip(max=max(0, len(self.pairs) - 1))
        is_candidate = (self.pairs[place] == wanted) & np.isfinite(self.utility[place])
        utility = np.where(is_candidate, self.utility[place], 0.0)
        return np.where(is_candidate, self._moved(name, scenario, items, utility), -np.inf)

    def _moved(self, name: str, scenario: Scenario, items: np.ndarray, utility: np.ndarray) -> np.ndarray:
        if name == self.pivot:
            return utility
        here, there = self.worth[name], self.worth[self.pivot]
        if _earns(scenario) and _earns(self.scenario):
            return np.asarray(utility * (here / np.maximum(there, 1e-12))[items])
        # Where outcomes may cost something, worth may be next to nothing or less: no ratio of an item's says anything
        scale = np.abs(here).mean() / max(np.abs(there).mean(), 1e-12)
        return np.asarray(here[items] + (utility - there[items]) * scale)

    def lean(
        self, name: str, scenario: Scenario, items: np.ndarray, predictions: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return a scenario's predictions, all of an item scaled alike, so that their utility leans on the first score.

        It is the geometric mean of both, by the share of `leaning`: two estimates of one user's taste, of which the scenario's
        own rests on fewer examples. Where one of them is not above 0, the scenario's own stays.
        """
        share = self.leaning.get(name, 0.0)
        if not share:
            return predictions
        own, first = utility_of(scenario, predictions), self.score(name, scenario, items)
        both = np.isfinite(own) & np.isfinite(first) & (own > 0) & (first > 0)
        scale = np.where(both, np.divide(first, own, out=np.ones_like(own), where=both), 1.0) ** share
        # What is above 1 is money; a chance stays one
        largest = np.max([np.where(values <= 1, values, 0.0) for values in predictions.values()], axis=0)
        scale = np.minimum(scale, 1 / np.maximum(largest, 1e-12))
        return {task: values * scale for task, values in predictions.items()}


def _earns(scenario: Scenario) -> bool:
    """Say whether no outcome costs a scenario anything, so that utility is never below 0."""
    return all(weight >= 0 for weight in scenario.weights.values())


def _pairs(items: np.ndarray, count: int) -> np.ndarray:
    """Return a number for each user of a block and each of its items [B, K] of `count`; those of -1 are no other pair's."""
    return np.arange(len(items))[:, None] * np.int64(count + 1) + items


def worth_to_anybody(
    scenarios: dict[str, Scenario], predictors: dict[str, Predict], items: int
) -> dict[str, np.ndarray]:
    """Return each item's utility [items] to the unknown user, whose predictions by scenario these are; 0 where it has none."""
    worth = {name: np.zeros(items) for name in predictors}
    for name, predict in predictors.items():
        for start in range(0, items, _ITEMS_AT_ONCE):
            some = np.arange(start, min(start + _ITEMS_AT_ONCE, items))
            utility = utility_of(scenarios[name], predict(some[None]))[0]
            worth[name][some] = np.where(np.isfinite(utility), utility, 0.0)
    return worth


def first_look(
    users: np.ndarray,
    scenario: Scenario,
    lists: CandidateLists,
    predict: Predict,
    worth: dict[str, np.ndarray],
    pivot: str,
    leaning: Mapping[str, float] = MappingProxyType({}),
) -> FirstLook:
    """Score all candidates, of whatever scenario, of a block of users (numbers [B]) in the scenario `pivot`.

    Args:
        users: their numbers.
        scenario, predict: those of `pivot`, of these users.
        lists: the candidates.
        worth: `worth_to_anybody`; its keys are the scenarios whose candidates, within their quotas, are looked at.
        pivot: a scenario's name.
        leaning: FirstLook's.
    """
    items = lists.of_block(users, list(worth))[0]
    utility = utility_of(scenario, predict(items)).astype(np.float32)
    by_item = np.argsort(items, axis=1)
    pairs, utility = (np.take_along_axis(a, by_item, 1).ravel() for a in (_pairs(items, len(worth[pivot])), utility))
    return FirstLook(pairs, utility, worth, pivot, scenario, leaning)


def utility_of(scenario: Scenario, predictions: dict[str, np.ndarray]) -> np.ndarray:
    """Return the expected utility: the sum of weight x prediction over the scenario's tasks."""
    return np.asarray(sum(weight * predictions[task].astype(np.float64) for task, weight in scenario.weights.items()))
