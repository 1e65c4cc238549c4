import dataclasses
import datetime as dt
import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from nightshelf.errors import EngineError, InputError
from nightshelf.example_window import ExampleWindow
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.features import EXPOSURE_LENGTH
from training.batches import ROWS, Dataset, chunk_rows
from training.data import load_examples
from training.histories import Lengths, padded_histories
from training.normalization import load_normalization
from training.spec import dense_names, model_spec
from training.vocabulary import load_vocabularies


def test_file_order_changes_nothing(demo_shop, make_night, tmp_path):
    night = make_night(tmp_path, users=10, per_day=6, files=3)
    turned = dataclasses.replace(night.inputs, training_examples=night.inputs.training_examples[::-1])
    one, other = load_examples(demo_shop, night.inputs), load_examples(demo_shop, turned)
    for column in dataclasses.fields(one):
        if column.name not in ("histories", "vocabularies", "storage"):
            assert np.array_equal(getattr(one, column.name), getattr(other, column.name)), column.name


def test_the_key_that_hashes_ids_changes_nothing(demo_shop, make_night, tmp_path):
    night = make_night(tmp_path, users=10, per_day=6, files=3)
    (tmp_path / "other").mkdir()
    files = []
    for file in [*night.inputs.training_examples, *night.inputs.user_sequences]:
        table = pq.read_table(file)
        for name in {"impression_id", "user_key"} & set(table.column_names):
            hashed = [hashlib.sha256(f"other {text}".encode()).hexdigest() for text in table[name].to_pylist()]
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(hashed))
        files.append(tmp_path / "other" / file.name)
        pq.write_table(table, files[-1])
    one = load_examples(demo_shop, night.inputs)
    hashed = dataclasses.replace(night.inputs, training_examples=files[:-1], user_sequences=files[-1:])
    other = load_examples(demo_shop, hashed)
    assert np.array_equal(one.histories.items[one.history], other.histories.items[other.history])
    for column in dataclasses.fields(one):
        if column.name not in ("histories", "history", "vocabularies", "storage"):
            assert np.array_equal(getattr(one, column.name), getattr(other, column.name)), column.name


def test_histories_are_found_by_user_and_day_and_keep_the_newest():
    day, lists = dt.date(2026, 1, 2), {"item_indexes": [[1, 2, 3], [], [9]], "age_days": [[3.0, 2.0, 1.0], [], [0.5]]}
    table = pa.table({
        "as_of_date": [day, day, day + dt.timedelta(days=1)], "user_key": ["v", "u", "v"],
        **lists, "event_type_indexes": [[1, 2, 1], [], [2]], "scenario_indexes": [[1, 1, 1], [], [2]],
        "shown_category_indexes": [[4], [], []], "shown_counts": [[3], [], []], "shown_age_days": [[1.0], [], []],
        "own_item_indexes": [[5, 6, 7], [], []], "own_counts": [[0.5, 1.0, 2.5], [], []],
        "own_age_days": [[9.0, 8.0, 1.0], [], []],
    })  # fmt: skip
    table = table.set_column(
        2, "item_indexes", pa.chunked_array([pa.array(lists["item_indexes"], pa.list_(pa.int32()))])
    )
    of_ids = ("event_type_indexes", "scenario_indexes", "shown_category_indexes", "shown_counts", "own_item_indexes")
    for name in of_ids:
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.list_(pa.int32())))
    found = padded_histories(table, Lengths(events=2, own=2))
    number = (day - dt.date(1970, 1, 1)).days
    users = pa.array(["v", "v", "u", "w", "u"]).dictionary_encode()
    rows = found.rows_of(users, np.array([number, number + 1, number, number, number + 1]))
    assert found.items[rows].tolist() == [[2, 3], [0, 9], [0, 0], [0, 0], [0, 0]]
    assert found.ages[rows[:2]].tolist() == [[2.0, 1.0], [0.0, 0.5]]
    assert found.shown[rows[0]].tolist() == [0] * (EXPOSURE_LENGTH - 1) + [4]
    assert found.shown_counts[rows[0], -1] == 3
    assert found.own[rows[0]].tolist() == [6, 7]  # the most likely ones stand last
    assert found.own_counts[rows[0]].tolist() == [1.0, 2.5]
    assert found.own_ages[rows[1]].tolist() == [0.0, 0.0]
    assert rows[3] == rows[4] == 0


def test_chunks_hold_each_row_once_and_one_user_day_each():
    rng = np.random.default_rng(0)
    user, day = rng.integers(0, 20, 500), rng.integers(0, 3, 500)
    chunks = chunk_rows(user, day, np.arange(500))
    assert chunks.shape[1] == ROWS
    assert sorted(chunks[chunks >= 0]) == list(range(500))
    assert (chunks[:, 0] >= 0).all()
    for chunk in chunks:
        rows = chunk[chunk >= 0]
        assert len(set(zip(user[rows], day[rows], strict=True))) == 1


