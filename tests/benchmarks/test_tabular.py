import math

import pytest
import torch
from torch import nn

from benchmarks.tabular import Columns, TabularModel, batch_loss, predict, train_epoch
from training.backbone_sizes import MMoESizes
from training.backbones import make_backbone
from training.metrics import auc
from training.optimizers import make_optimizers
from training.recipe import Recipe
from training.spec import TaskSpec

CLICK, BUY = TaskSpec(name="click", kind="binary"), TaskSpec(name="buy", kind="binary", given="click")
SIZES = MMoESizes(kind="mmoe", experts=3, expert_sizes=[16, 8])
FIELDS = {"user": 50, "item": 40, "page": 5}
RECIPE = Recipe(name="table", learning_rate={"dense": 0.01, "embedding": 0.2})


def small_model(fields=FIELDS, embedding_size=4, **changes):
    torch.manual_seed(0)
    backbone = make_backbone(SIZES, 2, 1, 0.0)
    return TabularModel(fields, 2, [CLICK, BUY], embedding_size, backbone, [8], **changes)


def drawn(rows, seed=1):
    """Return rows whose outcomes hang on hidden values of users and items, and on the first dense column."""
    torch.manual_seed(7)
    user, item = torch.randn(50), torch.randn(40)
    torch.manual_seed(seed)
    ids = torch.stack([torch.randint(1, count, (rows,)) for count in FIELDS.values()], 1)
    dense = torch.randn(rows, 2)
    logit = user[ids[:, 0]] + item[ids[:, 1]] + dense[:, 0]
    click = (torch.rand(rows) < torch.sigmoid(2 * logit)).float()
    buy = click * (torch.rand(rows) < torch.sigmoid(2 * logit - 1)).float()
    return Columns(ids, dense, torch.stack([click, buy], 1))


def trained(seed=3, epochs=3):
    model = small_model()
    optimizers = make_optimizers(model, nn.Module(), RECIPE)
    losses = [train_epoch(model, drawn(4000), optimizers, 256, seed, epoch) for epoch in range(epochs)]
    return model, losses


def test_it_learns_both_tasks():
    (model, losses), held_out = trained(), drawn(2000, seed=2)
    found = predict(model, held_out, 512)
    aucs = [auc(held_out.labels[:, task].numpy(), found[:, task].numpy()) for task in (0, 1)]
    assert losses[0] > losses[1] > losses[2]
    assert aucs == pytest.approx([0.93, 0.95], abs=0.02)


def test_what_is_given_bounds_what_follows():
    found = predict(trained(epochs=1)[0], drawn(500), 100)
    assert (found[:, 1] < found[:, 0]).all()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    first, again, other = (trained(seed, epochs=1)[0].first.weight for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_model_that_knows_nothing_loses_what_the_formula_says():
    model, rows = small_model(), drawn(300)
    for layer in (model.first, *model.towers.layers):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    click, buy = rows.labels.mean(0).tolist()
    expected = math.log(2) + buy * math.log(4) + (1 - buy) * math.log(4 / 3)
    assert float(batch_loss(model, rows).detach()) == pytest.approx(expected, rel=1e-5)
    assert 0.4 < click < 0.6


def test_neighbouring_ids_beyond_2_to_the_24_keep_apart():
    """float32 has no place for 16,777,217; deepctr-torch reads it as 16,777,216."""
    beyond = 2**24
    model = small_model({"user": beyond + 2}, embedding_size=1)
    model.fields.table.weight.data[beyond + 1] = 5.0
    with torch.no_grad():
        near, far = model(torch.tensor([[beyond], [beyond + 1]]), torch.zeros(2, 2))
    assert (near - far).abs().max() > 1e-3


def test_a_prediction_does_not_hang_on_its_batch_mates():
    model, rows = trained(epochs=1)[0], drawn(300)
    together, apart = predict(model, rows, 300), predict(model, rows, 7)
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=1e-5)


def test_products_in_half_the_bits_learn_as_well():
    _, losses = trained()
    half = small_model(precision=torch.bfloat16)
    optimizers = make_optimizers(half, nn.Module(), RECIPE)
    found = [train_epoch(half, drawn(4000), optimizers, 256, 3, epoch) for epoch in range(3)]
    assert found != losses and found == pytest.approx(losses, rel=0.01)
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    assert predict(half, drawn(100), 100).dtype == torch.float32
