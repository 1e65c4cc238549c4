"""The memory of a process and all that it started, JVM included: sampled, because children that live are in no rusage.

What processes share, as the pages of a library, counts once (Linux: proportional set size; elsewhere what is each one's own).
"""

import contextlib
import threading

import psutil


class PeakMemory:
    """Sample the memory of a process tree until the block ends; `mb` is the largest sum seen, in MiB."""

    def __init__(self, pid: int | None = None, every_seconds: float = 0.5) -> None:
        self.mb = 0.0
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
        total, tree = 0, [self._root]
        with contextlib.suppress(psutil.Error):  # the root itself may have ended
            tree += self._root.children(recursive=True)
        for process in tree:
            with contextlib.suppress(psutil.Error):  # it ended between the list and the look
                found = process.memory_full_info()
                total += getattr(found, "pss", found.uss)
        self.mb = max(self.mb, total / 2**20)
