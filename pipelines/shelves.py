"""From candidates and predictions to shelves: exclusions, utility, and the order of places."""

from dataclasses import dataclass

import numpy as np

from nightshelf.scenarios import Scenario
from pipelines.candidate_lists import CandidateLists
from pipelines.first_look import FirstLook, Predict, utility_of
from pipelines.kept_away import Exclusions
from pipelines.preselection import chosen_from, preselected
from pipelines.rerank import (
    EXPLORE,
    RULES,
    SCORE,
    Exploration,
    Groups,
    chance_of,
    explore,
    interleave,
    order,
)


@dataclass(frozen=True)
class Stockroom:
    """What shelves are filled from; chance hangs on the night, `seed`, and on `chance`, a number of each user [users].

    Of strangers (pipelines/strangers.py) it hangs on their numbers: those of a segment see one shelf, and share its draws.
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
    else orders the shelf, `scenario.rerank` says. With a first look, only what is `preselected` by it is scored, and what chance
    draws from the new ones among the rest.

    Args:
        users: their numbers.
        name, scenario: the scenario.
        room: what the night's shelves are filled from.
        predict: the scenario's predictions of these users.
        look: the first look at the block; without one everything is scored and nothing explored.
        shown: item numbers [B, S] on the users' shelves of earlier scenarios, -1 where there is none.
    """
    items, generators, because = room.lists.of_block(users, [name])
    allowed = room.exclusions.mask(list(scenario.exclude), users, items)
    draws, length = None, scenario.top_n
    if look is not None:
        seen = np.where(allowed, look.score(name, scenario, items), -np.inf)
        best = preselected(seen, items, chosen_from(length), length, scenario.rerank, room.groups)
        is_drawn = np.ones(best.shape, bool)
        if scenario.rerank.explore:
            draws, drawn = _draw(users, name, scenario, room, items, allowed, best)
            best = np.concatenate([best, drawn], axis=1)
            # What others of the block drew more stands on no shelf of this user, and counts for no place
            is_drawn = np.concatenate([is_drawn, np.arange(drawn.shape[1]) < draws.taken[:, None]], axis=1)
        items, generators, because, allowed = (
            np.take_along_axis(a, best, 1) for a in (items, generators, because, allowed)
        )
        allowed &= is_drawn
    predictions = predict(np.where(allowed, items, -1))
    if look is not None:
        predictions = look.lean(name, scenario, items, predictions)
    score = utility_of(scenario, predictions)
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
    best: np.ndarray,
) -> tuple[Exploration, np.ndarray]:
    """Draw what the users' shelves explore; return the draws and the columns [B, E] of the candidates that were drawn.

    The pool is what is new in the shop and is not scored anyway, so that no item comes to a place in two ways.
    """
    is_pool = allowed & np.isin(items, room.lists.new_in_shop(name))
    np.put_along_axis(is_pool, best, False, axis=1)
    columns = np.flatnonzero(is_pool.any(axis=0))
    seed, share = f"{room.seed}/{name}", scenario.rerank.explore
    draws = explore(room.chance_for(users), items[:, columns], is_pool[:, columns], scenario.top_n, share, seed)
    most = int(draws.taken.max(initial=0))
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
