"""Two processes, started by torchrun, against one."""

import json
import pickle
import subprocess
import sys
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from nightshelf.errors import InputError
from training.artifact import SERVING
from training.checkpoints import MANIFEST
from training.ranks import cut
from training.recipe import Balancing
from training.train_ranker import train_ranker

# Trains with each recipe; where one is to end, the last process is asked to in the middle of that step. Where there is a
# room, the last process has memory for so many impressions at once.
PROCESS = """
import os, pickle, signal, sys
from pathlib import Path
from nightshelf.errors import EngineError
import torch
from training import steps as steps_module
from training.ranks import joined_ranks, rank
from training.steps import Steps, batch_losses
from training.train_ranker import train_ranker
trainings, end, room = pickle.loads(Path(sys.argv[1]).read_bytes())
def losses(model, batch, scales):
    if rank() == 1 and int(batch.is_row.sum()) > room:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return batch_losses(model, batch, scales)
steps_module.batch_losses = losses
move, steps = Steps.move, []
def hit(self):
    steps.append(1)
    if len(steps) == end and rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    move(self)
Steps.move = hit
with joined_ranks():
    for arguments in trainings:
        try:
            train_ranker(**arguments)
        except EngineError as error:
            print(f"rank {rank()}: {error}", file=sys.stderr)
threads = [Path(f"/proc/self/task/{thread}/comm").read_text() for thread in os.listdir("/proc/self/task")]
assert not any("gloo" in name for name in threads), threads  # one that outlives the interpreter may abort it
"""


