"""The losses of a batch's slices: side by side, or one after another where memory has no room for all."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch

from training.ranks import Slice, where_all_have_room

Answer = TypeVar("Answer")
Losses = Callable[[Slice], torch.Tensor]  # of a slice, each task's [T]; the same each time it is asked


class SliceLosses(Protocol):
    """What can be asked of the slices' losses, each [T]; answers come in the order of the slices."""

    def ask(self, question: Callable[[torch.Tensor], Answer]) -> list[Answer]:
        """Return question(losses) of each slice; it may ask for gradients, and keeps none of the losses' graph."""
        ...


class SideBySide:
    """Computed once, and kept with their graphs."""

    def __init__(self, losses: Losses, slices: list[Slice], pool: ThreadPoolExecutor) -> None:
        self._pool, self._losses = pool, list(pool.map(losses, slices))

    def ask(self, question: Callable[[torch.Tensor], Answer]) -> list[Answer]:
        """Ask all at once."""
        return list(self._pool.map(question, self._losses))


class InTurns:
    """Computed anew for each question, so that one graph at a time is in memory."""

    def __init__(self, losses: Losses, slices: list[Slice]) -> None:
        self._losses, self._slices = losses, slices

    def ask(self, question: Callable[[torch.Tensor], Answer]) -> list[Answer]:
        """Ask one after another."""
        return [question(self._losses(part)) for part in self._slices]


class HadByAll:
    """Computed in every rank or in none: a rank whose memory is too small fails all of them.

    Args:
        make: makes this rank's.

    Raises:
        NoRoomForAll: memory was too small; `ask` raises it, too.
    """

    def __init__(self, make: Callable[[], SliceLosses]) -> None:
        self._parts = where_all_have_room(make)

    def ask(self, question: Callable[[torch.Tensor], Answer]) -> list[Answer]:
        """Ask as these do."""
        return where_all_have_room(lambda: self._parts.ask(question))
