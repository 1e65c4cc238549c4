"""What the stage `train` leaves behind when a training fails: the tracker is a real one."""

import logging
import signal
from collections.abc import Callable

import pytest

from nightshelf.errors import EngineError, InputError
from nightshelf.paths import artifact_dir, tracking_uri
from pipelines import train
from pipelines.models import registered_name
from pipelines.stage import Night
from training import together, tracking
from training.course import TrainingReport
from training.failures import TrainingFailed
from training.interruption import AskedToEnd


@pytest.fixture
def ending(night: Night, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return ending(end): the stage runs, and its training is this call, or ends with this error."""

    def run(end: BaseException | Callable[[], TrainingReport]) -> None:
        def train_ranker(**_: object) -> TrainingReport:
            if isinstance(end, BaseException):
                raise end
            return end()

        monkeypatch.setattr(train, "training_inputs", lambda night: None)
        monkeypatch.setattr(together, "train_ranker", train_ranker)
        train.run(night)

    return run


def runs(night: Night):  # type: ignore[no-untyped-def]
    """Return the runs of the shop, which other tests may have left in a tracker that they share."""
    tracking.ensure_tracker(tracking_uri(night.shop), artifact_dir(night.shop))
    client = tracking.MlflowClient()
    experiment = client.get_experiment_by_name(registered_name(night))
    return client.search_runs([experiment.experiment_id]) if experiment else []


@pytest.fixture
def new_run(night: Night):  # type: ignore[no-untyped-def]
    """Return new_run(): the one run that a test has left."""
    before = {run.info.run_id for run in runs(night)}

    def find():  # type: ignore[no-untyped-def]
        (run,) = (run for run in runs(night) if run.info.run_id not in before)
        return run

    return find


def report() -> TrainingReport:
    epochs = [{"epoch": 1, "train_loss": 0.5, "validation_loss": float("nan")}]
    return TrainingReport(10, 2, 2, False, epochs=epochs)


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (TrainingFailed("weights are not finite", report()), "FAILED", "weights are not finite"),
        (InputError("column 'x' holds NaN"), "FAILED", "column 'x' holds NaN"),
        (KeyError("nobody"), "FAILED", "KeyError: 'nobody'"),
        (ValueError("long " * 2000), "FAILED", ("ValueError: " + "long " * 2000)[:5000]),
        (AskedToEnd("training was interrupted"), "KILLED", "training was interrupted"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt: "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_training_that_ends_without_a_model_is_in_the_tracker_and_is_no_challenger(  # type: ignore[no-untyped-def]
    night: Night, ending, new_run, error: BaseException, status: str, told: str
) -> None:
    with pytest.raises(type(error)) as raised:
        ending(error)
    assert raised.value is error
    run = new_run()
    assert (run.info.status, run.data.tags["error"]) == (status, told)
    assert run.data.tags["run_id"] == night.run_id and "sequence_encoder.kind" in run.data.params
    if isinstance(error, TrainingFailed):
        assert run.data.metrics["train_loss"] == 0.5 and "validation_loss" not in run.data.metrics
    assert tracking.get_alias(registered_name(night), "challenger") is None


def test_a_signal_before_the_first_step_and_one_more_meanwhile_end_the_stage_and_its_run(  # type: ignore[no-untyped-def]
    night: Night, ending, new_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_failure, before = tracking.log_failure, signal.getsignal(signal.SIGTERM)

    def be_asked_again(*given):  # type: ignore[no-untyped-def]
        signal.raise_signal(signal.SIGTERM)
        return log_failure(*given)

    def read() -> TrainingReport:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal was not heard")

    monkeypatch.setattr(tracking, "log_failure", be_asked_again)
    with pytest.raises(AskedToEnd, match="interrupted; run it again"):
        ending(read)
    assert new_run().info.status == "KILLED"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_model_that_the_tracker_does_not_take_leaves_no_run_that_seems_to_go_on(  # type: ignore[no-untyped-def]
    night: Night, ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_model_but_lose_the_disk_for_artefacts() -> TrainingReport:
        (folder := night.shop.home / "models" / night.run_id).mkdir(parents=True)
        (folder / "model.json").write_text("{}")
        client = tracking.MlflowClient()
        lost = client.create_experiment("lost", artifact_location=f"file://{folder}/model.json")
        monkeypatch.setattr(tracking, "_experiment", lambda client, name: lost)
        return report()

    with pytest.raises(EngineError, match=r"MLflow at .* see that it runs"):
        ending(write_model_but_lose_the_disk_for_artefacts)
    client = tracking.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("lost").experiment_id])
    assert run.info.status == "FAILED" and "Error: " in run.data.tags["error"]
    assert tracking.get_alias(registered_name(night), "challenger") is None


def test_a_tracker_that_fails_too_does_not_hide_why_the_training_ended(  # type: ignore[no-untyped-def]
    night: Night, ending, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lose_tracker() -> TrainingReport:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        tracking.ensure_tracker("http://127.0.0.1:9", artifact_dir(night.shop))
        raise InputError("column 'x' holds NaN")

    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="column 'x' holds NaN"):
        ending(lose_tracker)
    assert "the tracker does not know of this training: MLflow at http://127.0.0.1:9" in caplog.text
