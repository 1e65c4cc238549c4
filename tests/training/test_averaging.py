import pytest
import torch
from torch import nn

from training.averaging import WeightAverage


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
