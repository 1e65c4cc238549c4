"""The recipe: from a night's examples to a trained ranker. Read it from top to bottom."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nightshelf.config import Shop
from nightshelf.errors import EngineError, InputError
from nightshelf.features import request_scenarios
from nightshelf.logs import get_logger
from training.artifact import SERVING, load_model, save_model
from training.averaging import WeightAverage
from training.base_rates import regression_scales, start_at_base_rates
from training.batches import Dataset
from training.data import Examples, TrainingInputs, load_examples
from training.losses import task_losses
from training.metrics import auc
from training.normalization import load_normalization
from training.predict import predict
from training.ranking_model import RankingModel
from training.recipe import Recipe
from training.spec import dense_names, model_spec
from training.steps import Steps
from training.topics import fit_topics
from training.transfer import copy_weights, why_incompatible

log = get_logger("train")

_MAX_HALVINGS = 2
_LOG_SECONDS = 10.0
_LEAST_STEPS, _LEAST_BATCH = 64, 128
# Rows enough to tell whether an epoch was better.
_MOST_VALIDATION = 100_000


@dataclass
class TrainingReport:
    """What a training did. `epochs` has one row each: epoch, train_loss, validation_loss, auc_<task>, rows_per_s."""

    train_rows: int
    validation_rows: int
    test_rows: int
    warm_started: bool
    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_validation_loss: float = math.inf
    halvings: int = 0
    seconds: float = 0.0


def train_ranker(
    shop: Shop, recipe: Recipe, inputs: TrainingInputs, out: Path, parent: Path | None = None
) -> TrainingReport:
    """Train one model for all tasks in all scenarios and write it into the folder `out`, and into `out`/serving for use.

    The weights of the epoch with the lowest validation loss are kept (before the first epoch the parent's count too, if
    training starts from them). A loss that is not finite takes training back to the best weights at half the rates.

    Raises:
        InputError: the inputs are missing, empty or wrong.
        EngineError: the loss stays not finite.
    """
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    examples = load_examples(shop, inputs)
    is_test = ~(examples.is_train | examples.is_validation)
    train_rows, validation_rows, test_rows = (
        int(rows.sum()) for rows in (examples.is_train, examples.is_validation, is_test)
    )
    if not train_rows or not test_rows:
        raise InputError(
            f"training_examples of {inputs.as_of_date}: {train_rows} train and {test_rows} test rows; "
            "give the night more days of logs"
        )
    deciding = examples.is_validation
    if not validation_rows:
        log.warning(
            "no day is left for validation: the epoch is chosen on the test days, and what they tell is too good"
        )
        deciding = is_test
    users, targets = dense_names(shop)
    normalization = load_normalization(inputs.normalization, [*users, *targets], recipe.bucketize)
    spec = model_spec(shop, recipe, examples.vocabularies, normalization, str(inputs.as_of_date))
    dataset = Dataset(examples, spec)
    train, validation = dataset.subset(examples.is_train), dataset.subset(_some(deciding, recipe.seed))
    log.info(
        "%d train, %d validation and %d test rows read in %.1f s",
        train_rows,
        validation_rows,
        test_rows,
        time.monotonic() - started,
    )

    model = RankingModel(spec)
    scales = regression_scales(train, spec)
    model.chain.log_scale.copy_(scales.log())
    warm = warm_start(model, recipe, parent, examples)
    report = TrainingReport(train_rows, validation_rows, test_rows, warm)
    if not report.warm_started:
        start_at_base_rates(model, train)
    asked = fit_topics(model, examples, np.flatnonzero(examples.is_train), request_scenarios(shop))
    log.info("off the request's topic a click is that much rarer: %s", asked)
    steps, best = Steps(model, scales), snapshot(model)
    if report.warm_started:
        inherited = validation_metrics(model, validation)["validation_loss"]
        report.best_validation_loss = inherited if math.isfinite(inherited) else math.inf
        log.info("parent's weights: validation loss %.5f", inherited)
    epoch, waited = 1, 0
    with deterministic():
        while epoch <= recipe.max_epochs and waited < recipe.patience:
            row = train_epoch(steps, train, recipe, epoch)
            row |= validation_metrics(model, validation)
            if not math.isfinite(row["train_loss"]) or not math.isfinite(row["validation_loss"]):
                report.halvings += 1
                if report.halvings > _MAX_HALVINGS:
                    raise EngineError(
                        f"training loss is not finite after {_MAX_HALVINGS} halvings of the learning rates; "
                        "lower learning_rate in the recipe"
                    )
                log.warning(
                    "epoch %d: the loss is not finite; back to the best weights at half the learning rates", epoch
                )
                model.load_state_dict(best)
                steps = Steps(model, scales, rate=0.5**report.halvings)
                continue
            report.epochs.append(row)
            waited += 1
            if row["validation_loss"] < report.best_validation_loss:
                report.best_epoch, report.best_validation_loss, waited = epoch, row["validation_loss"], 0
                best = snapshot(model)
            log.info(
                "epoch %d: %s",
                epoch,
                ", ".join(f"{name} {value:.5g}" for name, value in row.items() if name != "epoch"),
            )
            epoch += 1

    model.load_state_dict(best)
    save_model(model, out)
    # What serves learns from all days, the newest too. What is measured, and what the next night starts from, never saw them.
    with deterministic():
        row = train_epoch(steps, dataset, recipe, epoch)
    if not math.isfinite(row["train_loss"]):
        log.warning("the newest days give a loss that is not finite: the measured weights serve")
        model.load_state_dict(best)
    save_model(model, out / SERVING)
    report.seconds = time.monotonic() - started
    log.info(
        "best epoch %d, validation loss %.5f, %.1f s in all",
        report.best_epoch,
        report.best_validation_loss,
        report.seconds,
    )
    return report


def train_epoch(steps: Steps, train: Dataset, recipe: Recipe, epoch: int) -> dict[str, float]:
    """Pass once over the rows and leave the average of the steps' weights; stop at once when the loss is not finite.

    Returns:
        epoch, train_loss (mean over impressions), rows_per_s.
    """
    steps.model.train()
    torch.manual_seed(recipe.seed * 100_003 + epoch)  # dropout's draws
    train = train.thinned(recipe.negative_share, recipe.seed, epoch)
    # A small shop gets smaller batches, so that an epoch has enough steps to learn from.
    batch_size = min(recipe.batch_size, max(_LEAST_BATCH, train.size // _LEAST_STEPS))
    mean_weight = train.weights[train.chunks[train.chunks >= 0]].mean(0).clamp(min=1e-12)
    batches = train.shuffled_batches(batch_size, recipe.seed, epoch)
    average = WeightAverage(steps.model, recipe.weight_average)
    started = told = time.monotonic()
    total, rows = 0.0, 0
    for k, chunks in enumerate(batches):
        loss = steps.gradient(train, chunks, mean_weight)
        if not math.isfinite(loss):
            total = math.nan
            break
        steps.move()
        average.update()
        size = int((train.chunks[chunks] >= 0).sum())
        total, rows = total + loss * size, rows + size
        if time.monotonic() - told > _LOG_SECONDS:
            told = time.monotonic()
            pace = rows / (told - started)
            log.info(
                "epoch %d: batch %d of %d, loss %.5f, %.0f rows/s, %.0f s left",
                epoch,
                k + 1,
                len(batches),
                total / rows,
                pace,
                (train.size - rows) / pace,
            )
    steps.end_epoch()
    average.apply()
    return {
        "epoch": float(epoch),
        "train_loss": total / max(rows, 1),
        "rows_per_s": rows / (time.monotonic() - started),
    }


def validation_metrics(model: RankingModel, validation: Dataset) -> dict[str, float]:
    """Return validation_loss, the mean over tasks of loss ÷ loss of the base rate, and auc_<task> with position removed.

    Binary tasks decide alone where there are any: the few rows with a value make a regression's loss too noisy.
    """
    predictions, tasks = predict(model, validation), model.spec.tasks
    rows = validation.chunks[validation.chunks >= 0]
    ratios, row = {}, {}
    for place, task in enumerate(tasks):
        weights = validation.weights[rows, place : place + 1]
        labels = validation.labels[rows, place : place + 1]
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


def warm_start(model: RankingModel, recipe: Recipe, parent: Path | None, examples: Examples) -> bool:
    """Copy the parent's weights where the recipe asks for it and they fit; say which."""
    if parent is None or not recipe.warm_start:
        return False
    try:
        ancestor = load_model(parent)
    except EngineError as error:
        log.warning("fresh start: %s", error)
        return False
    reason = why_incompatible(ancestor.spec, model.spec)
    if reason:
        log.warning("fresh start: the parent of %s does not fit: %s", ancestor.spec.as_of_date, reason)
        return False
    log.info(
        "warm start from the model of %s, %d new embedding rows",
        ancestor.spec.as_of_date,
        copy_weights(ancestor, model, examples.vocabularies),
    )
    return True


def snapshot(model: RankingModel) -> dict[str, torch.Tensor]:
    """Return a copy of the weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@contextmanager
def deterministic() -> Iterator[None]:
    """Let torch use only operations that give the same bits each time, and restore its setting."""
    memory: Any = torch.utils.deterministic
    before, fills = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # a tenth of the time, and nothing here reads what it did not write
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fills


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
    """Return at most _MOST_VALIDATION of the chosen rows [n], drawn once."""
    share = _MOST_VALIDATION / max(int(rows.sum()), 1)
    return rows if share >= 1 else rows & (np.random.default_rng(seed).random(len(rows)) < share)
