"""Which impressions a night learns from, and which of them are held back to measure: by time, never by chance."""

import datetime as dt
from dataclasses import dataclass

from nightshelf.config import Shop


@dataclass(frozen=True)
class ExampleWindow:
    """The impressions after first_date, up to as_of_date; those from validation_start on are not trained on."""

    first_date: dt.date
    validation_start: dt.date
    as_of_date: dt.date

    @property
    def days(self) -> list[dt.date]:
        """Return the days of arrival whose partitions may hold them; what is late for an earlier day is not among them."""
        return [self.first_date + dt.timedelta(days=n + 1) for n in range((self.as_of_date - self.first_date).days)]

    def select(self, relation: str) -> str:
        """Return SQL (DuckDB's and Spark's) for the examples of the window among those of `relation`, with their `split`."""
        split = f"CASE WHEN event_date < DATE '{self.validation_start}' THEN 'train' ELSE 'validation' END AS split"
        return f"SELECT *, {split} FROM {relation} WHERE event_date > DATE '{self.first_date}'"


def example_window(shop: Shop, first_date: dt.date, as_of_date: dt.date) -> ExampleWindow:
    """Return the window of a night.

    Validation starts on the last open day on which every task is mature, and all later days belong to it: so each task
    can be validated, and nothing later than a validated impression is trained on. Half of the days after first_date are
    always left for training, but for days on which the shop was closed.

    Args:
        shop: gives label windows and closed days.
        first_date: the first day that has features.
        as_of_date: the night.
    """
    widest = max(task.window for task in shop.tasks.values())
    day = as_of_date - dt.timedelta(days=min(widest.days, max((as_of_date - first_date).days - 1, 0) // 2))
    while shop.is_closed(day) and day > first_date:
        day -= dt.timedelta(days=1)
    return ExampleWindow(first_date, day, as_of_date)
