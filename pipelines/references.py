"""Do the tables of a night know each other's users and items? Shares of rows that name what another table lacks.

That an event names an item of a catalogue is a rule of the cleaning (`unknown_item`), row by row.
"""

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nightshelf.checks import Checks
from nightshelf.config import Shop
from nightshelf.dates import days_back
from nightshelf.features import WINDOWS, fact_relations
from nightshelf.table_spec import TableSpec
from pipelines.example_days import example_window_of
from pipelines.rules import Rule, between
from pipelines.stage import Night
from pipelines.validate import connect, view_files

if TYPE_CHECKING:
    import duckdb

_WINDOW = max(WINDOWS)


@dataclass(frozen=True)
class Reference:
    """The rows of `child` (those under a condition) name in `column` what `parent` must have in `key`.

    `table` is the one whose suite holds the rules, because its stage writes the later of the two.
    """

    table: str
    child: str
    column: str
    parent: str
    key: str
    condition: str = "true"


_WORDS = "vocabularies WHERE feature = 'item'"
# Tables whose items may have left the window that item_features cover, or are not to be sold today.
_OTHER_ITEMS = ("events", "acts", "items", "item_features", "training_examples", "candidates")


def references(spec: TableSpec) -> list[Reference]:
    """Return what a table refers to: its users and items, by the names of its columns, and what else it is made of."""
    table = spec.name
    if table == "waiting_events":  # they wait because no table knows their item, and perhaps not their user either
        return []
    found = []
    if "user_key" in spec.column_names and table != "users":  # * stands for everybody
        found.append(Reference(table, table, "user_key", "users", "user_key", "user_key <> '*'"))
    if "item_id" in spec.column_names and table not in _OTHER_ITEMS:
        found.append(Reference(table, table, "item_id", "item_features", "item_id"))
    if table == "item_features":
        found.append(Reference(table, "items", "item_id", "item_features", "item_id"))
    if table == "candidates":
        found.append(Reference(table, table, "item_id", "items", "item_id"))
    if table == "item_graph":
        condition = "starts_with(relation, 'co_')"
        found += [Reference(table, table, end, _WORDS, "value", condition) for end in ("head", "tail")]
    return found


# The shop's own triples may name what is no longer sold; when most of them do, they speak of other ids.
_MOST_UNKNOWN_TRIPLES = 0.5


def _own_triples(shop: Shop) -> list[Reference]:
    told = ", ".join(f"'{relation}'" for relation in fact_relations(shop))
    own = f"NOT starts_with(relation, 'co_') AND relation NOT IN ({told})"
    return [Reference("item_graph", "item_graph", end, _WORDS, "value", own) for end in ("head", "tail")]


def reference_rules(night: Night, table: str) -> list[Rule]:
    """Return the rules on what the night's rows refer to, in the suite of `table`; their facts are computed here."""
    tables, checks = _Tables(night), night.shop.checks
    rules = []
    for reference in references(night.warehouse.specs[table]):
        rules += _graded(reference.column, reference.parent.split()[0], tables.share_missing(reference), checks)
    if table == "training_examples":
        for column, parent in (("user_key", "user_features"), ("item_id", "item_features")):
            rules += _graded(column, parent, tables.share_without_snapshot(column, parent), checks)
    for reference in _own_triples(night.shop) if table == "item_graph" else ():
        told = f"a share of at most {_MOST_UNKNOWN_TRIPLES} of the shop's own triples unknown in vocabularies"
        share = f"{tables.share_missing(reference)}::DOUBLE"
        rules.append(between("own_triples", reference.column, share, 0, _MOST_UNKNOWN_TRIPLES, "warning", told))
    return rules


def _graded(column: str, parent: str, share: float, checks: Checks) -> list[Rule]:
    told = f"a share of at most {{:g}} of the rows unknown in {parent}"
    rules = []
    if checks.missing_warn is not None:
        most = checks.missing_warn
        rules.append(between(f"in_{parent}", column, f"{share}::DOUBLE", 0, most, "warning", told.format(most)))
    if checks.missing_fail is not None:
        most = checks.missing_fail
        rules.append(between(f"mostly_in_{parent}", column, f"{share}::DOUBLE", 0, most, told=told.format(most)))
    return rules


class _Tables:
    """The partitions that a reference needs, as views of one DuckDB."""

    def __init__(self, night: Night) -> None:
        self._night = night
        self._connection: duckdb.DuckDBPyConnection = connect(night)
        self._there: set[str] = set()

    def share_missing(self, reference: Reference) -> float:
        """Return the share of the rows that name what the parent lacks; 0 if there are no such rows."""
        self._view(reference.child, [self._night.as_of_date])
        parent = reference.parent.split()[0]
        self._view(parent, self._newest(parent))
        return self._ask(f"""
            WITH named AS (
                SELECT "{reference.column}" AS name, count(*) AS n FROM {reference.child}
                WHERE {reference.condition} GROUP BY ALL
            ), known AS (SELECT DISTINCT "{reference.key}" AS name, true AS is_known FROM {reference.parent})
            SELECT sum(n) FILTER (WHERE is_known IS NULL) / sum(n) FROM named LEFT JOIN known USING (name)""")

    def share_without_snapshot(self, column: str, snapshot: str) -> float:
        """Return the share of examples without features of the day before, of those whose user or item was shown by then.

        Whoever was shown nothing in the window before has none: a new user is no fault.
        """
        window = example_window_of(self._night)
        self._view("training_examples", window.days)
        examples = window.select("training_examples")
        dates = f"SELECT min(feature_date), max(feature_date) FROM ({examples})"
        ((first, last),) = self._connection.sql(dates).fetchall()
        if first is None:
            return 0.0
        days = days_back(last, (last - first).days + 1)
        self._view("impressions", days_back(last, len(days) + _WINDOW - 1))
        self._view(snapshot, days)
        return self._ask(f"""
            WITH wanted AS (SELECT {column}, feature_date AS day, count(*) AS n FROM ({examples}) GROUP BY ALL),
            shown AS (SELECT DISTINCT {column}, as_of_date AS day FROM impressions),
            due AS (
                SELECT w.{column}, w.day, n FROM wanted w ASOF JOIN shown s ON w.{column} = s.{column} AND w.day >= s.day
                WHERE w.day - s.day < {_WINDOW}
            ), known AS (SELECT {column}, as_of_date AS day, true AS is_known FROM {snapshot})
            SELECT sum(n) FILTER (WHERE is_known IS NULL) / sum(n) FROM due LEFT JOIN known USING ({column}, day)""")

    def _newest(self, table: str) -> list[dt.date]:
        """Return the newest partition up to the night: a closed day may have no catalogue of its own."""
        days = [day for day in self._night.warehouse.partitions(table) if day <= self._night.as_of_date]
        return days[-1:]

    def _view(self, table: str, days: list[dt.date]) -> None:
        if table in self._there:
            return
        warehouse = self._night.warehouse
        view_files(self._connection, table, warehouse.files(table, days), warehouse.specs[table])
        self._there.add(table)

    def _ask(self, query: str) -> float:
        ((share,),) = self._connection.sql(query).fetchall()
        return float(share or 0)
