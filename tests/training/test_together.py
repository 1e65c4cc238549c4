"""Processes that the one which asks for a training starts itself."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest
from safetensors.torch import load_file

from nightshelf.errors import EngineError, InputError
from training import together
from training.checkpoints import MANIFEST
from training.course import TrainingReport
from training.failures import TrainingFailed
from training.interruption import AskedToEnd
from training.together import train_together
from training.train_ranker import train_ranker


def training_of(shop, recipe, night, out, **more):
    return {"shop": shop, "recipe": recipe, "inputs": night.inputs, "out": out, **more}


def weights(folder):
    return load_file(folder / "weights.safetensors")


def test_two_processes_give_the_report_and_the_weights_of_one(demo_shop, night, recipe, tmp_path):
    reports = [train_together(n, training_of(demo_shop, recipe(dropout=0.1), night, tmp_path / str(n))) for n in (1, 2)]
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert max(float((one[name].double() - two[name].double()).abs().max()) for name in one) <= 1e-6
    assert reports[0].best_epoch == reports[1].best_epoch > 0
    assert [row["validation_loss"] for row in reports[1].epochs] == pytest.approx(
        [row["validation_loss"] for row in reports[0].epochs]
    )
    assert "WORLD_SIZE" not in os.environ


def test_an_error_of_theirs_is_the_callers(demo_shop, night, recipe, tmp_path):
    with pytest.raises(InputError, match="embedding_table: sharded"):
        train_together(2, training_of(demo_shop, recipe(embedding_table="sharded", embedding_size=6), night, tmp_path))


def test_more_processes_than_accelerators_are_refused_before_any_is_started(monkeypatch, caplog):
    """Where there are accelerators; and who leaves some of them idle is told."""
    monkeypatch.setattr(together, "accelerators", lambda: 2)
    monkeypatch.setattr(together, "start_processes", None)
    with pytest.raises(InputError, match=r"training.processes = 3: 2 accelerators are here.*; write 2, or hide them"):
        train_together(3, {})
    monkeypatch.setattr(together, "train_ranker", lambda **training: training)
    logger = logging.getLogger("nightshelf.train")
    monkeypatch.setattr(logger.parent, "propagate", True)
    with caplog.at_level(logging.INFO, logger="nightshelf"):
        assert train_together(1, {"seed": 1}) == {"seed": 1}
    assert "2 accelerators are here, and 1 trains; `training: {processes: 2}`" in caplog.text


def test_a_failure_keeps_its_report_on_the_way_between_processes():
    report = TrainingReport(3, 2, 1, warm_started=False, halvings=3)
    failed = pickle.loads(pickle.dumps(TrainingFailed("no end", report)))
    assert str(failed) == "no end" and failed.report == report


def test_where_one_is_killed_all_end(demo_shop, night, recipe, tmp_path, monkeypatch):
    started = together.start_processes

    def start_and_kill(*arguments, **options):
        context = started(*arguments, **options)
        threading.Timer(3.0, lambda: os.kill(context.processes[1].pid, signal.SIGKILL)).start()
        return context

    monkeypatch.setattr(together, "start_processes", start_and_kill)
    with pytest.raises(EngineError, match=r"process [12] of 2 that train together: .*(SIGKILL|closed|reset)"):
        train_together(2, training_of(demo_shop, recipe(max_epochs=500, patience=500), night, tmp_path))


def test_who_is_asked_to_end_before_they_have_read_their_rows_says_so(demo_shop, night, recipe, tmp_path, monkeypatch):
    started = together.start_processes

    def start_and_be_asked(*arguments, **options):
        context = started(*arguments, **options)
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        return context

    monkeypatch.setattr(together, "start_processes", start_and_be_asked)
    with pytest.raises(AskedToEnd, match="interrupted; run the stage again"):
        train_together(2, training_of(demo_shop, recipe(), night, tmp_path))


ASKED = """
import pickle, sys
from pathlib import Path
from nightshelf.errors import EngineError
from training.together import train_together
if __name__ == "__main__":
    try:
        train_together(2, pickle.loads(Path(sys.argv[1]).read_bytes()))
    except EngineError as error:
        print(error)
        raise SystemExit(error.exit_code)
"""


@pytest.mark.long
def test_who_is_asked_to_end_asks_them_and_goes_on_alone(demo_shop, night, recipe, tmp_path):
    training = training_of(demo_shop, recipe(max_epochs=60, patience=60), night, tmp_path / "out")
    training |= {"checkpoints": tmp_path / "checkpoints"}
    (tmp_path / "program.py").write_text(ASKED)
    (tmp_path / "training").write_bytes(pickle.dumps(training))
    program = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path / "training"], stdout=subprocess.PIPE, text=True
    )
    events = tmp_path / "out" / "tensorboard"
    while not list(events.glob("*")) and program.poll() is None:
        time.sleep(0.05)
    program.terminate()
    told, _ = program.communicate(timeout=120)
    assert program.returncode == EngineError.exit_code and "goes on at epoch" in told
    assert (tmp_path / "checkpoints" / MANIFEST).exists()
    report = train_ranker(**training)
    undisturbed = train_ranker(**{**training, "out": tmp_path / "undisturbed", "checkpoints": None})
    assert report.best_epoch == undisturbed.best_epoch
    one, two = weights(tmp_path / "out"), weights(tmp_path / "undisturbed")
    assert max(float((one[name].double() - two[name].double()).abs().max()) for name in one) <= 1e-5
