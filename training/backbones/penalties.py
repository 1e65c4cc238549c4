"""Penalties: what a part of a model adds to the loss of each row that it has just computed.

A part that has one adds it while it computes; whoever trains collects. Slices are computed side by side by threads of one
model, so what was added lies with the thread that computes, not in the model. Scoring collects nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_COLLECTED: ContextVar[list[torch.Tensor] | None] = ContextVar("penalties", default=None)


@contextmanager
def collect_penalties() -> Iterator[list[torch.Tensor]]:
    """Yield the list to which the parts of a model that is computed inside add the penalties of their rows, [N] each."""
    collected: list[torch.Tensor] = []
    token = _COLLECTED.set(collected)
    try:
        yield collected
    finally:
        _COLLECTED.reset(token)


def are_wanted() -> bool:
    """Tell whether somebody collects."""
    return _COLLECTED.get() is not None


def add_penalty(rows: torch.Tensor) -> None:
    """Add the penalty of each row [N], if somebody collects."""
    collected = _COLLECTED.get()
    if collected is not None:
        collected.append(rows)
