"""How good a ranker is on the test days, per scenario x task, with bounds; and two rankers on the same rows.

Ranking (auc, gauc, ndcg) is measured with the position removed, as shelves are made; calibration (logloss, pcoc, rmse)
with the position that was logged. Selection bias by the logging policy stays in both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path

import numpy as np

from nightshelf.config import Shop
from nightshelf.parallel import in_parallel
from training import metrics
from training.artifact import OtherCodeError, OtherShopError, load_model
from training.batches import Dataset
from training.bootstrap import auc_bounds, paired_bootstrap, ratio_bounds, user_draws
from training.data import Examples, TrainingInputs, load_examples
from training.predict import predict
from training.ranking_model import RankingModel
from training.shop_fit import why_not_measured
from training.spec import TaskSpec
from training.transfer import read_night

ALL = "*"


@dataclass(frozen=True)
class TaskRows:
    """The rows of one scenario (or all) whose label of one task counts; users and requests numbered 0.. ."""

    label: np.ndarray
    at_first: np.ndarray
    at_position: np.ndarray
    weight: np.ndarray
    user: np.ndarray
    request: np.ndarray


def evaluate(folder: Path, shop: Shop, inputs: TrainingInputs, seed: int = 0) -> list[dict[str, object]]:
    """Return rows for model_metrics: scenario, task, metric, value, lower, upper, rows, positives.

    Raises:
        InputError: there are no test rows.
        EngineError: the folder holds no sound model.
        OtherCodeError, OtherShopError: it was made by another version of this code, or for another shop file.
    """
    model = load_model(folder)
    if other := why_not_measured(model.spec, shop):
        raise OtherShopError(f"{folder}: {other}; train the model again")
    examples = _test(shop, inputs)
    first, logged = _predictions(model, examples)
    draws = user_draws(int(examples.user.max()) + 1, seed)

    def measure(part: tuple[str, int]) -> list[dict[str, object]]:
        """Return the rows of one scenario (`*`: all) and one task, by its place in the model."""
        scenario, place = part
        task, rows = model.spec.tasks[place], _task_rows(examples, shop, scenario, place, first, logged)
        return [{"scenario": scenario, "task": task.name, **row} for row in _task_metrics(task, rows, draws)]

    parts = list(product([ALL, *shop.scenarios], range(len(model.spec.tasks))))
    return list(chain.from_iterable(in_parallel(measure, parts)))


def compare(challenger: Path, champion: Path, shop: Shop, inputs: TrainingInputs, seed: int = 0) -> dict[str, object]:
    """Compare two rankers on the same test rows, paired by user.

    Returns:
        comparable: False (with `reason`) if the champion's tasks or inputs are not the challenger's, or another version of this
            code made it; all else is None then.
        finite: whether every prediction of the challenger is finite.
        gauc_challenger, gauc_champion, gauc_difference, gauc_difference_lower, gauc_difference_upper: the mean over
            binary tasks, each task's users weighed by impressions, with 95 % bounds of the difference.
        logloss_…: likewise, with the logged positions (lower is better).
        tasks: task → the same keys for each task's GAUC.
        users, rows: how many were compared.

    Raises:
        InputError: there are no test rows.
        EngineError: a folder holds no sound model.
    """
    models = [load_model(challenger)]
    try:
        models.append(load_model(champion))
        reason = _why_incomparable(models[0], models[1])
    except OtherCodeError as error:
        reason = str(error)
    if reason:
        return (
            {"comparable": False, "reason": reason, "finite": None, "tasks": {}}
            | _difference("gauc")
            | _difference("logloss")
        )
    examples = _test(shop, inputs)
    predictions = [_predictions(model, examples) for model in models]
    users = int(examples.user.max()) + 1
    tasks = [(place, task) for place, task in enumerate(models[0].spec.tasks) if task.kind == "binary"]
    by_task = {task.name: _by_user(examples, shop, place, predictions, users) for place, task in tasks}
    gauc, gauc_weight = _mean_over_tasks([found["gauc"] for found in by_task.values()])
    losses, loss_weight = _mean_over_tasks([found["logloss"] for found in by_task.values()])
    return {
        "comparable": True,
        "finite": bool(np.isfinite(predictions[0][0]).all()),
        "rows": len(examples),
        "users": int((gauc_weight > 0).sum()),
        "tasks": {name: _difference("gauc", *found["gauc"], seed) for name, found in by_task.items()},
        **_difference("gauc", gauc, gauc_weight, seed),
        **_difference("logloss", losses, loss_weight, seed),
    }


def gauc_by_user(
    folder: Path, shop: Shop, inputs: TrainingInputs
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Return per scenario and binary task the AUC of each user's test rows [users], NaN where there is none, and its weight.

    Users have the same places whatever the model.
    """
    model, examples = load_model(folder), _test(shop, inputs)
    first, logged = _predictions(model, examples)
    users, found = int(examples.user.max()) + 1, {}
    tasks = [(place, task.name) for place, task in enumerate(model.spec.tasks) if task.kind == "binary"]
    for scenario, (place, name) in product(shop.scenarios, tasks):
        rows = _task_rows(examples, shop, scenario, place, first, logged)
        found[scenario, name] = metrics.grouped_auc(rows.label, rows.at_first, rows.user, users)
    return found


