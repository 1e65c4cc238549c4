"""Has a log, the catalogue, the user table or the graph changed its schema since the night before?

Seen by name, told as a table, and stopped where it would harm.

A column that the shop file reads and that is gone, renamed or of another kind stops the night before anything is
written. A column that is new, or that nobody reads, is a warning.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.logs import get_logger
from nightshelf.raw_logs import NUMBERS, Dimension, Graph, Source, ValueMap

_NUMERIC = {"integer", "number", "decimal"}
_VAGUE = ("empty", "mixed")  # kinds that fit every other
_CHANCE = 1e-6  # that a sample misses a column that is still there on as many rows as before


@dataclass(frozen=True)
class Column:
    """A column of a log on one day: the kind of its values, and the share of the sampled rows on which it stood."""

    kind: str
    share: float


@dataclass(frozen=True)
class Schema:
    """A log's columns on one day, by name, from a sample of so many rows."""

    source: str
    day: dt.date
    rows: int
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class RawInput:
    """What the shop file reads of a log, of the items, the users or the graph.

    `place` is where it stands in the shop file, `read` are its columns there, `numbers` those whose values are numbers.
    """

    name: str
    place: str
    table: Source | Dimension | Graph
    read: frozenset[str]
    numbers: frozenset[str]

    @property
    def told(self) -> str:
        """Return what messages call it."""
        return f"the log of {self.name}" if isinstance(self.table, Source) else f"the file of {self.name}"


_ITEM_NUMBERS = ("price", "stock")
Look = Callable[[RawInput, dt.date, list[str]], Schema | None]


def raw_inputs(shop: Shop) -> list[RawInput]:
    """Return everything that the shop file reads."""
    found = [raw_log(source) for source in shop.sources]
    for name, table in (("items", shop.items), ("users", shop.users), ("graph", shop.graph)):
        if table:
            attributes = [*table.attributes, *filter(None, [table.consent])] if isinstance(table, Dimension) else []
            numbers = frozenset(table.columns[ours] for ours in _ITEM_NUMBERS if ours in table.columns)
            found.append(RawInput(name, name, table, frozenset([*table.columns.values(), *attributes]), numbers))
    return found


def raw_log(source: Source) -> RawInput:
    """Return what the shop file reads of a log."""
    mapped = (value.column for value in (source.event_type, source.scenario) if isinstance(value, ValueMap))
    numbers = frozenset(theirs for ours, theirs in source.columns.items() if ours in NUMBERS)
    read = frozenset([*source.columns.values(), *mapped])
    ids = frozenset(theirs for ours, theirs in source.columns.items() if ours not in NUMBERS)
    return RawInput(source.name, f"sources.{source.name}", source, read, numbers - ids)


@dataclass(frozen=True)
class Change:
    """One line of the difference table."""

    column: str
    what: str  # added, dropped, renamed, retyped
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.column} {self.what} ({self.before} → {self.now})"


def differences(before: Schema, now: Schema) -> list[Change]:
    """Return what changed, by column: dropped and renamed first, then retyped, then added."""
    gone = {
        name: column
        for name, column in before.columns.items()
        if name not in now.columns and (1 - column.share) ** now.rows < _CHANCE
    }
    new = {name: column for name, column in now.columns.items() if name not in before.columns}
    changes = []
    for name, column in gone.items():
        successor = _successor(name, column, gone, new)
        if successor:
            other = new.pop(successor)
            changes.append(Change(name, "renamed", f"{name}: {column.kind}", f"{successor}: {other.kind}"))
        else:
            changes.append(Change(name, "dropped", column.kind, "absent"))
    for name, column in now.columns.items():
        old = before.columns.get(name)
        if old and old.kind != column.kind and not {old.kind, column.kind} & set(_VAGUE):
            changes.append(Change(name, "retyped", old.kind, column.kind))
    return [*changes, *(Change(name, "added", "absent", column.kind) for name, column in new.items())]


