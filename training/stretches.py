"""Days of examples that are read together: columns in mapped files are gone through some days at a time, as memory holds them.

Rows drawn from all of a large file would each be a read of their own; those of a few days are read in one go, while the days
before them are trained on. Which days come together is drawn by chance, anew in each epoch.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch

from training.storage import Storage

# So many stretches shall fit into memory: the one in use, the next one, and some room.
_STRETCHES = 3
# So many batches before its own the reading of a day begins.
_AHEAD = 100


def days_together(days: int, storage: Storage) -> int:
    """Return how many of so many days are read together: all, where their columns lie in memory."""
    return min(days, max(1, days * storage.room // (_STRETCHES * storage.size))) if storage.is_mapped else days


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