def predict_test_days(folder: Path, shop: Shop, inputs: TrainingInputs) -> tuple[Examples, np.ndarray]:
    """Return the test rows and what a model predicts of each task, as if all stood first [n, tasks].

    Raises:
        InputError: there are no test rows.
        EngineError: the folder holds no sound model.
    """
    examples = _test(shop, inputs)
    return examples, _predictions(load_model(folder), examples)[0]


def _by_user(
    examples: Examples, shop: Shop, place: int, predictions: list[tuple[np.ndarray, np.ndarray]], users: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return gauc and logloss of both models by user [2, users] with their weights [users], for one task."""
    pair = [_task_rows(examples, shop, ALL, place, first, logged) for first, logged in predictions]
    aucs = [metrics.grouped_auc(part.label, part.at_first, part.user, users) for part in pair]
    count = np.bincount(pair[0].user, minlength=users).astype(float)
    losses = [
        np.bincount(part.user, metrics.log_losses(part.label, part.at_position), users) / np.maximum(count, 1)
        for part in pair
    ]
    defined = np.isfinite(aucs[0][0]) & np.isfinite(aucs[1][0])
    return {
        "gauc": (np.nan_to_num(np.stack([value for value, _ in aucs])), np.where(defined, aucs[0][1], 0.0)),
        "logloss": (np.stack(losses), count),
    }


def _mean_over_tasks(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the users' values and weights over all tasks; tasks count alike, however many users have an outcome."""
    shares = [weight / weight.sum() for _, weight in found if weight.sum() > 0]
    values = [value for value, weight in found if weight.sum() > 0]
    if not shares:
        return np.zeros_like(found[0][0]), np.zeros_like(found[0][1])
    total = np.sum(shares, axis=0)
    summed = np.sum([value * share for value, share in zip(values, shares, strict=True)], axis=0)
    return summed / np.where(total > 0, total, 1.0), total


def _difference(
    name: str, values: np.ndarray | None = None, weight: np.ndarray | None = None, seed: int = 0
) -> dict[str, float | None]:
    """Name both models' means and their difference with its bounds; None where nothing can be compared."""
    keys = [
        f"{name}_{part}" for part in ("challenger", "champion", "difference", "difference_lower", "difference_upper")
    ]
    paired = None if values is None or weight is None else paired_bootstrap(values[0], values[1], weight, seed)
    if paired is None or values is None:
        return dict.fromkeys(keys)
    means = [float(np.average(side, weights=weight)) for side in values]
    return dict(zip(keys, [*means, paired["difference"], paired["lower"], paired["upper"]], strict=True))


def _why_incomparable(challenger: RankingModel, champion: RankingModel) -> str:
    if [task.measured() for task in challenger.spec.tasks] != [task.measured() for task in champion.spec.tasks]:
        return "the champion has other tasks"
    for name in ("scenarios", "events", "user_dense", "target_dense", "oov_buckets"):
        if getattr(challenger.spec, name) != getattr(champion.spec, name):
            return f"the champion has other {name}"
    if list(challenger.spec.user_fields) != list(champion.spec.user_fields) or list(
        challenger.spec.item_fields
    ) != list(champion.spec.item_fields):
        return "the champion has other categorical features"
    return ""


def _test(shop: Shop, inputs: TrainingInputs) -> Examples:
    return load_examples(shop, inputs, split="test")


def _predictions(model: RankingModel, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    read_night(model, examples.vocabularies)
    predictions = predict(model, Dataset(examples, model.spec))
    return predictions.at_first.numpy(), predictions.at_position.numpy()


def _task_rows(
    examples: Examples, shop: Shop, scenario: str, place: int, first: np.ndarray, logged: np.ndarray
) -> TaskRows:
    chosen = examples.masks[:, place] > 0
    if scenario != ALL:
        chosen &= examples.scenario == list(shop.scenarios).index(scenario) + 1
    request = examples.request[chosen]
    if len(request):
        request = np.unique(request, return_inverse=True)[1] - int(request.min() < 0)
    return TaskRows(
        examples.labels[chosen, place], first[chosen, place].astype(np.float64), logged[chosen, place].astype(np.float64),
        examples.weight[chosen], examples.user[chosen], request,
    )  # fmt: skip


def _task_metrics(task: TaskSpec, rows: TaskRows, draws: np.ndarray) -> Iterator[dict[str, object]]:
    users = draws.shape[1]
    by_user = partial(np.bincount, rows.user, minlength=users)
    count, positives = len(rows.label), int((rows.label > 0).sum())

    def row(metric: str, value: float | None, bounds: tuple[float, float] | None) -> dict[str, object]:
        """Return a metric with its 95 % bounds, which an undefined value (None) has not, and the counts of its rows."""
        low, high = bounds if value is not None and bounds else (None, None)
        return {"metric": metric, "value": value, "lower": low, "upper": high, "rows": count, "positives": positives}

    yield row(
        "pcoc",
        metrics.pcoc(rows.label, rows.at_position, rows.weight),
        ratio_bounds(by_user(rows.at_position * rows.weight), by_user(rows.label * rows.weight), draws),
    )
    if task.kind == "regression":
        squares = ratio_bounds(by_user((rows.label - rows.at_position) ** 2), by_user(), draws)
        yield row(
            "rmse",
            metrics.rmse(rows.label, rows.at_position),
            None if squares is None else (squares[0] ** 0.5, squares[1] ** 0.5),
        )
        return
    yield row("auc", metrics.auc(rows.label, rows.at_first), auc_bounds(rows.label, rows.at_first, rows.user, draws))
    value, weight = metrics.grouped_auc(rows.label, rows.at_first, rows.user, users)
    weight = np.where(np.isfinite(value), weight, 0.0)
    yield row(
        "gauc",
        metrics.mean(value, weight),
        ratio_bounds(np.nan_to_num(value) * weight, weight, draws),
    )
    losses = metrics.log_losses(rows.label, rows.at_position) * rows.weight
    yield row(
        "logloss",
        metrics.logloss(rows.label, rows.at_position, rows.weight),
        ratio_bounds(by_user(losses), by_user(rows.weight), draws),
    )
    yield row("ndcg", *_ndcg(rows, draws))


def _ndcg(rows: TaskRows, draws: np.ndarray) -> tuple[float | None, tuple[float, float] | None]:
    requests = int(rows.request.max(initial=-1)) + 1
    if not requests:
        return None, None
    value, weight = metrics.grouped_ndcg(rows.label, rows.at_first, rows.request, requests)
    owner = np.zeros(requests, np.int64)
    owner[rows.request[rows.request >= 0]] = rows.user[rows.request >= 0]
    defined = np.isfinite(value)
    total = np.bincount(owner[defined], value[defined], draws.shape[1])
    bounds = ratio_bounds(total, np.bincount(owner[defined], minlength=draws.shape[1]), draws)
    return metrics.mean(value, weight), bounds
