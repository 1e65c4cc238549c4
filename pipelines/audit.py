"""The audit of shelves before they are published: the last door of write-audit-publish.

One SQL statement brings the drafts to a row of facts per scenario, and the suite wants every kind of fault to be absent.
"""

from typing import TYPE_CHECKING, Any

from nightshelf.blocked import blocked_items
from nightshelf.config import Shop
from nightshelf.raw_logs import FINITE
from pipelines.shelf_change import change_suite, shelf_change
from pipelines.shelf_length import Length, item_shelf_lengths, user_shelf_lengths
from pipelines.shelf_status import ITEM_TABLE, TABLE
from pipelines.stage import Night
from pipelines.validate import at_least, check_table, connect, expect, none_above_zero, record_checks, stop_on_failure

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa
    from great_expectations.expectations.expectation import Expectation

DRAFTS, ITEM_DRAFTS = "shelf_drafts", "item_shelf_drafts"
# A fault → what it counts, in shelves or rows.
_SHELF_FAULTS = {
    "ranks_with_gaps": "misplaced > 0",
    "repeated_items": "distinct_items <> items",
    "rising_scores": "rises > 0",
    "too_long": "items > top_n",
}
_ANY_ROW_FAULTS = {
    "empty_reasons": "reason IS NULL OR trim(reason) = ''",
    "empty_sources": "source IS NULL OR trim(source) = ''",
    "wrong_dates": "as_of_date IS NULL OR as_of_date <> $day",
    "odd_scores": f"score IS NULL OR isnan(score) OR abs(score) > {FINITE}",
    "no_rank_by_score": "rank_by_score IS NULL OR rank_by_score < 1",
    "blocked_items": "item_id IN (SELECT item_id FROM blocked)",
    "unknown_items": "item_id IS NULL OR item_id NOT IN (SELECT item_id FROM items)",
}
_ROW_FAULTS = {
    **_ANY_ROW_FAULTS,
    "odd_propensities": "propensity IS NULL OR NOT (propensity > 0 AND propensity <= 1)",
    "unknown_users": "user_key IS NULL OR user_key NOT IN (SELECT user_key FROM users UNION ALL SELECT '*')",
}
_ITEM_ROW_FAULTS = {
    **_ANY_ROW_FAULTS,
    "odd_lifts": f"lift IS NULL OR NOT (lift > 0 AND lift <= {FINITE})",
    "own_anchors": "item_id = anchor_item_id",
    "unknown_anchors": "anchor_item_id IS NULL OR anchor_item_id NOT IN (SELECT item_id FROM items)",
}


def audit_shelves(night: Night, drafts: list[str]) -> str:
    """Check drafts of the table recommendations, keep the results in data_checks, and return a sentence about them.

    Args:
        night: which scenarios were asked for, which users and items are known.
        drafts: Parquet files with the columns of the table recommendations, for the night's date.

    Raises:
        GateError: a rule of severity fail does not hold; the drafts must not be published.
    """
    facts = shelf_facts(night, drafts).to_pandas()
    rows = check_table(night, DRAFTS, facts, shelves_suite(night), index=("scenario",))
    rows += _change(night, DRAFTS, shelf_change(night, drafts, TABLE, "user_key"), len(night.shop.scenarios))
    record_checks(night, rows)
    return stop_on_failure(rows)


def audit_item_shelves(night: Night, drafts: list[str]) -> str:
    """Check drafts of the table item_recommendations as `audit_shelves` does those of recommendations.

    Raises:
        GateError: a rule of severity fail does not hold; the drafts must not be published.
    """
    facts = item_shelf_facts(night, drafts).to_pandas()
    rows = check_table(night, ITEM_DRAFTS, facts, item_shelves_suite(night), index=("scenario",))
    change = shelf_change(night, drafts, ITEM_TABLE, "anchor_item_id")
    rows += _change(night, ITEM_DRAFTS, change, len(night.shop.anchors))
    record_checks(night, rows)
    return stop_on_failure(rows)


def _change(night: Night, table: str, facts: "pd.DataFrame | None", scenarios: int) -> list[dict[str, Any]]:
    if facts is None:
        return []
    return check_table(night, f"{table}.change", facts, change_suite(night.shop.checks, scenarios), index=("scenario",))


