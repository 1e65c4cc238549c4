"""The losses of a batch's slices: side by side, or one after another where memory has no room for all."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch

Answer = TypeVar("Answer")
Losses = Callable[[torch.Tensor], torch.Tensor]  # of a slice's chunks, each task's [T]


class SliceLosses(Protocol):
    """What can be asked of the slices' losses, each [T]; answers come in the order of the slices."""

    def ask(self, question: Callable[[torch.Tensor], Answer]) -> list[Answer]:
        """Return question(losses) of each slice; it may ask for gradients, and keeps none of the losses' graph."""
        ...


class SideBySide:
    """Computed once, and kept with their graphs."""

    def __init__(self, losses: Losses, slices: list[torch.Tensor], pool: ThreadPoolExecutor) -> None:
        self._pool, self._losses = pool, list(pool.map(losses, slices))

    def ask(self, question: Callable[[torch.Tensor], Answer]) -> list[Answer]:
        """Ask all at once."""
        return list(self._pool.map(question, self._losses))


class InTurns:
    """Computed anew for each question, so that one graph at a time is in memory; each time with the same draws of dropout.

    Args:
        losses: of a slice's chunks.
        slices: the slices.
        device: where they are computed, from whose generator dropout draws.
    """

    def __init__(self, losses: Losses, slices: list[torch.Tensor], device: torch.device) -> None:
        self._losses, self._slices, self._device = losses, slices, device
        self._draws = torch.get_rng_state()
        self._draws_there = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    def ask(self, question: Callable[[torch.Tensor], Answer]) -> list[Answer]:
        """Ask one after another."""
        torch.set_rng_state(self._draws)
        if self._draws_there is not None:
            torch.get_device_module(self._device).set_rng_state(self._draws_there, self._device)
        return [question(self._losses(part)) for part in self._slices]
