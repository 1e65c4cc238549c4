"""Which partitions of training_examples a night writes anew: labels ripen, and late events reach back.

A partition holds the impressions that arrived on its day. It is written on its own night, again on each night on which
a label window of it may have ended, and after that only if a late event touches one of its impressions.
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


def labelled_days(night: Night) -> dict[dt.date, dt.date]:
    """Return the partitions whose files have all columns → the night up to whose end their labels know."""
    import pyarrow.parquet as pq

    wanted = set(night.warehouse.specs["training_examples"].column_names)
    labelled = {}
    for day in night.warehouse.partitions("training_examples"):
        footers = [pq.read_metadata(file) for file in night.warehouse.files("training_examples", [day])]
        if all(wanted <= set(footer.schema.names) for footer in footers):
            place = footers[0].schema.names.index("labels_as_of")
            labelled[day] = footers[0].row_group(0).column(place).statistics.min
    return labelled


def days_to_write(
    days: list[dt.date],
    labelled: dict[dt.date, dt.date],
    as_of_date: dt.date,
    window_days: int,
    reach_days: int,
    touched: Callable[[dict[dt.date, dt.date]], set[dt.date]],
) -> list[ExampleDay]:
    """Return the partitions among `days` that the night writes, oldest first.

    Args:
        days: the days of arrival of the night's examples.
        labelled: `labelled_days`.
        as_of_date: the night.
        window_days: the longest label window.
        reach_days: how long after a day an event may arrive that decides on a label of it.
        touched: told partitions → since when, says which of them a late event touches.
    """
    ripe, settled = dt.timedelta(days=window_days), dt.timedelta(days=reach_days)
    reasons, doubtful = {}, {}
    for day in days:
        known = labelled.get(day)
        if known is None or day == as_of_date:
            reasons[day] = "new"
        elif min(known, as_of_date) >= day + settled:
            continue
        elif (before := min(known, as_of_date - dt.timedelta(days=1))) < day + ripe:
            reasons[day] = "ripening"
        else:
            doubtful[day] = before
            if known >= as_of_date:  # what it knows may be more than this night may know, or than its logs still tell
                reasons[day] = AGAIN
    reasons |= dict.fromkeys(touched(doubtful) if doubtful else (), "late events")
    return [ExampleDay(day, reasons[day]) for day in days if day in reasons]


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
