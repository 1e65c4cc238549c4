import copy

import pytest
import torch
from torch import nn

from training.averaging import WeightAverage
from training.optimizers import RowwiseAdagrad


def walk(decay, steps):
    module = nn.Linear(1, 1)
    average = WeightAverage(module, decay)
    for step in range(1, steps + 1):
        with torch.no_grad():
            for weight in module.parameters():
                weight.fill_(step)
        average.update()
    average.apply()
    return float(module.weight.detach())


def test_without_memory_the_last_step_stays():
    assert walk(0.0, 7) == pytest.approx(7)


def test_the_average_lies_among_the_last_steps_and_forgets_the_start():
    assert 60 < walk(0.99, 100) < 75  # the first steps weigh less than a plain mean (50.5) would give them
    assert walk(0.9, 1000) == pytest.approx(1000 - 9, abs=0.1)  # an exponential average lags decay / (1 - decay) steps


def test_without_memory_nothing_is_copied():
    average = WeightAverage(nn.Embedding(100, 4, sparse=True), 0.0)
    average.before_step()
    average.update()
    assert average.state_dict() == {"steps": 0, "mean": {}, "log_kept": 0.0, "since": {}}


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_rows_that_no_step_touches_are_passed_over_and_come_to_the_same_average(decay):
    """Beside a plain loop over all rows; broken off and taken up again half-way."""
    torch.manual_seed(0)
    table = nn.Embedding(20, 4, sparse=True)
    optimizer, average = RowwiseAdagrad(table.weight, lr=0.3, l2=1e-3), WeightAverage(table, decay)
    plain = table.weight.detach().double().clone()
    for step in range(1, 201):
        optimizer.zero_grad(set_to_none=True)
        rows = torch.randint(0, 19, (3,)) if step < 150 else torch.tensor([4, 4, 7])  # row 19 is never touched
        (table(rows) * torch.randn(3, 4)).sum().backward()
        if step == 100:
            average, before = WeightAverage(table, decay), average
            average.load_state_dict(copy.deepcopy(before.state_dict()))
        seen = average.state_dict()["mean"]["weight"].clone()
        average.before_step()
        optimizer.step()
        average.update()
        moved = (average.state_dict()["mean"]["weight"] != seen).any(1)
        assert set(moved.nonzero().flatten().tolist()) <= set(rows.tolist())
        plain.lerp_(table.weight.detach().double(), max(1 - decay, 1 / (1 + step / 2)))
    average.apply()
    torch.testing.assert_close(table.weight.detach().double(), plain, rtol=1e-6, atol=1e-6)