def shelf_facts(night: Night, drafts: list[str]) -> "pa.Table":
    """Return one row per scenario of the drafts: its shelves, and how often each fault occurs in it."""
    row_faults = {**_ROW_FAULTS, "odd_probabilities": _odd_probabilities(night.shop)}
    has_none, can_have_one = "1 - count(*) FILTER (WHERE owner = '*')", "any_value(of_stranger) > 0"
    counts = {
        "users_without_shelf": "(SELECT count(DISTINCT user_key) FROM users) - count(*) FILTER (WHERE owner <> '*')",
        "no_shelf_for_strangers": f"CASE WHEN {can_have_one} THEN {has_none} ELSE 0 END",
        "nothing_for_strangers": f"CASE WHEN {can_have_one} THEN 0 ELSE {has_none} END",
        "filled_share": _filled("(SELECT count(DISTINCT user_key) + 1 FROM users)"),
    }
    return _facts(night, drafts, "user_key", user_shelf_lengths(night), counts, row_faults)


def item_shelf_facts(night: Night, drafts: list[str]) -> "pa.Table":
    """Return the same of drafts of item shelves."""
    counts = {
        "items_without_shelf": "(SELECT count(*) FROM items) - count(*)",
        "filled_share": _filled("(SELECT count(*) FROM items)"),
    }
    return _facts(night, drafts, "anchor_item_id", item_shelf_lengths(night), counts, _ITEM_ROW_FAULTS)


def _filled(shelves: str) -> str:
    """Return the SQL of the share of the places that can be filled on so many shelves, and are; null if that is none."""
    return f"sum(least(items, of_any)) / nullif({shelves} * any_value(of_any), 0)"


def _facts(
    night: Night,
    drafts: list[str],
    owner: str,
    lengths: dict[str, Length],
    counts: dict[str, str],
    row_faults: dict[str, str],
) -> "pa.Table":
    """Return the facts, scenario after scenario, so that memory holds one of them.

    `owner` names the column whose values have shelves; `lengths`, how long they can be; `counts`, what to count over the shelves
    of a scenario.
    """
    import pyarrow as pa

    day = [night.as_of_date]
    connection = connect(night)
    connection.read_parquet(drafts).create_view("drafts")
    connection.register("blocked", pa.table({"item_id": pa.array(sorted(blocked_items(night.shop)), pa.string())}))
    connection.register("items", night.warehouse.read("items", day, ("item_id",)))
    connection.register("users", night.warehouse.read("users", day, ("user_key",)))
    told = [
        {"scenario": name, "top_n": scenario.top_n, **(vars(lengths[name]) if name in lengths else {})}
        for name, scenario in night.shop.scenarios.items()
    ]
    numbers = [(name, pa.int64()) for name in ("top_n", "of_any", "of_stranger")]
    connection.register("lengths", pa.Table.from_pylist(told, pa.schema([("scenario", pa.string()), *numbers])))
    query = _facts_query(owner, counts, row_faults)
    found = [name for (name,) in connection.sql("SELECT DISTINCT scenario FROM drafts ORDER BY scenario").fetchall()]
    facts = []
    for name in found or [""]:
        row = connection.sql(query, params={"day": night.as_of_date, "scenario": name}).to_arrow_table()
        below = [_below_least(night, connection, owner, name)] * row.num_rows
        facts.append(row.append_column("below_least_share", pa.array(below, pa.int64())))
    return pa.concat_tables(facts)


def _below_least(night: Night, connection: "duckdb.DuckDBPyConnection", owner: str, name: str) -> int:
    """Return on how many shelves of a scenario a group has fewer of the places than the least that the shop file wants.

    What chance placed is no part of that.
    """
    scenario = night.shop.scenarios.get(name)
    by_chance = "placed_by = 'explore'" if owner == "user_key" else "false"
    query = f"""
        SELECT count(*) FROM (
            SELECT count(*) AS places, count(*) FILTER (WHERE item_id IN (SELECT item_id FROM members)) AS own
            FROM drafts WHERE scenario = $scenario AND NOT coalesce({by_chance}, false) GROUP BY {owner})
        WHERE own < floor($share * places + 1e-9)"""
    import pyarrow.compute as pc

    below = 0
    for column, shares in scenario.rerank.least.items() if scenario else ():
        items = night.warehouse.read("items", [night.as_of_date], ("item_id", column))
        for value, share in shares.items():
            connection.register("members", items.filter(pc.equal(items[column], value)))
            below += connection.execute(query, {"scenario": name, "share": share}).fetchall()[0][0]
    return below


