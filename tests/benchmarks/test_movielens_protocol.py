import zipfile

import pytest
import torch

from benchmarks.movielens_protocol import (
    COLUMNS,
    ENTRIES,
    OURS,
    Entry,
    logits,
    make_model,
    make_optimizer,
    read_ratings,
    split,
    train,
)
from benchmarks.tabular import Columns
from pipelines.movielens import FOLDER
from training.backbone_sizes import PlainSizes

FIELDS = dict.fromkeys(COLUMNS, 9)
TABLES = {
    "user": "user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token\n"
    "1m_1\t1\tF\t10\t48067\n1m_2\t56\tM\t16\t70072\n1m_3\t25\tM\t10\t48067\n",
    "item": "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token\n"
    'Toy "Story" (1995)\tToy\t1995\tAnimation Comedy\nHeat (1995)\tHeat\t1995\tAction\nUp (2009)\tUp\t2009\tAnimation\n',
    "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    '1m_2\tHeat (1995)\t4\t1\n1m_1\tToy "Story" (1995)\t3\t2\n1m_3\tHeat (1995)\t5\t3\n1m_1\tUp (2009)\t1\t4\n',
}


@pytest.fixture
def wheel(tmp_path):
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as archive:
        for name, text in TABLES.items():
            archive.writestr(f"{FOLDER}/ml-1m.{name}", text)
    return tmp_path / "some.whl"


def drawn(rows=300):
    torch.manual_seed(1)
    liked = (torch.rand(rows, 1) < 0.5).float()
    return Columns(torch.randint(0, 9, (rows, 6)), torch.rand(rows, 1), liked, torch.arange(rows) % 3 + 1)


def test_ratings_are_read_as_the_protocol_has_them(wheel):
    columns = read_ratings(wheel)
    assert columns.labels[:, 0].tolist() == [1, 0, 1, 0]
    assert columns.scenario.tolist() == [3, 1, 2, 1]
    torch.testing.assert_close(columns.dense[:, 0], torch.tensor([1.0, 0.0, 24 / 55, 0.0]))
    user, movie, gender, occupation, code, genre = columns.ids.t().tolist()
    assert user == [0, 1, 2, 1] and movie == [0, 1, 0, 2]
    assert gender == [0, 1, 0, 1] and occupation == [0, 1, 1, 1] and code == [0, 1, 1, 1]
    assert genre == [0, 1, 0, 1]


def test_the_split_has_each_row_once_and_hangs_on_the_seed():
    parts = split(1000, 1)
    assert [len(part) for part in parts] == [800, 100, 100]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1000))
    assert torch.equal(parts[2], split(1000, 1)[2]) and not torch.equal(parts[2], split(1000, 2)[2])


@pytest.mark.parametrize("name", ENTRIES)
def test_each_entry_is_a_model_all_of_whose_weights_learn(name):
    model, rows = make_model(ENTRIES[name], FIELDS, 1), drawn()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    found = logits(model, rows)
    assert found.shape == (300,)
    found.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())
    groups = make_optimizer(model, OURS).param_groups
    assert [group["weight_decay"] for group in groups] == [3e-4, 1e-5]


@pytest.mark.parametrize(("name", "deviation"), [("star", 1e-4), ("shared_bottom", 0.02)])
def test_embeddings_begin_as_the_entry_says(name, deviation):
    table = make_model(ENTRIES[name], {**FIELDS, "user": 5000}, 1).fields.table.weight
    assert table.std().item() == pytest.approx(deviation, rel=0.02)


def test_with_heads_each_row_has_its_scenarios_logit():
    entry = Entry(PlainSizes(kind="single_task", sizes=[8]), [], "heads")
    model, rows = make_model(entry, FIELDS, 1), drawn()
    every = model.logits(rows.ids, rows.dense, rows.scenario)
    assert torch.equal(logits(model, rows), every[torch.arange(300), rows.scenario - 1])


def test_training_takes_the_best_epoch_and_tells_how_it_does():
    torch.manual_seed(3)
    rows = drawn(3000)
    liked = (rows.ids[:, 1] > 4).float() * 0.8 + 0.1
    rows = Columns(rows.ids, rows.dense, (torch.rand(3000) < liked).float().unsqueeze(1), rows.scenario)
    found = train(ENTRIES["ours"], rows, FIELDS, 1, 25)
    assert 0.82 < found.auc < 0.95
    assert found.logloss < 0.65
    assert len(found.by_scenario) == 3 and found.epochs <= 25
