"""Training on an accelerator, and where its memory has no room for a batch."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nightshelf.errors import EngineError, InputError
from training import batches
from training import steps as steps_module
from training.artifact import SERVING
from training.batches import Dataset
from training.devices import ranking_device, training_device
from training.predict import predict
from training.score import Ranker
from training.steps import Steps, batch_losses
from training.train_ranker import train_ranker

# Trains with each recipe on the second device; tells what torch is asked to compute there.
PROCESS = """
import pickle, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import second_device
library = second_device.register()
from training import batches, storage
from training.train_ranker import train_ranker
for arguments, name in pickle.loads(Path(sys.argv[2]).read_bytes()):
    storage.free_memory = lambda: 0 if name == "mapped" else 2**40
    batches.free_on = lambda device: 1000 if name == "too large for the device" else 2**40
    train_ranker(**arguments)
print(len(second_device.Elsewhere.asked))
"""
# Scores with each trained model on the second device.
RANKING = """
import pickle, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
import second_device
library = second_device.register()
from training.devices import ranking_device
from training.predict import predict
from training.score import Ranker
features, folders, users, items = pickle.loads(Path(sys.argv[2]).read_bytes())
found = {}
for folder in folders:
    ranker = Ranker.load(folder, ranking_device())
    found[folder] = {s: ranker.score_users(features, s, users, items) for s in features.scenarios}
Path(sys.argv[3]).write_bytes(pickle.dumps(found))
print(len(second_device.Elsewhere.asked))
"""
RECIPES = {
    "plain": {},
    "gradnorm": {"balancing": "gradnorm"},
    "famo": {"balancing": "famo", "embedding_optimizer": "lazy_adam"},
    "upgrad": {"balancing": "upgrad", "negative_share": 0.5},
    "star": {"backbone": {"kind": "star", "sizes": [8]}},
    "adasparse": {"backbone": {"kind": "adasparse", "input": 24, "sizes": [16, 8]}},
    "sar_net": {"backbone": {"kind": "sar_net", "input": 24, "expert_sizes": [16, 8]}},
    "m3oe": {"backbone": {"kind": "m3oe", "input": 24, "entrance_sizes": [24, 16], "expert_sizes": [16, 8]}},
    "hstu": {"sequence_encoder": {"kind": "hstu"}, "losses": {"spend": "zero_inflated_lognormal"}},
    "towers": {"towers": "scenario", "task_relation": "escm2_dr", "losses": {"click": "pairwise"}},
    "mapped": {},
    "too large for the device": {"negative_share": 0.5},
}


@pytest.mark.long
def test_another_device_trains_to_the_same_weights(demo_shop, make_night, recipe, tmp_path, monkeypatch):
    """Nothing of the CPU's gets among the tensors of the device, and nothing of them is lost on the way."""
    monkeypatch.setattr(steps_module, "SLICES", 1)  # as an accelerator computes
    shop, night = demo_shop.model_copy(update={"home": tmp_path}), make_night(tmp_path / "night", users=25)

    def training(name, folder):
        small = recipe(max_epochs=1, **RECIPES[name])
        return {"shop": shop, "recipe": small, "inputs": night.inputs, "out": tmp_path / folder / name}

    jobs = [(training(name, "second"), name) for name in RECIPES]
    (tmp_path / "trainings").write_bytes(pickle.dumps(jobs))
    (tmp_path / "process.py").write_text(PROCESS)
    command = [sys.executable, tmp_path / "process.py", Path(__file__).parent, tmp_path / "trainings"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.splitlines()[-1]) > 50
    for name in RECIPES:
        train_ranker(**training(name, "cpu"))
        for place in (".", SERVING):
            mine, other = (load_file(tmp_path / f / name / place / "weights.safetensors") for f in ("cpu", "second"))
            apart = max(float((mine[key].double() - other[key].double()).abs().max()) for key in mine)
            assert apart <= 1e-4, (name, place)  # the CPU's kernels add in another order


