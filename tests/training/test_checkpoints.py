import dataclasses
import json
import math
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from nightshelf.errors import EngineError
from training import checkpoints
from training.artifact import SERVING
from training.checkpoints import MANIFEST
from training.interruption import AskedToEnd, asked_to_end
from training.schedule import rate_share
from training.steps import Steps
from training.train_ranker import train_ranker

BATCHES = 12  # of an epoch of the night that all tests share
# Trains as the test does, and is hit by a signal in the middle of a step.
CHILD = """
import os, pickle, sys
from nightshelf.errors import NightshelfError
from training.steps import Steps
from training.train_ranker import train_ranker
arguments, step, number = pickle.load(sys.stdin.buffer)
move, steps = Steps.move, []
def hit(self):
    steps.append(1)
    if len(steps) == step:
        os.kill(os.getpid(), number)
    move(self)
Steps.move = hit
try:
    train_ranker(**arguments)
except NightshelfError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def weights(folder):
    found = [load_file(path / "weights.safetensors") for path in (folder, folder / SERVING)]
    return {f"{place} {name}": tensor for place, part in enumerate(found) for name, tensor in part.items()}


def assert_equal_bits(one, other):
    one, other = weights(one), weights(other)
    assert list(one) == list(other)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def without_pace(report):
    return [{name: value for name, value in row.items() if name != "rows_per_s"} for row in report.epochs]


@pytest.fixture
def disturb(monkeypatch):
    """Return disturb(act): act(n) is called in the middle of each following step of training, the n-th."""
    move = Steps.move

    def disturb(act):
        steps = []

        def disturbed(self):
            steps.append(1)
            act(len(steps))
            move(self)

        monkeypatch.setattr(Steps, "move", disturbed)

    return disturb


def end_at(step):
    return lambda n: signal.raise_signal(signal.SIGTERM) if n == step else None


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {"balancing": "equal", "warm_start": True},
        {
            "balancing": "uncertainty",
            "negative_share": 0.5,
            "decay": "cosine",
            "warm_up": 0.5,
            "embedding_optimizer": "lazy_adam",
        },
        {"balancing": "dwa", "dropout": 0.2},
        {"balancing": "gradnorm"},
        {"balancing": "famo"},
        {"balancing": "pcgrad"},
    ],
    ids=lambda changes: changes["balancing"],
)
def test_interrupted_again_and_again_it_ends_with_equal_bits(
    demo_shop, night, recipe, trained, tmp_path, disturb, changes
):
    """With SIGTERM every seven steps: in the epochs, at their borders, in the pass for serving."""
    arguments = (demo_shop, recipe(**changes, max_epochs=3, patience=2), night.inputs)
    parent = trained.folder if "warm_start" in changes else None
    undisturbed = train_ranker(*arguments, tmp_path / "undisturbed", parent)
    told = []
    while len(told) < 20:
        disturb(end_at(7))
        try:
            report = train_ranker(*arguments, tmp_path / "out", parent, tmp_path / "checkpoints")
        except EngineError as error:
            told.append(str(error))
            continue
        break
    assert told[0] == "training was interrupted; run the stage again and it goes on at epoch 1, batch 8"
    last = str(len(undisturbed.epochs) + 1)
    assert {"1", "2", last} <= {text.split("epoch ")[1][0] for text in told}
    assert_equal_bits(tmp_path / "out", tmp_path / "undisturbed")
    assert without_pace(report) == without_pace(undisturbed)


@pytest.mark.parametrize(
    ("number", "step", "changes"),
    [
        pytest.param(signal.SIGTERM, 20, {}, id="SIGTERM"),
        pytest.param(
            signal.SIGKILL, 20, {"balancing": "gradnorm", "dropout": 0.2}, id="SIGKILL", marks=pytest.mark.long
        ),
    ],
)
def test_a_process_that_is_killed_in_mid_epoch_goes_on_with_equal_bits(
    demo_shop, night, recipe, tmp_path, number, step, changes
):
    arguments = {"shop": demo_shop, "recipe": recipe(**changes), "inputs": night.inputs}
    train_ranker(**arguments, out=tmp_path / "undisturbed")
    arguments |= {"out": tmp_path / "out", "checkpoints": tmp_path / "checkpoints"}
    often = {"checkpoint_seconds": 0.0} if number == signal.SIGKILL else {}
    told = pickle.dumps(({**arguments, **often}, step, number))
    child = subprocess.run([sys.executable, "-c", CHILD], input=told, capture_output=True, check=False)
    assert child.returncode == {signal.SIGTERM: EngineError.exit_code, signal.SIGKILL: -signal.SIGKILL}[number]
    if number == signal.SIGTERM:
        assert b"interrupted" in child.stderr
    done = json.loads((tmp_path / "checkpoints" / MANIFEST).read_text())
    assert done["epoch"] == 2 and done["batch"] > 1
    assert not list((tmp_path / "out").rglob("*.json"))
    train_ranker(**arguments)
    assert_equal_bits(tmp_path / "out", tmp_path / "undisturbed")


@pytest.fixture
def interrupted(demo_shop, night, recipe, tmp_path, disturb):
    """Return the arguments of a training that was interrupted in its ninth step; the next is in its first."""
    arguments = {
        "shop": demo_shop,
        "recipe": recipe(max_epochs=1),
        "inputs": night.inputs,
        "out": tmp_path / "out",
        "checkpoints": tmp_path / "checkpoints",
    }
    disturb(end_at(9))
    with pytest.raises(EngineError, match="goes on at epoch 1, batch 10"):
        train_ranker(**arguments)
    disturb(end_at(1))
    return arguments


def test_a_checkpoint_of_the_same_training_is_taken_up(interrupted, caplog):
    with caplog.at_level("INFO"), pytest.raises(EngineError, match="goes on at epoch 1, batch 11"):
        train_ranker(**interrupted)
    assert "is taken up at epoch 1, batch 10" in caplog.text


@pytest.mark.parametrize(
    "other", ["recipe, first weights", "first weights", "model, first weights, examples, features", "features", "code"]
)
def test_a_checkpoint_of_another_training_is_left_aside(
    interrupted, recipe, trained, make_night, tmp_path, caplog, other
):
    match other:
        case "recipe, first weights":
            interrupted["recipe"] = recipe(max_epochs=1, seed=2)
        case "first weights":
            interrupted["parent"] = trained.folder
        case "model, first weights, examples, features":
            interrupted["inputs"] = make_night(tmp_path / "night", seed=5).inputs
        case "features":
            interrupted["inputs"] = dataclasses.replace(
                interrupted["inputs"], item_features=[with_another_brand(interrupted["inputs"], tmp_path)]
            )
        case "code":
            manifest = interrupted["checkpoints"] / MANIFEST
            content = json.loads(manifest.read_text())
            content["origin"]["code"] = "of yesterday"
            manifest.write_text(json.dumps(content))
    with pytest.raises(EngineError, match="goes on at epoch 1, batch 2"):
        train_ranker(**interrupted)
    assert f"is left aside, training starts afresh: other {other}\n" in caplog.text


def with_another_brand(inputs, folder):
    """Write the items anew, one of them with the brand of another, and return the file."""
    items = pq.read_table(inputs.item_features)
    brands = items["brand_index"].to_pylist()
    place = next(place for place, brand in enumerate(brands) if brand != brands[0])
    brands[place] = brands[0]
    column = pa.array(brands, items["brand_index"].type)
    pq.write_table(
        items.set_column(items.schema.get_field_index("brand_index"), "brand_index", column), folder / "items"
    )
    return folder / "items"


@pytest.mark.parametrize("harm", ["truncated", "changed", "lost", "half a manifest", "a manifest of something else"])
def test_a_broken_checkpoint_is_told_and_training_starts_afresh(interrupted, caplog, harm):
    manifest = interrupted["checkpoints"] / MANIFEST
    file = manifest.with_name(json.loads(manifest.read_text())["file"])
    content = file.read_bytes()
    match harm:
        case "truncated":
            file.write_bytes(content[: len(content) // 2])
        case "changed":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "lost":
            file.unlink()
        case "half a manifest":
            manifest.write_text(manifest.read_text()[:100])
        case "a manifest of something else":
            manifest.write_text("[]")
    with pytest.raises(EngineError, match="goes on at epoch 1, batch 2"):
        train_ranker(**interrupted)
    assert "is broken, training starts afresh" in caplog.text


@pytest.fixture
def full_disk_from(monkeypatch):
    """Return full_disk_from(n): from the n-th checkpoint on, counted from 1, the system lets none grow beyond 100 kB."""
    write, written = checkpoints.write_checkpoint, []

    def full_disk_from(first):
        def write_onto_a_full_disk(*given):
            written.append(1)
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            if len(written) >= first:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
            try:
                write(*given)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        written.clear()
        monkeypatch.setattr(checkpoints, "write_checkpoint", write_onto_a_full_disk)

    return full_disk_from


def test_where_the_disk_is_full_training_goes_on_without_a_checkpoint(
    demo_shop, night, recipe, tmp_path, caplog, full_disk_from
):
    arguments = (demo_shop, recipe(max_epochs=1), night.inputs)
    undisturbed = train_ranker(*arguments, tmp_path / "undisturbed")
    full_disk_from(1)
    report = train_ranker(*arguments, tmp_path / "out", checkpoints=tmp_path / "checkpoints", checkpoint_seconds=0.0)
    assert without_pace(report) == without_pace(undisturbed)
    assert_equal_bits(tmp_path / "out", tmp_path / "undisturbed")
    assert "training goes on, but no checkpoint can be written into" in caplog.text and "File too large" in caplog.text
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_who_is_asked_to_end_on_a_full_disk_keeps_the_checkpoint_before(
    demo_shop, night, recipe, tmp_path, caplog, full_disk_from, disturb
):
    arguments = {"shop": demo_shop, "recipe": recipe(max_epochs=1), "inputs": night.inputs, "out": tmp_path / "out"}
    train_ranker(**{**arguments, "out": tmp_path / "undisturbed"})
    arguments["checkpoints"] = tmp_path / "checkpoints"
    full_disk_from(4)
    disturb(end_at(5))
    with pytest.raises(
        AskedToEnd, match=r"interrupted, and no checkpoint .*File too large.*; make room there, then run the"
    ):
        train_ranker(**arguments, checkpoint_seconds=0.0)
    manifest = json.loads((tmp_path / "checkpoints" / MANIFEST).read_text())
    assert [path.name for path in (tmp_path / "checkpoints").glob("*.pt")] == [manifest["file"]]
    full_disk_from(math.inf)
    disturb(lambda n: None)
    with caplog.at_level("INFO"):
        train_ranker(**arguments)
    assert f"is taken up at epoch 1, batch {manifest['batch'] + 1}" in caplog.text and manifest["batch"] == 2
    assert_equal_bits(tmp_path / "out", tmp_path / "undisturbed")


def test_a_loss_that_is_not_finite_is_survived_across_interruptions(
    demo_shop, night, recipe, tmp_path, disturb, monkeypatch
):
    """A weight is lost in the second epoch, and the loss with it; after the way back the training is interrupted."""
    star = {"kind": "star", "input": 24, "sizes": [16, 8], "auxiliary_sizes": [8]}
    small = recipe(balancing="famo", decay="linear", backbone=star)
    arguments = (demo_shop, small, night.inputs)
    gradient = Steps.gradient

    def train(out, ends, checkpoints):
        losses = []

        def gradient_of_a_bad_moment(self, *batch):
            if len(losses) == 19:
                self.model.item_vector.bias.data.fill_(math.nan)
            losses.append(gradient(self, *batch))
            return losses[-1]

        monkeypatch.setattr(Steps, "gradient", gradient_of_a_bad_moment)
        disturb(end_at(ends))
        return train_ranker(*arguments, tmp_path / out, checkpoints=checkpoints)

    expected = train("undisturbed", 0, None)
    assert expected.halvings == 1
    with pytest.raises(EngineError, match="goes on at epoch 2, batch"):
        train("out", 24, tmp_path / "checkpoints")
    manifest = json.loads((tmp_path / "checkpoints" / MANIFEST).read_text())
    state = torch.load(tmp_path / "checkpoints" / manifest["file"], weights_only=True)
    share = rate_share(small, 2, manifest["batch"] - 1, BATCHES)
    rates = [optimizer["param_groups"][0]["lr"] for optimizer in state["steps"]["optimizers"]]
    assert rates == pytest.approx([0.5 * share * 0.005, 0.5 * share * 0.05])
    monkeypatch.setattr(Steps, "gradient", gradient)
    disturb(lambda n: None)
    report = train_ranker(*arguments, tmp_path / "out", checkpoints=tmp_path / "checkpoints")
    assert report.halvings == 1
    assert without_pace(report) == without_pace(expected)
    assert_equal_bits(tmp_path / "out", tmp_path / "undisturbed")


def test_a_signal_that_nobody_asked_for_acts_in_the_end_and_a_second_interrupt_at_once():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
    try:
        with asked_to_end() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # of one who asks the group and one who asks the process
            assert asked() and not heard
        assert heard == [signal.SIGTERM]
        with pytest.raises(EngineError), asked_to_end():
            signal.raise_signal(signal.SIGTERM)
            raise EngineError("it was asked, and told")
        assert heard == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt), asked_to_end() as asked:
            signal.raise_signal(signal.SIGINT)
            assert asked()
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)


def test_in_another_thread_signals_are_left_alone():
    told = []

    def ask():
        with asked_to_end() as asked:
            told.append(asked())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert told == [False]
