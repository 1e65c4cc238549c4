"""Which impressions a night learns from, by which it chooses the epoch, and on which it measures: by time, never by chance.

Partitions of earlier nights keep the rows of scenarios that were renamed or removed since; whoever reads them leaves those out.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from nightshelf.config import Shop

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class ExampleWindow:
    """The impressions after first_date, up to as_of_date, in the scenarios that the shop file has.

    Weights learn from those before validation_start; those before test_start choose the epoch; the others measure.
    A window too short for three has test_start = validation_start: training then holds back some users of its own days to choose.
    """

    first_date: dt.date
    validation_start: dt.date
    test_start: dt.date
    as_of_date: dt.date
    scenarios: tuple[str, ...]

    @property
    def days(self) -> list[dt.date]:
        """Return the days of arrival whose partitions may hold them; what is late for an earlier day is not among them."""
        return [self.first_date + dt.timedelta(days=n + 1) for n in range((self.as_of_date - self.first_date).days)]

    def bounds(self, split: Split) -> tuple[dt.date, dt.date]:
        """Return the first day of a split and the day after its last; equal if it has none."""
        start, end = self.first_date + dt.timedelta(days=1), self.as_of_date + dt.timedelta(days=1)
        edges = [start, max(start, self.validation_start), max(start, self.test_start), end]
        place = ("train", "validation", "test").index(split)
        return edges[place], edges[place + 1]

    def select(self, relation: str) -> str:
        """Return SQL (DuckDB's and Spark's) for the examples of the window among those of `relation`, with their `split`."""
        split = (
            f"CASE WHEN event_date < DATE '{self.validation_start}' THEN 'train' "
            f"WHEN event_date < DATE '{self.test_start}' THEN 'validation' ELSE 'test' END AS split"
        )
        return f"SELECT *, {split} FROM {relation} WHERE {self._is_after} AND scenario IN ({self._named})"

    def left_out(self, relation: str) -> str:
        """Return SQL for the number of examples of each scenario that the shop file has no more, by name."""
        where = f"{self._is_after} AND scenario NOT IN ({self._named})"
        return f"SELECT scenario, count(*) FROM {relation} WHERE {where} GROUP BY scenario ORDER BY scenario"

    @property
    def _is_after(self) -> str:
        return f"event_date > DATE '{self.first_date}'"

    @property
    def _named(self) -> str:
        return ", ".join(f"'{name}'" for name in self.scenarios)


def example_window(shop: Shop, first_date: dt.date, as_of_date: dt.date) -> ExampleWindow:
    """Return the window of a night.

    The test starts on the last open day on which every task is mature, and all later days belong to it: so each task
    can be measured, and nothing later than a measured impression is trained on. Half of the days after first_date are
    always left for training, but for days on which the shop was closed. Validation is the open day before the test, if
    an open day for training is left before it.

    Args:
        shop: gives label windows, closed days and scenarios.
        first_date: the first day that has features.
        as_of_date: the night.
    """
    widest = max(task.window for task in shop.tasks.values())
    day = as_of_date - dt.timedelta(days=min(widest.days, max((as_of_date - first_date).days - 1, 0) // 2))
    test_start = _open_day(shop, day, first_date)
    validation_start = _open_day(shop, test_start - dt.timedelta(days=1), first_date)
    if _open_day(shop, validation_start - dt.timedelta(days=1), first_date) <= first_date:
        validation_start = test_start
    return ExampleWindow(first_date, validation_start, test_start, as_of_date, tuple(shop.scenarios))


def _open_day(shop: Shop, day: dt.date, first_date: dt.date) -> dt.date:
    """Return the last open day up to `day`, but none before first_date."""
    while shop.is_closed(day) and day > first_date:
        day -= dt.timedelta(days=1)
    return day
