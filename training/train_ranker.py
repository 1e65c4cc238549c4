"""The recipe: from a night's examples to a trained ranker. Read it from top to bottom."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nightshelf.config import Shop
from nightshelf.errors import EngineError, InputError
from nightshelf.features import request_scenarios
from nightshelf.logs import get_logger
from training.artifact import SERVING, save_model
from training.averaging import WeightAverage
from training.base_rates import regression_scales, start_at_base_rates
from training.batches import Dataset
from training.checkpoints import SECONDS_BETWEEN, resumable
from training.course import Course, EpochPass, TrainingReport
from training.data import Examples, TrainingInputs, load_examples
from training.devices import deterministic, training_device
from training.event_file import Tell, event_file
from training.failures import failures_told
from training.kernels.memory import steady_memory
from training.normalization import load_normalization
from training.ranking_model import RankingModel
from training.ranks import any_rank
from training.recipe import Recipe
from training.schedule import rate_share
from training.sharded_table import check_sharding
from training.spec import ModelSpec, dense_names, model_spec
from training.stretches import warn_of_slow_reads
from training.topics import fit_topics
from training.transfer import warm_start
from training.validation import check_labels, deciding_rows, validation_metrics, with_validation

log = get_logger("train")

_MAX_HALVINGS = 2
_LOG_SECONDS = 10.0
_LEAST_STEPS, _LEAST_BATCH = 64, 128


@steady_memory()
def train_ranker(
    shop: Shop,
    recipe: Recipe,
    inputs: TrainingInputs,
    out: Path,
    parent: Path | None = None,
    checkpoints: Path | None = None,
    checkpoint_seconds: float = SECONDS_BETWEEN,
) -> TrainingReport:
    """Train one model for all tasks in all scenarios and write it into the folder `out`, and into `out`/serving for use.

    The weights of the epoch with the lowest validation loss are kept (before the first epoch the parent's count too, if
    training starts from them). A loss or weight that is not finite takes training back to the best weights at half the rates.

    Started by torchrun, inside joined_ranks, several processes train it together and the first one writes.

    With a folder `checkpoints` the training can be killed at any moment: called again, it goes on from there and gives the
    same weights, bit by bit. Whoever has the model in safety removes the folder. `out`/tensorboard gets an event file with the
    metrics of each epoch and, by thousandths of an epoch, with loss and pace every ten seconds.

    Raises:
        InputError: the inputs are missing, empty or wrong; or the recipe's table cannot be sharded.
        TrainingFailed: losses or weights stay not finite, or an accelerator's memory is too small; it has the report until then.
        AskedToEnd: the process was, and the checkpoint is written.
    """
    started = time.monotonic()
    if recipe.embedding_table == "sharded":
        check_sharding()
    torch.manual_seed(recipe.seed)
    examples = with_validation(load_examples(shop, inputs, propensity=recipe.weight_by_propensity), recipe.seed)
    report = count_rows(examples, inputs)
    spec = describe(shop, recipe, inputs, examples)
    dataset = Dataset(examples, spec)
    warn_of_slow_reads(examples.storage, recipe.shuffle_gb)
    log.info(
        "%d train, %d validation and %d test rows read in %.1f s",
        report.train_rows,
        report.validation_rows,
        report.test_rows,
        time.monotonic() - started,
    )
    with failures_told(report):
        learn(shop, dataset, spec, report, out, parent, checkpoints, checkpoint_seconds)
    report.seconds = time.monotonic() - started
    log.info(
        "best epoch %d, validation loss %.5f, %.1f s in all",
        report.best_epoch,
        report.best_validation_loss,
        report.seconds,
    )
    return report


def learn(
    shop: Shop,
    dataset: Dataset,
    spec: ModelSpec,
    report: TrainingReport,
    out: Path,
    parent: Path | None,
    checkpoints: Path | None,
    checkpoint_seconds: float,
) -> None:
    """Train on the examples of a dataset and write the model, filling the report as it goes."""
    recipe, examples = spec.recipe, dataset.examples
    device, deciding = training_device(), deciding_rows(examples, recipe.seed)
    course = begin(shop, spec, dataset.by_propensity().subset(examples.is_train), parent, report, device)
    check_labels(dataset.subset(examples.is_train), dataset.subset(deciding), spec)
    dataset = dataset.to(device)
    learnt, validation = dataset.by_propensity(), dataset.subset(deciding)
    train = learnt.subset(examples.is_train)
    if report.warm_started:
        inherited = validation_metrics(course.model, validation)["validation_loss"]
        report.best_validation_loss = inherited if math.isfinite(inherited) else math.inf
        log.info("parent's weights: validation loss %.5f", inherited)
    with (
        deterministic(device),
        resumable(course, examples, checkpoints, checkpoint_seconds) as pause,
        event_file(out / "tensorboard") as tell,
    ):
        for row in course.report.epochs:  # of the attempt whose checkpoint was taken up
            tell_epoch(tell, row)
        while not course.serving:
            later = max(recipe.max_epochs - course.epoch, 0) * train.size + learnt.size
            row = train_epoch(course, train, later, pause, tell) | validation_metrics(course.model, validation)
            tell_epoch(tell, row)
            judge(course, row)
            if course.waited >= recipe.patience or course.epoch > recipe.max_epochs:
                course.return_to_best()
                course.serving = True
        # What serves learns from all days, the newest too. What is measured, and what the next night starts from, never
        # saw them.
        row = train_epoch(course, learnt, 0, pause, tell)
    if not math.isfinite(row["train_loss"]):
        log.warning(
            "the pass over the newest days gives a loss or weights that are not finite: the measured weights serve"
        )
        course.return_to_best()
    save_model(course.model, out / SERVING)
    course.return_to_best()
    save_model(course.model, out)


def count_rows(examples: Examples, inputs: TrainingInputs) -> TrainingReport:
    """Return a report with the rows of each split.

    Raises:
        InputError: there is nothing to train on, or nothing to measure on.
    """
    is_test = ~(examples.is_train | examples.is_validation)
    train, validation, test = (int(rows.sum()) for rows in (examples.is_train, examples.is_validation, is_test))
    if not train or not test:
        raise InputError(
            f"training_examples of {inputs.as_of_date}: {train} train and {test} test rows; "
            "give the night more days of logs"
        )
    return TrainingReport(train, validation, test, warm_started=False)


def describe(shop: Shop, recipe: Recipe, inputs: TrainingInputs, examples: Examples) -> ModelSpec:
    """Return what the night's ranker is made of."""
    users, targets = dense_names(shop)
    normalization = load_normalization(inputs.normalization, [*users, *targets], recipe.bucketize)
    return model_spec(shop, recipe, examples.vocabularies, normalization, str(inputs.as_of_date))


