"""Threads that compute side by side."""

import torch

from training.workers import torch_workers


def test_threads_take_numbers_that_a_processor_is_slow_with_for_zero():
    weights = torch.full((64, 64), 1e-39)
    with torch_workers(2) as pool:
        inside = [pool.submit(lambda: float((torch.eye(64) @ weights).max())) for _ in range(4)]
        assert [one.result() for one in inside] == [0.0] * 4
    assert float((torch.eye(64) @ weights).max()) > 0, "the thread that asked keeps its own setting"
