"""The peak of a process tree: what children hold counts, what they share counts once."""

import multiprocessing
import time

import numpy as np
import pytest

from pipelines.memory import PeakMemory

MIB = 2**20


class Counted(PeakMemory):
    """Counts how often it looked."""

    looks = 0

    def _sample(self):
        super()._sample()
        self.looks += 1


def look(held, own, ready, end):
    """Read all that is inherited, hold some memory of one's own, and wait."""
    total = held.sum()
    mine = np.full(own * MIB // 8, total)
    ready.put(len(mine))
    end.wait()


def peak_with_children(held, own, count):
    """Return the peak in MiB while `count` forked processes read what this one holds and hold `own` MiB each."""
    context = multiprocessing.get_context("fork")
    ready, end = context.Queue(), context.Event()
    children = [context.Process(target=look, args=(held, own, ready, end)) for _ in range(count)]
    with Counted(every_seconds=0.05) as memory:
        for child in children:
            child.start()
        for _ in children:
            ready.get(timeout=60)
        last = memory.looks + 2  # one may have begun before the children were ready
        while memory.looks < last:
            time.sleep(0.05)
        end.set()
        for child in children:
            child.join()
    return memory.mb


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_children_hold_counts_and_what_they_share_counts_once():
    with PeakMemory(every_seconds=0.05) as before:
        pass
    held = np.ones(200 * MIB // 8)
    alone = peak_with_children(held, own=0, count=0)
    assert alone - before.mb == pytest.approx(200, abs=40)
    shared = peak_with_children(held, own=0, count=3)
    assert shared - alone < 120  # and not 3 x 200 more
    assert peak_with_children(held, own=100, count=3) - shared == pytest.approx(300, abs=60)