@pytest.mark.parametrize("name", ["plain", "star", "hstu"])
def test_another_device_ranks_alike(demo_shop, night, shelf, recipe, tmp_path, name):
    train_ranker(demo_shop, recipe(max_epochs=1, **RECIPES[name]), night.inputs, tmp_path / "model")
    users, folder = torch.arange(night.users + 1), tmp_path / "model"
    items = torch.randint(-1, night.items, (len(users), 20), generator=torch.Generator().manual_seed(1))
    (tmp_path / "asked").write_bytes(pickle.dumps((shelf, [folder], users, items)))
    (tmp_path / "process.py").write_text(RANKING)
    command = [sys.executable, tmp_path / "process.py", Path(__file__).parent, tmp_path / "asked", tmp_path / "found"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 30
    found, here = pickle.loads((tmp_path / "found").read_bytes())[folder], Ranker.load(folder)
    for scenario, scores in found.items():
        for task, values in here.score_users(shelf, scenario, users, items).items():
            torch.testing.assert_close(scores[task], values, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_columns_that_take_more_than_half_of_a_devices_memory_stay_in_main_memory(
    build, recipe, example_night, monkeypatch
):
    _, spec = build(recipe())
    dataset, sizes = Dataset(example_night, spec), []
    for free in (2**40, 0):
        monkeypatch.setattr(batches, "free_on", lambda device, free=free: free)
        there = dataset.to(torch.device("meta"))
        sizes.append({name: column.nbytes for name, column in vars(there).items() if getattr(column, "is_meta", False)})
        assert {column.is_meta for column in [*there.histories, *there.exposure, *there.own]} == {free > 0}
    on_device = sum(sizes[0].values()) + sum(
        column.nbytes for column in [*dataset.histories, *dataset.exposure, *dataset.own]
    )
    assert sizes[1] == {}
    for free, goes in ((2 * on_device, True), (2 * on_device - 2, False)):
        monkeypatch.setattr(batches, "free_on", lambda device, free=free: free)
        assert dataset.to(torch.device("meta")).labels.is_meta == goes
    monkeypatch.undo()
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (7, 9))
    assert batches.free_on(torch.device("cuda", 0)) == 7
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: torch.zeros(1, device="nowhere"))
    assert batches.free_on(torch.device("cuda", 0)) == 0  # torch's own RuntimeError


def test_what_is_dropped_hangs_on_the_step_and_its_slice_alone(build, recipe, example_night):
    model, spec = build(recipe(dropout=0.5))
    model.train()
    dataset, ones, found = Dataset(example_night, spec), torch.ones(4), []
    for turns, drawn_before, made in ((1, 0, 3), (1, 7, 3), (2, 0, 3), (1, 0, 4)):
        torch.manual_seed(drawn_before)
        state, steps = torch.get_rng_state(), Steps(model, ones)
        steps._slices, steps._turns, steps._made = 2 // turns, turns, made  # side by side, or one after another
        found.append(steps.gradient(dataset, torch.arange(60), ones))
        assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[1] == found[2] != found[3]


def test_each_process_has_an_accelerator_of_its_own_or_they_share_the_cpu(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    for kind, count, expected in ((None, 0, "cpu"), ("mps", 1, "cpu"), ("cuda", 2, "cuda:1")):
        found = kind and torch.device(kind)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available, found=found: found)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda count=count: count)
        assert training_device() == torch.device(expected)
        assert ranking_device(3) == torch.device(expected)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    with pytest.raises(
        InputError, match=r"process 2 on this machine .* \(1 are here\): give torchrun --nproc-per-node 1"
    ):
        training_device()


class Memory:
    """Room for so many impressions at once; beyond, torch's own error."""

    def __init__(self, rows):
        self.rows, self.largest = rows, 0

    def losses(self, model, batch, scales):
        rows = int(batch.is_row.sum())
        if rows > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.largest = max(self.largest, rows)
        return batch_losses(model, batch, scales)


