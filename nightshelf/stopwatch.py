"""Where the time of several threads goes: seconds that each part of the work keeps a processor busy, and counts."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds of processor time and counts by name, summed over threads."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Add the processor time that this thread spends in the block to a part."""
        start = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - start
            with self._lock:
                self.seconds[part] += spent

    def count(self, what: str, number: int) -> None:
        """Add a number to a count."""
        with self._lock:
            self.counts[what] += number
