"""From candidates and predictions to shelves: exclusions, utility, the order of places, and a true reason for each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from nightshelf.config import Scenario
from nightshelf.generators import GENERATOR_ORDER
from pipelines.candidate_lists import CandidateLists
from pipelines.rerank import (
    EXPLORE,
    RULES,
    SCORE,
    Exploration,
    Groups,
    chance_of,
    explore,
    highest,
    interleave,
    order,
    preferred,
)

# predict(item numbers [B, K]) → task → predictions [B, K] for the users of a block. Item number -1 is no item at all; what
# cannot be scored is NaN.
Predict = Callable[[np.ndarray], dict[str, np.ndarray]]
# user numbers [B] → scenario → the predictions of this block. User number -1 is the unknown user.
PredictFor = Callable[[np.ndarray], dict[str, Predict]]

# How many candidates a place on the shelf gets the full look, and the least that any shelf chooses from.
PRESELECTED, PRESELECTED_LEAST = 2, 40
_ITEMS_AT_ONCE = 8192  # that a user of whom nothing is known is asked about


@dataclass(frozen=True)
class Exclusions:
    """What must not be shown: by rule items [items] or what a user acted on (sorted user × items + item), and what is blocked."""

    of_items: dict[str, np.ndarray]
    acted_on: dict[str, np.ndarray]
    blocked: np.ndarray

    def mask(self, rules: list[str], users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return True where the item [B, K] may be shown to the user [B]."""
        allowed = (items >= 0) & ~self.blocked[items]
        for kept_away in (self.of_items[rule] for rule in rules if rule in self.of_items):
            allowed &= ~kept_away[items]
        pair = users[:, None].astype(np.int64) * len(self.blocked) + items
        for acted in (self.acted_on[rule] for rule in rules if rule in self.acted_on):
            if len(acted):
                place = np.searchsorted(acted, pair).clip(max=len(acted) - 1)
                allowed &= (acted[place] != pair) | (users[:, None] < 0)
        return allowed

    def anybody(self, rules: list[str]) -> np.ndarray:
        """Return True where an item may be shown to whoever comes [items]."""
        every = np.arange(len(self.blocked))
        return self.mask(rules, np.array([-1]), every[None])[0]


@dataclass(frozen=True)
class Stockroom:
    """What shelves are filled from; chance hangs on the night, `seed`, and on `chance`, a number of each user [users].

    Of the unknown user and of segments it hangs on their numbers: those of a segment see one shelf, and share its draws.
    """

    lists: CandidateLists
    exclusions: Exclusions
    groups: Groups
    seed: str
    chance: np.ndarray

    def chance_for(self, users: np.ndarray) -> np.ndarray:
        """Return the numbers that the draws of users [B] hang on."""
        if (users >= 0).all():
            return self.chance[users]
        return chance_of([str(number) for number in users.tolist()])


