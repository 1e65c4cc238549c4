"""A rule on a table: a fact, which is one SQL aggregate over the table's partition, and what it may be.

All facts of a table come from one pass of DuckDB over its files, so that a rule costs what its aggregate costs, and Great
Expectations judges one small frame of them (pipelines/validate.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.stage import Night
from pipelines.validate import Row, check_table, expect, query_files

Severity = Literal["critical", "warning"]
# Values that a rule on a set looks at: enough to name what is wrong, whatever a broken column holds.
_MOST_VALUES = 1000
# Stands for NaN and the infinities, which GX would pass over.
_LARGEST = 3e38


@dataclass(frozen=True)
class Rule:
    """What data_checks calls it, the column that it is about, its fact, and GX's expectation of that fact.

    `told` is what data_checks shows as expected; empty: the expectation's own arguments.
    """

    name: str
    column: str
    fact: str
    kind: str
    arguments: dict[str, Any]
    severity: Severity = "critical"
    told: str = ""


def between(
    name: str,
    column: str,
    fact: str,
    low: float | None = 0,
    high: float | None = 0,
    severity: Severity = "critical",
    told: str = "",
) -> Rule:
    """Return the rule that a number lies in [low, high]; None lifts a bound."""
    bounds = {"min_value": low, "max_value": high}
    return Rule(name, column, fact, "ColumnMaxToBeBetween", bounds, severity, told)


def no_rows(name: str, column: str, condition: str, severity: Severity = "critical", told: str = "") -> Rule:
    """Return the rule that no row fulfils a condition."""
    return between(name, column, f"count(*) FILTER (WHERE {condition})", severity=severity, told=told or "0 rows")


def in_range(
    column: str, low: float, high: float, severity: Severity = "critical", of: tuple[str, str] | None = None
) -> Rule:
    """Return the rule that every value of a column is in [low, high]; null passes, NaN does not.

    The fact is the smallest or largest value, whichever is outside. `of`: SQL of a row's own smallest and largest, for lists.
    """
    least, most = of or (f'"{column}"', f'"{column}"')
    # To DuckDB NaN is larger than every number; to GX it is no value
    fact = f"""coalesce(CASE WHEN max({most})::DOUBLE > {high} THEN least(max({most})::DOUBLE, {_LARGEST})
        WHEN min({least})::DOUBLE < {low} THEN greatest(min({least})::DOUBLE, -{_LARGEST}) END, {low})"""
    return between("within_range", column, fact, low, high, severity)


def values_of(
    name: str,
    column: str,
    values: Iterable[str],
    kind: Literal["BeInSet", "EqualSet", "ContainSet"] = "BeInSet",
    fact: str = "",
    severity: Severity = "critical",
    told: str = "",
) -> Rule:
    """Return the rule on a column's different values; `fact` is SQL of a list, where they are not the column's own."""
    fact = fact or f'list(DISTINCT "{column}")[1:{_MOST_VALUES}]'
    return Rule(name, column, fact, f"ColumnDistinctValuesTo{kind}", {"value_set": sorted(set(values))}, severity, told)


def check_rules(night: Night, table: str, rules: Sequence[Rule]) -> list[Row]:
    """Check the night's partition of a table; return a row of data_checks per rule.

    Raises:
        ValueError: the rules do not begin with a row count.
    """
    import pandas as pd

    names: dict[str, str] = {}
    for rule in rules:
        names.setdefault(rule.fact, f"fact_{len(names)}")
    query = f"SELECT {', '.join(f'{fact} AS {name}' for fact, name in names.items())} FROM batch_files"
    (facts,) = query_files(night, table, query).to_pylist()
    length = max([1, *(len(fact) for fact in facts.values() if isinstance(fact, list))])
    frame = pd.DataFrame({name: _column(fact, length) for name, fact in facts.items()})
    suite = [
        expect(rule.kind, rule.name, rule.severity, rule.column, rule.told, column=names[rule.fact], **rule.arguments)
        for rule in rules
    ]
    return check_table(night, table, frame, suite)


def _column(fact: Any, length: int) -> list[Any]:
    """Return a fact as a column of the frame: a list as its values, a number in every row."""
    if not isinstance(fact, list):
        return [fact] * length
    return [*fact, *[None] * (length - len(fact))]
