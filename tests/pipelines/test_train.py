"""What the stage `train` leaves behind when a training fails: the tracker is a real one."""

import logging

import pytest

from nightshelf.errors import EngineError
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
    """Return ending(error): the stage runs, and its training ends with this error."""

    def run(error: EngineError) -> None:
        def fail(**_: object) -> None:
            raise error

        monkeypatch.setattr(train, "training_inputs", lambda night: None)
        monkeypatch.setattr(together, "train_ranker", fail)
        train.run(night)

    return run


def runs(night: Night):  # type: ignore[no-untyped-def]
    """Return the runs of the shop, which other tests may have left in a tracker that they share."""
    tracking.ensure_tracker(tracking_uri(night.shop), artifact_dir(night.shop))
    client = tracking.MlflowClient()
    experiment = client.get_experiment_by_name(registered_name(night))
    return client.search_runs([experiment.experiment_id]) if experiment else []


def failed() -> TrainingFailed:
    report = TrainingReport(10, 2, 2, False, epochs=[{"epoch": 1, "train_loss": 0.5, "validation_loss": float("nan")}])
    return TrainingFailed("weights are not finite", report)


def test_a_training_that_fails_is_in_the_tracker_and_is_no_challenger(night: Night, ending) -> None:  # type: ignore[no-untyped-def]
    before = {run.info.run_id for run in runs(night)}
    with pytest.raises(TrainingFailed, match="not finite"):
        ending(failed())
    (run,) = (run for run in runs(night) if run.info.run_id not in before)
    assert run.info.status == "FAILED" and run.data.metrics["train_loss"] == 0.5
    assert "validation_loss" not in run.data.metrics
    assert run.data.tags["error"] == "weights are not finite" and run.data.tags["run_id"] == night.run_id
    assert tracking.get_alias(registered_name(night), "challenger") is None


def test_one_that_was_asked_to_end_is_not_over(night: Night, ending) -> None:  # type: ignore[no-untyped-def]
    before = len(runs(night))
    with pytest.raises(AskedToEnd):
        ending(AskedToEnd("training was interrupted"))
    assert len(runs(night)) == before


def test_a_tracker_that_fails_too_does_not_hide_why_the_training_ended(  # type: ignore[no-untyped-def]
    night: Night, ending, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("MLflow does not answer")

    monkeypatch.setattr(tracking, "log_failure", refuse)
    with caplog.at_level(logging.WARNING), pytest.raises(TrainingFailed, match="weights are not finite"):
        ending(failed())
    assert "the tracker does not know of this training: MLflow does not answer" in caplog.text
