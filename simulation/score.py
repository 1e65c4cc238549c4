"""Scores a night's shelves against the truth: how much of the gap between popularity and the best shelf they close."""

import datetime as dt
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.config import Shop
from nightshelf.dates import days_back
from nightshelf.errors import InputError
from nightshelf.exclusions import acted_on
from nightshelf.identity import user_key
from nightshelf.parallel import in_parallel
from simulation.behaviour import CHECKOUT, SCENARIOS
from simulation.catalogue import items_on
from simulation.people import CHUNK
from simulation.plan import day_folder
from simulation.reference_shelves import (
    Record,
    item_knn_scores,
    own_history_scores,
    popularity_scores,
    read_record,
    rows_of,
)
from simulation.rows import ADD
from simulation.seeds import random_for
from simulation.truth import EVERYTHING, VISIBLE, Truth, load_truth

TOP = 10
_COLD_USERS = 200
_NEVER_SHOWN = -np.inf


def score_shelves(
    shop: Shop, shelves: pa.Table, as_of_date: dt.date, users_sampled: int = 1000, key: bytes = b""
) -> dict[str, Any]:
    """Compare shelves with the truth of the day after as_of_date, for a sample of the users that the logs know.

    Args:
        shop: a simulated shop.
        shelves: user_key, scenario, rank (1 = best), item_id; other columns are ignored.
        as_of_date: the night of the shelves.
        users_sampled: how many of the users who ever came; drawn from the plan's seed.
        key: the shop's key for user ids.

    Returns:
        as_of_date, users, `gap_closed` by scenario, `gap_closed_mean`, and `scenarios`: for each the mean true utility
        of the first ten places of ours, popularity, item_knn, own_history, random, ceiling (all that visible data can
        teach) and best, each under the shop's exclusions; gap_closed with its standard error (over users);
        ceiling_gap_closed; unpredictable: the share of each outcome's variance that no model can explain; cold_ours,
        cold_popularity, cold_best: the means for users who never came.

    Raises:
        InputError: the shop was not simulated up to as_of_date, or no shelf belongs to one of its users.
    """
    truth = load_truth(shop)
    places = _shelf_users(truth, shelves, key)
    seen = truth.by_user(truth.plan.day(as_of_date), lambda state: state.last_visit)[places] >= 0
    rng = random_for(truth.plan.seed, "score", truth.plan.day(as_of_date))
    warm = _sample(places[seen], users_sampled, rng)
    cold = _sample(places[~seen], _COLD_USERS, rng)
    if not len(warm):
        raise InputError(
            "no shelf belongs to a user of the simulated shop who ever came; are the shelves of this shop, and the key its own?"
        )
    users = np.concatenate([warm, cold])
    names = [name for name in shop.scenarios if name in SCENARIOS]
    shown = rank_items(truth, shelves, users, names, key)
    record = read_record(truth, days_back(as_of_date, 14))
    next_day = as_of_date + dt.timedelta(days=1)
    values, visible = in_parallel(lambda known: truth.utilities(users, names, next_day, known), (EVERYTHING, VISIBLE))
    related = item_knn_scores(record, users)

    def score(name: str) -> dict[str, Any]:
        """Return the figures of one scenario: its shelves beside other rankings, by the truth of the day after."""
        return _score(
            truth, record, name, users, len(warm), values[name], visible[name], related, shown[name], as_of_date
        )

    scores = dict(zip(names, in_parallel(score, names), strict=True))
    noise = _unpredictable(truth, days_back(as_of_date, 14))
    for name in names:
        scores[name]["unpredictable"] = noise[name]
    gaps = {name: scores[name]["gap_closed"] for name in names}
    return {
        "as_of_date": str(as_of_date),
        "users": len(warm),
        "gap_closed": gaps,
        "gap_closed_mean": float(np.mean(list(gaps.values()))),
        "scenarios": scores,
    }


def _shelf_users(truth: Truth, shelves: pa.Table, key: bytes) -> np.ndarray:
    """Return the numbers of the users who have a shelf, ascending."""
    held = set(shelves["user_key"].unique().to_pylist())
    return np.array([number for number, user in enumerate(truth.user_ids()) if user_key(user, key) in held], np.int64)


def _sample(users: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(users)[:most])


def rank_items(
    truth: Truth, shelves: pa.Table, users: np.ndarray, names: list[str], key: bytes
) -> dict[str, np.ndarray]:
    """Return the item numbers of the first places [users, TOP] by scenario; -1 where a shelf is shorter."""
    ids = truth.user_ids()
    row_of = {user_key(ids[number], key): row for row, number in enumerate(users.tolist())}
    item_of = {item: number for number, item in enumerate(truth.item_ids)}
    shown = {name: np.full((len(users), TOP), -1) for name in names}
    kept = shelves.select(["user_key", "scenario", "rank", "item_id"]).filter(
        pc.is_in(shelves["user_key"], pa.array(list(row_of)))
    )
    for owner, name, rank, item in zip(*(kept[column].to_pylist() for column in kept.column_names), strict=True):
        if name in shown and rank <= TOP:
            shown[name][row_of[owner], rank - 1] = item_of.get(item, -1)
    return shown