def test_a_pairwise_loss_keeps_the_impressions_of_a_request_together(build, recipe, demo_shop, make_night, tmp_path):
    examples = load_examples(demo_shop, make_night(tmp_path, users=5, per_day=30).inputs)
    assert np.unique(examples.request, return_counts=True)[1].max() == 10
    for losses, whole in (({}, False), ({"cart": "pairwise"}, True)):
        _, spec = build(recipe(losses=losses))
        for dataset in (
            data := Dataset(examples, spec),
            data.subset(examples.is_train),
            data.thinned(0.5, 1, 1),
        ):
            chunks = dataset.chunks.numpy()
            rows = chunks[chunks >= 0]
            assert len(rows) == dataset.size == len(set(rows.tolist()))
            requests = np.where(chunks >= 0, examples.request[chunks], -1)
            of_chunk = [set(chunk[chunk >= 0].tolist()) for chunk in requests]
            found = [code for codes in of_chunk for code in codes]
            assert (len(found) == len(set(found)) and max(map(len, of_chunk)) == 1) == whole


def test_examples_of_a_scenario_that_is_gone_are_not_read(demo_shop, night, example_night):
    first, *others = demo_shop.scenarios
    shop = demo_shop.model_copy(update={"scenarios": {name: demo_shop.scenarios[name] for name in others}})
    window = dataclasses.replace(night.inputs.window, scenarios=tuple(others))
    found = load_examples(shop, dataclasses.replace(night.inputs, window=window))
    kept = example_night.scenario > 1  # the first is gone
    assert 0 < len(found) < len(example_night)
    assert np.array_equal(found.scenario, example_night.scenario[kept] - 1)
    assert np.array_equal(found.labels, example_night.labels[kept])
    assert first not in window.scenarios


def test_faults_are_told_in_one_line(demo_shop, make_night, tmp_path):
    night = make_night(tmp_path, users=5, per_day=4)
    empty = dataclasses.replace(night.inputs, training_examples=[])
    with pytest.raises(InputError, match="table training_examples: no files"):
        load_examples(demo_shop, empty)
    day = night.inputs.window.as_of_date
    late = dataclasses.replace(night.inputs, window=ExampleWindow(day, day, day, day, tuple(demo_shop.scenarios)))
    with pytest.raises(InputError, match="no test rows"):
        load_examples(demo_shop, late, split="test")
    file = night.inputs.training_examples[0]
    whole = pq.read_table(file)
    pq.write_table(whole.drop_columns(["item_log_price"]), file)
    with pytest.raises(InputError, match="column 'item_log_price' is missing"):
        load_examples(demo_shop, night.inputs)
    place = whole.schema.get_field_index("item_log_price")
    pq.write_table(whole.set_column(place, "item_log_price", pa.array([np.nan] * len(whole), pa.float32())), file)
    with pytest.raises(InputError, match="'item_log_price' holds NaN"):
        load_examples(demo_shop, night.inputs)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(EngineError, match="cannot be read"):
        load_examples(demo_shop, night.inputs)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("label_spend", -30.0, r"column 'label_spend' holds -30, and its values are at least 0"),
        ("label_click", 2.0, r"column 'label_click' holds 2, and its values are 0 to 1"),
        ("mask_cart", 7.0, r"column 'mask_cart' holds 7, and its values are 0 to 1"),
        ("sample_weight", -1.0, r"column 'sample_weight' holds -1, and its values are at least 0"),
        ("item_index", -1, r"column 'item_index' holds -1, and its values are at least 0"),
        ("label_spend", np.nan, r"column 'label_spend' holds NaN or infinity"),
    ],
)
def test_a_value_that_means_nothing_is_told_and_teaches_nothing(demo_shop, night, tmp_path, column, value, told):
    table = pq.read_table(night.inputs.training_examples[0])
    place = table.schema.get_field_index(column)
    values = np.array(table[column].to_pylist())
    values[5] = value
    table = table.set_column(place, column, pa.array(values, table.schema.field(column).type))
    pq.write_table(table, tmp_path / "wrong.parquet")
    with pytest.raises(InputError, match=rf"^table training_examples: {told}; run the features stage again$"):
        load_examples(demo_shop, dataclasses.replace(night.inputs, training_examples=[tmp_path / "wrong.parquet"]))


