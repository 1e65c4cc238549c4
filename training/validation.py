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

log = get_logger("train")

# Rows enough to tell whether an epoch was better.
_MOST_ROWS = 100_000
# Where no day is left, one of so many users is held back.
_USERS_A_DRAWN = 10


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
    """Return validation_loss, the mean over tasks of loss ÷ loss of the base rate, and auc_<task> with position removed.

    Binary tasks decide alone where there are any: the few rows with a value make a regression's loss too noisy.

    Raises:
        InputError: no task has a mature label.
    """
    predictions, tasks = predict(model, validation), model.spec.tasks
    rows = validation.chunks[validation.chunks >= 0]
    ratios, row = {}, {}
    for place, task in enumerate(tasks):
        weights, labels = (column[rows, place : place + 1].cpu() for column in (validation.weights, validation.labels))
        total = weights.sum()
        if total == 0:
            continue
        mean = ((labels * weights).sum() / total).clamp(min=1e-7)
        scale = mean.reshape(1) if task.kind == "regression" else torch.ones(1)
        base = mean.log().expand_as(labels)
        losses = [
            task_losses(logs, labels, weights, [task.measured()], scale).double()
            for logs in (predictions.log_at_position[rows, place : place + 1], base)
        ]
        ratios[task.name] = float(losses[0] / losses[1])
        if task.kind == "binary":
            counted = (weights[:, 0] > 0).numpy()
            value = auc(labels[:, 0].numpy()[counted], predictions.at_first[rows, place].numpy()[counted])
            row[f"auc_{task.name}"] = math.nan if value is None else value
    deciding = [ratios[t.name] for t in tasks if t.name in ratios and t.kind == "binary"] or list(ratios.values())
    if not deciding:
        raise InputError(
            "validation rows: no task has a mature label; give the night more days of logs, or shorten label_window"
        )
    return {"validation_loss": sum(deciding) / len(deciding), **row}
