"""The books of the cleaning: every row read or taken back is kept, set aside, a duplicate or of another day, and nothing else.

The figures come from the files written, by another engine than the one that wrote them (Arrow).
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from nightshelf.config import Shop
from nightshelf.errors import EngineError, InputError
from nightshelf.raw_logs import WITHOUT_USER

COLUMNS = ("rows_read", "taken_back", "kept", "quarantined", "expected", "duplicates", "other_days")
# What may be set aside without a fault, if the shop file says so: reason → the line that does
_REMEDIES = {"missing_key_field": "without_user: expected", "negative_number": "negative_quantity: cancels"}
_ABSENT = " is absent"  # how the rules' evidence says that a row lacks a column


@dataclass
class SourceDay:
    """The rows of one source's log of one day."""

    rows_read: int = 0
    taken_back: int = 0
    kept: int = 0
    quarantined: int = 0
    expected: int = 0
    duplicates: int = 0
    other_days: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)


Books = dict[tuple[dt.date, str], SourceDay]


def count_rows(
    judged: Path, taken_back: Path, kept: Path, duplicates: Path, quarantine: Path, shop: Shop, days: list[dt.date]
) -> Books:
    """Return the counts of every source and day from the folders of Parquet files that the cleaning wrote."""
    books: Books = {(day, source.name): SourceDay() for day in days for source in shop.sources}
    for day, source, reason, rows in _groups(judged, ["as_of_date", "source", "reason"]):
        books[day, source].rows_read += rows
        books[day, source].other_days += rows if reason == "other_days" else 0
    for day, source, rows in _groups(taken_back, ["as_of_date", "source"]):
        books[day, source].taken_back = rows
    for day, source, rows in _groups(kept, ["as_of_date", "source"]):
        books[day, source].kept = rows
    for day, source, rows in _groups(duplicates, ["as_of_date", "source"]):
        books[day, source].duplicates = rows
    for day, source, reason, rows in _groups(quarantine, ["as_of_date", "source", "reason"]):
        books[day, source].quarantined += rows
        books[day, source].reasons[reason] = rows
    for source in shop.sources:
        for day in days:
            of_day = books[day, source.name]
            of_day.expected = sum(of_day.reasons.get(reason, 0) for reason in source.expected_reasons)
    _add_details(books, quarantine)
    return books


def _read(folder: Path, columns: list[str]) -> pa.Table:
    files = sorted(str(file) for file in folder.rglob("*.parquet"))
    if not files:
        return pa.table({name: [] for name in columns})
    return ds.dataset(files, format="parquet").to_table(columns=columns)


def _groups(folder: Path, keys: list[str]) -> Iterator[tuple[Any, ...]]:
    counts = _read(folder, keys).group_by(keys).aggregate([([], "count_all")])
    return zip(*(counts[name].to_pylist() for name in [*keys, "count_all"]), strict=True)


def _add_details(books: Books, quarantine: Path) -> None:
    keys = ["as_of_date", "source", "reason"]
    first = _read(quarantine, [*keys, "raw"]).group_by(keys).aggregate([("raw", "min")])
    for row in first.to_pylist():
        books[row["as_of_date"], row["source"]].examples[row["reason"]] = row["raw_min"]
    for day, source, reason, evidence, rows in _groups(quarantine, [*keys, "evidence"]):
        if reason != WITHOUT_USER and evidence and evidence.endswith(_ABSENT):
            absent, column = books[day, source].absent, evidence.removesuffix(_ABSENT)
            absent[column] = absent.get(column, 0) + rows


def check_books(books: Books, shop: Shop, as_of_date: dt.date) -> None:
    """Raise the first thing that is wrong with the logs of a day, or with the books themselves.

    Raises:
        EngineError: rows were lost or invented.
        InputError: a column is absent in every row, too many rows were set aside, or a day has no usable event.
    """
    for (day, source), of_day in sorted(books.items()):
        _check_conservation(day, source, of_day)
        _check_columns(day, source, of_day)
        _check_share(day, source, of_day, shop)
    for day in sorted({day for day, _ in books}):
        # Where all days lie in one place, a day of the history without rows is no missing file
        if not shop.is_closed(day) and (day == as_of_date or any(source.is_dated for source in shop.sources)):
            _check_not_empty(day, [of_day for (other, _), of_day in books.items() if other == day], shop)


def _check_conservation(day: dt.date, source: str, rows: SourceDay) -> None:
    accounted = rows.kept + rows.quarantined + rows.duplicates + rows.other_days
    if accounted != rows.rows_read + rows.taken_back:
        taken = f" and {rows.taken_back} taken back" if rows.taken_back else ""
        raise EngineError(
            f"{source} {day}: {rows.rows_read} rows read{taken} but {accounted} accounted for; run the stage again"
        )


def _check_columns(day: dt.date, source: str, rows: SourceDay) -> None:
    readable = rows.rows_read - rows.other_days - rows.reasons.get("unparsable", 0)
    for column, absent in rows.absent.items():
        if absent == readable:
            raise InputError(
                f"{source} {day}: column {column!r} is absent in every row; correct the log or sources.{source} in the shop file"
            )


def _check_share(day: dt.date, source: str, rows: SourceDay, shop: Shop) -> None:
    faults, others = rows.quarantined - rows.expected, rows.rows_read - rows.expected
    if faults > shop.quarantine.max_share * others:
        expected = next(log.expected_reasons for log in shop.sources if log.name == source)
        reasons = [(count, reason) for reason, count in rows.reasons.items() if reason not in expected]
        count, reason = max(reasons)
        remedy = f", or say `{_REMEDIES[reason]}` there if that is no fault" if reason in _REMEDIES else ""
        raise InputError(
            f"{source} {day}: {faults} of {others} rows would be set aside, "
            f"more than quarantine.max_share = {shop.quarantine.max_share:g}; most often {reason} ({count} rows), "
            f"e.g. {rows.examples[reason][:200]!r}; correct the log or the source in the shop file{remedy}"
        )


def _check_not_empty(day: dt.date, sources: list[SourceDay], shop: Shop) -> None:
    if not any(rows.kept for rows in sources):
        read = sum(rows.rows_read for rows in sources)
        raise InputError(
            f"empty day: the logs of {day} hold no usable event ({read} rows read); bring the logs, or, if the shop was closed, "
            f"write `{shop.closed.line_with(day)}` in the shop file"
        )


def as_table(books: Books) -> pa.Table:
    """Return the rows of the table source_counts."""
    rows = [
        {"as_of_date": day, "source": source, **{name: getattr(of_day, name) for name in COLUMNS}}
        for (day, source), of_day in sorted(books.items())
    ]
    return pa.Table.from_pylist(rows)