def _score(
    truth: Truth,
    record: Record,
    name: str,
    users: np.ndarray,
    warm: int,
    value: np.ndarray,
    visible: np.ndarray,
    related: np.ndarray,
    shown: np.ndarray,
    as_of_date: dt.date,
) -> dict[str, Any]:
    allowed = allowed_items(truth, name, users, as_of_date)
    popular = np.broadcast_to(popularity_scores(record, SCENARIOS.index(name)), value.shape)
    random = random_for(truth.plan.seed, "random shelf", len(users)).random(value.shape, np.float32)
    rivals = {
        "popularity": popular,
        "item_knn": related + 1e-6 * popular,
        "own_history": own_history_scores(record, users) + 1e-6 * popular,
        "random": random,
        "ceiling": visible,
        "best": value,
    }
    gained = {"ours": _mean_of(value, shown)} | {
        rival: _mean_of(value, _top(scores, allowed)) for rival, scores in rivals.items()
    }
    means: dict[str, Any] = {rival: float(each[:warm].mean()) for rival, each in gained.items()}
    gap = means["best"] - means["popularity"]
    closed = (means["ours"] - means["popularity"]) / gap
    # Linearised (delta-method) error of the ratio of two means over the same users.
    residual = (gained["ours"] - gained["popularity"]) - closed * (gained["best"] - gained["popularity"])
    means |= {
        "gap_closed": closed,
        "gap_closed_stderr": float(residual[:warm].std() / np.sqrt(warm) / gap),
        "ceiling_gap_closed": (means["ceiling"] - means["popularity"]) / gap,
    }
    if warm < len(users):
        means |= {f"cold_{rival}": float(gained[rival][warm:].mean()) for rival in ("ours", "popularity", "best")}
    return means


def allowed_items(truth: Truth, name: str, users: np.ndarray, as_of_date: dt.date) -> np.ndarray:
    """Return which items may stand on each user's shelf [users, items] under the scenario's exclusions."""
    day = truth.plan.day(as_of_date)
    item_day = items_on(truth.catalogue, day)
    exclude = truth.shop.scenarios[name].exclude
    shelf = item_day.on_sale & (item_day.stock > 0) if "out_of_stock" in exclude else item_day.on_sale
    allowed = np.tile(shelf, (len(users), 1))
    if "purchased_30d" in exclude:
        for chunk in np.unique(users // CHUNK):
            bought = truth.state(day, int(chunk))[0].bought
            recent = bought.keys[bought.days > day - 30]
            buyer, item = np.divmod(recent, truth.catalogue.size)
            row = np.searchsorted(users, buyer)
            found = (row < len(users)) & (users[np.minimum(row, len(users) - 1)] == buyer)
            allowed[row[found], item[found]] = False
    for event, days in filter(None, map(acted_on, exclude)):
        if event == "cart":
            record = read_record(truth, days_back(as_of_date, days))
            row, known = rows_of(users, record.user)
            is_carted = known & (record.kind == ADD)
            allowed[row[is_carted], record.item[is_carted]] = False
    return allowed


def _top(scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return the TOP best allowed items of each row, best first."""
    masked = np.where(allowed, scores, _NEVER_SHOWN)
    best = np.argpartition(-masked, TOP, axis=1)[:, :TOP]
    return np.take_along_axis(best, np.argsort(-np.take_along_axis(masked, best, 1), axis=1, kind="stable"), 1)


def _mean_of(value: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return each user's mean true utility over the TOP places; an empty place is worth nothing."""
    gained = np.take_along_axis(value, np.maximum(shown, 0), 1)
    return np.where(shown >= 0, gained, 0.0).mean(axis=1)


def _unpredictable(truth: Truth, days: list[dt.date]) -> dict[str, dict[str, float]]:
    """Return the share of each outcome's variance over the logged impressions that even the true chance leaves open."""
    stats = [
        json.loads((folder / "stats.json").read_text())
        for folder in (day_folder(truth.folder, day) for day in days)
        if folder.exists()
    ]
    total = {name: np.sum([day[name] for day in stats], axis=0) for name in stats[0]}
    shown = total["shown"]
    result: dict[str, dict[str, float]] = {name: {} for name in SCENARIOS}
    for task in ("click", "cart", "purchase"):
        chance, square = total[f"chance_{task}"], total[f"square_{task}"]
        for number, name in enumerate(SCENARIOS):
            mean = chance[number] / max(1.0, shown[number])
            if 0 < mean < 1 and not (task == "cart" and number == CHECKOUT):
                result[name][task] = float((chance[number] - square[number]) / (shown[number] * mean * (1 - mean)))
    return result
