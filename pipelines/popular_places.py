"""How many of a scenario's popular items are needed to fill any user's shelf, whatever its rules exclude."""

import duckdb

from nightshelf.blocked import blocked_items
from nightshelf.config import Scenario
from nightshelf.dates import days_back
from nightshelf.exclusions import OUT_OF_STOCK, acted_on
from pipelines.candidate_lists import EVERYBODY
from pipelines.shelves import PRESELECTED, PRESELECTED_LEAST
from pipelines.stage import Night
from pipelines.validate import connect, view_files


def popular_places(night: Night) -> dict[str, int]:
    """Return scenario → the least quota of `popular` tonight; a scenario that all of them may be too few for is not there.

    Within it there are as many items that may be shown to whoever comes as a shelf chooses from, and enough for a whole shelf
    beside as many as any user acted on so that they are excluded for them.
    """
    connection = connect(night)
    for table in ("candidates", "items"):
        view_files(connection, table, night.warehouse.files(table, [night.as_of_date]), night.warehouse.specs[table])
    connection.execute(_POPULAR)
    is_out = "coalesce(stock = 0, false)"
    query = f"SELECT scenario, place, item_id, {is_out} FROM popular LEFT JOIN items USING (item_id) ORDER BY ALL"
    rows, blocked = connection.execute(query).fetchall(), blocked_items(night.shop)
    found = {}
    for name, scenario in night.shop.scenarios.items():
        wanted = scenario.top_n + sum(_most_acted(connection, night, name, rule) for rule in scenario.exclude)
        wanted = max(wanted, PRESELECTED * scenario.top_n, PRESELECTED_LEAST)
        places = [
            place
            for where, place, item, is_out in rows
            if where == name and _may_be_shown(scenario, item in blocked, is_out)
        ]
        if len(places) >= wanted:
            found[name] = places[wanted - 1]
    return found


_POPULAR = f"""CREATE TABLE popular AS
    SELECT scenario, item_id, row_number() OVER (PARTITION BY scenario ORDER BY generator_score DESC, item_id) AS place
    FROM candidates WHERE user_key = '{EVERYBODY}' AND generator = 'popular'"""


def _may_be_shown(scenario: Scenario, is_blocked: bool, is_out_of_stock: bool) -> bool:
    return not is_blocked and not (is_out_of_stock and OUT_OF_STOCK in scenario.exclude)


def _most_acted(connection: duckdb.DuckDBPyConnection, night: Night, name: str, rule: str) -> int:
    """Return of how many popular items of a scenario a rule of it keeps away the user for whom they are most."""
    acted = acted_on(rule)
    if acted is None:
        return 0
    event, days = acted
    files = night.warehouse.files("events", days_back(night.as_of_date, days))
    if not files:
        return 0
    query = """SELECT coalesce(max(items), 0) FROM (
        SELECT user_key, count(DISTINCT item_id) AS items
        FROM read_parquet($files, union_by_name = true) JOIN popular USING (item_id)
        WHERE event_type = $event AND popular.scenario = $name GROUP BY user_key)"""
    return int(connection.execute(query, {"files": files, "event": event, "name": name}).fetchall()[0][0])
