"""What a shelf's candidates are ranked by: the champion's predictions, or the items' own rates while there is no champion."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from nightshelf.config import Sampled, Shop
from nightshelf.features import attribute_columns
from pipelines.first_look import Predict, PredictFor
from pipelines.shelf_plan import FEATURE_TABLES, ShelfPlan
from pipelines.user_shards import UserShard

if TYPE_CHECKING:
    from training.score import Ranker
    from training.shelf_features import ShelfFeatures

# So many choices count in a scenario as the items' shares of all scenarios say.
_PRIOR_CHOICES = 20


@dataclass(frozen=True)
class Predictors:
    """The users that features know, and predictions of a block of them (user numbers [B]) in each scenario.

    A user number is a place in user_keys; -1 is the unknown user, -2 - s whoever is in segment s.
    """

    user_keys: list[str]
    of: PredictFor


def predictors(
    plan: ShelfPlan, shard: UserShard, item_ids: list[str], segments: np.ndarray | None = None, place: int = 0
) -> Predictors:
    """Return the predictions of the champion, or popularity for a shop that has none yet.

    Args:
        plan: gives the champion and the features.
        shard: whose features are read.
        item_ids: the catalogue, in the order of the item numbers that will be asked for.
        segments: what is known of the users of each segment, `Segments.fields`.
        place: of the shard among all: where a machine has several accelerators, each takes the next one.

    Raises:
        InputError, EngineError: features or model cannot be read.
    """
    from training.devices import ranking_device
    from training.score import Ranker
    from training.shelf_features import ShelfFeatures

    users, items, pairs, sequences, words = (plan.files[table] for table in FEATURE_TABLES)
    features = ShelfFeatures.load(plan.shop, plan.as_of_date, users, items, pairs, sequences, words, shard.users)
    if segments is not None:
        columns = [f"user_{name}_index" for name in attribute_columns(plan.shop)]
        features = features.with_strangers(dict(zip(columns, segments.T, strict=True)))
    if plan.model is None:
        by_rate = {name: popularity_predictor(plan.shop, features, item_ids, name) for name in plan.ranked}
        return Predictors(features.user_keys, lambda users: by_rate)
    ranker = Ranker.load(plan.model, ranking_device(place))
    ranker.stand_beside(plan.beside)
    return Predictors(features.user_keys, model_predictors(ranker, features, item_ids, plan.ranked))


def model_predictors(
    ranker: "Ranker", features: "ShelfFeatures", item_ids: list[str], scenarios: tuple[str, ...]
) -> PredictFor:
    """Return scoring of blocks of users, each encoded once, by catalogue number; the model's own rows are looked up once."""
    import torch

    rows, known = features.item_rows(item_ids), len(features.user_keys)

    def of(users: np.ndarray) -> dict[str, Predict]:
        """Encode a block of users, by number (-1: the unknown one, below it segments); return each scenario's scoring of it."""
        # Row 0 is the unknown user; segments come behind the last user
        user_rows = torch.from_numpy(np.where(users < -1, known - 1 - users, users + 1).astype(np.int64))
        encoded = ranker.encode(features, user_rows)

        def predict(scenario: str, items: np.ndarray) -> dict[str, np.ndarray]:
            """Return task → predictions [U, K] of items [U, K], by catalogue number; NaN where the model has no row of it."""
            scored = encoded.score(scenario, torch.from_numpy(np.where(items >= 0, rows[items], -1)))
            return {task: values.numpy() for task, values in scored.items()}

        return {name: partial(predict, name) for name in scenarios}

    return of


def popularity_predictor(shop: Shop, features: "ShelfFeatures", item_ids: list[str], scenario: str) -> Predict:
    """Return each item's shrunk rate in the scenario, or over all scenarios where it was never shown there.

    Where impressions are drawn, of items chosen that day, such a rate says little of an item: instead, the chance to be chosen
    rather than that many items drawn from all, by how often it was chosen there, and in all scenarios.
    A value in money is the rate × the item's price; of a task on any item nothing is known: 0.
    """
    rows, table = features.item_rows(item_ids), features.target_dense[scenario]

    def column(name: str) -> np.ndarray:
        """Return a feature of the items in the scenario: one value a row of the night's features."""
        return table[:, features.target_names.index(name)]

    price = np.expm1(column("item_log_price"))
    rates = {}
    for name, task in shop.tasks.items():
        rate = np.zeros(len(table), np.float32)
        if task.on == "item":
            if isinstance(shop.negatives, Sampled):
                there, own = (column(f"{name}_{task.event}_count_30d") for name in ("item_scenario", "item"))
                rate = chance_beside_drawn(there, own, shop.negatives.sampled)
            else:
                rate = column(f"item_scenario_{task.event}_rate_30d")
        rates[name] = rate * price if task.value in ("amount", "price") else rate

    def predict(items: np.ndarray) -> dict[str, np.ndarray]:
        """Return task → rates of items [U, K], by catalogue number; NaN where that is -1 or the item has no features."""
        found = np.where(items >= 0, rows[items], -1)
        return {task: np.where(found >= 0, rate[found], np.nan) for task, rate in rates.items()}

    return predict


def chance_beside_drawn(there: np.ndarray, everywhere: np.ndarray, drawn: int) -> np.ndarray:
    """Return the chance that what is chosen is this item, and not one of so many drawn from all that were ever chosen.

    Args:
        there: how often each item was chosen in the scenario, [I]; few choices are pulled to those of all scenarios.
        everywhere: … and in all scenarios, [I].
        drawn: how many stand beside it.
    """
    there, everywhere = there.astype(np.float64), everywhere.astype(np.float64)
    share = (there + _PRIOR_CHOICES * everywhere / max(everywhere.sum(), 1)) / (there.sum() + _PRIOR_CHOICES)
    times = share * np.count_nonzero(everywhere)  # as often as the mean of what was chosen
    return (times / (times + drawn)).astype(np.float32)
