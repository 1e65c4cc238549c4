"""Work in order with few parts waiting, and the watch that tells where threads spend their time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nightshelf.parallel import in_order
from nightshelf.stopwatch import Stopwatch


def test_results_come_in_order_and_few_wait_for_whoever_takes_them():
    begun, lock = [], threading.Lock()

    def work(part):
        with lock:
            begun.append(part)
        return part * part

    with ThreadPoolExecutor(3) as pool:
        taken = []
        for square in in_order(pool, work, range(50), 4):
            taken.append(square)
            assert len(begun) <= len(taken) + 4
        assert taken == [n * n for n in range(50)]
        assert sorted(begun) == list(range(50))
        assert list(in_order(pool, work, [], 4)) == []


def test_an_error_of_a_part_comes_to_whoever_takes_it():
    with ThreadPoolExecutor(2) as pool:
        results = in_order(pool, lambda part: 1 / part, [1, 0, 2], 2)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_a_watch_sums_over_threads_and_parts_lie_inside_each_other():
    watch = Stopwatch()

    def work(number):
        with watch.of("all"):
            with watch.of("part"):
                sum(n * n for n in range(200_000))
            watch.count("pairs", number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(10)))
    assert watch.counts["pairs"] == 45
    assert 0.01 < watch.seconds["part"] <= watch.seconds["all"]
