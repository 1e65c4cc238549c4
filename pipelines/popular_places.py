"""How many of a scenario's popular items are needed to fill any user's shelf, whatever its rules exclude."""

import duckdb

from nightshelf.blocked import blocked_items
from nightshelf.dates import days_back
from nightshelf.exclusions import acted_on, item_condition
from pipelines.candidate_lists import EVERYBODY
from pipelines.preselection import chosen_from
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
    blocked, found = blocked_items(night.shop), {}
    for name, scenario in night.shop.scenarios.items():
        away = " OR ".join(["false", *(item_condition(rule) for rule in scenario.exclude if not acted_on(rule))])
        query = f"SELECT place, item_id FROM popular LEFT JOIN items USING (item_id) WHERE scenario = $name AND NOT ({away})"
        rows = connection.execute(f"{query} ORDER BY place", {"name": name}).fetchall()
        wanted = scenario.top_n + sum(_most_acted(connection, night, name, rule) for rule in scenario.exclude)
        wanted = max(wanted, chosen_from(scenario.top_n))
        places = [place for place, item in rows if item not in blocked]
        if len(places) >= wanted:
            found[name] = places[wanted - 1]
    return found


_POPULAR = f"""CREATE TABLE popular AS
    SELECT scenario, item_id, row_number() OVER (PARTITION BY scenario ORDER BY generator_score DESC, item_id) AS place
    FROM candidates WHERE user_key = '{EVERYBODY}' AND generator = 'popular'"""


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