@pytest.fixture
def torchrun(tmp_path):
    """Return torchrun(trainings, end, room): two processes train each, and are asked to end at a step; returns what they told."""

    def run(trainings, end=0, room=10**9):
        (tmp_path / "process.py").write_text(PROCESS)
        (tmp_path / "trainings").write_bytes(pickle.dumps((trainings, end, room)))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [*command, tmp_path / "process.py", tmp_path / "trainings"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def weights(folder):
    return [load_file(folder / place / "weights.safetensors") for place in (".", SERVING)]


def difference(one, other):
    """Return the greatest difference of two models' weights, of the measured and of the serving ones."""
    pairs = zip(weights(one), weights(other), strict=True)
    return max(
        float((mine[name].double() - theirs[name].double()).abs().max()) for mine, theirs in pairs for name in mine
    )


ALL = get_args(Balancing)


@pytest.mark.parametrize(
    ("precision", "balancings"),
    [("float32", ("equal", "gradnorm", "upgrad")), pytest.param("bfloat16", ALL, marks=pytest.mark.long)],
)
def test_two_processes_train_as_one_does(demo_shop, make_night, recipe, tmp_path, torchrun, precision, balancings):
    night = make_night(tmp_path / "night", users=20)

    def training(balancing, folder):
        weights = {"task_weights": {"cart": 2.0}} if balancing == "fixed" else {}
        small = recipe(max_epochs=1, balancing=balancing, **weights, precision=precision)
        return {"shop": demo_shop, "recipe": small, "inputs": night.inputs, "out": tmp_path / folder / balancing}

    torchrun([training(balancing, "two") for balancing in balancings])
    for balancing in balancings:
        train_ranker(**training(balancing, "one"))
        assert difference(tmp_path / "one" / balancing, tmp_path / "two" / balancing) <= 1e-6, balancing
    assert len(list((tmp_path / "two").rglob("events.out.tfevents.*"))) == len(balancings)


MOVING = {
    "adasparse": {"backbone": {"kind": "adasparse", "input": 24, "sizes": [16, 8]}},
    "star": {"backbone": {"kind": "star", "sizes": [16, 8]}, "dropout": 0.2},
    "adl": {"backbone": {"kind": "adl", "sizes": [16, 8]}, "balancing": "pcgrad"},
    "dropout": {"dropout": 0.3, "balancing": "famo"},
}


@pytest.mark.long
def test_two_processes_move_moments_and_counts_and_drop_units_as_one_does(
    demo_shop, make_night, recipe, tmp_path, torchrun
):
    night = make_night(tmp_path / "night", users=25)

    def training(name, folder):
        small = recipe(max_epochs=1, **MOVING[name])
        return {"shop": demo_shop, "recipe": small, "inputs": night.inputs, "out": tmp_path / folder / name}

    torchrun([training(name, "two") for name in MOVING])
    for name in MOVING:
        train_ranker(**training(name, "one"))
        assert difference(tmp_path / "one" / name, tmp_path / "two" / name) <= 1e-6, name
    assert weights(tmp_path / "one" / "adasparse")[0]["backbone.grown.steps"] > 0
    assert weights(tmp_path / "one" / "star")[0]["backbone.norm.moments.steps"].min() > 0


@pytest.mark.parametrize("balancing", ["equal", pytest.param("upgrad", marks=pytest.mark.long)])
def test_where_one_process_has_no_room_both_compute_smaller_slices(
    demo_shop, night, recipe, tmp_path, torchrun, balancing
):
    training = {"shop": demo_shop, "recipe": recipe(max_epochs=1, balancing=balancing), "inputs": night.inputs}
    told = torchrun([{**training, "out": tmp_path / "two"}], room=30)
    assert "batches are computed in 4 slices from now on" in told
    assert "process" not in told
    train_ranker(**training, out=tmp_path / "one")
    assert 0 < difference(tmp_path / "two", tmp_path / "one") <= 1e-3


def test_where_no_slice_is_small_enough_for_one_process_all_tell_the_remedy(
    demo_shop, night, recipe, tmp_path, torchrun
):
    told = torchrun(
        [{"shop": demo_shop, "recipe": recipe(max_epochs=1), "inputs": night.inputs, "out": tmp_path / "out"}], room=0
    )
    remedy = "does not fit into the memory of cpu; give the recipe a smaller batch_size"
    assert all(any(f"rank {rank}:" in line and remedy in line for line in told.splitlines()) for rank in (0, 1))


@pytest.mark.long
def test_where_one_process_is_asked_both_end_and_one_alone_goes_on(demo_shop, night, recipe, tmp_path, torchrun):
    training = {"shop": demo_shop, "recipe": recipe(), "inputs": night.inputs}
    resumed = {**training, "out": tmp_path / "resumed", "checkpoints": tmp_path / "checkpoints"}
    told = torchrun([resumed], end=16)
    assert told.count("goes on at epoch 2") == 2  # both, in one line or two
    assert json.loads((tmp_path / "checkpoints" / MANIFEST).read_text())["epoch"] == 2
    train_ranker(**training, out=tmp_path / "undisturbed")
    train_ranker(**resumed)
    assert difference(tmp_path / "resumed", tmp_path / "undisturbed") <= 1e-6


def test_alone_a_process_has_all_slices():
    slices = cut(torch.arange(5), 2)
    assert [(number, part.tolist()) for number, part in slices.own] == [(0, [0, 2, 4]), (1, [1, 3])]
    assert slices.gather([torch.ones(1), torch.zeros(1)]) == [torch.ones(1), torch.zeros(1)]
    assert len(cut(torch.arange(1), 2).own) == 1


def test_a_sharded_table_is_refused_to_one_process_and_without_torchrec(
    demo_shop, night, recipe, tmp_path, monkeypatch
):
    training = (demo_shop, recipe(embedding_table="sharded"), night.inputs, tmp_path)
    with pytest.raises(InputError, match=r"needs several processes.*; start them with torchrun --nproc-per-node 2, or"):
        train_ranker(*training)
    monkeypatch.setattr("training.sharded_table.ranks", lambda: 2)
    monkeypatch.setattr("training.sharded_table.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs torchrec and fbgemm_gpu, .*; run `make .venv/torchrec/ready` and"):
        train_ranker(*training)
