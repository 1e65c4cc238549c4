"""Which partitions of training_examples a night writes anew: labels ripen, and late events reach back.

A partition holds the impressions that arrived on its day. It is written on its own night, again on each night on which
a label window of it may have ended, and after that only on a night whose arrivals change a label of it: late events. Each
night looks at what came since the night before, until nothing can come any more: then the partition is settled.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from nightshelf.dates import days_back
from nightshelf.errors import InputError
from nightshelf.example_window import ExampleWindow, example_window
from pipelines.stage import Night

AGAIN = "again"


@dataclass(frozen=True)
class ExampleDay:
    """A partition that is to be written, and why: new, ripening, late events; again where this or a later night wrote it."""

    day: dt.date
    reason: str


def example_window_of(night: Night) -> ExampleWindow:
    """Return the examples that the night learns from: features begin on the first day of the history that has events.

    Raises:
        InputError: no event arrived in the history window.
    """
    history = days_back(night.as_of_date, night.shop.history_days)
    arrived = [day for day in night.warehouse.partitions("events") if history[0] <= day <= night.as_of_date]
    if not arrived:
        raise InputError(
            f"no events between {history[0]} and {night.as_of_date} in shop {night.shop.shop}; "
            "run `nightshelf stage clean` for these days first"
        )
    return example_window(night.shop, arrived[0], night.as_of_date)


def labelled_days(night: Night, days: list[dt.date]) -> dict[dt.date, dt.date]:
    """Return those partitions among `days` whose files have all columns → the night up to whose end their labels know."""
    import pyarrow.parquet as pq

    wanted = set(night.warehouse.specs["training_examples"].column_names)
    labelled = {}
    for day in sorted(set(night.warehouse.partitions("training_examples")).intersection(days)):
        footers = [pq.read_metadata(file) for file in night.warehouse.files("training_examples", [day])]
        if all(wanted <= set(footer.schema.names) for footer in footers):
            place = footers[0].schema.names.index("labels_as_of")
            labelled[day] = footers[0].row_group(0).column(place).statistics.min
    return labelled


def night_before(night: Night) -> dt.date | None:
    """Return the last night before this one that wrote examples: each tells so in example_days, when all is published."""
    before = [day for day in night.warehouse.partitions("example_days") if day < night.as_of_date]
    return max(before, default=None)


def days_to_write(
    days: list[dt.date],
    labelled: dict[dt.date, dt.date],
    last_night: dt.date | None,
    as_of_date: dt.date,
    window_days: int,
    settling_days: int,
    touched: Callable[[dict[dt.date, dt.date]], set[dt.date]],
) -> list[ExampleDay]:
    """Return the partitions among `days` that the night writes, oldest first.

    Args:
        days: the days of arrival of the night's examples.
        labelled: `labelled_days`.
        last_night: `night_before`.
        as_of_date: the night.
        window_days: the longest label window.
        settling_days: how long after a day an event may arrive that decides on a label of it.
        touched: told partitions → up to which night's end their labels know, says which of them what came since touches.
    """
    ripe, settled = dt.timedelta(days=window_days), dt.timedelta(days=settling_days)
    since = _since(days, labelled, last_night, as_of_date, ripe)
    reasons, doubtful = {}, {}
    for day in days:
        known = since.get(day)
        if known is None:
            reasons[day] = "new"
        elif known < day + ripe:
            reasons[day] = "ripening"
        elif known < day + settled:
            doubtful[day] = known
            if labelled[day] >= as_of_date:  # it may know more than this night may, or than its logs still tell
                reasons[day] = AGAIN
    reasons |= dict.fromkeys(touched(doubtful) if doubtful else (), "late events")
    return [ExampleDay(day, reasons[day]) for day in days if day in reasons]


def _since(
    days: list[dt.date],
    labelled: dict[dt.date, dt.date],
    last_night: dt.date | None,
    as_of_date: dt.date,
    ripe: dt.timedelta,
) -> dict[dt.date, dt.date]:
    """Return the partitions that were there before the night → up to which night's end their labels are right.

    That is the night that wrote one, or a later one that looked and left it: the last before this, if nights were run in
    order. An earlier night that was run again since took partitions back that later nights had let ripen; where one knows
    less than the last night would have left it, the nights after what it knows do not count.
    """
    if last_night is None:
        return {day: known for day, known in labelled.items() if known < as_of_date}
    earlier = {day: known for day, known in labelled.items() if day in days and day <= last_night}
    behind = [known for day, known in earlier.items() if known < min(last_night, day + ripe)]
    seen = min([last_night, *behind])
    return {day: max(known, seen) if known < as_of_date else seen for day, known in earlier.items()}


def in_groups(rows: dict[dt.date, int], most: int) -> list[list[dt.date]]:
    """Cut days, given with their rows, into groups of neighbours with at most so many rows; a larger day stays alone."""
    groups: list[list[dt.date]] = []
    held = 0
    for day, count in sorted(rows.items()):
        if not groups or held + count > most:
            groups.append([])
            held = 0
        groups[-1].append(day)
        held += count
    return groups
