"""The memory of a process and all that it started, JVM included: sampled, because children that live are in no rusage.

What processes share, as the pages of a library, counts once (Linux: proportional set size; elsewhere what is each one's own).
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

import psutil


class PeakMemory:
    """Sample the memory of a process tree until the block ends; `mb` is the largest sum seen, in MiB."""

    def __init__(self, pid: int | None = None, every_seconds: float = 0.5) -> None:
        self.mb, self._resident = 0.0, 0
        self._root = psutil.Process(pid)
        self._every = every_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._done.wait(self._every):
            self._sample()

    def _sample(self) -> None:
        tree = [self._root]
        with contextlib.suppress(psutil.Error):  # the root itself may have ended
            tree += self._root.children(recursive=True)
        resident = sum(_each(tree, lambda process: process.memory_info().rss))
        # To tell what is shared takes some hundredths of a second: only where all of it together is more than ever
        if resident > self._resident:
            self._resident = resident
            self.mb = max(self.mb, sum(_each(tree, _own)) / 2**20)


def _each(tree: list[psutil.Process], look: Callable[[psutil.Process], int]) -> Iterator[int]:
    for process in tree:
        with contextlib.suppress(psutil.Error):  # it ended between the list and the look
            yield look(process)


def _own(process: psutil.Process) -> int:
    found = process.memory_full_info()
    return int(getattr(found, "pss", found.uss))
