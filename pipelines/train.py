"""Stage `train`: one model for all tasks in all scenarios, from the night's examples; it becomes the challenger."""

from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from nightshelf.dates import days_back
from nightshelf.errors import InputError
from nightshelf.logs import get_logger
from nightshelf.paths import artifact_dir, checkpoint_dir, tracking_uri
from pipelines.code_version import code_version
from pipelines.example_days import example_window_of
from pipelines.models import champion_before, registered_name
from pipelines.stage import Night, StageResult

if TYPE_CHECKING:
    from training.recipe import Recipe


def run(night: Night) -> StageResult:
    """Train a challenger, warm-started from the champion of the night before, and register it.

    An attempt that was killed leaves a checkpoint, from which the next one goes on.
    """
    if not night.retrain:
        return StageResult(message="no retraining was asked for: the champion stays")
    from training import tracking
    from training.interruption import signals_end
    from training.ranks import joined_ranks, rank
    from training.recipe import load_recipe
    from training.together import train_together

    tracking.ensure_tracker(tracking_uri(night.shop), artifact_dir(night.shop))
    name = registered_name(night)
    parent_version = champion_before(night)
    parent = tracking.download(name, parent_version) if parent_version else None
    folder = night.shop.home / "models" / night.run_id
    recipe = load_recipe(night.shop.model)
    inputs = training_inputs(night)
    checkpoints = checkpoint_dir(night.shop, night.as_of_date)
    tags = {
        "as_of_date": str(night.as_of_date),
        "run_id": night.run_id,
        "parent": parent_version or "",
        "code_version": code_version(),
    }
    training = {
        "shop": night.shop,
        "recipe": recipe,
        "inputs": inputs,
        "out": folder,
        "parent": parent,
        "checkpoints": checkpoints,
    }
    with signals_end():
        with joined_ranks():
            helps = rank() > 0
            try:
                report = train_together(night.shop.training.processes, training)
            except BaseException as error:
                if not helps:
                    _tell(name, error, recipe, tags)
                raise
        if helps:
            return StageResult(message="the first process registers the model")
        run_id = tracking.log_training(name, report, recipe, folder, tags)
        version = tracking.register(run_id, name, tags)
        tracking.set_alias(name, "challenger", version)
    rmtree(checkpoints, ignore_errors=True)
    message = f"version {version} is the challenger" + (
        f", warm-started from version {parent_version}" if report.warm_started else ""
    )
    rows = report.train_rows + report.validation_rows + report.test_rows
    return StageResult(rows, inputs=["training_examples", "user_sequences", "vocabularies"], message=message)


def _tell(name: str, error: BaseException, recipe: "Recipe", tags: dict[str, str]) -> None:
    """Let the tracker know of a training that ended without a model; what ended it is told to the user in any case."""
    from training import tracking
    from training.failures import report_of
    from training.interruption import AskedToEnd, asked_to_end

    try:
        with asked_to_end():
            tracking.log_failure(name, error, report_of(error), recipe, tags)
    except AskedToEnd:
        pass  # the stage ends as it is
    except Exception as refused:
        get_logger("train").warning("the tracker does not know of this training: %s", refused)


def training_inputs(night: Night):  # type: ignore[no-untyped-def]
    """Return the files that a model of this night learns from or is measured on.

    Raises:
        InputError: the night has no training examples.
    """
    from training.data import TrainingInputs

    day, window = [night.as_of_date], example_window_of(night)
    examples = night.warehouse.files("training_examples", window.days)
    vocabularies = night.warehouse.files("vocabularies", day)
    if not examples or not vocabularies:
        raise InputError(f"there are no training examples of {night.as_of_date}; run `nightshelf stage features` first")
    return TrainingInputs(
        window=window,
        training_examples=examples,
        user_sequences=night.warehouse.files("user_sequences", days_back(night.as_of_date, night.shop.history_days)),
        item_features=night.warehouse.files("item_features", day),
        vocabularies=vocabularies,
        normalization=night.warehouse.files("normalization", day),
    )


def challenger(night: Night) -> tuple[str, Path]:
    """Return the version that asks to be promoted, and its downloaded artefacts.

    Raises:
        InputError: there is none of this night.
    """
    from training import tracking

    tracking.ensure_tracker(tracking_uri(night.shop), artifact_dir(night.shop))
    name = registered_name(night)
    version = tracking.get_alias(name, "challenger")
    if version is None or tracking.get_tags(name, version).get("as_of_date") != str(night.as_of_date):
        raise InputError(f"there is no challenger of {night.as_of_date}; run `nightshelf stage train` first")
    return version, tracking.download(name, version)