@pytest.mark.parametrize(
    ("column", "change", "told"),
    [
        ("age_days", lambda ages: ages[1:], r"lists 'item_indexes' and 'age_days' of a row differ in length"),
        ("age_days", lambda ages: [np.nan] * len(ages), r"column 'age_days' holds NaN"),
        ("event_type_indexes", lambda types: [300] * len(types), r"column 'event_type_indexes' holds 300, .* 0 to 127"),
        ("scenario_indexes", lambda where: [-1] * len(where), r"column 'scenario_indexes' holds -1"),
        ("shown_counts", lambda counts: [-5] * len(counts), r"column 'shown_counts' holds -5"),
    ],
)
def test_a_history_that_means_nothing_is_told(demo_shop, night, tmp_path, column, change, told):
    table = pq.read_table(night.inputs.user_sequences[0])
    place, kind = table.schema.get_field_index(column), table.schema.field(column).type
    table = table.set_column(place, column, pa.array([change(row) for row in table[column].to_pylist()], kind))
    pq.write_table(table, tmp_path / "wrong.parquet")
    with pytest.raises(InputError, match=rf"^table user_sequences: .*{told}.*; run the features stage again$"):
        load_examples(demo_shop, dataclasses.replace(night.inputs, user_sequences=[tmp_path / "wrong.parquet"]))


@pytest.mark.parametrize(
    ("column", "value"), [("mean", np.nan), ("mean", np.inf), ("deviation", 0.0), ("deviation", -1.0)]
)
def test_a_scale_that_means_nothing_is_told(night, tmp_path, column, value):
    table = pq.read_table(night.inputs.normalization[0])
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, pa.array([value] * len(table))), tmp_path / "wrong.parquet")
    with pytest.raises(
        InputError, match=r"^table normalization: feature '\w+' has the mean .*; run the features stage again"
    ):
        load_normalization([tmp_path / "wrong.parquet"], table["feature"].to_pylist(), [])


def test_vocabularies_count_their_ids_and_know_what_a_model_of_the_eve_knew(demo_shop, night, tmp_path):
    words = load_vocabularies(demo_shop, night.inputs.vocabularies)
    assert (len(words["user_index"]), len(words["item_index"])) == (night.users + 1, night.items + 1)
    rows = pq.read_table(night.inputs.vocabularies)
    pq.write_table(rows.filter(pc.not_equal(rows["feature"], "brand")), tmp_path / "cut.parquet")
    cut = load_vocabularies(demo_shop, [tmp_path / "cut.parquet"])
    assert len(cut["brand_index"]) == OOV_BUCKETS + 1  # all brands are too rare for an id
    eve = night.inputs.as_of_date - dt.timedelta(days=1)
    assert words["item_index"].as_of(night.inputs.as_of_date).tolist() == list(range(night.items + 1))
    assert words["item_index"].as_of(eve).tolist() == [0, *(1 + i % 8 for i in range(1, night.items + 1))]


def test_thinned_rows_keep_every_outcome_and_the_expected_weight(demo_shop, night, recipe):
    examples = load_examples(demo_shop, night.inputs)
    names = [*dense_names(demo_shop)[0], *dense_names(demo_shop)[1]]
    fitted = load_normalization(night.inputs.normalization, names, [])
    spec = model_spec(
        demo_shop, recipe(), load_vocabularies(demo_shop, night.inputs.vocabularies), fitted, "2026-02-14"
    )
    train = Dataset(examples, spec).subset(examples.is_train)
    thinned, again, other = (train.thinned(0.25, seed, 1) for seed in (1, 1, 2))
    rows = thinned.chunks[thinned.chunks >= 0]
    positive = (thinned.labels[rows] > 0).any(1)
    assert positive.sum() == (train.labels[np.flatnonzero(examples.is_train)] > 0).any(1).sum()
    assert thinned.size == len(rows) < train.size
    assert torch.equal(thinned.weights[rows][positive], train.weights[rows][positive])
    assert torch.equal(thinned.weights[rows][~positive], 4 * train.weights[rows][~positive])
    whole = train.weights[np.flatnonzero(examples.is_train), 0].sum()
    assert thinned.weights[rows, 0].sum() == pytest.approx(float(whole), rel=0.15)
    assert torch.equal(thinned.chunks, again.chunks)
    assert not torch.equal(thinned.chunks, other.chunks)
    assert train.thinned(1.0, 1, 1) is train


def test_an_id_left_unread_leaves_one_row_of_its_embedding(demo_shop, night, recipe):
    names = [*dense_names(demo_shop)[0], *dense_names(demo_shop)[1]]
    fitted = load_normalization(night.inputs.normalization, names, [])
    words = load_vocabularies(demo_shop, night.inputs.vocabularies)
    spec = model_spec(demo_shop, recipe(unread=["user_index"]), words, fitted, "2026-02-14")
    assert spec.user_fields["user_index"] == 1
    assert spec.item_fields["item_index"] == len(words["item_index"])
