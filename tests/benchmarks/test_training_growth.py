import pytest
import torch

from benchmarks import training_growth


@pytest.mark.parametrize("kind", ["mmoe", "ple", "pepnet"])
def test_each_backbone_takes_as_many_tasks_and_scenarios_as_are_asked_for(kind):
    assert training_growth._seconds(200, kind, 3, 4) > 0
    columns = training_growth._columns(200, 3, 4)
    assert columns.labels.shape == (200, 3)
    assert torch.equal(columns.labels[:, 2], columns.labels[:, 0])
    assert columns.scenario is not None and columns.scenario.bincount().tolist() == [0, 50, 50, 50, 50]
