"""What a user gains whose shelves know each other: shelves with and without `repeats`, by the simulated shop's truth.

Whoever sees six shelves wants something from all of them together. `each` is the mean true utility of the first ten places, every
shelf by itself; `together` counts an item once a user, where it is worth most, so that showing it again adds nothing.
"""

import datetime as dt
from dataclasses import replace

import numpy as np
import pyarrow as pa

from nightshelf.config import Shop
from nightshelf.identity import user_key
from pipelines.shelf_inputs import read_catalogue
from pipelines.shelf_parts import Service
from pipelines.shelf_plan import ShelfPlan, plan_shelves
from pipelines.shelf_rows import Catalogue
from pipelines.stage import Night
from pipelines.user_shards import UserShard
from pipelines.warehouse import Warehouse
from simulation.behaviour import SCENARIOS
from simulation.score import rank_items
from simulation.truth import load_truth

REPEATS = (0.0, 0.1, 0.3, 0.5, 0.9)


def fusion(shop: Shop, day: dt.date, users: int, key: bytes) -> dict[str, dict[str, float]]:
    """Return repeats → each, together (true utility a place; a shelf has ten) and items (different ones a user).

    Args:
        shop: a simulated shop with a champion.
        day: a night up to `promote`.
        users: how many are served, at most: those whose keys come first, which are no one's in particular.
        key: the shop's key for user ids.
    """
    plan = plan_shelves(Night(shop, day, Warehouse(shop), "fusion"))
    catalogue, truth = read_catalogue(plan), load_truth(shop)
    keys = sorted(plan.read("user_features", ("user_key",))["user_key"].to_pylist())[: users + 1]
    shard = UserShard("", keys[users]) if len(keys) > users else UserShard("", None)
    served, ids = set(keys[:users]), truth.user_ids()
    numbers = np.array([number for number, user in enumerate(ids) if user_key(user, key) in served], np.int64)
    names = [name for name in shop.scenarios if name in SCENARIOS]
    worth = np.stack(list(truth.utilities(numbers, names, day + dt.timedelta(days=1)).values()))
    found = {}
    for repeats in REPEATS:
        shown = rank_items(truth, _shelves(plan, shard, catalogue, repeats), numbers, names, key)
        found[f"{repeats:g}"] = valued(np.stack([shown[name] for name in names]), worth)
    return found


def _shelves(plan: ShelfPlan, shard: UserShard, catalogue: Catalogue, repeats: float) -> pa.Table:
    """Return the shelves of a shard as the night would make them if all scenarios had these `repeats`."""
    scenarios = {
        name: scenario.model_copy(update={"rerank": scenario.rerank.model_copy(update={"repeats": repeats})})
        for name, scenario in plan.shop.scenarios.items()
    }
    plan = replace(plan, shop=plan.shop.model_copy(update={"scenarios": scenarios}))
    service = Service.of(plan, shard, "fusion", catalogue)
    columns = ["user_key", "scenario", "rank", "item_id"]
    return pa.concat_tables(table.select(columns) for _, table in service.shelves(f"repeats {repeats:g}"))


def valued(shown: np.ndarray, worth: np.ndarray) -> dict[str, float]:
    """Return what shelves [scenarios, users, places] of item numbers (-1: none) are worth [scenarios, users, items]."""
    is_there = shown >= 0
    of_place = np.where(is_there, np.take_along_axis(worth, shown.clip(min=0), 2), 0.0)
    places = shown.shape[0] * shown.shape[2]
    together, items = [], []
    for row in range(shown.shape[1]):
        distinct, item = np.unique(shown[:, row][is_there[:, row]], return_inverse=True)
        best = np.zeros(len(distinct))
        np.maximum.at(best, item, of_place[:, row][is_there[:, row]])
        together.append(best.sum() / places)
        items.append(len(distinct))
    return {
        "each": round(float(of_place.mean()), 4),
        "together": round(float(np.mean(together)), 4),
        "items": round(float(np.mean(items)), 1),
    }
