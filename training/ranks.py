"""The processes that train one ranker together (torchrun; gloo, and nccl between GPUs): each computes some slices of every batch.

What slices give is gathered by all and added up in the slices' order, so that every process moves its weights alike, and as
one process alone would. Without torchrun there is one rank.
"""

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import distributed

from nightshelf.logs import get_logger
from training.devices import training_device

Gradient = tuple[torch.Tensor | None, ...]
Result = TypeVar("Result")


class NoRoomForAll(torch.OutOfMemoryError):
    """Memory had no room for a rank's own work; all ranks have heard of it, and none has used what it computed."""


@contextmanager
def joined_ranks() -> Iterator[None]:
    """Join the other processes if torchrun started this one, and leave them in the end; the first one tells the log.

    Raises:
        InputError: there are more processes than accelerators.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(training_device())
    # Optimisers import it. Its functions have the group of that moment as a default: imported later, they would keep the group
    # and its threads until the interpreter ends, where such a thread that lets go of a tensor aborts the process now and then.
    importlib.import_module("torch.distributed.nn")
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    if distributed.get_rank():
        get_logger("train").setLevel(logging.ERROR)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Return the number of this process; 0 tells and writes for all."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def ranks() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def ranks_here() -> int:
    """Return how many of them share this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if distributed.is_initialized() else 1


def any_rank(*asked: bool) -> list[bool]:
    """Return for each question whether any rank says yes."""
    if ranks() == 1:
        return list(asked)
    answers = torch.tensor(asked, dtype=torch.uint8)
    distributed.all_reduce(answers, distributed.ReduceOp.MAX)
    return [bool(answer) for answer in answers]


def where_all_have_room(work: Callable[[], Result]) -> Result:
    """Return work(), in which no rank waits for another; where one finds no room in memory for its own, all fail.

    Raises:
        NoRoomForAll: that was so.
    """
    found: list[Result] = []
    try:
        found.append(work())
        told = ""
    except torch.OutOfMemoryError as error:  # the failed attempt's tensors go with it
        told = str(error)
    if any(any_rank(not found)):
        raise NoRoomForAll(told or "another process has no room")
    return found[0]


def every_rank(text: str) -> list[str]:
    """Return what each rank says."""
    if ranks() == 1:
        return [text]
    found = [""] * ranks()
    distributed.all_gather_object(found, text)
    return found


def wait_for_all() -> None:
    """Return once every rank is here."""
    if ranks() > 1:
        distributed.barrier()


def sum_of_ranks(own: torch.Tensor) -> torch.Tensor:
    """Return the sum of each rank's tensor, added up in the ranks' order; all have one shape."""
    return own if ranks() == 1 else torch.stack(_gather(own)).sum(0)


class Slice(NamedTuple):
    """A part of a batch: its number among the batch's slices, and its chunks."""

    number: int
    chunks: torch.Tensor


@dataclass(frozen=True)
class Slices:
    """The slices of a batch that this rank computes; unless it `shares` them, it computes all, as the others do."""

    own: list[Slice]
    shares: bool

    def gather(self, results: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the results of all slices, in their order, from those of the own ones; all have one shape."""
        return [part for result in results for part in _gather(result)] if self.shares else list(results)

    def gather_gradients(self, results: Sequence[Gradient], parameters: Sequence[torch.Tensor]) -> Sequence[Gradient]:
        """Return the gradients of all slices, in their order. A parameter whose gradient is sparse has one in each slice."""
        if not self.shares:
            return results
        return [of_slice for result in results for of_slice in _gather_gradient(result, parameters)]


def cut(chunks: torch.Tensor, count: int) -> Slices:
    """Cut a batch [G] into `count` slices, the i-th of chunks i, i + count, …; it is rank i's, modulo the number of ranks.

    A batch with fewer chunks makes fewer slices, which no ranks share.
    """
    slices = [Slice(first, chunks[first::count]) for first in range(min(count, len(chunks)))]
    shares = ranks() > 1 and len(slices) == count
    return Slices(slices[rank() :: ranks()] if shares else slices, shares)


def _gather(own: torch.Tensor) -> list[torch.Tensor]:
    """Return each rank's tensor; all have one shape."""
    found = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(ranks())]
    distributed.all_gather(found, own.contiguous())
    return found


def _gather_gradient(own: Gradient, parameters: Sequence[torch.Tensor]) -> list[Gradient]:
    """Return each rank's gradient; the dense parts travel as one vector, with a mark for those that are there."""
    is_sparse = [part is not None and part.is_sparse for part in own]
    dense = [place for place, sparse in enumerate(is_sparse) if not sparse]
    filled = [(torch.zeros_like(parameters[k]) if (part := own[k]) is None else part).flatten() for k in dense]
    vectors = _gather(torch.cat(filled))
    marks = _gather(torch.tensor([own[k] is not None for k in dense]))
    found: list[list[torch.Tensor | None]] = [[None] * len(own) for _ in vectors]
    for gradient, vector, marked in zip(found, vectors, marks, strict=True):
        for k, part, there in zip(dense, vector.split([len(part) for part in filled]), marked, strict=True):
            gradient[k] = part.view_as(parameters[k]) if there else None
    for k, part in enumerate(own):
        if is_sparse[k] and part is not None:
            for gradient, rows in zip(found, _gather_sparse(part), strict=True):
                gradient[k] = rows
    return [tuple(gradient) for gradient in found]


def _gather_sparse(own: torch.Tensor) -> list[torch.Tensor]:
    """Return each rank's sparse tensor [rows, width], whose entries are not added up yet."""
    indices, values = own._indices()[0], own._values()
    counts = [int(count) for count in _gather(torch.tensor(len(indices)))]
    longest = max(counts)
    all_indices = _gather(torch.cat([indices, indices.new_zeros(longest - len(indices))]))
    all_values = _gather(torch.cat([values, values.new_zeros(longest - len(values), values.shape[1])]))
    return [
        torch.sparse_coo_tensor(i[None, :n], v[:n], own.shape, check_invariants=False)
        for i, v, n in zip(all_indices, all_values, counts, strict=True)
    ]
