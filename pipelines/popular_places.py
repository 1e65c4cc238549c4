"""How many of a scenario's popular items are needed to fill any user's shelf, whatever its rules exclude."""

from dataclasses import dataclass

import duckdb

from nightshelf.blocked import blocked_items
from nightshelf.dates import days_back
from nightshelf.exclusions import acted_on, kept_from_all
from pipelines.candidate_lists import EVERYBODY
from pipelines.preselection import chosen_from
from pipelines.stage import Night
from pipelines.validate import connect, view_files


@dataclass(frozen=True)
class Popular:
    """A scenario's popular items of a night.

    places: of those in the list that may be shown to whoever comes, best first. acted_on: the most of them that are excluded for
    one user, for what he did.
    """

    places: list[int]
    acted_on: int


def popular_places(night: Night) -> dict[str, int]:
    """Return scenario → the least quota of `popular` tonight; a scenario that all of them may be too few for is not there.

    Within it there are as many items that may be shown to whoever comes as a shelf chooses from, and enough for a whole shelf
    beside as many as any user acted on so that they are excluded for them.
    """
    found = {}
    for name, popular in popular_items(night).items():
        top_n = night.shop.scenarios[name].top_n
        wanted = max(top_n + popular.acted_on, chosen_from(top_n))
        if len(popular.places) >= wanted:
            found[name] = popular.places[wanted - 1]
    return found


def popular_items(night: Night) -> dict[str, Popular]:
    """Return the popular items of each scenario."""
    connection = connect(night)
    for table in ("candidates", "items"):
        view_files(connection, table, night.warehouse.files(table, [night.as_of_date]), night.warehouse.specs[table])
    connection.execute(_POPULAR)
    blocked, found = blocked_items(night.shop), {}
    for name, scenario in night.shop.scenarios.items():
        away = kept_from_all(scenario.exclude)
        query = f"SELECT place, item_id FROM popular LEFT JOIN items USING (item_id) WHERE scenario = $name AND NOT ({away})"
        rows = connection.execute(f"{query} ORDER BY place", {"name": name}).fetchall()
        most_acted = sum(_most_acted(connection, night, name, rule) for rule in scenario.exclude)
        found[name] = Popular([place for place, item in rows if item not in blocked], most_acted)
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
