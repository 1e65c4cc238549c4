"""What a shelf's candidates are ranked by: the champion's predictions, or the items' own rates while there is no champion."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nightshelf.features import attribute_columns
from nightshelf.logs import get_logger
from nightshelf.paths import artifact_dir, tracking_uri
from pipelines.models import champion_of, registered_name
from pipelines.segments import Segments, segments_of
from pipelines.shelves import Predict
from pipelines.stage import Night

if TYPE_CHECKING:
    from training.score import Ranker
    from training.shelf_features import ShelfFeatures

POPULARITY = "popularity"


@dataclass(frozen=True)
class Predictors:
    """One prediction function a scenario, the `model_version` that they bear, the users that features know, and the others.

    A user number is a place in user_keys; -1 is the unknown user, -2 - s whoever is in segment s.
    """

    version: str
    user_keys: list[str]
    segments: Segments
    by_scenario: dict[str, Predict]


def predictors(night: Night, scenarios: tuple[str, ...], item_ids: list[str]) -> Predictors:
    """Return the predictions of the champion, or popularity for a shop that has none yet.

    Args:
        night: gives the shop, the registry and the features.
        scenarios: their names.
        item_ids: the catalogue, in the order of the item numbers that will be asked for.

    Raises:
        InputError, EngineError: features or model cannot be read.
    """
    from training.artifact import SERVING
    from training.score import Ranker
    from training.shelf_features import ShelfFeatures
    from training.tracking import download, ensure_tracker

    ensure_tracker(tracking_uri(night.shop), artifact_dir(night.shop))
    tables = ("user_features", "item_features", "item_scenario_features", "user_sequences", "vocabularies")
    files = (night.warehouse.files(table, [night.as_of_date]) for table in tables)
    features = ShelfFeatures.load(night.shop, night.as_of_date, *files)
    segments = segments_of(night, features.user_keys)
    columns = [f"user_{name}_index" for name in attribute_columns(night.shop)]
    features = features.with_strangers(dict(zip(columns, segments.fields.T, strict=True)))
    version = champion_of(night)
    if version is None:
        get_logger("recommend").warning(
            "no version has passed the gate yet: the shelves show what is popular in the scenario and near to the user"
        )
        by_rate = {name: popularity_predictor(night, features, item_ids, name) for name in scenarios}
        return Predictors(POPULARITY, features.user_keys, segments, by_rate)
    ranker = Ranker.load(download(registered_name(night), version) / SERVING)
    by_scenario = {name: model_predictor(ranker, features, item_ids, name) for name in scenarios}
    return Predictors(version, features.user_keys, segments, by_scenario)


def model_predictor(ranker: "Ranker", features: "ShelfFeatures", item_ids: list[str], scenario: str) -> Predict:
    """Return scoring by user number and catalogue number; the model's own rows are looked up once."""
    import torch

    rows, known = features.item_rows(item_ids), len(features.user_keys)

    def predict(users: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
        # Row 0 is the unknown user; segments come behind the last user
        user_rows = torch.from_numpy(np.where(users < -1, known - 1 - users, users + 1).astype(np.int64))
        item_rows = torch.from_numpy(np.where(items >= 0, rows[items], -1))
        scored = ranker.score_users(features, scenario, user_rows, item_rows)
        return {task: values.numpy() for task, values in scored.items()}

    return predict


def popularity_predictor(night: Night, features: "ShelfFeatures", item_ids: list[str], scenario: str) -> Predict:
    """Return each item's shrunk rate in the scenario, or over all scenarios where it was never shown there.

    A value in money is the rate × the item's price; of a task on any item nothing is known: 0.
    """
    rows, table = features.item_rows(item_ids), features.target_dense[scenario]

    def column(name: str) -> np.ndarray:
        return table[:, features.target_names.index(name)]

    price = np.expm1(column("item_log_price"))
    rates = {}
    for name, task in night.shop.tasks.items():
        rate = np.zeros(len(table), np.float32)
        if task.on == "item":
            rate = column(f"item_scenario_{task.event}_rate_30d")
        rates[name] = rate * price if task.value in ("amount", "price") else rate

    def predict(users: np.ndarray, items: np.ndarray) -> dict[str, np.ndarray]:
        found = np.where(items >= 0, rows[items], -1)
        return {task: np.where(found >= 0, rate[found], np.nan) for task, rate in rates.items()}

    return predict