def begin(
    shop: Shop, spec: ModelSpec, train: Dataset, parent: Path | None, report: TrainingReport, device: torch.device
) -> Course:
    """Return the course of a new ranker on a device, with the parent's weights or at the tasks' base rates."""
    model, examples = RankingModel(spec), train.examples
    scales = regression_scales(train, spec)
    model.chain.log_scale.copy_(scales.log())
    report.warm_started = warm_start(model, parent, examples)
    if not report.warm_started:
        start_at_base_rates(model, train)
    asked = fit_topics(model, examples, np.flatnonzero(examples.is_train), request_scenarios(shop))
    told = {name: [round(rate, 3) for rate in rates] for name, rates in asked.items()}
    log.info("off the request's topic, from unrelated to all but the leaf shared, a click is that much rarer: %s", told)
    if spec.recipe.embedding_table == "sharded":
        model.fields.shard(device, spec.recipe.l2_embedding)
    return Course(model.to(device), scales.to(device), report)


def train_epoch(course: Course, train: Dataset, later: int, pause: Callable[[], None], tell: Tell) -> dict[str, float]:
    """Pass once over the rows and leave the average of the steps' weights; stop at once when a loss is not finite.

    A pass that a checkpoint broke off goes on behind the batches that are done. `pause` is called before each batch; `tell`
    hears how it goes every ten seconds. The time left that is logged is that of this pass and of those behind it, which have
    `later` rows at most; measuring is not in it.

    Returns:
        epoch, train_loss (mean over impressions; NaN also where a weight is not finite), rows_per_s (of what this process did).
    """
    steps, recipe, epoch = course.steps, course.model.spec.recipe, course.epoch
    course.model.train()
    whole, train = train.size, train.thinned(recipe.negative_share, recipe.seed, epoch)
    later = round(later * train.size / whole)  # they are thinned alike
    # A small shop gets smaller batches, so that an epoch has enough steps to learn from.
    batch_size = min(recipe.batch_size, max(_LEAST_BATCH, train.size // _LEAST_STEPS))
    mean_weight = train.weights[train.chunks[train.chunks >= 0]].mean(0).clamp(min=1e-12).to(course.device)
    batches = train.shuffled_batches(batch_size, recipe.seed, epoch)
    if course.running is None:
        torch.manual_seed(recipe.seed * 100_003 + epoch)  # a balance's draws
        course.running = EpochPass(WeightAverage(course.model, recipe.weight_average))
    running, rows_before = course.running, course.running.rows
    started = told = time.monotonic()
    for chunks in train.read_ahead(batches[running.batch :]):
        pause()
        steps.set_rate(rate_share(recipe, epoch, running.batch, len(batches)) * 0.5**course.report.halvings)
        loss = steps.gradient(train, chunks, mean_weight)
        if not math.isfinite(loss):
            running.total = math.nan
            break
        running.average.before_step()
        steps.move()
        running.average.update()
        running.add(loss, rows=int((train.chunks[chunks] >= 0).sum()))
        if time.monotonic() - told > _LOG_SECONDS:
            told = time.monotonic()
            pace = (running.rows - rows_before) / (told - started)
            log.info(
                "epoch %d: batch %d of %d, loss %.5f, %.0f rows/s, %.0f s left in all at most",
                epoch,
                running.batch,
                len(batches),
                running.loss,
                pace,
                (train.size - running.rows + later) / pace,
            )
            values = {"running/loss": running.loss, "running/rows_per_s": pace}
            tell(round(1000 * (epoch - 1 + running.batch / len(batches))), values)
    steps.end_epoch()
    running.average.apply()
    # A loss tells of the weights before its step alone.
    if any(any_rank(not all_finite(course.model))):
        running.total = math.nan
    course.running = None
    return {
        "epoch": float(epoch),
        "train_loss": running.loss,
        "rows_per_s": (running.rows - rows_before) / (time.monotonic() - started),
    }


def all_finite(model: RankingModel) -> bool:
    """Return whether all weights and moments are numbers; of a table in parts, this process's part."""
    return all(bool(tensor.isfinite().all()) for tensor in (*model.parameters(), *model.buffers()))


def tell_epoch(tell: Tell, row: dict[str, float]) -> None:
    """Write the metrics of an epoch into the event file."""
    tell(int(row["epoch"]), {f"epoch/{name}": value for name, value in row.items() if name != "epoch"})


def judge(course: Course, row: dict[str, float]) -> None:
    """Keep the weights of an epoch if they are the best so far; if a loss or weight is not finite, go back to those at half the
    rates.

    Raises:
        EngineError: that was so too often.
    """
    report = course.report
    if not math.isfinite(row["train_loss"]) or not math.isfinite(row["validation_loss"]):
        report.halvings += 1
        if report.halvings > _MAX_HALVINGS:
            raise EngineError(
                f"training loss or weights are not finite after {_MAX_HALVINGS} halvings of the learning rates; "
                "lower learning_rate in the recipe"
            )
        log.warning(
            "epoch %d: the loss or a weight is not finite; back to the best weights at half the learning rates",
            course.epoch,
        )
        course.return_to_best()
        course.take_new_steps()
        return
    report.epochs.append(row)
    course.waited += 1
    if row["validation_loss"] < report.best_validation_loss:
        report.best_epoch, report.best_validation_loss, course.waited = course.epoch, row["validation_loss"], 0
        course.keep_best()
    told = ", ".join(f"{name} {value:.5g}" for name, value in row.items() if name != "epoch")
    log.info("epoch %d: %s", course.epoch, told)
    course.epoch += 1
