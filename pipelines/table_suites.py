"""The rules that every table has, from its spec and its own last nights: columns, keys, empty values, rows."""

import datetime as dt
from typing import TYPE_CHECKING

from nightshelf.checks import Checks
from nightshelf.table_spec import TableSpec
from pipelines.arrow_schema import arrow_schema
from pipelines.rules import Rule, Severity, between, values_of
from pipelines.stage import Night
from pipelines.usual import Usual, counted_day, usual
from pipelines.validate import batch_of

if TYPE_CHECKING:
    import pyarrow as pa

# The row count of what is set aside only warns: quarantine.max_share already stops a night that sets aside too much.
# An item graph may be empty, in a shop of single visits; what is of categories or brands too, in a shop that names none.
_MAY_BE_EMPTY = ("quarantine", "waiting_events", "item_graph", "attribute_features")
_WARNS_ONLY = ("quarantine",)
# Below so many rows on a usual night, ten times as many or as few are no sign of a fault: a warning at most.
_FEW_ROWS = 100


def spec_rules(night: Night, table: str) -> list[Rule]:
    """Return the rules for the night's partition of a table that follow from its spec, the row count first."""
    spec = night.warehouse.specs[table]
    past = (
        None if table == "waiting_events" else usual(night, table)
    )  # a few rows of whatever kind, or many: either is usual
    is_closed = night.shop.is_closed(night.as_of_date)
    may_be_empty = is_closed or table in _MAY_BE_EMPTY or "category_3" in spec.keys
    rules = row_rules(table, past, night.shop.checks, 0 if may_be_empty else 1, counted_day(night, table))
    rules += column_rules(spec, batch_of(night, table, night.as_of_date).files)
    if spec.keys:
        rules.append(unique_rule(spec.keys))
    return rules + null_rules(spec, past, night.shop.checks)


def row_rules(table: str, past: Usual | None, checks: Checks, least: int, day: dt.date) -> list[Rule]:
    """Return the rules on the number of rows: at least so many, and in the partition of `day` about as many as usual."""
    rules = [between("row_count", "", "count(*)", least, None)]
    if past is None:
        return rules
    # Of all scenarios, as the nights before are counted: of examples the batch has only those of the shop file's own
    of_day = f"(SELECT count(*) FROM data_files WHERE as_of_date = DATE '{day}')"
    for name, band, is_warning in (
        ("row_count_as_usual", checks.rows_warn, True),
        ("row_count_roughly_as_usual", checks.rows_fail, table in _WARNS_ONLY or past.rows < _FEW_ROWS),
    ):
        if band:
            low, high = (round(past.rows * times) for times in band)
            told = f"{low} to {high}, {band[0]:g} to {band[1]:g} times the {past.rows:g} of the last nights"
            rules.append(between(name, "", of_day, low, high, "warning" if is_warning else "critical", told))
    return rules


def unique_rule(keys: tuple[str, ...]) -> Rule:
    """Return the rule that no two rows have the same keys; several together are compared by a hash of 64 bits."""
    names = ", ".join(f'"{name}"' for name in keys)
    fact = (
        f"count({names}) - count(DISTINCT {names})" if len(keys) == 1 else f"count(*) - count(DISTINCT hash({names}))"
    )
    return between("unique", ", ".join(keys), fact, told="0 repeated")


def column_rules(spec: TableSpec, files: list[str]) -> list[Rule]:
    """Return the rule that the files of a partition have the columns and types that the spec declares."""
    import pyarrow.parquet as pq

    if not files:
        return []
    declared = _columns(arrow_schema(spec))
    found = sorted({column for file in files for column in _columns(pq.read_schema(file))})
    fact = f"[{', '.join(_quoted(column) for column in found)}]"
    return [
        values_of(
            "columns_as_declared", "", declared, "EqualSet", fact, told=f"the {len(declared)} columns of its spec"
        )
    ]


def _columns(schema: "pa.Schema") -> list[str]:
    """Return `name type` of each column; the name of a list's entries and their nullability are the writer's own."""
    import pyarrow as pa

    def kind(of: "pa.DataType") -> str:
        """Return a type as Arrow names it, a list by the type of its entries alone."""
        return f"list<{of.value_type}>" if pa.types.is_list(of) else str(of)

    return [f"{field.name} {kind(field.type)}" for field in schema]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def null_rules(spec: TableSpec, past: Usual | None, checks: Checks) -> list[Rule]:
    """Return the rules on empty values: none where the spec allows none, elsewhere not many more than on the last nights."""
    rules = []
    for column in spec.columns:
        if not column.nullable:
            rules.append(between("not_null", column.name, f'count(*) - count("{column.name}")', told="0 rows"))
        elif past and past.null_shares.get(column.name, 1) < 1:
            rules += _filled_rules(column.name, 1 - past.null_shares[column.name], past.rows, checks)
    return rules


def _filled_rules(column: str, before: float, rows: float, checks: Checks) -> list[Rule]:
    share = f'coalesce(count("{column}")::DOUBLE / nullif(count(*), 0), 1)'
    few = before * rows < _FEW_ROWS
    rules = []
    for name, times, is_warning in (
        ("filled_as_usual", checks.filled_warn, True),
        ("filled_roughly_as_usual", checks.filled_fail, few),
    ):
        if times is not None:
            told = f"a share of at least {before * times:.4g}, {times:g} times the {before:.4g} of the last nights"
            severity: Severity = "warning" if is_warning else "critical"
            rules.append(between(name, column, share, before * times, None, severity, told))
    return rules
