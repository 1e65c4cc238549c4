"""Which days' logs a night must clean, and which raw files they are: plain rules over dates and lists of files."""

import datetime as dt
from collections.abc import Callable, Collection
from dataclasses import dataclass

from nightshelf.config import Shop
from nightshelf.dates import days_back
from nightshelf.errors import InputError
from nightshelf.logs import get_logger
from nightshelf.paths import source_path
from nightshelf.raw_logs import Dimension

ListFiles = Callable[[str], list[str]]


@dataclass(frozen=True)
class Arrivals:
    """The days to write, oldest first, and the files of each source by day; the last day's, where they hold all days."""

    days: list[dt.date]
    by_day: dict[str, dict[dt.date, list[str]]]

    def files(self, source: str) -> list[str]:
        """Return a source's files of all days together."""
        return [file for of_day in self.by_day[source].values() for file in of_day]


def find_arrivals(shop: Shop, as_of_date: dt.date, done: Collection[dt.date], list_files: ListFiles) -> Arrivals:
    """Return as_of_date and the days of the history before it that are not `done`, with their files.

    Days before the first one that has a log are left out. Sources without {event_date} hold all days. Beyond the history, as far
    back as `rebuy` remembers, a day without a log is no fault: it is left out, too.

    Raises:
        InputError: a source has no file for a day on which the shop was not closed.
    """
    window = max(shop.history_days, shop.rebuy.days if shop.rebuy else 0)
    todo = [day for day in days_back(as_of_date, window) if day == as_of_date or day not in done]
    found: dict[str, dict[dt.date, list[str]]] = {}
    by_day: dict[str, dict[dt.date, list[str]]] = {}
    for source in shop.sources:
        if source.is_dated:
            found[source.name] = {day: list_files(source_path(shop, source.path, day)) for day in todo}
        else:
            by_day[source.name] = {as_of_date: list_files(source_path(shop, source.path))}
            _check(
                bool(by_day[source.name][as_of_date]),
                f"log of {source.name}",
                source_path(shop, source.path),
                f"sources.{source.name}.path",
            )
    with_logs = [day for day in todo if any(of_source[day] for of_source in found.values())]
    first = min([*with_logs, *(day for day in done if day >= todo[0]), as_of_date]) if found else todo[0]
    skipped = [day for day in todo if day < first]
    if skipped:
        get_logger("clean").info("no logs before %s: %d days of history are left out", first, len(skipped))
    history = days_back(as_of_date, shop.history_days)
    days = [day for day in todo if day >= first and (not found or day >= history[0] or day in with_logs)]
    for source in shop.sources:
        if source.is_dated:
            by_day[source.name] = {
                day: found[source.name][day]
                if day < history[0]
                else _of_day(shop, source.name, source.path, found[source.name], day)
                for day in days
            }
    return Arrivals(days, by_day)


def _of_day(shop: Shop, name: str, pattern: str, found: dict[dt.date, list[str]], day: dt.date) -> list[str]:
    if not shop.is_closed(day):
        closed = shop.closed.line_with(day)
        _check(
            bool(found[day]),
            f"log of {name} for {day}",
            source_path(shop, pattern, day),
            f"sources.{name}.path",
            closed,
        )
    return found[day]


def find_listings(
    shop: Shop, dimension: Dimension, name: str, days: list[dt.date], list_files: ListFiles
) -> tuple[dict[dt.date, dt.date | None], dict[dt.date | None, list[str]]]:
    """Return for each day the day whose catalogue (or user table) counts, and the files of every such day.

    A dated catalogue of a closed day may be missing: the one before it then counts. The files include those of the
    history before `days`. A dimension without {event_date} has one listing, None.

    Raises:
        InputError: there is no file, or none for a day on which the shop was not closed.
    """
    if "{event_date}" not in dimension.path:
        path = source_path(shop, dimension.path)
        files = list_files(path)
        _check(bool(files), f"{name} file", path, f"{name}.path")
        return dict.fromkeys(days), {None: files}
    window = days_back(days[-1], (days[-1] - days[0]).days + shop.history_days)
    found = {day: list_files(source_path(shop, dimension.path, day)) for day in window}
    listings: dict[dt.date, dt.date | None] = {}
    for day in days:
        if not shop.is_closed(day):
            place, closed = source_path(shop, dimension.path, day), shop.closed.line_with(day)
            _check(bool(found[day]), f"{name} file for {day}", place, f"{name}.path", closed)
        earlier = [other for other in window if other <= day and found[other]]
        if earlier:
            listings[day] = earlier[-1]
    return listings, {day: files for day, files in found.items() if files}


def _check(is_there: bool, what: str, path: str, key: str, closed: str = "") -> None:
    if not is_there:
        or_closed = f", or, if the shop was closed, write `{closed}` in the shop file" if closed else ""
        raise InputError(f"no {what}: nothing matches {path}; bring the file, correct {key}{or_closed}")
