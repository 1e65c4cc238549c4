"""Slots of a chunk that hold no impression: whatever lies in them, no part of a ranker hears of it."""

import dataclasses
from collections import Counter, defaultdict
from typing import get_args

import numpy as np
import pytest
import torch

from training.backbone_sizes import BackboneSizes
from training.backbones.moving import MovingMoments
from training.batches import Dataset
from training.steps import batch_losses

KINDS = [
    kind for sizes in get_args(get_args(BackboneSizes)[0]) for kind in get_args(sizes.model_fields["kind"].annotation)
]


@pytest.fixture
def thin(example_night):
    """Return thin(spec): a dataset of one to three impressions of each user's day, where chunks have four slots."""
    days = np.unique(np.stack([example_night.user, example_night.day]), axis=1, return_inverse=True)[1].ravel()
    order = np.argsort(days, kind="stable")
    places = np.empty(len(days), np.int64)
    places[order] = np.arange(len(days)) - np.searchsorted(days[order], days[order])
    return lambda spec: Dataset(example_night, spec).subset(places < 1 + days % 3)


def with_other_padding(batch):
    """Return a batch with another scenario, item, position, label and features in each slot that holds no impression."""
    is_row = batch.is_row
    columns = {
        "scenario": batch.scenario % 3 + 1,
        "items": (batch.items + 1) % len(batch.item_fields),
        "position": batch.position + 7,
        "dense": batch.dense + 2,
        "labels": 1 - batch.labels,
    }
    chosen = {
        name: torch.where(is_row.unsqueeze(-1) if other.ndim > 2 else is_row, getattr(batch, name), other)
        for name, other in columns.items()
    }
    return dataclasses.replace(batch, **chosen)


def learnt(model, batch):
    """Return the logits of the impressions in training, the losses, and the dense weights' gradient."""
    logits, _ = model(batch)
    losses = batch_losses(model, batch, torch.ones(4))
    dense = [p for name, p in model.named_parameters() if "table" not in name]
    gradient = torch.autograd.grad(losses.sum(), dense, allow_unused=True)
    return [logits[batch.is_row], losses, *(part for part in gradient if part is not None)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_in_a_slot_without_an_impression_changes_nothing(build, recipe, thin, kind):
    model, spec = build(recipe(backbone={"kind": kind}, towers="scenario", losses={"click": "pairwise"}))
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    dataset = thin(spec)
    batch = dataset.batch(torch.arange(len(dataset.chunks)))
    assert batch.is_row.float().mean() < 0.6
    for found, expected in zip(learnt(model.train(), with_other_padding(batch)), learnt(model, batch), strict=True):
        assert torch.equal(found, expected)


@pytest.fixture
def noted(monkeypatch):
    """Return how many rows each group of each part with moments has noted: part → group → rows."""
    found = defaultdict(Counter)
    monkeypatch.setattr(MovingMoments, "note", lambda part, group, rows: found[part].update({group: len(rows)}))
    return found


@pytest.mark.parametrize("kind", ["star", "hamur"])
def test_each_scenarios_moments_are_those_of_its_impressions(build, recipe, thin, noted, kind):
    model, spec = build(recipe(backbone={"kind": kind}))
    dataset = thin(spec)
    model.train()(dataset.batch(torch.arange(len(dataset.chunks))))
    scenarios = dataset.scenario[dataset.chunks[dataset.chunks >= 0]]
    expected = Counter((scenarios - 1).tolist())
    assert len(expected) == len(spec.scenarios)
    assert list(noted.values()) == [expected] * {"star": 1, "hamur": 2}[kind]


def test_impressions_alone_are_routed_to_centres(build, recipe, thin, noted):
    model, spec = build(recipe(backbone={"kind": "adl"}))
    dataset = thin(spec)
    model.train()(dataset.batch(torch.arange(len(dataset.chunks))))
    assert noted[model.backbone.centres].total() == dataset.size


def test_a_batch_has_no_items_but_those_of_its_impressions_and_histories(build, recipe, thin):
    """The embedding table moves what a batch has looked up, be its gradient 0."""
    _, spec = build(recipe())
    dataset = thin(spec)
    for chunk in range(60):
        batch = dataset.batch(torch.tensor([chunk]))
        assert not batch.is_row.all()
        used = torch.cat([batch.items[batch.is_row], batch.users.items.flatten()])
        assert used.unique().tolist() == list(range(len(batch.item_fields)))