def _successor(name: str, column: Column, gone: Mapping[str, Column], new: Mapping[str, Column]) -> str | None:
    """Return the new column that a dropped one became: the only one of its kind, or the one most like it by name."""
    alike = [other for other, c in new.items() if c.kind == column.kind or {c.kind, column.kind} & set(_VAGUE)]
    rivals = [other for other, c in gone.items() if c.kind == column.kind]
    if len(alike) == 1 and rivals == [name]:
        return alike[0]
    return next(iter(get_close_matches(name, alike, 1)), None)


def check_inputs(
    by_day: Mapping[str, Mapping[dt.date, list[str]]], inputs: list[RawInput], known: Mapping[str, Schema], look: Look
) -> list[Schema]:
    """Compare the schema of each input on each day with the one before it; return them all.

    Args:
        by_day: input → day → files, oldest day first.
        inputs: the shop file's.
        known: each input's newest schema of an earlier night.
        look: reads the schema of some files of an input; None if they have no columns.

    Raises:
        InputError: a column that the shop file reads is gone, renamed or of another kind.
    """
    schemas = []
    for raw in inputs:
        before, since = known.get(raw.name), raw.table.schema_since
        for day, files in by_day.get(raw.name, {}).items():
            now = look(raw, day, files)
            if now is None:
                continue
            is_new_kind = before and since and before.day < since <= day
            check_drift(raw, None if is_new_kind else before, now)
            schemas.append(now)
            before = now
    return schemas


def check_drift(raw: RawInput, before: Schema | None, now: Schema) -> None:
    """Tell how a log or file differs from what it was.

    Raises:
        InputError: a column that the shop file reads is gone, renamed or of another kind.
    """
    log = get_logger("clean")
    if before is None:
        ignored = sorted(set(now.columns) - raw.read)
        if ignored:
            log.info("%s: the shop file does not name %s; ignored", raw.name, ", ".join(ignored))
        return
    changes = differences(before, now)
    for change in changes:
        is_read = "read" if change.column in raw.read else "not read"
        log.warning(
            "%s %s against %s: %-16s %-8s %s → %s  (%s by the shop file)",
            raw.name, now.day, before.day, change.column, change.what, change.before, change.now, is_read,
        )  # fmt: skip
    harmful = [change for change in changes if change.column in raw.read and _is_harmful(change, raw)]
    if harmful:
        raise InputError(
            f"{raw.told} changed between {before.day} and {now.day}: {', '.join(map(str, harmful))}; correct it, "
            f"or {raw.place} in the shop file; if the change is meant and that file fits it, "
            f"write schema_since: {now.day} there"
        )


def _is_harmful(change: Change, raw: RawInput) -> bool:
    """Say whether a change of a column that is read matters: 5 and 5.0 are two ids, but one price."""
    if change.what == "retyped" and {change.before, change.now} <= _NUMERIC:
        return change.column not in raw.numbers
    return change.what != "added"


def as_rows(schema: Schema) -> list[dict[str, Any]]:
    """Return the rows of the table source_schemas."""
    of_all = {"as_of_date": schema.day, "source": schema.source, "rows": schema.rows}
    return [{**of_all, "column_name": name, "kind": c.kind, "share": c.share} for name, c in schema.columns.items()]


def from_rows(rows: list[dict[str, Any]]) -> dict[str, Schema]:
    """Return each source's newest schema among rows of source_schemas."""
    newest: dict[str, dt.date] = {}
    for row in rows:
        newest[row["source"]] = max(row["as_of_date"], newest.get(row["source"], dt.date.min))
    schemas: dict[str, Schema] = {}
    for row in rows:
        name, day = row["source"], row["as_of_date"]
        if day == newest[name]:
            columns = schemas[name].columns if name in schemas else {}
            schemas[name] = Schema(
                name, day, row["rows"], {**columns, row["column_name"]: Column(row["kind"], row["share"])}
            )
    return schemas