def _facts_query(owner: str, counts: dict[str, str], row_faults: dict[str, str]) -> str:
    shelf_counts = ", ".join(f"{count} AS {name}" for name, count in counts.items())
    shelf_sums = ", ".join(f"count(*) FILTER (WHERE {fault}) AS {name}" for name, fault in _SHELF_FAULTS.items())
    row_sums = ", ".join(f"count(*) FILTER (WHERE {fault}) AS {name}" for name, fault in row_faults.items())
    return f"""
        WITH steps AS (
            SELECT {owner} AS owner, item_id, rank, row_number() OVER places AS place,
                score > lag(score) OVER scores AS rises
            FROM drafts WHERE scenario = $scenario
            WINDOW places AS (PARTITION BY {owner} ORDER BY rank),
                scores AS (PARTITION BY {owner} ORDER BY rank_by_score, score DESC)
        ), shelves AS (
            SELECT $scenario AS scenario, owner, count(*) AS items, len(list_distinct(list(item_id))) AS distinct_items,
                count(*) FILTER (WHERE rank IS NULL OR rank <> place) AS misplaced, count(*) FILTER (WHERE rises) AS rises
            FROM steps GROUP BY owner
        ), by_shelf AS (
            SELECT scenario, count(*) AS shelves, {shelf_counts}, {shelf_sums}
            FROM shelves LEFT JOIN lengths USING (scenario) GROUP BY scenario
        ), by_row AS (
            SELECT scenario, {row_sums} FROM drafts WHERE scenario = $scenario GROUP BY scenario
        )
        SELECT * FROM by_shelf JOIN by_row USING (scenario) ORDER BY scenario"""


def _odd_probabilities(shop: Shop) -> str:
    binary = [name for name, task in shop.tasks.items() if task.kind == "binary"]
    return " OR ".join([f"isnan(p_{name}) OR p_{name} < 0 OR p_{name} > 1" for name in binary] or ["false"])


def shelves_suite(night: Night) -> "list[Expectation]":
    """Return the rules for the facts of the drafts: every asked scenario is there, every known user served, no fault.

    Where a night asks for some scenarios only, the drafts also hold what is published of the others.
    """
    asked, known = list(night.scenarios or night.shop.scenarios), list(night.shop.scenarios)
    faults = ["users_without_shelf", "no_shelf_for_strangers", *_SHELF_FAULTS, *_ROW_FAULTS, "odd_probabilities"]
    return _suite(night, asked, known, faults, ["nothing_for_strangers", "below_least_share"])


def item_shelves_suite(night: Night) -> "list[Expectation]":
    """Return the rules for the facts of drafts of item shelves; an item without any other to show warns."""
    known = list(night.shop.anchors)
    asked = [name for name in known if name in (night.scenarios or known)]
    faults = [*_SHELF_FAULTS, *_ITEM_ROW_FAULTS]
    return _suite(night, asked, known, faults, ["items_without_shelf", "below_least_share"])


def _suite(
    night: Night, asked: list[str], known: list[str], faults: list[str], warnings: list[str]
) -> "list[Expectation]":
    return [
        expect("TableRowCountToBeBetween", "row_count", min_value=len(asked), max_value=len(known)),
        expect("ColumnDistinctValuesToContainSet", "every_scenario", column="scenario", value_set=asked),
        expect("ColumnValuesToBeInSet", "known_scenario", column="scenario", value_set=known),
        expect("ColumnValuesToBeBetween", "some", column="shelves", min_value=1),
        *(none_above_zero(fault) for fault in faults),
        *(none_above_zero(name, "warning") for name in warnings),
        *at_least("filled_share", "full", night.shop.checks.shelf_filled_warn, night.shop.checks.shelf_filled_fail),
    ]
