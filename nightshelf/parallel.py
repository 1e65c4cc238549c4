"""Parts of one piece of work on all cores, for numpy and Arrow, which compute without Python's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
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


def in_order(pool: Executor, work: Callable[[Part], Result], parts: Iterable[Part], ahead: int) -> Iterator[Result]:
    """Yield work(part) of each part, in the order of the parts; no more than `ahead` wait for whoever takes them."""
    waiting: deque[Future[Result]] = deque()
    for part in parts:
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
        waiting.append(pool.submit(work, part))
    while waiting:
        yield waiting.popleft().result()


def row_blocks(rows: int) -> list[slice]:
    """Cut `rows` rows into blocks that a core's cache can hold."""
    return [slice(first, min(first + _ROWS, rows)) for first in range(0, rows, _ROWS)]