@dataclass(frozen=True)
class Shelves:
    """Rows of shelves: user number, rank, item number, score, predictions, who proposed and who placed it, all [rows]."""

    users: np.ndarray
    ranks: np.ndarray
    items: np.ndarray
    scores: np.ndarray
    predictions: dict[str, np.ndarray]
    generators: np.ndarray
    because: np.ndarray
    rank_by_score: np.ndarray
    placed_by: np.ndarray
    propensity: np.ndarray

    def of_block(self, users: np.ndarray, length: int) -> np.ndarray:
        """Return the item numbers of the places of each user of a block [B, length], -1 where a shelf is shorter."""
        shown = np.full((len(users), length), -1, np.int64)
        shown[np.searchsorted(users, self.users), self.ranks - 1] = self.items
        return shown


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
    leaning: Mapping[
        str, float
    ]  # scenario → share of the first score in the last one; those that are not named go by their own

    def score(self, name: str, items: np.ndarray) -> np.ndarray:
        """Return the first score of items [B, K] in a scenario, -inf where an item is no candidate; -1 is no item."""
        moved = self.worth[name] / np.maximum(self.worth[self.pivot], 1e-12)
        wanted = _pairs(items, len(moved))
        place = np.searchsorted(self.pairs, wanted).clip(max=max(0, len(self.pairs) - 1))
        utility = np.where(self.pairs[place] == wanted, self.utility[place], -np.inf)
        return np.where(np.isfinite(utility), utility * moved[items], -np.inf)

    def lean(
        self, name: str, scenario: Scenario, items: np.ndarray, predictions: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return a scenario's predictions, all of an item scaled alike, so that their utility leans on the first score.

        It is the geometric mean of both, by the share of `leaning`: two estimates of one user's taste, of which the scenario's
        own rests on fewer examples.
        """
        share = self.leaning.get(name, 0.0)
        if not share:
            return predictions
        own, first = _utility(scenario, predictions), self.score(name, items)
        both = np.isfinite(own) & np.isfinite(first) & (own > 0) & (first > 0)
        scale = np.where(both, np.divide(first, own, out=np.ones_like(own), where=both), 1.0) ** share
        # What is above 1 is money; a chance stays one
        largest = np.max([np.where(values <= 1, values, 0.0) for values in predictions.values()], axis=0)
        scale = np.minimum(scale, 1 / np.maximum(largest, 1e-12))
        return {task: values * scale for task, values in predictions.items()}


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
            utility = _utility(scenarios[name], predict(some[None]))[0]
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
    items = _candidates(users, list(worth), lists)[0]
    utility = _utility(scenario, predict(items)).astype(np.float32)
    by_item = np.argsort(items, axis=1)
    pairs, utility = (np.take_along_axis(a, by_item, 1).ravel() for a in (_pairs(items, len(worth[pivot])), utility))
    return FirstLook(pairs, utility, worth, pivot, leaning)


def fill_shelves(
    users: np.ndarray,
    name: str,
    scenario: Scenario,
    room: Stockroom,
    predict: Predict,
    look: FirstLook | None = None,
    shown: np.ndarray | None = None,
) -> Shelves:
    """Rank the candidates of a block of users (numbers [B], or [-1] for the unknown user) within the quotas of one scenario.

    The score is the expected utility: the sum of weight × prediction over the scenario's tasks. Ties break by item id. What
    else orders the shelf, `scenario.rerank` says. With a first look, only the PRESELECTED × top_n best of it (but
    PRESELECTED_LEAST at least) are scored, and what chance draws from the new ones among the rest.

    Args:
        users: their numbers.
        name, scenario: the scenario.
        room: what the night's shelves are filled from.
        predict: the scenario's predictions of these users.
        look: the first look at the block; without one everything is scored and nothing explored.
        shown: item numbers [B, S] on the users' shelves of earlier scenarios, -1 where there is none.
    """
    items, generators, because = _candidates(users, [name], room.lists)
    allowed = room.exclusions.mask(list(scenario.exclude), users, items)
    draws, length = None, scenario.top_n
    if look is not None:
        seen = np.where(allowed, look.score(name, items), -np.inf)
        wanted = preferred(seen, items, length, scenario.rerank, room.groups)
        best = highest(wanted, items, max(PRESELECTED_LEAST, PRESELECTED * length))
        if scenario.rerank.explore:
            draws, drawn = _draw(users, name, scenario, room, items, allowed, generators, best)
            best = np.concatenate([best, drawn], axis=1)
        items, generators, because, allowed = (
            np.take_along_axis(a, best, 1) for a in (items, generators, because, allowed)
        )
    predictions = predict(np.where(allowed, items, -1))
    if look is not None:
        predictions = look.lean(name, scenario, items, predictions)
    score = _utility(scenario, predictions)
    allowed &= np.isfinite(score)
    score = np.where(allowed, np.round(score, 6), -np.inf)  # rounded: ties, not the last bit, decide between equals
    top, placed_by, propensity = _arranged(score, items, scenario, room, draws, shown)
    row = np.arange(len(users))[:, None]
    kept = (top >= 0) & allowed[row, top]
    pick = (np.broadcast_to(row, top.shape)[kept], top[kept])
    return Shelves(
        users=np.broadcast_to(users[:, None], top.shape)[kept],
        ranks=np.cumsum(kept, axis=1)[kept].astype(np.int32),
        items=items[pick],
        scores=score[pick],
        predictions={task: np.round(values[pick].astype(np.float64), 6) for task, values in predictions.items()},
        generators=generators[pick],
        because=because[pick],
        rank_by_score=_places(score, items)[pick].astype(np.int32),
        placed_by=placed_by[kept],
        propensity=propensity[kept],
    )


def _draw(
    users: np.ndarray,
    name: str,
    scenario: Scenario,
    room: Stockroom,
    items: np.ndarray,
    allowed: np.ndarray,
    generators: np.ndarray,
    best: np.ndarray,
) -> tuple[Exploration, np.ndarray]:
    """Draw what the users' shelves explore; return the draws and the columns [B, E] of the candidates that were drawn.

    The pool is what is new in the shop and is not scored anyway, so that no item comes to a place in two ways.
    """
    is_pool = allowed & (generators == GENERATOR_ORDER.index("fresh"))
    np.put_along_axis(is_pool, best, False, axis=1)
    columns = np.flatnonzero(is_pool.any(axis=0))
    seed, share = f"{room.seed}/{name}", scenario.rerank.explore
    draws = explore(room.chance_for(users), items[:, columns], is_pool[:, columns], scenario.top_n, share, seed)
    most = int(np.minimum(draws.given.sum(axis=1), draws.size).max(initial=0))
    order_in_scored = np.broadcast_to(best.shape[1] + np.arange(most), (len(users), most))
    return Exploration(draws.given, order_in_scored, draws.size), columns[draws.order[:, :most]]


def _arranged(
    score: np.ndarray,
    items: np.ndarray,
    scenario: Scenario,
    room: Stockroom,
    draws: Exploration | None,
    shown: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the columns of the places [B, n], -1 for none, who placed them, and with which propensity."""
    own = score.shape[1] - (draws.order.shape[1] if draws else 0)
    repeated = np.zeros((len(items), own), np.int16)
    if scenario.rerank.repeats and shown is not None:
        repeated = (items[:, :own, None] == shown[:, None, :]).sum(axis=2)
    best = order(score[:, :own], items[:, :own], scenario.top_n, scenario.rerank, room.groups, repeated)
    is_moved = np.take_along_axis(_places(score[:, :own], items[:, :own]), best, 1) != np.arange(1, best.shape[1] + 1)
    if draws is None:
        return best, np.where(is_moved, RULES, SCORE), np.ones(best.shape)
    columns, explored, propensity = interleave(best, draws, scenario.rerank.explore, scenario.top_n)
    place = np.clip(np.cumsum(~explored, axis=1) - 1, 0, max(best.shape[1] - 1, 0))
    moved = np.take_along_axis(is_moved, place, 1) if best.shape[1] else np.zeros(columns.shape, bool)
    return columns, np.where(explored, EXPLORE, np.where(moved, RULES, SCORE)), propensity


def _places(score: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the place of each column by its score alone [B, K], 1 = highest, ties by item number."""
    return np.argsort(np.lexsort((items, -score), axis=1), axis=1) + 1


def _utility(scenario: Scenario, predictions: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(sum(weight * predictions[task].astype(np.float64) for task, weight in scenario.weights.items()))


def _candidates(
    users: np.ndarray, names: list[str], lists: CandidateLists
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the candidates within the quotas of some scenarios: for everybody, then the block's own, each item once a user.

    A user's own end in -1s, the shorter the list, the more: scoring leaves out what is empty for all of its users.
    """
    shared_items, shared_generators = lists.of_everybody(names)
    unknown, row = users[:, None] < 0, users.clip(min=0)  # segments, too, have no candidates of their own
    own = np.where(unknown, -1, lists.of_users(names, row))
    place = np.full(max(own.max(initial=0), shared_items.max(initial=0)) + 2, len(shared_items))
    place[shared_items] = np.arange(len(shared_items))  # that of -1 and of all others is one more
    repeated = np.zeros((len(users), len(shared_items) + 1), bool)
    repeated[np.arange(len(users))[:, None], place[own]] = True
    rest = np.where(repeated[:, :-1], -1, shared_items[None, :])
    items = np.concatenate([rest, own], axis=1)
    generators = np.concatenate([np.broadcast_to(shared_generators, rest.shape), lists.generators[row]], axis=1)
    because = np.concatenate([np.zeros(rest.shape, np.int32), lists.because[row]], axis=1)
    return items, generators, because


def reason_texts(shelves: Shelves, scenario: str, texts: list[str | None], titles: dict[str, str]) -> np.ndarray:
    """Return one sentence a row, true of that row: it names what the generator found, nothing else."""
    pairs, place = np.unique(shelves.generators * np.int64(len(texts)) + shelves.because, return_inverse=True)
    said = zip(*np.divmod(pairs, len(texts)), strict=True)
    return np.array([_sentence(GENERATOR_ORDER[g], texts[b], scenario, titles) for g, b in said], dtype=object)[place]


def _sentence(generator: str, because: str | None, scenario: str, titles: dict[str, str]) -> str:
    because = because or ""
    match generator:
        case "own_history":
            return "You showed interest in this before"
        case "related":
            return f"Goes with {titles.get(because, because)} from your history"
        case "next_item":
            return f"Others turned to this after {titles.get(because, because)}"
        case "graph_walk":
            return f"Near {titles.get(because, because)} from your history, by what goes with both"
        case "affinity":
            return f"You often choose {because.rsplit('/', 1)[-1]}"
        case "brand":
            return f"From {because}, a brand that you chose before"
        case "two_tower":
            return "Shoppers with a history like yours turn to this next"
        case "fresh":
            return "New in the shop"
        case "popular":
            return f"Popular in {scenario.replace('_', ' ')}"
    raise KeyError(generator)
