import math

import pytest
import torch

from training.batches import Dataset
from training.losses import binary_loss
from training.objective import training_losses
from training.pairs import pair_loss


def odds(p):
    return math.log(p / (1 - p))


def by_hand(p, label, weight, request):
    total = 0.0
    for chunk in range(len(p)):
        for one in range(len(p[0])):
            for other in range(len(p[0])):
                together = request[chunk][one] == request[chunk][other] != -1
                if together and label[chunk][one] > label[chunk][other]:
                    ahead = odds(p[chunk][one]) - odds(p[chunk][other])
                    total += weight[chunk][one] * weight[chunk][other] * math.log(1 + math.exp(-ahead))
    return total


def test_pairs_against_loops():
    torch.manual_seed(0)
    p, label, weight = torch.rand(30, 4) * 0.9 + 0.05, torch.randint(0, 2, (30, 4)).float(), torch.rand(30, 4)
    request = torch.randint(-1, 2, (30, 4))
    weight[:5, 3] = 0  # padding
    found = pair_loss(p.log(), label, weight, request)
    expected = by_hand(*(values.tolist() for values in (p, label, weight, request)))
    assert expected > 5
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_pairs_are_told_best_by_the_true_probabilities():
    """Over all that can happen to two impressions of a request, the loss has no slope at their true log-odds."""
    p = torch.tensor([[0.3, 0.8]])
    z = torch.logit(p).requires_grad_()
    log_p, weight, request = torch.nn.functional.logsigmoid(z), torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.long)
    first, second = (pair_loss(log_p, torch.tensor([label]), weight, request) for label in ([1.0, 0.0], [0.0, 1.0]))
    mean = p[0, 0] * (1 - p[0, 1]) * first + (1 - p[0, 0]) * p[0, 1] * second
    (grad,) = torch.autograd.grad(mean, z)
    assert mean > 0.05
    assert grad.abs().max() < 1e-6


def test_training_adds_the_pairs_of_a_request_to_the_cross_entropy(build, recipe, example_night):
    model, spec = build(recipe(losses={"click": "pairwise"}))
    batch = Dataset(example_night, spec).batch(torch.arange(60))
    codes = [[example_night.request[row] for row in rows] for rows in batch.rows.tolist()]
    assert batch.request[batch.is_row].tolist() == torch.tensor(codes)[batch.is_row].tolist()
    assert (batch.request[:, :1] == batch.request)[batch.is_row].all()  # a chunk holds one request
    logits = torch.randn(*batch.rows.shape, 4)
    p, weight = logits[..., 0].sigmoid(), batch.weights[..., 0]
    found = training_losses(model, logits, batch, torch.ones(4))[0]
    pairs = by_hand(p.tolist(), batch.labels[..., 0].tolist(), weight.tolist(), codes)
    expected = (binary_loss(p.log(), batch.labels[..., 0]) * weight).sum() + pairs
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
