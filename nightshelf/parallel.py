"""Parts of one piece of work on all cores, for numpy and Arrow, which compute without Python's lock."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

_ROWS = 1 << 16


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return work(part) of each part, in the order of the parts."""
    if len(parts) < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(work, parts))


def row_blocks(rows: int) -> list[slice]:
    """Cut `rows` rows into blocks that a core's cache can hold."""
    return [slice(first, min(first + _ROWS, rows)) for first in range(0, rows, _ROWS)]
