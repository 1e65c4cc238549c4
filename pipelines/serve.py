"""The serving of all users, block by block: first looks, scores, shelves and their rows, on all cores."""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from nightshelf.logs import get_logger
from nightshelf.parallel import cores, in_order
from nightshelf.scenarios import Scenario
from nightshelf.stopwatch import Stopwatch
from pipelines.first_look import FirstLook, Predict, PredictFor, first_look
from pipelines.shelf_rows import RowMaker
from pipelines.shelves import Shelves, Stockroom, fill_shelves

BLOCK = 512
_AHEAD = 2  # blocks a core that wait to be written, at most: what waits does not grow with the number of users
_LOG_SECONDS = 10.0


def serve(
    users: int,
    scenarios: dict[str, Scenario],
    predict_for: PredictFor,
    worth: dict[str, np.ndarray],
    room: Stockroom,
    maker: RowMaker,
    whose: str,
    workers: int = 0,
    leaning: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[tuple[str, pa.Table]]:
    """Yield scenario and rows of a block of users.

    The first scenario takes a first look at what any of them ranks for a block; every one then scores the best of its own.
    Blocks are served side by side, each by one thread: the rows do not depend on the number of cores.

    Args:
        users: how many there are; their numbers begin at 0.
        scenarios: of the shop.
        predict_for: the predictions of a block in the scenarios that are asked for.
        worth: `worth_to_anybody`, of the same scenarios.
        room: what shelves are filled from.
        maker: makes rows.
        whose: what the log calls these users.
        workers: how many threads serve (0: one a core).
        leaning: FirstLook's.
    """
    from training.workers import torch_workers

    watch, pivot, started = Stopwatch(), next(iter(worth)), time.monotonic()
    timed_for = _timed(predict_for, watch)

    def of_block(bounds: tuple[int, int]) -> list[tuple[str, pa.Table]]:
        """Return scenario and rows of the users from the first bound to the one before the second."""
        with watch.of("all"):
            block = np.arange(*bounds)
            by_scenario = timed_for(block)
            look = first_look(block, scenarios[pivot], room.lists, by_scenario[pivot], worth, pivot, leaning)
            served = []
            for name, shelves in _in_turn(block, scenarios, by_scenario, room, dict.fromkeys(by_scenario, look)):
                with watch.of("rows"):
                    served.append((name, maker.rows(name, shelves)))
            return served

    told, blocks, log = started, list(pairwise([*range(0, users, BLOCK), users])), get_logger("recommend")
    threads = workers or cores()
    # On the cores that these threads leave, others serve: each thread computes on one core
    with torch_workers(threads, max(1, cores() // threads)) as pool:
        every = in_order(pool, of_block, blocks, _AHEAD * threads)
        for (_, end), served in zip(blocks, every, strict=True):
            yield from served
            if time.monotonic() - told > _LOG_SECONDS:
                told = time.monotonic()
                log.info("%s: %d of %d users with a history are served", whose, end, users)
    log.info("%s: %s", whose, _summary(users * len(worth), time.monotonic() - started, watch))


def serve_strangers(
    strangers: Mapping[int, np.ndarray],
    scenarios: dict[str, Scenario],
    predict_for: PredictFor,
    worth: dict[str, np.ndarray],
    room: Stockroom,
    maker: RowMaker,
) -> Iterator[tuple[str, np.ndarray, pa.Table]]:
    """Yield scenario, the number of each row and rows, a block of those of whom no more than a segment is known at a time.

    What a segment may be shown is scored once for all of it. Each scenario takes its own first look, which is its score.

    Args:
        strangers: by the number of the segment as which they are scored their own numbers, below 0 and ascending.
        scenarios, predict_for, worth, room, maker: those of `serve`.
    """
    shown, _ = room.lists.of_everybody(list(worth))
    served, told = 0, time.monotonic()
    for segment, numbers in strangers.items():
        by_scenario = {
            name: _known(predict, shown, len(room.exclusions.blocked))
            for name, predict in predict_for(np.array([segment])).items()
        }
        for whose in np.split(numbers, range(BLOCK, len(numbers), BLOCK)):
            looks = {
                name: first_look(whose, scenarios[name], room.lists, predict, worth, name)
                for name, predict in by_scenario.items()
            }
            for name, shelves in _in_turn(whose, scenarios, by_scenario, room, looks):
                yield name, shelves.users, maker.rows(name, shelves)
            served += len(whose)
            if time.monotonic() - told > _LOG_SECONDS:
                told = time.monotonic()
                every = sum(len(numbers) for numbers in strangers.values())
                get_logger("recommend").info("%d of %d shelves for those without a history are made", served, every)


def _known(predict: Predict, shown: np.ndarray, items: int) -> Predict:
    """Return predictions that are the same for each user, asked once: those for the items `shown`, of so many."""
    table = {}
    for task, values in predict(shown[None]).items():
        table[task] = np.full(items + 1, np.nan, values.dtype)  # the last is that of -1
        table[task][shown] = values[0]
    return lambda asked: {task: values[asked] for task, values in table.items()}


def _in_turn(
    users: np.ndarray,
    scenarios: dict[str, Scenario],
    by_scenario: dict[str, Predict],
    room: Stockroom,
    looks: dict[str, FirstLook],
) -> Iterator[tuple[str, Shelves]]:
    """Yield scenario and shelves of some users; each scenario knows what stands on their shelves of those before it."""
    shown = np.zeros((len(users), 0), np.int64)
    for name, predict in by_scenario.items():
        shelves = fill_shelves(users, name, scenarios[name], room, predict, looks[name], shown)
        shown = np.concatenate([shown, shelves.of_block(users, scenarios[name].top_n)], axis=1)
        yield name, shelves


def _timed(predict_for: PredictFor, watch: Stopwatch) -> PredictFor:
    """Return predictions of which the pairs are counted, and the time, that of encoding users with it."""

    def timed(predict: Predict, items: np.ndarray) -> dict[str, np.ndarray]:
        """Predict for items [U, K], and count those that are there (not -1) as pairs."""
        watch.count("pairs", int((items >= 0).sum()))
        with watch.of("scored"):
            return predict(items)

    def timed_for(users: np.ndarray) -> dict[str, Predict]:
        """Encode a block of users, and return the timed predictions of each scenario."""
        with watch.of("scored"):
            return {name: partial(timed, predict) for name, predict in predict_for(users).items()}

    return timed_for


def _summary(shelves: int, seconds: float, watch: Stopwatch) -> str:
    spent, pairs = watch.seconds, watch.counts["pairs"]
    whole = max(spent["all"], 1e-9)
    scored, rows = spent["scored"] / whole, spent["rows"] / whole
    return (
        f"{shelves} shelves in {seconds:.1f} s, {shelves / max(seconds, 1e-9):.0f}/s; {pairs} pairs scored; of the processors' "
        f"time {scored:.0%} scored, {1 - scored - rows:.0%} chose and ordered, {rows:.0%} made rows"
    )
