import pickle

import pytest

from nightshelf.errors import EngineError
from training import tracking
from training.score import Ranker


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    tracking.ensure_tracker(f"sqlite:///{home}/mlflow/mlflow.db", home / "mlflow" / "artifacts")
    return home


def test_a_training_is_logged_registered_and_downloaded_again(tracker, trained, recipe):
    tags = {"as_of_date": "2026-02-14", "run_id": "night-1"}
    run = tracking.log_training("nightshelf-test", trained.report, recipe(), trained.folder, tags)
    first, second = tracking.register(run, "nightshelf-test", tags), tracking.register(run, "nightshelf-test", tags)
    assert (first, second) == ("1", "2")
    assert tracking.get_alias("nightshelf-test", "champion") is None
    assert tracking.get_alias("nobody", "champion") is None
    tracking.set_alias("nightshelf-test", "champion", second)
    assert tracking.get_alias("nightshelf-test", "champion") == second
    assert tracking.get_tags("nightshelf-test", second)["as_of_date"] == "2026-02-14"
    tracking.set_tag("nightshelf-test", second, "note", "good")
    assert tracking.get_tags("nightshelf-test", second)["note"] == "good"
    folder = tracking.download("nightshelf-test", second)
    assert folder.is_relative_to(tracker)
    assert Ranker.load(folder).tasks == ["click", "cart", "purchase", "spend"]
    history = tracking.MlflowClient().get_metric_history(run, "validation_loss")
    assert [m.value for m in history] == [row["validation_loss"] for row in trained.report.epochs]
    assert tracking.MlflowClient().get_run(run).data.params["backbone.expert_sizes"] == "[16, 8]"
    for file in (path for path in folder.rglob("*") if path.is_file()):
        with pytest.raises(
            (pickle.UnpicklingError, UnicodeDecodeError, ValueError, EOFError, KeyError, IndexError, AttributeError)
        ):
            pickle.loads(file.read_bytes())


def test_a_training_that_failed_is_a_failed_run_without_a_model(tracker, trained, recipe):
    tags = {"as_of_date": "2026-02-14", "run_id": "night-2"}
    versions = tracking.MlflowClient().search_model_versions("name = 'nightshelf-test'")
    error = EngineError("weights are not finite")
    run_id = tracking.log_failure("nightshelf-test", error, trained.report, recipe(), tags)
    run = tracking.MlflowClient().get_run(run_id)
    assert run.info.status == "FAILED" and run.data.tags["error"] == "weights are not finite"
    assert run.data.params["backbone.expert_sizes"] == "[16, 8]"
    history = tracking.MlflowClient().get_metric_history(run_id, "train_loss")
    assert [m.value for m in history] == [row["train_loss"] for row in trained.report.epochs]
    assert tracking.MlflowClient().list_artifacts(run_id) == []
    assert len(tracking.MlflowClient().search_model_versions("name = 'nightshelf-test'")) == len(versions)


def test_opening_a_tracker_twice_is_harmless(tracker):
    before = tracking.get_alias("nightshelf-test", "champion")
    tracking.ensure_tracker(f"sqlite:///{tracker}/mlflow/mlflow.db", tracker / "mlflow" / "artifacts")
    assert tracking.get_alias("nightshelf-test", "champion") == before


def test_a_tracker_that_fails_is_told_with_its_remedy_and_no_password(tracker, tmp_path, monkeypatch):
    with pytest.raises(EngineError, match="see that it runs"):
        tracking.download("nightshelf-test", "99")
    (tmp_path / "file").write_text("no database, only text " * 100)
    with pytest.raises(EngineError, match="MLflow at"):
        tracking.ensure_tracker(f"sqlite:///{tmp_path}/file", tmp_path / "a")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking.ensure_tracker("http://me:secret@127.0.0.1:9", tmp_path / "a")
    with pytest.raises(EngineError, match=r"http://\*\*\*@127") as told:
        tracking.get_alias("nightshelf-test", "champion")
    assert "secret" not in str(told.value)
    tracking.ensure_tracker(f"sqlite:///{tracker}/mlflow/mlflow.db", tracker / "mlflow" / "artifacts")
