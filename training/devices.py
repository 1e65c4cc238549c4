"""Where a training or a ranking computes, with which bits: an accelerator or the CPU; and what it does where memory is short."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nightshelf.errors import EngineError, InputError


def training_device() -> torch.device:
    """Return this process's accelerator, or the CPU where there is none.

    Raises:
        InputError: torchrun has started more processes on this machine than it has accelerators.
    """
    found = _accelerator()
    if found is None:
        return torch.device("cpu")
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.accelerator.device_count()
    if place >= count:
        raise InputError(
            f"process {place + 1} on this machine has no accelerator of its own ({count} are here): give torchrun "
            f"--nproc-per-node {count}, or hide them from it (CUDA_VISIBLE_DEVICES=)"
        )
    return torch.device(found.type, place)


def accelerators() -> int:
    """Return how many accelerators this machine trains with, 0 where it is the CPU."""
    return 0 if _accelerator() is None else torch.accelerator.device_count()


def ranking_device(place: int = 0) -> torch.device:
    """Return the accelerator for this one of the parts that are ranked side by side, or the CPU."""
    found = _accelerator()
    return torch.device("cpu") if found is None else torch.device(found.type, place % torch.accelerator.device_count())


def as_memory_allows(work: Callable[[torch.Tensor], None], rows: torch.Tensor) -> None:
    """Do work(rows), which predicts them; in halves where the memory of an accelerator has no room for all at once.

    Raises:
        EngineError: there is no room for a single row.
    """
    with room_told("a prediction"):
        try:
            return work(rows)
        except torch.OutOfMemoryError:
            if len(rows) < 2:
                raise
    for half in rows.chunk(2):  # the failed attempt's tensors are gone with its error
        as_memory_allows(work, half)


@contextmanager
def room_told(what: str) -> Iterator[None]:
    """Let an accelerator's memory that has no room for something say so with the remedy.

    Raises:
        EngineError: it has none.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"the accelerator's memory has no room for {what} ({str(error).partition(chr(10))[0]}); free it for this "
            "program, or use the CPU with CUDA_VISIBLE_DEVICES= before the command"
        ) from error


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Let torch use only operations that give the same bits each time, and restore its setting; an accelerator may differ."""
    if device.type != "cpu":
        yield
        return
    memory: Any = torch.utils.deterministic
    before, fills = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # a tenth of the time, and nothing here reads what it did not write
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fills


def _accelerator() -> torch.device | None:
    """Return what torch finds (CUDA_VISIBLE_DEVICES= hides NVIDIA's). Apple's is left alone: it knows no sparse gradients."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None or found.type == "mps" else found
