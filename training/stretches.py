"""Days of examples that are shuffled together: large columns are gone through some days at a time.

Rows drawn from all of a large mapped file would each be a read of their own; those of a few days are read in one go, while
the days before them are trained on. Which days come together is drawn by chance, anew in each epoch. How many do is said by
the recipe and the size of the columns, not by the memory that happens to be free: batches stay a function of the seed.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch

from nightshelf.logs import get_logger
from training.storage import Storage

log = get_logger("train")

# So many stretches shall fit into memory: the one in use, the next one, and some room.
_STRETCHES = 3
# So many batches before its own the reading of a day begins.
_AHEAD = 100


def days_together(days: int, size: int, shuffle_gb: float) -> int:
    """Return how many of so many days are shuffled together, whose columns take `size` bytes: what `shuffle_gb` holds."""
    return min(days, max(1, int(days * shuffle_gb * 1e9 / max(size, 1))))


def warn_of_slow_reads(storage: Storage, shuffle_gb: float) -> None:
    """Warn where what is shuffled together lies in files and does not fit into memory: each batch would wait for the disk."""
    room, together = storage.room / _STRETCHES, min(storage.size, shuffle_gb * 1e9)
    if storage.is_mapped and together > room:
        log.warning(
            "columns of %.1f GB are shuffled together, and memory has room for %.1f GB of them: batches wait for the disk; "
            "give the training more memory, or set shuffle_gb: %g in the recipe",
            together / 1e9,
            room / 1e9,
            max(int(room / 1e7) / 100, 0.001),
        )


def stretches(days: torch.Tensor, together: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Return the chunks that are shuffled among each other: all of them, or some days' after another.

    Args:
        days: the day of each chunk [chunks].
        together: `days_together`.
        generator: draws the days.
    """
    distinct = days.unique()
    if together >= len(distinct):
        return [torch.arange(len(days))]
    drawn = distinct[torch.randperm(len(distinct), generator=generator)].split(together)
    return [torch.isin(days, some).nonzero().flatten() for some in drawn]


def read_ahead(
    batches: list[torch.Tensor], days: torch.Tensor, ask_for: Callable[[int], None]
) -> Iterator[torch.Tensor]:
    """Give batches one by one; ask once for each day that one of the next needs, on a thread beside.

    Args:
        batches: their chunks.
        days: the day of each chunk [chunks].
        ask_for: has a day read.
    """
    soon, asked = iter(batches), set[int]()
    with ThreadPoolExecutor(1) as beside:
        for place, batch in enumerate(batches):
            for later in islice(soon, _AHEAD if place == 0 else 1):
                needed = set(days[later].unique().tolist()) - asked
                asked |= needed
                for day in sorted(needed):
                    beside.submit(ask_for, day)
            yield batch
