"""Trainings whose table is sharded over processes, beside one process with the whole table."""

import json
import pickle

import pytest
from safetensors.torch import load_file

from training.artifact import SERVING
from training.checkpoints import MANIFEST
from training.steps import Steps
from training.task_gradients import TaskGradients
from training.train_ranker import train_ranker

pytestmark = pytest.mark.sharded
# A balance of each way to ask more of a step than its losses, and half the bits.
BALANCINGS = ["equal", "uncertainty", "gradnorm", "famo", "pcgrad"]
RECIPES = {name: {"balancing": name} for name in BALANCINGS} | {"half": {"precision": "bfloat16"}}
# What TorchRec's float32 sums of gradients, in another order than ours, may make of a training.
TOLERANCE = 1e-5


@pytest.fixture
def train(torchrun, tmp_path):
    """Return train(trainings, processes=2, lost=0, end=0): what train_process.py told."""

    def run(trainings, processes=2, lost=0, end=0):
        (tmp_path / "trainings").write_bytes(pickle.dumps((trainings, lost, end)))
        return torchrun("train_process.py", processes, tmp_path / "trainings")

    return run


class OfAllButTheTable(TaskGradients):
    """As of a sharded table, which has no part in the angles."""

    def gramian(self):
        self._each, whole = self._each[:1], self._each
        found = super().gramian()
        self._each = whole
        return found


def weights(folder):
    found = [load_file(folder / place / "weights.safetensors") for place in (".", SERVING)]
    return {f"{place} {name}": tensor for place, part in enumerate(found) for name, tensor in part.items()}


def difference(one, other):
    """Return the greatest difference of two models' weights, of the measured and of the serving ones."""
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize(("processes", "users", "batch_size"), [(2, 20, 256), (3, 20, 256), (3, 4, 44)])
def test_processes_train_a_sharded_table_as_one_trains_the_whole(
    demo_shop, make_night, recipe, tmp_path, train, monkeypatch, processes, users, batch_size
):
    """Four users have 24 user-days, cut into batches of 11, 11 and 2: too few for three processes to share."""
    night = make_night(tmp_path / "night", users=users)

    def training(name, table):
        small = recipe(max_epochs=1, batch_size=batch_size, embedding_table=table, **RECIPES[name])
        return {"shop": demo_shop, "recipe": small, "inputs": night.inputs, "out": tmp_path / table / name}

    # Three processes cut a batch in three, one in two: with half the bits that alone makes other weights.
    names = [name for name in RECIPES if name != "half" or processes == 2]
    train([training(name, "sharded") for name in names], processes)
    monkeypatch.setattr("training.steps.TaskGradients", OfAllButTheTable)
    for name in names:
        train_ranker(**training(name, "whole"))
        assert difference(tmp_path / "whole" / name, tmp_path / "sharded" / name) <= TOLERANCE, name
    first, last = (weights(tmp_path / "whole" / name)["0 fields.table.weight"] for name in ("equal", "famo"))
    assert (first - last).abs().max() > 100 * TOLERANCE


def test_a_parents_table_is_sharded_and_a_loss_that_is_not_finite_is_survived(
    demo_shop, night, recipe, trained, tmp_path, train, monkeypatch
):
    """A weight is lost in the first epoch: training goes back to the best weights, with new sums at half the rates."""

    def training(table):
        training = {"shop": demo_shop, "recipe": recipe(embedding_table=table), "inputs": night.inputs}
        return {**training, "parent": trained.folder, "out": tmp_path / table}

    told, gradient, tried = train([training("sharded")], lost=5), Steps.gradient, []

    def gradient_of_a_bad_moment(self, *batch):
        tried.append(1)
        if len(tried) == 5:
            self.model.item_vector.bias.data.fill_(float("nan"))
        return gradient(self, *batch)

    monkeypatch.setattr(Steps, "gradient", gradient_of_a_bad_moment)
    assert train_ranker(**training("whole")).halvings == 1
    assert "warm start from the model of" in told
    assert "epoch 1: the loss or a weight is not finite; back to the best weights at half the learning rates" in told
    assert difference(tmp_path / "sharded", tmp_path / "whole") <= TOLERANCE


def test_interrupted_it_goes_on_with_equal_bits_in_as_many_processes(demo_shop, night, recipe, tmp_path, train):
    training = {"shop": demo_shop, "recipe": recipe(embedding_table="sharded"), "inputs": night.inputs}
    resumed = {**training, "out": tmp_path / "resumed", "checkpoints": tmp_path / "checkpoints"}
    told = train([resumed], end=16)
    assert sum("goes on at epoch 2" in line for line in told.splitlines()) == 2
    manifest = json.loads((tmp_path / "checkpoints" / MANIFEST).read_text())
    assert manifest["epoch"] == 2 and len(manifest["sha256"]) == 2
    kept = {file.name: file.read_bytes() for file in (tmp_path / "checkpoints").iterdir()}
    assert "is taken up at epoch 2" in train([resumed, {**training, "out": tmp_path / "undisturbed"}])
    assert difference(tmp_path / "resumed", tmp_path / "undisturbed") == 0
    # What another number of processes finds, or one whose part is broken, is left aside.
    for name, content in kept.items():
        (tmp_path / "checkpoints" / name).write_bytes(content)
    assert "training starts afresh: other first weights, processes" in train([resumed], processes=3)
    for name, content in kept.items():
        (tmp_path / "checkpoints" / name).write_bytes(content[:100] if name.startswith("1.") else content)
    assert "lacks a process's part, training starts afresh" in train([resumed])
    assert difference(tmp_path / "resumed", tmp_path / "undisturbed") == 0
