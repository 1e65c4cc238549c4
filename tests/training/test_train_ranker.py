import dataclasses
import datetime as dt
import math
import pickle
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from nightshelf.errors import EngineError, InputError
from training.artifact import SERVING, file_hash, load_model, load_spec, save_model
from training.balancing import make_balance
from training.base_rates import regression_scales, start_at_base_rates
from training.batches import Dataset
from training.data import load_examples
from training.failures import TrainingFailed, report_of
from training.interruption import AskedToEnd
from training.predict import predict
from training.ranking_model import RankingModel
from training.steps import Steps, batch_losses
from training.train_ranker import train_ranker
from training.transfer import copy_weights, read_night
from training.validation import check_labels, deciding_rows, validation_metrics, with_validation
from training.vocabulary import Vocabulary


@pytest.mark.parametrize("size", [1, 2, 101])
def test_slices_add_up_to_the_gradient_of_the_whole_batch(build, example_night, recipe, size):
    model, spec = build(recipe(balancing="uncertainty"))
    dataset, chunks, ones = Dataset(example_night, spec), torch.arange(size), torch.ones(4)
    balance = make_balance(spec.recipe, spec.tasks, model.backbone)
    batch = dataset.batch(chunks)
    loss = balance(batch_losses(model, batch, ones) / batch.is_row.sum())
    loss.backward()
    whole = {name: p.grad.to_dense() for name, p in model.named_parameters()}
    steps = Steps(model, ones)
    assert steps.gradient(dataset, chunks, ones) == pytest.approx(loss.item(), rel=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad.to_dense(), whole[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(steps.balance.log_variance.grad, balance.log_variance.grad)


def test_ten_steps_take_the_loss_down_by_a_known_amount(build, take_steps, example_night, recipe):
    small = recipe(learning_rate={"dense": 0.002})
    model, spec = build(small)
    dataset = Dataset(example_night, spec).subset(example_night.is_train)
    model.chain.log_scale.copy_(regression_scales(dataset, spec).log())
    start_at_base_rates(model, dataset)
    losses = take_steps(model, dataset, 10)
    binary = 0.0  # at the base rates the binary losses are their entropies, and Tweedie's is 4
    for place, task in enumerate(spec.tasks):
        rate = float(example_night.labels[example_night.is_train, place].mean())
        binary += 4.0 if task.kind == "regression" else -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    assert losses[0] - binary == pytest.approx(0.02, abs=0.02)  # what untrained weights add
    assert losses[0] - losses[-1] == pytest.approx(1.3, abs=0.3)


def test_position_is_removed_from_the_ranking_prediction(demo_shop, example_night, trained):
    model = load_model(trained.folder)
    torch.nn.init.normal_(model.position_bias.table)
    moved = dataclasses.replace(example_night, position=np.full(len(example_night), 9))
    one, other = predict(model, Dataset(example_night, model.spec)), predict(model, Dataset(moved, model.spec))
    assert torch.equal(one.at_first, other.at_first)
    assert not torch.allclose(one.at_position, other.at_position)


def test_learns_the_pattern_and_keeps_the_best_epoch(demo_shop, example_night, trained):
    report = trained.report
    best = min(report.epochs, key=lambda row: row["validation_loss"])
    assert report.best_epoch == best["epoch"]
    assert report.best_validation_loss == best["validation_loss"] < 0.97
    assert best["auc_click"] > 0.65
    assert report.train_rows + report.validation_rows + report.test_rows == len(example_night)
    assert load_spec(trained.folder).as_of_date == "2026-02-14"


def test_two_runs_give_equal_bits_whatever_the_order_of_files(demo_shop, make_night, recipe, tmp_path):
    night = make_night(tmp_path / "night", users=30, files=2)
    turned = dataclasses.replace(night.inputs, training_examples=night.inputs.training_examples[::-1])
    for name, inputs in (("a", night.inputs), ("b", turned)):
        train_ranker(demo_shop, recipe(dropout=0.2), inputs, tmp_path / name)
    one, other = load_file(tmp_path / "a" / "weights.safetensors"), load_file(tmp_path / "b" / "weights.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_a_tampered_model_is_refused(build, recipe, tmp_path):
    save_model(build(recipe())[0], tmp_path)
    weights = tmp_path / "weights.safetensors"
    sound = file_hash(weights)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(EngineError, match="differs from its hash"):
        load_model(tmp_path)
    manifest = tmp_path / "manifest.json"
    weights.write_bytes(b"no weights")
    manifest.write_text(manifest.read_text().replace(sound, file_hash(weights)))
    with pytest.raises(EngineError, match="the weights do not fit this code"):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(EngineError, match="is missing"):
        load_model(tmp_path)
    with pytest.raises(EngineError, match=r"manifest.json cannot be read"):
        load_model(tmp_path / "nowhere")


def test_a_warm_start_keeps_rows_and_grows_tables(demo_shop, night, make_night, trained, recipe, tmp_path):
    grown = make_night(tmp_path / "grown", users=75, items=55)
    still = recipe(max_epochs=1, learning_rate={"dense": 1e-9, "embedding": 1e-9}, l2_embedding=0, weight_decay=0)
    report = train_ranker(demo_shop, still, grown.inputs, tmp_path / "child", trained.folder)
    assert report.warm_started
    parent, child = load_model(trained.folder), load_model(tmp_path / "child")
    assert child.spec.user_fields["user_index"] == 76
    for field in range(len(parent.fields.sizes)):
        old, new, size = (
            int(parent.fields.offsets[field]),
            int(child.fields.offsets[field]),
            int(parent.fields.sizes[field]),
        )
        kept = child.fields.table.weight[new : new + size]
        assert torch.allclose(kept, parent.fields.table.weight[old : old + size], atol=1e-6), field
    fresh = child.fields.table.weight[61:76]
    assert fresh.abs().sum() > 0
    assert torch.allclose(child.user_layer.weight, parent.user_layer.weight, atol=1e-6)


def test_an_id_that_was_another_values_begins_as_its_bucket(demo_shop, night, example_night, recipe, trained):
    """Ids 5 and 6 of the brands were given anew on a later night; id 20 is new there; all else is as it was."""
    parent = load_model(trained.folder)
    words, later = example_night.vocabularies, dt.date(2026, 2, 15)
    brands, day = words["brand_index"], (later - dt.date(1970, 1, 1)).days
    since, bucket = np.zeros(21, np.int32), np.arange(21, dtype=np.int32)
    since[[5, 6, 20]], bucket[[5, 6, 20]] = day, (3, 8, 8)
    grown = {**words, "brand_index": Vocabulary(since, bucket)}
    spec = parent.spec.model_copy(update={"item_fields": {**parent.spec.item_fields, "brand_index": 21}})
    child = RankingModel(spec.model_copy(update={"as_of_date": str(later)}))
    assert copy_weights(parent, child, grown) == 3 + 21 - len(brands) - 1
    place = [*spec.user_fields, *spec.item_fields].index("brand_index")
    was, now = (
        model.fields.table.weight[int(model.fields.offsets[place]) :][: int(model.fields.sizes[place])]
        for model in (parent, child)
    )
    assert torch.equal(now[:5], was[:5])
    assert torch.equal(now[[5, 6, 7, 20]], was[[3, 8, 7, 8]])
    read_night(parent, grown)  # and the parent, if it stays champion, reads them so too
    fields = torch.ones(4, len(spec.item_fields), dtype=torch.int64)
    fields[:, list(spec.item_fields).index("brand_index")] = torch.tensor([5, 3, 20, 8])
    five, three, twenty, eight = parent.fields(fields, len(spec.user_fields))
    assert torch.equal(five, three) and torch.equal(twenty, eight) and not torch.equal(five, eight)


def test_a_parent_that_does_not_fit_is_left_aside(demo_shop, night, trained, recipe, tmp_path, caplog):
    report = train_ranker(
        demo_shop, recipe(max_epochs=1, attention_size=16), night.inputs, tmp_path / "a", trained.folder
    )
    assert not report.warm_started
    report = train_ranker(demo_shop, recipe(max_epochs=1, bucketize=[]), night.inputs, tmp_path / "c", trained.folder)
    assert not report.warm_started
    assert "'item_age_days': 15} and is {}" in caplog.text
    report = train_ranker(demo_shop, recipe(max_epochs=1), night.inputs, tmp_path / "b", tmp_path / "nowhere")
    assert not report.warm_started


def test_a_loss_that_is_not_finite_ends_in_an_engine_error_and_leaves_no_model(
    demo_shop, night, recipe, tmp_path, monkeypatch
):
    gradient, rates = Steps.gradient, set()

    def lost_from_the_third_batch(self, dataset, chunks, mean_weight):
        rates.add(self._optimizers[0].param_groups[0]["lr"])
        lost_from_the_third_batch.batches += 1
        loss = gradient(self, dataset, chunks, mean_weight)
        return math.nan if lost_from_the_third_batch.batches > 2 else loss

    lost_from_the_third_batch.batches = 0
    monkeypatch.setattr(Steps, "gradient", lost_from_the_third_batch)
    with pytest.raises(TrainingFailed, match="not finite after 2 halvings") as failed:
        train_ranker(demo_shop, recipe(max_epochs=30, patience=30), night.inputs, tmp_path / "out")
    assert failed.value.report.train_rows > 0 and failed.value.report.halvings == 3
    assert sorted(rates) == pytest.approx([max(rates) / 4, max(rates) / 2, max(rates)])
    assert not list((tmp_path / "out").rglob("*.json"))


def test_memory_that_is_too_small_for_more_than_a_batch_is_told_with_the_remedy(
    demo_shop, night, recipe, tmp_path, monkeypatch
):
    def no_room(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")

    monkeypatch.setattr(Steps, "move", no_room)
    with pytest.raises(TrainingFailed, match=r"no room for .*2\.00 GiB\.\); give the recipe a smaller") as failed:
        train_ranker(demo_shop, recipe(max_epochs=1), night.inputs, tmp_path)
    assert failed.value.report.train_rows > 0
    monkeypatch.setattr(Dataset, "to", no_room)  # before the first epoch
    with pytest.raises(TrainingFailed, match="give the recipe a smaller") as failed:
        train_ranker(demo_shop, recipe(max_epochs=1), night.inputs, tmp_path)
    assert failed.value.report.train_rows > 0 and not failed.value.report.epochs


@pytest.fixture
def infinite_gradient(monkeypatch):
    """Return infinite_gradient(step): the gradient of that step, counted from 1, is infinite at one weight of the table."""
    move = Steps.move

    def lose(at):
        moved = []

        def move_astray(self):
            moved.append(1)
            if len(moved) == at:
                self.model.fields.table.weight.grad._values()[0, 0] = math.inf
            move(self)

        monkeypatch.setattr(Steps, "move", move_astray)
        return moved

    return lose


@pytest.mark.parametrize("average", [0.0, 0.99])
def test_a_weight_lost_in_the_very_last_step_never_serves(
    demo_shop, night, recipe, tmp_path, caplog, infinite_gradient, average
):
    small, steps = recipe(max_epochs=1, weight_average=average), infinite_gradient(0)
    train_ranker(demo_shop, small, night.inputs, tmp_path / "as_it_is")
    assert "not finite" not in caplog.text
    infinite_gradient(len(steps))
    assert train_ranker(demo_shop, small, night.inputs, tmp_path / "lost").halvings == 0
    assert "weights that are not finite: the measured weights serve" in caplog.text
    measured, serving, others = (
        load_model(tmp_path / name).state_dict() for name in ("lost", f"lost/{SERVING}", f"as_it_is/{SERVING}")
    )
    assert all(torch.equal(measured[name], serving[name]) for name in measured)
    assert not torch.equal(others["fields.table.weight"], serving["fields.table.weight"])


def test_a_weight_lost_in_the_last_step_of_an_epoch_takes_training_back(
    demo_shop, night, recipe, tmp_path, caplog, infinite_gradient
):
    infinite_gradient(12)  # batches of an epoch
    report = train_ranker(demo_shop, recipe(max_epochs=1), night.inputs, tmp_path)
    assert report.halvings == 1 and len(report.epochs) == 1
    assert "epoch 1: the loss or a weight is not finite; back to the best weights" in caplog.text
    assert all(weight.isfinite().all() for weight in load_model(tmp_path / SERVING).state_dict().values())


@pytest.fixture(scope="module")
def skewed(night, tmp_path_factory):
    """A log of a policy that shows the first twenty items, which alone are clicked, whenever it can, and the others, drawn by
    chance, one time in five: its inputs with the propensities, and the click rate of all rows that it chose from."""
    rng, file = np.random.default_rng(3), tmp_path_factory.mktemp("skewed") / "examples.parquet"
    table = pq.read_table(night.inputs.training_examples[0])
    often = np.array(table["item_index"]) <= 20
    click = np.where(often, table["label_click"], 0).astype(np.float32)
    propensity = np.where(often, 1, 1 / 5).astype(np.float32)
    table = table.set_column(table.schema.get_field_index("label_click"), "label_click", pa.array(click))
    table = table.append_column("inverse_propensity", pa.array(1 / propensity))
    pq.write_table(table.filter(pa.array(rng.random(len(table)) < propensity)), file)
    is_train = np.array(table["event_date"]) < np.datetime64(night.inputs.window.validation_start)
    return dataclasses.replace(night.inputs, training_examples=[file]), click[is_train].mean()


def test_weighed_by_propensity_a_skewed_log_tells_the_rate_of_what_the_policy_chose_from(
    demo_shop, skewed, recipe, tmp_path
):
    inputs, rate = skewed
    still = {"max_epochs": 1, "learning_rate": {"dense": 1e-9, "embedding": 1e-9}}
    started, reports = {}, {}
    for weighed in (False, True):
        small, folder = recipe(**still, weight_by_propensity=weighed), tmp_path / str(weighed)
        reports[weighed] = train_ranker(demo_shop, small, inputs, folder)
        started[weighed] = float(load_model(folder).task_bias.weight[0].detach().sigmoid().mean())
    assert started[True] == pytest.approx(rate, rel=0.1)
    assert started[False] > 1.4 * rate
    # What is measured weighs its rows as ever: a model of the shown rows' rate is the better one on them.
    examples = load_examples(demo_shop, inputs)
    for weighed, report in reports.items():
        model = load_model(tmp_path / str(weighed))
        validation = Dataset(examples, model.spec).subset(deciding_rows(examples, 1))
        measured = validation_metrics(model, validation)["validation_loss"]
        assert report.epochs[0]["validation_loss"] == pytest.approx(measured, rel=1e-6)
    assert reports[False].best_validation_loss < reports[True].best_validation_loss


def test_weighed_by_propensity_the_loss_of_a_skewed_log_is_that_of_the_whole(
    demo_shop, night, build, recipe, example_night
):
    """Each row stands for itself and the rows that were not shown: here copies of it, so that the two losses are one."""
    model, spec = build(recipe())
    copies = 1 + example_night.item % 3
    whole = np.repeat(np.arange(len(example_night)), copies)
    names = [field.name for field in dataclasses.fields(example_night)]
    columns = [name for name in names if getattr(getattr(example_night, name), "shape", (0,))[0] == len(example_night)]
    every = dataclasses.replace(example_night, **{name: getattr(example_night, name)[whole] for name in columns})
    shown = dataclasses.replace(example_night, inverse_propensity=copies.astype(np.float32))
    found = []
    for dataset in (Dataset(every, spec), Dataset(shown, spec).by_propensity(), Dataset(shown, spec)):
        train = dataset.subset(dataset.examples.is_train)
        mean_weight = train.weights[train.chunks[train.chunks >= 0]].mean(0)
        found.append(Steps(model, torch.ones(4)).gradient(train, torch.arange(len(train.chunks)), mean_weight))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[2] != pytest.approx(found[0], rel=1e-3)


@pytest.mark.parametrize(
    "error", [KeyError("a bug"), InputError("a wrong input"), AskedToEnd("asked"), KeyboardInterrupt()]
)
def test_whatever_ends_a_training_stays_as_it_is_and_tells_how_far_it_came(
    demo_shop, night, recipe, tmp_path, monkeypatch, error
):
    def end(course, row):
        course.report.epochs.append(row)
        raise error

    monkeypatch.setattr("training.train_ranker.judge", end)
    with pytest.raises(type(error)) as raised:
        train_ranker(demo_shop, recipe(), night.inputs, tmp_path)
    assert raised.value is error
    report = report_of(pickle.loads(pickle.dumps(error)))  # as it comes from another process
    assert report.train_rows > 0 and len(report.epochs) == 1 and report.seconds > 0
    assert report_of(KeyError("of something else")) is None


def test_without_test_rows_nothing_is_trained(demo_shop, night, recipe, tmp_path):
    after = night.inputs.window.as_of_date + dt.timedelta(days=1)
    later = dataclasses.replace(night.inputs.window, validation_start=after, test_start=after)
    with pytest.raises(InputError, match="0 test rows"):
        train_ranker(demo_shop, recipe(), dataclasses.replace(night.inputs, window=later), tmp_path / "out")


@pytest.fixture(scope="module")
def with_turned_test_day(night, tmp_path_factory):
    """The night's inputs, but that all clicks of the test day are none, and the other way round."""
    file = tmp_path_factory.mktemp("turned") / "turned.parquet"
    table = pq.read_table(night.inputs.training_examples[0])
    is_test = np.array(table["event_date"]) >= np.datetime64(night.inputs.window.test_start)
    place = table.schema.get_field_index("label_click")
    turned = pa.array(np.where(is_test, 1 - np.array(table["label_click"]), table["label_click"]).astype(np.float32))
    pq.write_table(table.set_column(place, "label_click", turned), file)
    return dataclasses.replace(night.inputs, training_examples=[file])


def test_the_epoch_is_chosen_on_validation_alone(demo_shop, night, recipe, tmp_path, with_turned_test_day):
    """Whatever the labels of the test day are, the measured weights are the same."""
    reports = [
        train_ranker(demo_shop, recipe(max_epochs=3), inputs, tmp_path / name)
        for name, inputs in (("as_it_was", night.inputs), ("turned", with_turned_test_day))
    ]
    assert reports[0].epochs[0]["validation_loss"] == reports[1].epochs[0]["validation_loss"]
    weights = [load_model(tmp_path / name).state_dict() for name in ("as_it_was", "turned")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_without_a_validation_day_users_are_held_back_and_the_test_days_choose_nothing(
    demo_shop, night, example_night, recipe, tmp_path, caplog, with_turned_test_day
):
    window = dataclasses.replace(night.inputs.window, validation_start=night.inputs.window.test_start)
    reports = [
        train_ranker(demo_shop, recipe(), dataclasses.replace(inputs, window=window), tmp_path / name)
        for name, inputs in (("as_it_was", night.inputs), ("turned", with_turned_test_day))
    ]
    assert "no day is left for validation: the epoch is chosen on a tenth of the train days' users" in caplog.text
    assert reports[0].validation_rows == 3 * 12 * 6  # days, rows a day, users
    assert reports[0].train_rows == 3 * 12 * 54
    assert reports[0].epochs[0]["validation_loss"] == reports[1].epochs[0]["validation_loss"]
    weights = [load_model(tmp_path / name).state_dict() for name in ("as_it_was", "turned")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    too_short = example_night.is_train & (example_night.user == 0)
    alone = dataclasses.replace(example_night, is_train=too_short, is_validation=np.zeros_like(too_short))
    with pytest.raises(InputError, match="no users for it; give the night more days"):
        with_validation(alone, 1)


class Clock:
    """A time module whose clock goes on by half a minute with each look."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 30.0
        return self.now


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_time_left_is_that_of_all_passes_that_may_come(
    demo_shop, night, example_night, recipe, tmp_path, caplog, monkeypatch, share
):
    monkeypatch.setattr("training.train_ranker.time", Clock())
    small = recipe(max_epochs=3, patience=3, negative_share=share)
    with caplog.at_level("INFO"):
        report = train_ranker(demo_shop, small, night.inputs, tmp_path)
    lines = [record for record in caplog.records if "rows/s" in record.msg]
    assert re.match(r"epoch 1: batch 1 of \d+, loss \S+, \d+ rows/s, \d+ s left in all at most$", lines[0].getMessage())
    assert [line.args[0] for line in lines if line.args[1] == 1] == [1, 2, 3, 4]
    assert lines[-1].args[-1] == 0
    with_outcome = (example_night.labels > 0).any(1).mean()
    drawn, every = with_outcome + share * (1 - with_outcome), len(example_night)
    for epoch, batch, of, _, pace, seconds in (line.args for line in lines):
        rows = (1 - batch / of) * (report.train_rows if epoch < 4 else every)
        rows += (3 - epoch) * report.train_rows + every if epoch < 4 else 0
        assert seconds * pace == pytest.approx(drawn * rows, rel=0.1, abs=200), (epoch, batch)


@pytest.fixture
def harm_from(monkeypatch):
    """Return harm_from(step): from that step on, counted from 1, each makes the clicks more likely than they are."""
    move = Steps.move

    def harm(first):
        moved = []

        def move_astray(self):
            moved.append(1)
            move(self)
            if len(moved) >= first:
                self.model.task_bias.weight.data[0] += 0.3

        monkeypatch.setattr(Steps, "move", move_astray)

    return harm


def test_a_worse_last_epoch_is_not_the_one_that_is_kept(demo_shop, night, example_night, recipe, tmp_path, harm_from):
    harm_from(13)  # an epoch has twelve steps
    report = train_ranker(demo_shop, recipe(max_epochs=2), night.inputs, tmp_path)
    losses = [row["validation_loss"] for row in report.epochs]
    assert len(losses) == 2 and losses[1] > losses[0]
    model = load_model(tmp_path)
    validation = Dataset(example_night, model.spec).subset(example_night.is_validation)
    assert (report.best_epoch, report.best_validation_loss) == (1, losses[0])
    assert validation_metrics(model, validation)["validation_loss"] == pytest.approx(losses[0], rel=1e-6)


def test_tasks_without_contrast_or_weight_have_no_say_in_the_epoch(
    demo_shop, night, example_night, recipe, trained, caplog
):
    model = load_model(trained.folder)
    names = [task.name for task in model.spec.tasks]
    silent = names.index("purchase")
    alone = {
        name: _validation_loss(
            model, example_night, balancing="fixed", task_weights={n: float(n == name) for n in names}
        )
        for name in ("click", "cart", "purchase")
    }
    assert _validation_loss(model, example_night) == pytest.approx(sum(alone.values()) / 3)
    labels = example_night.labels.copy()
    labels[:, silent] = 0
    without = dataclasses.replace(example_night, labels=labels)
    assert _validation_loss(model, without) == pytest.approx((alone["click"] + alone["cart"]) / 2)
    every = Dataset(without, model.spec)
    with caplog.at_level("WARNING", "nightshelf"):
        check_labels(every.subset(without.is_train), every.subset(without.is_validation), model.spec)
    assert [(record.args[0], record.args[2]) for record in caplog.records] == [
        ("purchase", "train"),
        ("purchase", "validation"),
    ]
    labels[:] = 0
    nothing = _validation_loss(model, dataclasses.replace(example_night, labels=labels))
    assert 0 < nothing < 1  # the mean cross-entropy of tasks that nobody answered


def _validation_loss(model, examples, **recipe):
    spec = model.spec.model_copy(update={"recipe": model.spec.recipe.model_copy(update=recipe)})
    kept, model.spec = model.spec, spec
    try:
        return validation_metrics(model, Dataset(examples, spec).subset(examples.is_validation))["validation_loss"]
    finally:
        model.spec = kept


@pytest.mark.parametrize(
    ("split", "is_open", "recipe_of", "told"),
    [
        ("train", {"click", "cart", "purchase", "spend"}, {}, r"\(click, cart, purchase, spend\) has a mature label"),
        (
            "validation",
            {"click", "cart", "purchase", "spend"},
            {},
            r"\(click, cart, purchase, spend\) has a mature label",
        ),
        (
            "train",
            {"click"},
            {"cart": 0, "purchase": 0, "spend": 0},
            r"\(click\) has a mature label; give the night more days",
        ),
        ("train", {"cart", "purchase"}, {}, None),
    ],
)
def test_what_no_task_can_learn_from_is_refused_before_the_first_epoch(
    demo_shop, night, recipe, tmp_path, caplog, monkeypatch, split, is_open, recipe_of, told
):
    table = pq.read_table(night.inputs.training_examples[0])
    begins = np.array(table["event_date"]) >= np.datetime64(night.inputs.window.validation_start)
    for name in is_open:
        place, mask = table.schema.get_field_index(f"mask_{name}"), begins if split == "train" else ~begins
        table = table.set_column(place, f"mask_{name}", pa.array(mask.astype(np.float32)))
    pq.write_table(table, tmp_path / "open.parquet")
    inputs = dataclasses.replace(night.inputs, training_examples=[tmp_path / "open.parquet"])
    weights = {"balancing": "fixed", "task_weights": recipe_of} if recipe_of else {}
    small = recipe(max_epochs=1, **weights)
    if told is None:
        train_ranker(demo_shop, small, inputs, tmp_path / "out")
        assert "cart: no label of the train rows is mature, so what the model says of it is a guess" in caplog.text
        return
    monkeypatch.delattr(Steps, "gradient")
    with pytest.raises(InputError, match=rf"^{split} rows: no task that is trained {told}"):
        train_ranker(demo_shop, small, inputs, tmp_path / "out")


def test_a_parent_whose_weights_are_not_finite_is_no_beginning(demo_shop, night, recipe, trained, tmp_path, caplog):
    parent = load_model(trained.folder)
    parent.item_vector.bias.data[0] = math.nan
    save_model(parent, tmp_path / "parent")
    report = train_ranker(demo_shop, recipe(max_epochs=1), night.inputs, tmp_path / "out", tmp_path / "parent")
    assert not report.warm_started and report.halvings == 0
    assert "fresh start: the parent of 2026-02-14 does not fit: a weight of it is not finite" in caplog.text


def test_where_no_epoch_beats_the_parent_its_weights_are_kept(
    demo_shop, night, example_night, recipe, trained, tmp_path, harm_from
):
    harm_from(1)
    report = train_ranker(demo_shop, recipe(max_epochs=1), night.inputs, tmp_path, trained.folder)
    assert report.warm_started and report.best_epoch == 0
    parent, kept = load_model(trained.folder), load_model(tmp_path)
    for name, weight in parent.state_dict().items():
        assert name.startswith("topics.") or torch.equal(kept.state_dict()[name], weight), name
    validation = Dataset(example_night, kept.spec).subset(example_night.is_validation)
    inherited = validation_metrics(kept, validation)["validation_loss"]
    assert report.best_validation_loss == pytest.approx(inherited, rel=1e-6)
    assert report.epochs[0]["validation_loss"] > inherited


def test_what_serves_has_learnt_the_test_days_and_what_is_measured_has_not(demo_shop, night, trained, example_night):
    measured, serving = load_model(trained.folder), load_model(trained.folder / SERVING)
    assert serving.spec == measured.spec
    test = Dataset(example_night, measured.spec).subset(~(example_night.is_train | example_night.is_validation))
    scales = regression_scales(test, measured.spec)
    batch = test.batch(torch.arange(len(test.chunks)))
    losses = [batch_losses(model, batch, scales).sum().item() for model in (measured, serving)]
    assert losses[1] < losses[0]
