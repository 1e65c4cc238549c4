"""The rows that decide which epoch was the best, and what is measured on them."""

import math
from dataclasses import replace

import numpy as np
import torch

from nightshelf.errors import InputError
from nightshelf.logs import get_logger
from training.batches import Dataset
from training.data import Examples
from training.losses import task_losses
from training.metrics import auc
from training.predict import predict
from training.ranking_model import RankingModel
from training.spec import ModelSpec

log = get_logger("train")

# Rows enough to tell whether an epoch was better.
_MOST_ROWS = 100_000
# Where no day is left, one of so many users is held back.
_USERS_A_DRAWN = 10
_SILENT = "it has no say in which epoch was the best"


def with_validation(examples: Examples, seed: int) -> Examples:
    """Return the examples; where no day is left for validation, with a tenth of the train days' users held back for it, and a
    warning. The test days never choose an epoch: the gate measures on them what was chosen.

    Raises:
        InputError: there are not two users.
    """
    if examples.is_validation.any():
        return examples
    users = np.unique(examples.user[examples.is_train])
    if len(users) < 2:
        raise InputError(
            "training_examples: no day is left for validation, and no users for it; give the night more days of logs"
        )
    log.warning(
        "no day is left for validation: the epoch is chosen on a tenth of the train days' users, which are held back"
    )
    drawn = np.random.default_rng(seed).permutation(users)[: max(1, len(users) // _USERS_A_DRAWN)]
    is_held_back = examples.is_train & np.isin(examples.user, drawn)
    return replace(examples, is_train=examples.is_train & ~is_held_back, is_validation=is_held_back)


def deciding_rows(examples: Examples, seed: int) -> np.ndarray:
    """Return which rows [n] choose the epoch: at most _MOST_ROWS of the validation's, drawn once."""
    rows = examples.is_validation
    share = _MOST_ROWS / max(int(rows.sum()), 1)
    return rows if share >= 1 else rows & (np.random.default_rng(seed).random(len(rows)) < share)


def validation_metrics(model: RankingModel, validation: Dataset) -> dict[str, float]:
    """Return validation_loss and auc_<task> with position removed.

    The loss is the mean over tasks of loss ÷ loss of the base rate. Binary tasks decide alone where there are any: the few rows
    with a value make a regression's loss too noisy. A task that is not trained (`fixed`, weight 0) has no part in it, nor has one
    whose labels are all alike, for its base rate has no loss; where that is all that there is, it is the mean loss itself.

    Raises:
        InputError: no task has a mature label.
    """
    predictions, recipe = predict(model, validation), model.spec.recipe
    rows = validation.chunks[validation.chunks >= 0]
    found, row = [], {}
    for place, task in enumerate(model.spec.tasks):
        weights, labels = (column[rows, place : place + 1].cpu() for column in (validation.weights, validation.labels))
        total = weights.sum()
        if total == 0:
            continue
        if task.kind == "binary":
            counted = (weights[:, 0] > 0).numpy()
            value = auc(labels[:, 0].numpy()[counted], predictions.at_first[rows, place].numpy()[counted])
            row[f"auc_{task.name}"] = math.nan if value is None else value
        if recipe.balancing == "fixed" and recipe.task_weights.get(task.name) == 0:
            continue
        mean = ((labels * weights).sum() / total).clamp(min=1e-7)
        scale = mean.reshape(1) if task.kind == "regression" else torch.ones(1)
        logs = (predictions.log_at_position[rows, place : place + 1], mean.log().expand_as(labels))
        own, of_base = (float(task_losses(log, labels, weights, [task.measured()], scale).double()) for log in logs)
        is_told = bool((labels[weights > 0] != labels[weights > 0][0]).any())
        found.append((task.kind, is_told, own / of_base if is_told else own / float(total)))
    for deciding in (("binary", True), ("regression", True), ("binary", False), ("regression", False)):
        losses = [loss for *what, loss in found if tuple(what) == deciding]
        if losses:
            return {"validation_loss": sum(losses) / len(losses), **row}
    raise InputError(
        "validation rows: no task has a mature label; give the night more days of logs, or shorten label_window"
    )


def check_labels(train: Dataset, validation: Dataset, spec: ModelSpec) -> None:
    """Warn of tasks that cannot be learned or cannot choose the epoch: without mature labels, or with labels that are all alike.

    Raises:
        InputError: no task that is trained has a mature label among the train rows, or none among the validation rows.
    """
    weights = spec.recipe.task_weights if spec.recipe.balancing == "fixed" else {}
    trained = [task.name for task in spec.tasks if weights.get(task.name) != 0]
    for split, dataset, if_none, if_alike in (
        ("train", train, "what the model says of it is a guess", "the model can learn nothing else of it"),
        ("validation", validation, _SILENT, _SILENT),
    ):
        rows, known = dataset.chunks[dataset.chunks >= 0], []
        for place, task in enumerate(spec.tasks):
            labels = dataset.labels[rows, place][dataset.weights[rows, place] > 0]
            if not len(labels):
                log.warning("%s: no label of the %s rows is mature, so %s", task.name, split, if_none)
                continue
            known.append(task.name)
            if bool((labels == labels[0]).all()):
                alike = len(labels), split, float(labels[0])
                log.warning("%s: all %d labels of the %s rows are %g, so %s", task.name, *alike, if_alike)
        if not set(known) & set(trained):
            raise InputError(
                f"{split} rows: no task that is trained ({', '.join(trained)}) has a mature label; give the night more days of "
                "logs, or shorten label_window"
            )