@pytest.mark.parametrize(
    "changes",
    [
        *({"balancing": name} for name in ("equal", "uncertainty", "gradnorm", "famo", "upgrad")),
        {"dropout": 0.3},
        {"backbone": {"kind": "star", "sizes": [8]}, "balancing": "equal"},
    ],
    ids=str,
)
def test_a_batch_too_large_for_memory_is_computed_in_smaller_slices(build, recipe, example_night, monkeypatch, changes):
    found = {}
    for room in (10**9, 30):
        model, spec = build(recipe(**changes))
        dataset, memory = Dataset(example_night, spec), Memory(room)
        monkeypatch.setattr(steps_module, "batch_losses", memory.losses)
        steps, losses = Steps(model, torch.ones(4)), []
        for place in range(3):
            torch.manual_seed(place)
            losses.append(steps.gradient(dataset, torch.arange(60 * place, 60 * place + 60), torch.ones(4)))
            steps.move()
        found[room] = losses, torch.cat([p.detach().flatten() for p in model.parameters()])
    assert memory.largest <= 30
    if "dropout" not in changes and "backbone" not in changes:  # whose draws and moments are the slices' own
        assert found[30][0] == pytest.approx(found[10**9][0], rel=1e-4)
        torch.testing.assert_close(found[30][1], found[10**9][1], rtol=1e-3, atol=1e-4)
    else:
        assert found[30][0] == pytest.approx(found[10**9][0], rel=0.2)


def test_where_no_slice_is_small_enough_the_remedy_is_told(build, recipe, example_night, monkeypatch):
    model, spec = build(recipe())
    monkeypatch.setattr(steps_module, "batch_losses", Memory(0).losses)
    with pytest.raises(EngineError, match="does not fit into the memory of cpu; give the recipe a smaller batch_size"):
        Steps(model, torch.ones(4)).gradient(Dataset(example_night, spec), torch.arange(20), torch.ones(4))


class Crowded:
    """A part of a ranker in a memory that has no room for it where its input is longer than `rows`."""

    def __init__(self, model, part, rows, monkeypatch):
        self.part, self.rows, self.refused = getattr(model, part), rows, 0
        monkeypatch.setattr(model, part, self)

    def __call__(self, first, *rest):
        if len(first.hidden if hasattr(first, "hidden") else first.fields) > self.rows:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")
        return self.part(first, *rest)


def test_predictions_without_room_are_made_in_smaller_batches(build, recipe, example_night, monkeypatch):
    model, spec = build(recipe())
    dataset = Dataset(example_night, spec)
    expected = predict(model, dataset).at_first
    crowded = Crowded(model, "pair_logits", 30, monkeypatch)
    torch.testing.assert_close(predict(model, dataset).at_first, expected, rtol=1e-4, atol=1e-5)
    assert crowded.refused > 3
    crowded.rows = 0
    with pytest.raises(EngineError, match=r"no room for a prediction \(.*2\.00 GiB\.\); .* CUDA_VISIBLE_DEVICES="):
        predict(model, dataset)


@pytest.mark.parametrize("part", ["user_side", "pair_logits"])
def test_shelves_without_room_are_scored_in_smaller_batches(night, shelf, trained, monkeypatch, part):
    ranker, users = Ranker.load(trained.folder), torch.arange(night.users + 1)
    items = torch.randint(0, night.items, (len(users), 300))
    expected = ranker.score_users(shelf, "cart", users, items)
    crowded = Crowded(ranker.model, part, 3, monkeypatch)
    found = ranker.score_users(shelf, "cart", users, items)
    assert crowded.refused > 3
    for task in ranker.tasks:
        torch.testing.assert_close(found[task], expected[task], rtol=1e-4, atol=1e-5)


def test_a_night_without_room_says_so_before_it_ranks(shelf, trained, monkeypatch):
    ranker = Ranker.load(trained.folder)

    def no_room(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(ranker.model, "item_side", no_room)
    with pytest.raises(EngineError, match="no room for a night's users and items"):
        ranker.prepare(shelf)
